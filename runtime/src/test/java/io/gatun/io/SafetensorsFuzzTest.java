package io.gatun.io;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Damaged files: each is read correctly or refused with a [GatunException], and costs no more memory than its size
/// justifies.
class SafetensorsFuzzTest {
    private static final int MUTATIONS = 20_000;
    /// What the JSON parser, its buffers and an exception need; far below the gigabytes that a damaged length asks for.
    private static final long MEMORY_LIMIT = 1 << 20;
    private static final String[] PIECES = {"{", "}", "[", "]", "\"", ",", ":", "0", "-1", "1e9",
        "18446744073709551615", "9223372036854775807", "4611686018427387904", "99999999999999999999999", "null",
        "true", "\\u0000", "\\ud800", "\0", "\u00e9", " ", "\n", "F32", "F4", "U8", "F64", "BOOL", "shape", "dtype",
        "data_offsets", "__metadata__", "\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"};

    @TempDir
    Path folder;

    private final RandomGenerator random = RandomGeneratorFactory.of("L64X128MixRandom").create(20260731);

    private static List<byte[]> seeds() {
        byte[] data = new byte[64];
        Arrays.fill(data, (byte) 0x3f);
        return List.of(
                RawFile.bytes("{\"a\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,32]},"
                        + "\"b.weight\":{\"dtype\":\"BF16\",\"shape\":[16],\"data_offsets\":[32,64]}}", data),
                RawFile.bytes("{\"__metadata__\":{\"format\":\"pt\",\"e\":\"\u00e9\"},\"flag\":{\"dtype\":\"BOOL\","
                        + "\"shape\":[],\"data_offsets\":[0,1]},\"x\":{\"dtype\":\"F32\",\"shape\":[3,5],"
                        + "\"data_offsets\":[1,61]},\"q\":{\"dtype\":\"F4\",\"shape\":[6],\"data_offsets\":[61,64]},"
                        + "\"none\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[64,64]}}      ", data),
                RawFile.bytes("{}"));
    }

    @Test
    void open_mutatedFiles() throws IOException {
        List<byte[]> seeds = seeds();
        Path file = folder.resolve("mutated.safetensors");
        int accepted = 0;
        // one file, overwritten in place: truncating or creating twenty thousand is what takes time on many disks
        try (FileChannel out = FileChannel.open(file, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
            for (int i = 0; i < MUTATIONS; i++) {
                byte[] bytes = mutated(seeds.get(i % seeds.size()));
                out.write(ByteBuffer.wrap(bytes), 0);
                out.truncate(bytes.length);
                accepted += check(file, bytes) ? 1 : 0;
            }
        }
        assertTrue(accepted > MUTATIONS / 100, "only " + accepted + " were accepted: the mutations are too wild");
        assertTrue(accepted < MUTATIONS / 2, accepted + " were accepted: the mutations are too tame");
    }

    /// Whether the file was accepted.
    private static boolean check(Path file, byte[] bytes) {
        long before = allocatedByThisThread();
        boolean accepted = readsOrRefuses(file, bytes);
        if (allocatedByThisThread() - before > MEMORY_LIMIT) {
            before = allocatedByThisThread(); // the first of its kind loads classes as well: ask again
            readsOrRefuses(file, bytes);
            long used = allocatedByThisThread() - before;
            assertTrue(used <= MEMORY_LIMIT, () -> describe(bytes) + " took " + used + " bytes of memory");
        }
        return accepted;
    }

    private static boolean readsOrRefuses(Path path, byte[] bytes) {
        try (SafetensorsFile file = SafetensorsFile.open(path, FileBytes.Mode.COPY)) {
            long end = 0;
            for (String name : file.names()) {
                TensorInfo info = file.info(name);
                assertEquals(end, info.begin(), () -> describe(bytes));
                end = info.end();
                assertEquals(info.bytes(), file.bytes(name).length);
                if (info.dtype().readsAsFloat()) {
                    assertEquals(info.elements(), file.floats(name).length);
                }
            }
            assertTrue(end <= bytes.length - 10, () -> describe(bytes));
            return true;
        } catch (GatunException e) {
            assertTrue(e.getMessage().startsWith(path.toString()), e::getMessage);
            return false;
        } catch (RuntimeException e) {
            throw new AssertionError(describe(bytes), e);
        }
    }

    private static String describe(byte[] bytes) {
        return new String(bytes, StandardCharsets.ISO_8859_1) + " = "
                + HexFormat.of().formatHex(bytes);
    }

    private byte[] mutated(byte[] seed) {
        byte[] bytes = seed;
        for (int n = random.nextInt(1, 4); n > 0; n--) {
            bytes = mutatedOnce(bytes);
        }
        return bytes;
    }

    private byte[] mutatedOnce(byte[] bytes) {
        if (bytes.length == 0) {
            return new byte[] {'{'};
        }
        int at = random.nextInt(bytes.length);
        int to = Math.min(bytes.length, at + random.nextInt(1, 12));
        byte[] piece = PIECES[random.nextInt(PIECES.length)].getBytes(StandardCharsets.UTF_8);
        return switch (random.nextInt(10)) {
            case 0 -> replaced(bytes, at, at + 1, (byte) (bytes[at] ^ 1 << random.nextInt(8)));
            case 1 -> replaced(bytes, at, at + 1, (byte) random.nextInt());
            case 2 -> Arrays.copyOf(bytes, at);
            case 3 -> replaced(bytes, at, to);
            case 4 -> replaced(bytes, to, to, Arrays.copyOfRange(bytes, at, to));
            case 5 -> withLength(bytes, random.nextLong() >>> random.nextInt(64));
            // what keeps the length right gets past the first check
            case 6, 7 -> fitted(replaced(bytes, at, at, piece), piece.length);
            case 8 -> fitted(replaced(bytes, at, at + 1, piece), piece.length - 1);
            default -> fitted(digitReplaced(bytes, at), 0);
        };
    }

    private static byte[] replaced(byte[] bytes, int from, int to, byte... by) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write(bytes, 0, from);
        out.writeBytes(by);
        out.write(bytes, to, bytes.length - to);
        return out.toByteArray();
    }

    private byte[] digitReplaced(byte[] bytes, int from) {
        for (int i = from; i < bytes.length; i++) {
            if (bytes[i] >= '0' && bytes[i] <= '9') {
                return replaced(bytes, i, i + 1, (byte) ('0' + random.nextInt(10)));
            }
        }
        return bytes;
    }

    private static byte[] fitted(byte[] bytes, int growth) {
        long length = 0;
        for (int i = Math.min(8, bytes.length) - 1; i >= 0; i--) {
            length = length << 8 | bytes[i] & 0xff;
        }
        return withLength(bytes, length + growth);
    }

    private static byte[] withLength(byte[] bytes, long length) {
        byte[] out = bytes.clone();
        for (int i = 0; i < Math.min(8, out.length); i++) {
            out[i] = (byte) (length >>> 8 * i);
        }
        return out;
    }

    /// Through reflection: the module under test does not read jdk.management.
    private static long allocatedByThisThread() {
        try {
            Object bean = Class.forName("java.lang.management.ManagementFactory").getMethod("getThreadMXBean")
                    .invoke(null);
            Method allocated = Class.forName("com.sun.management.ThreadMXBean")
                    .getMethod("getCurrentThreadAllocatedBytes");
            return (long) allocated.invoke(bean);
        } catch (ReflectiveOperationException e) {
            throw new AssertionError(e);
        }
    }
}
