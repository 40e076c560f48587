package io.gatun.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/// What is accepted, what is refused and with which words, and what the host reads.
class SafetensorsFileTest {
    private static final Path GOLDEN = Path.of(System.getProperty("gatun.root"),
            "runtime/src/test/resources/golden/safetensors/edge_files");
    /// Accepted by safetensors 0.8 and refused here, because the written format forbids them.
    private static final Set<String> STRICTER = Set.of("05_leading_space.safetensors");
    private static final Pattern TENSOR =
            Pattern.compile("\"([^\"]*)\": \\{\"dtype\": \"(\\w+)\", \"hex\": \"(\\w*)\", \"shape\": (\\[[\\d, ]*])}");

    @TempDir
    Path folder;

    static List<String> verdicts() throws IOException {
        List<String> lines = Files.readAllLines(GOLDEN.resolve("verdicts.tsv"));
        assertEquals(31, lines.size());
        return lines.subList(1, lines.size());
    }

    @ParameterizedTest
    @MethodSource("verdicts")
    void open_verdictOfTheReference(String line) {
        String[] columns = line.split("\t");
        Path file = GOLDEN.resolve("files").resolve(columns[0]);
        if (columns[3].equals("REJECT") || STRICTER.contains(columns[0])) {
            GatunException e = assertThrows(GatunException.class, () -> SafetensorsFile.open(file));
            assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
            assertTrue(e.getMessage().startsWith(file.toString()), e.getMessage());
            return;
        }
        Map<String, String> expected = new TreeMap<>();
        TENSOR.matcher(columns[5]).results().forEach(m ->
                expected.put(m.group(1), m.group(2) + m.group(4) + m.group(3)));
        Map<String, String> found = new TreeMap<>();
        try (SafetensorsFile open = SafetensorsFile.open(file)) {
            for (String name : open.names()) {
                TensorInfo info = open.info(name);
                found.put(name, info.dtype() + Arrays.toString(info.shape())
                        + HexFormat.of().formatHex(open.bytes(name)));
            }
        }
        assertFalse(expected.isEmpty());
        assertEquals(expected, found);
    }

    private GatunException refused(byte[] content) throws IOException {
        Path file = Files.write(folder.resolve("refused.safetensors"), content);
        return assertThrows(GatunException.class, () -> SafetensorsFile.open(file));
    }

    private static void assertSays(GatunException e, String... parts) {
        for (String part : parts) {
            assertTrue(e.getMessage().contains(part), () -> "'" + part + "' is not in: " + e.getMessage());
        }
    }

    @ParameterizedTest
    @ValueSource(longs = {3, 100_000_000, 100_000_001, 1L << 31, 1L << 62, Long.MAX_VALUE, Long.MIN_VALUE, -1, -2})
    void open_headerLongerThanTheFile(long length) throws IOException {
        assertSays(refused(RawFile.bytes(length, new byte[] {'{', '}'})), Long.toUnsignedString(length),
                "file of 10 bytes");
    }

    @Test
    void open_saysWhatTheFileReallyIs() throws IOException {
        assertSays(refused("version https://git-lfs.github.com/spec/v1\noid sha256:".getBytes(StandardCharsets.UTF_8)),
                "git lfs pull");
        assertSays(refused("PK\u0003\u0004 and more".getBytes(StandardCharsets.UTF_8)), "pickle", "save_pretrained");
        assertSays(refused("GGUF\u0003\0\0\0 and more".getBytes(StandardCharsets.UTF_8)), "GGUF", "gguf_file");
        assertSays(assertThrows(GatunException.class, () -> SafetensorsFile.open(folder.resolve("x"))), "no such file");
        assertSays(assertThrows(GatunException.class, () -> SafetensorsFile.open(folder)), "not a file");
    }

    static Stream<String> brokenHeaders() {
        String a = "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}";
        return Stream.of(
                "{" + a + "," + a + "}", // one key twice, the same tensor
                "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-0,1]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[1e0],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[01],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775808],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[" + "1,".repeat(64) + "1],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,1]}}",
                "{\"a\":{\"dtype\":null,\"shape\":[1],\"data_offsets\":[0,1]}}",
                "{\"a\":null}", "{\"a\":[]}", "{\"a\":1}",
                "{" + a + ",}", "{" + a + "}}", "{" + a + "} {}", "{" + a + "}\0", "{" + a + "} x", "{" + a,
                "{" + a + ",\"x\\ud800\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                "{" + a + ",\"__metadata__\":{\"k\":\"v\",\"k\":\"v\"}}",
                "{" + a + ",\"__metadata__\":[]}",
                "{'a':{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                "{/* */" + a + "}",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":"
                        + "[".repeat(100) + "]".repeat(100) + "}}",
                "\ufeff{" + a + "}");
    }

    @ParameterizedTest
    @MethodSource("brokenHeaders")
    void open_brokenHeader(String header) throws IOException {
        refused(RawFile.bytes(header, (byte) 7));
    }

    /// Jackson, given bytes, would take this for UTF-16 and read it.
    @Test
    void open_headerInUtf16() throws IOException {
        byte[] header = "{}".getBytes(StandardCharsets.UTF_16LE);
        refused(RawFile.bytes(header.length, header));
    }

    @Test
    void open_invalidUtf8() throws IOException {
        byte[] surrogate = {'{', '"', (byte) 0xed, (byte) 0xa0, (byte) 0x80, '"', ':', '1', '}'};
        assertSays(refused(RawFile.bytes(surrogate.length, surrogate)), "UTF-8");
        byte[] overlong = {'{', '}', (byte) 0xc0, (byte) 0xa0};
        assertSays(refused(RawFile.bytes(overlong.length, overlong)), "UTF-8");
    }

    @Test
    void open_cutShort() throws IOException {
        assertSays(refused(RawFile.bytes("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                new byte[7])), "promises 8 bytes", "has 7", "cut short");
    }

    @Test
    void open_tooManyTensors() throws IOException {
        StringBuilder header = new StringBuilder("{");
        for (int i = 0; i <= SafetensorsHeader.MAX_TENSORS; i++) {
            header.append(i == 0 ? "\"" : ",\"").append(i)
                    .append("\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}");
        }
        assertSays(refused(RawFile.bytes(header.append('}').toString())), "more than 500000 tensors");
    }

    @Test
    void open_nothingInIt() throws IOException {
        try (SafetensorsFile file = SafetensorsFile.open(RawFile.write(folder.resolve("empty.safetensors"), "{}  "))) {
            assertEquals(Set.of(), file.names());
            assertEquals(Map.of(), file.metadata());
        }
    }

    /// Names of a stranger stay data; several empty tensors share an offset; tensors come in the order of their bytes.
    @Test
    void names_anyOrderAndAnyText() throws IOException {
        String text = "{\"\\u0000\\n\\\"\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[1,2]},"
                + "\"/etc/passwd\":{\"data_offsets\":[0,1],\"shape\":[1],\"dtype\":\"I8\"},"
                + "\"\":{\"dtype\":\"F64\",\"shape\":[3,0],\"data_offsets\":[1,1]},"
                + "\"\\ud83d\\ude00\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[1,1]},"
                + "\"__metadata__\":{\"format\":\"pt\",\"b\":\"\u00e9\"}}";
        Path path = RawFile.write(folder.resolve("names.safetensors"), text, (byte) 1, (byte) 2);
        try (SafetensorsFile file = SafetensorsFile.open(path)) {
            assertEquals(List.of("/etc/passwd", "", "\ud83d\ude00", "\0\n\""), List.copyOf(file.names()));
            assertEquals(Map.of("format", "pt", "b", "\u00e9"), file.metadata());
            assertArrayEquals(new byte[] {2}, file.bytes("\0\n\""));
            assertArrayEquals(new long[] {3, 0}, file.info("").shape());
            assertSays(assertThrows(GatunException.class, () -> file.info("a\nb")), "no tensor 'a?b'", "there are 4");
        }
    }

    @Test
    void names_twentyThousand() throws IOException {
        StringBuilder header = new StringBuilder("{");
        final int n = 20_000;
        for (int i = 0; i < n; i++) {
            header.append(i == 0 ? "" : ",").append("\"model.layers.%d.weight\":{\"dtype\":\"F16\",\"shape\":[1,1],"
                    .formatted(i) + "\"data_offsets\":[%d,%d]}".formatted(2 * i, 2 * i + 2));
        }
        Path path = RawFile.write(folder.resolve("many.safetensors"), header.append('}').toString(), new byte[2 * n]);
        try (SafetensorsFile file = SafetensorsFile.open(path)) {
            assertEquals(n, file.names().size());
            assertEquals(2 * n, file.info("model.layers.19999.weight").end());
        }
    }

    @Test
    void floats_everyReadableDtype() throws IOException {
        byte[] data = HexFormat.of().parseHex("0000c03f000010c0" + "003e80c0" + "c03f10c0" + "000000000000f83f"
                + "feffffffffffffff" + "feffffff" + "fe" + "02");
        Path path = RawFile.write(folder.resolve("dtypes.safetensors"), """
                {"f32":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"f16":{"dtype":"F16","shape":[2],
                "data_offsets":[8,12]},"bf16":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]},
                "f64":{"dtype":"F64","shape":[1],"data_offsets":[16,24]},"i64":{"dtype":"I64","shape":[],
                "data_offsets":[24,32]},"i32":{"dtype":"I32","shape":[1],"data_offsets":[32,36]},
                "u8":{"dtype":"U8","shape":[1],"data_offsets":[36,37]},
                "bool":{"dtype":"BOOL","shape":[1],"data_offsets":[37,38]}}""", data);
        for (FileBytes.Mode mode : FileBytes.Mode.values()) {
            try (SafetensorsFile file = SafetensorsFile.open(path, mode)) {
                assertArrayEquals(new float[] {1.5f, -2.25f}, file.floats("f32"));
                assertArrayEquals(new float[] {1.5f, -2.25f}, file.floats("f16"));
                assertArrayEquals(new float[] {1.5f, -2.25f}, file.floats("bf16"));
                assertArrayEquals(new float[] {1.5f}, file.floats("f64"));
                assertArrayEquals(new float[] {-2}, file.floats("i64"));
                assertArrayEquals(new long[] {-2}, file.longs("i64"));
                assertArrayEquals(new long[] {-2}, file.longs("i32"));
                assertArrayEquals(new long[] {254}, file.longs("u8"));
                assertArrayEquals(new long[] {1}, file.longs("bool"));
                assertArrayEquals(new float[] {1}, file.floats("bool"));
                assertSays(assertThrows(GatunException.class, () -> file.longs("f32")), "'f32' F32[2]", "integers");
            }
        }
    }

    @Test
    void close_endsReadingAndMapping() throws IOException {
        Path path = RawFile.vector(folder.resolve("closed.safetensors"), "a", 1, 2);
        SafetensorsFile file = SafetensorsFile.open(path, FileBytes.Mode.MAP);
        file.info("a");
        assertFalse(RawFile.isMapped(path), "the header alone needs no mapping");
        file.floats("a");
        assertTrue(RawFile.isMapped(path));
        file.close();
        file.close();
        assertFalse(RawFile.isMapped(path));
        assertThrows(IllegalStateException.class, () -> file.floats("a"));
        assertEquals(Set.of("a"), file.names());
    }

    @Test
    void floats_fileCutShortAfterOpening() throws IOException {
        Path path = RawFile.vector(folder.resolve("cut.safetensors"), "a", 1, 2);
        for (FileBytes.Mode mode : FileBytes.Mode.values()) {
            try (SafetensorsFile file = SafetensorsFile.open(path, mode)) {
                byte[] content = Files.readAllBytes(path);
                Files.write(path, Arrays.copyOf(content, content.length - 4));
                assertSays(assertThrows(GatunException.class, () -> file.floats("a")), "bytes when it was opened");
                Files.write(path, content);
            }
        }
    }

    @Test
    void mode_ofTheProperty() {
        assertEquals(FileBytes.Mode.MAP, FileBytes.Mode.parse(null));
        assertEquals(FileBytes.Mode.MAP, FileBytes.Mode.parse("map"));
        assertEquals(FileBytes.Mode.COPY, FileBytes.Mode.parse("copy"));
        assertSays(assertThrows(GatunException.class, () -> FileBytes.Mode.parse("read")), "expected map or copy");
    }
}
