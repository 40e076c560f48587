package io.gatun.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Which files make a checkpoint, and what is said when they do not.
class CheckpointTest {
    private static final String SHARD_1 = "model-00001-of-00002.safetensors";
    private static final String SHARD_2 = "model-00002-of-00002.safetensors";

    @TempDir
    Path folder;

    private void writeIndex(String name, String weightMap) throws IOException {
        Files.writeString(folder.resolve(name), "{\"metadata\":{\"total_size\":12},\"weight_map\":" + weightMap + "}");
    }

    private void writeShards() throws IOException {
        RawFile.vector(folder.resolve(SHARD_1), "a", 1, 2);
        RawFile.vector(folder.resolve(SHARD_2), "b", 3);
        writeIndex("model.safetensors.index.json",
                "{\"b\":\"%s\",\"a\":\"%s\"}".formatted(SHARD_2, SHARD_1));
    }

    private String refusal(String baseName) {
        return assertThrows(GatunException.class, () -> Checkpoint.open(folder, baseName)).getMessage();
    }

    private static void assertSays(String message, String... parts) {
        for (String part : parts) {
            assertTrue(message.contains(part), () -> "'" + part + "' is not in: " + message);
        }
    }

    @Test
    void open_shards() throws IOException {
        writeShards();
        try (Checkpoint checkpoint = Checkpoint.open(folder)) {
            assertEquals(List.of("b", "a"), List.copyOf(checkpoint.names()));
            assertEquals(8, checkpoint.info("a").bytes());
            assertEquals(Set.of("a", "b"), checkpoint.unused());
            assertArrayEquals(new float[] {3}, checkpoint.floats("b"));
            assertEquals(Set.of("a"), checkpoint.unused());
            assertSays(assertThrows(GatunException.class, () -> checkpoint.info("c")).getMessage(), folder.toString(),
                    "no tensor 'c'", "there are 2");
        }
    }

    @ParameterizedTest
    @CsvSource({
        "model, model.safetensors.index.json",
        "diffusion_pytorch_model, diffusion_pytorch_model.safetensors.index.json",
        "model.fp16, model.safetensors.index.fp16.json",
        "model.fp16, model.fp16.safetensors.index.json"})
    void open_namesOfAnIndex(String baseName, String index) throws IOException {
        RawFile.vector(folder.resolve("x-1.safetensors"), "a", 1);
        writeIndex(index, "{\"a\":\"x-1.safetensors\"}");
        try (Checkpoint checkpoint = Checkpoint.open(folder, baseName)) {
            assertEquals(Set.of("a"), checkpoint.names());
        }
    }

    @Test
    void open_oneFileBeforeAnIndex() throws IOException {
        writeShards();
        RawFile.vector(folder.resolve("model.safetensors"), "one", 1);
        try (Checkpoint checkpoint = Checkpoint.open(folder)) {
            assertEquals(Set.of("one"), checkpoint.names());
        }
    }

    @Test
    void open_variant() throws IOException {
        RawFile.vector(folder.resolve("diffusion_pytorch_model.fp16.safetensors"), "a", 1);
        try (Checkpoint checkpoint = Checkpoint.open(folder, "diffusion_pytorch_model.fp16")) {
            assertEquals(Set.of("a"), checkpoint.names());
        }
        assertSays(refusal("diffusion_pytorch_model"), "expected diffusion_pytorch_model.safetensors",
                "'diffusion_pytorch_model.fp16.safetensors'");
    }

    @ParameterizedTest
    @ValueSource(strings = {"pytorch_model.bin", "model.pt", "model.pth", "v1-5.ckpt", "diffusion_pytorch_model.BIN"})
    void open_onlyPickle(String name) throws IOException {
        Files.write(folder.resolve(name), new byte[] {'P', 'K', 3, 4});
        assertSays(refusal("model"), "only '" + name + "'", "does not open pickle", "Convert it to safetensors");
    }

    @Test
    void open_onlyGguf() throws IOException {
        Files.write(folder.resolve("model-q4_0.gguf"), new byte[] {'G', 'G', 'U', 'F'});
        assertSays(refusal("model"), "only 'model-q4_0.gguf'", "convert to safetensors");
    }

    @Test
    void open_nothingThere() throws IOException {
        assertSays(refusal("model"), "expected model.safetensors", "no checkpoint");
        Path missing = folder.resolve("missing");
        assertSays(assertThrows(GatunException.class, () -> Checkpoint.open(missing)).getMessage(), "no such folder");
        Path file = Files.writeString(folder.resolve("file"), "x");
        assertSays(assertThrows(GatunException.class, () -> Checkpoint.open(file)).getMessage(), "not a folder");
    }

    @Test
    void open_brokenLink() throws IOException {
        Files.createSymbolicLink(folder.resolve("model.safetensors"), folder.resolve("blobs/123"));
        assertSays(refusal("model"), "model.safetensors", "no such file");
    }

    @Test
    void open_missingShard() throws IOException {
        writeShards();
        Files.delete(folder.resolve(SHARD_2));
        assertSays(refusal("model"), SHARD_2 + ": missing", "index.json");
    }

    @Test
    void open_missingTensor() throws IOException {
        writeShards();
        writeIndex("model.safetensors.index.json", "{\"a\":\"%s\",\"b\":\"%s\"}".formatted(SHARD_1, SHARD_1));
        assertSays(refusal("model"), SHARD_1 + ": no tensor 'b'", "index.json promises");
    }

    @ParameterizedTest
    @ValueSource(strings = {"../outside.safetensors", "/tmp/outside.safetensors", "sub/x.safetensors", "..", "",
        "model.bin", "..\\\\x.safetensors", "x\\u0000.safetensors", "C:x.safetensors", "\u00e9.safetensors"})
    void open_shardOutsideTheFolder(String shard) throws IOException {
        Path inner = Files.createDirectory(folder.resolve("inner"));
        RawFile.vector(folder.resolve("outside.safetensors"), "a", 1);
        Files.writeString(inner.resolve("model.safetensors.index.json"), "{\"weight_map\":{\"a\":\"" + shard + "\"}}");
        assertSays(assertThrows(GatunException.class, () -> Checkpoint.open(inner)).getMessage(), "tensor 'a' lies in",
                "expected the plain name");
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "[]", "{}", "{\"weight_map\":[]}", "{\"weight_map\":{\"a\":1}}", "{\"weight_map\":{}",
        "{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"x.safetensors\"}}"})
    void open_brokenIndex(String json) throws IOException {
        RawFile.vector(folder.resolve("x.safetensors"), "a", 1);
        Path index = Files.writeString(folder.resolve("model.safetensors.index.json"), json);
        assertSays(refusal("model"), index.toString(), "the index");
    }
}
