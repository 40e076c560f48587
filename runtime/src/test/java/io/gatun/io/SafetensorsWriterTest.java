package io.gatun.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What is written can be read back bit for bit, and a failure leaves nothing behind.
class SafetensorsWriterTest {
    @TempDir
    Path folder;

    private static Map<String, TensorSource> everyDtype(Random random) {
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        for (StoredDType dtype : StoredDType.values()) {
            byte[] bytes = new byte[12 * dtype.bits() / 8]; // shape [3, 4]
            random.nextBytes(bytes);
            tensors.put("t." + dtype, TensorSource.of(dtype, bytes, 3, 4));
        }
        tensors.put("", TensorSource.of(new float[] {Float.NaN, -0f, Float.MIN_VALUE}, 3));
        tensors.put("../\u00e9\ud83d\ude00\"\n", TensorSource.of(new long[] {Long.MIN_VALUE}));
        tensors.put("empty", TensorSource.of(new float[0], 5, 0));
        return tensors;
    }

    @Test
    void write_roundTrip() {
        Map<String, TensorSource> tensors = everyDtype(new Random(1));
        Map<String, String> metadata = Map.of("format", "pt", "\u00e9", "\n\"");
        Path path = folder.resolve("all.safetensors");
        SafetensorsWriter.write(path, tensors, metadata);
        try (SafetensorsFile file = SafetensorsFile.open(path)) {
            assertEquals(tensors.keySet(), file.names());
            assertEquals(metadata, file.metadata());
            tensors.forEach((name, source) -> {
                assertEquals(source.dtype(), file.info(name).dtype());
                assertArrayEquals(source.shape(), file.info(name).shape());
                assertEquals(-1, source.data().mismatch(MemorySegment.ofArray(file.bytes(name))), name);
            });
        }
    }

    @Test
    void write_alignedAndRepeatable() throws IOException {
        Path path = folder.resolve("aligned.safetensors");
        Path again = folder.resolve("again.safetensors");
        Map<String, TensorSource> tensors = everyDtype(new Random(2));
        SafetensorsWriter.write(path, tensors, Map.of("b", "1", "a", "2"));
        Map<String, TensorSource> otherOrder = new LinkedHashMap<>();
        List.copyOf(tensors.keySet()).reversed().forEach(name -> otherOrder.put(name, tensors.get(name)));
        SafetensorsWriter.write(again, otherOrder, Map.of("a", "2", "b", "1"));
        assertEquals(-1, Files.mismatch(path, again));

        long header = ByteBuffer.wrap(Files.readAllBytes(path)).order(ByteOrder.LITTLE_ENDIAN).getLong();
        assertEquals(0, header % 8);
        try (SafetensorsFile file = SafetensorsFile.open(path)) {
            for (String name : file.names()) {
                TensorInfo info = file.info(name);
                assertEquals(0, info.begin() % Math.max(1, info.dtype().bits() / 8), info::toString);
            }
        }
    }

    @Test
    void write_tensorsOfADevice() {
        Path path = folder.resolve("device.safetensors");
        float[] values = {1, -2, 3.140625f, 0, 1e30f, -0f};
        try (Device device = Device.open("cpu"); DeviceArena arena = device.newArena("test");
                Stream stream = device.newStream()) {
            Tensor f32 = arena.allocate(DType.F32, 2, 3);
            f32.copyFrom(stream, values);
            Tensor bf16 = arena.allocate(DType.BF16, 6);
            bf16.copyFrom(stream, values);
            Tensor ids = arena.allocate(DType.I32, 2);
            ids.copyFrom(stream, 7, -7);
            SafetensorsWriter.write(path, Map.of("f32", TensorSource.of(f32, stream), "bf16",
                    TensorSource.of(bf16, stream), "ids", TensorSource.of(ids, stream)), Map.of());
            try (SafetensorsFile file = SafetensorsFile.open(path)) {
                assertArrayEquals(values, file.floats("f32"));
                assertArrayEquals(bf16.toFloats(stream), file.floats("bf16"));
                assertEquals(StoredDType.BF16, file.info("bf16").dtype());
                assertArrayEquals(new long[] {7, -7}, file.longs("ids"));
            }
            byte[] before = bytes(path);
            Map<String, TensorSource> strided = Map.of("a", TensorSource.of(f32, stream), "b",
                    TensorSource.of(f32.permute(1, 0), stream));
            assertThrows(GatunException.class, () -> SafetensorsWriter.write(path, strided, Map.of()));
            assertArrayEquals(before, bytes(path));
            assertOnlyFile("device.safetensors");
        }
    }

    /// Bit patterns that round up, down, to even both ways, over to the next exponent and to infinity.
    @Test
    void write_roundsToNearestEven() {
        int[] from = {0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0x3fff_ffff, 0x7f7f_ffff, 0x8000_0000,
            0x7f80_0000, 0x7f80_0001};
        int[] expected = {0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x4000, 0x7f80, 0x8000, 0x7f80, 0x7fc0};
        float[] values = new float[from.length];
        for (int i = 0; i < from.length; i++) {
            values[i] = Float.intBitsToFloat(from[i]);
        }
        TensorSource source = TensorSource.of(values, values.length);
        Path path = folder.resolve("rounded.safetensors");
        SafetensorsWriter.write(path, Map.of("bf16", source.as(StoredDType.BF16), "f16", source.as(StoredDType.F16)),
                Map.of());
        try (SafetensorsFile file = SafetensorsFile.open(path)) {
            ByteBuffer bits = ByteBuffer.wrap(file.bytes("bf16")).order(ByteOrder.LITTLE_ENDIAN);
            for (int i = 0; i < from.length; i++) {
                assertEquals(expected[i], bits.getShort() & 0xffff, "%08x".formatted(from[i]));
                assertEquals(Float.float16ToFloat(Float.floatToFloat16(values[i])), file.floats("f16")[i]);
            }
        }
        assertThrows(GatunException.class, () -> source.as(StoredDType.I32));
        assertThrows(GatunException.class, () -> TensorSource.of(new long[] {1}).as(StoredDType.BF16));
    }

    private static byte[] bytes(Path path) {
        try {
            return Files.readAllBytes(path);
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private void assertOnlyFile(String name) {
        assertArrayEquals(new String[] {name}, folder.toFile().list());
    }

    @Test
    void write_diskFull() throws IOException {
        Path full = Path.of("/dev/full");
        assumeTrue(Files.exists(full), "no /dev/full");
        Path path = Files.writeString(folder.resolve("old.safetensors"), "old");
        GatunException e = assertThrows(GatunException.class, () -> AtomicFile.replace(path, 123_456, out -> {
            out.write(ByteBuffer.wrap(new byte[100]));
            try (FileChannel device = FileChannel.open(full, StandardOpenOption.WRITE)) {
                device.write(ByteBuffer.wrap(new byte[100]));
            }
        }));
        assertTrue(e.getMessage().startsWith(path + ": cannot be written: no space left on device."), e.getMessage());
        assertFalse(e.getMessage().contains("It needs"), e.getMessage()); // there is room beside the device
        assertEquals("old", Files.readString(path));
        assertOnlyFile("old.safetensors");
    }

    /// Whoever reads the old file keeps it.
    @Test
    void write_overAFileInUse() throws IOException {
        Path path = RawFile.vector(folder.resolve("used.safetensors"), "a", 1, 2);
        try (SafetensorsFile old = SafetensorsFile.open(path)) {
            SafetensorsWriter.write(path, Map.of("a", TensorSource.of(new float[] {3}, 1)), Map.of());
            assertArrayEquals(new float[] {1, 2}, old.floats("a"));
        }
        try (SafetensorsFile current = SafetensorsFile.open(path)) {
            assertArrayEquals(new float[] {3}, current.floats("a"));
        }
    }

    @Test
    void write_refused() {
        TensorSource one = TensorSource.of(new float[] {1}, 1);
        Path path = folder.resolve("refused.safetensors");
        assertThrows(GatunException.class,
                () -> SafetensorsWriter.write(path, Map.of("__metadata__", one), Map.of()));
        assertThrows(GatunException.class, () -> SafetensorsWriter.write(path, Map.of("\ud800", one), Map.of()));
        assertThrows(GatunException.class,
                () -> SafetensorsWriter.write(path, Map.of("a", one), Map.of("k", "\udc00\ud800")));
        assertThrows(GatunException.class, () -> SafetensorsWriter.write(folder, Map.of("a", one), Map.of()));
        GatunException e = assertThrows(GatunException.class,
                () -> SafetensorsWriter.write(folder.resolve("no/such/file"), Map.of("a", one), Map.of()));
        assertTrue(e.getMessage().contains("no folder"), e.getMessage());
        assertThrows(GatunException.class, () -> TensorSource.of(new float[] {1, 2}, 3));
        assertThrows(GatunException.class, () -> TensorSource.of(new float[] {1}, -1, -1));
        assertThrows(GatunException.class, () -> TensorSource.of(StoredDType.F4, new byte[] {1}, 1));
        assertEquals(0, folder.toFile().list().length);
    }
}
