package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.runtime.GatunException;
import io.gatun.train.data.BatchOrder.Position;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Are checkpoints whole or absent, and is nothing overwritten that belongs to another run?
class RunDirectoryTest {
    private static final Map<String, TensorSource> TENSORS = Map.of("m", TensorSource.of(new float[] {1, 2}, 2));

    @TempDir
    private Path folder;
    private Path root;

    @BeforeEach
    void chooseRoot() {
        root = folder.resolve("run");
    }

    static Recipe recipe(String more) {
        return Recipe.parse(Path.of("recipe.json"), ("{'task': 'vae', 'max_steps': 12, 'model': {'x': 1}, 'seed': 3,"
                + " 'train_batch_size': 3, 'optimizer': {'learning_rate': 0.001}" + more + "}").replace('\'', '"'));
    }

    private static void save(RunDirectory directory, int step) {
        directory.save(new TrainingState(step, new Position(2, step), 3, Map.of("loss", 0.25)), TENSORS,
                model -> Files.writeString(model.resolve("config.json"), "{\"step\": " + step + "}"));
    }

    /// Every file below a folder and its content, to see that nothing changed.
    private static Map<String, String> content(Path folder) throws IOException {
        Map<String, String> content = new TreeMap<>();
        try (Stream<Path> all = Files.walk(folder)) {
            for (Path file : all.filter(Files::isRegularFile).toList()) {
                content.put(folder.relativize(file).toString(),
                        new String(Files.readAllBytes(file), java.nio.charset.StandardCharsets.ISO_8859_1));
            }
        }
        return content;
    }

    private static List<String> names(Path folder) throws IOException {
        try (Stream<Path> all = Files.list(folder)) {
            return all.map(path -> path.getFileName().toString()).sorted().toList();
        }
    }

    private static String message(Runnable call) {
        String message = assertThrows(GatunException.class, call::run).getMessage();
        assertEquals(1, message.lines().count(), message);
        return message;
    }

    @Test
    void save_latest_roundTrip() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(""))) {
            assertNull(directory.latest());
            save(directory, 5);
        }
        try (RunDirectory directory = RunDirectory.resume(root, recipe(", 'save_steps': 5"))) {
            RunCheckpoint checkpoint = directory.latest();
            assertNotNull(checkpoint);
            assertEquals(new TrainingState(5, new Position(2, 5), 3, Map.of("loss", 0.25)), checkpoint.state());
            assertEquals(List.of("config.json", "training_state.json", "training_state.safetensors"),
                    names(checkpoint.directory()));
            try (SafetensorsFile file = checkpoint.openTensors(Map.of("m", new long[] {2}))) {
                assertArrayEquals(new float[] {1, 2}, file.floats("m"));
            }
            String shape = message(() -> checkpoint.openTensors(Map.of("m", new long[] {3})));
            assertTrue(shape.contains("'m' F32[2], expected the shape [3]"), shape);
            String missing = message(() -> checkpoint.openTensors(Map.of("m", new long[] {2}, "v", new long[] {2})));
            assertTrue(missing.contains("no tensor 'v'"), missing);
            String unknown = message(() -> checkpoint.openTensors(Map.of()));
            assertTrue(unknown.contains("'m' F32[2], which this training does not have"), unknown);
        }
    }

    /// A process that ended after the old model was moved away, before the new one was there.
    @Test
    void resume_bringsTheOldModelBack() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(""))) {
            directory.saveModel(model -> Files.writeString(model.resolve("config.json"), "old"));
        }
        Files.move(root.resolve("model"), root.resolve(".model.old.part"));
        Files.createDirectory(root.resolve(".model.part"));
        try (RunDirectory directory = RunDirectory.resume(root, recipe(""))) {
            assertNull(directory.latest());
            assertEquals("old", Files.readString(root.resolve("model/config.json")));
            assertEquals(List.of("model", "recipe.json"), names(root).stream().filter(name -> !name.endsWith("lock"))
                    .toList());
        }
    }

    @Test
    void save_keepsTheLastByNumber() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(", 'save_total_limit': 2"))) {
            for (int step : new int[] {2, 9, 10, 100}) {
                save(directory, step);
            }
            assertEquals(List.of(".lock", "checkpoint-10", "checkpoint-100", "recipe.json"), names(root));
            assertEquals(100, assertNotNullAnd(directory.latest()).state().step());
            save(directory, 100);
            assertEquals(List.of(".lock", "checkpoint-10", "checkpoint-100", "recipe.json"), names(root));
        }
    }

    private static <T> T assertNotNullAnd(T value) {
        assertNotNull(value);
        return value;
    }

    @Test
    void save_aFullDiskLeavesTheLastCheckpoint() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(", 'save_total_limit': 1"))) {
            String none = message(() -> saveFailing(directory, 1, new IOException("No space left on device")));
            assertTrue(none.contains("There is no checkpoint before it"), none);
            save(directory, 1);
            Map<String, String> before = content(root);
            String message = message(() -> saveFailing(directory, 2, new IOException("No space left on device")));
            assertTrue(message.startsWith("the checkpoint of step 2 cannot be written: ")
                    && message.contains("no space left on device; the disk has ")
                    && message.endsWith("MB free. The last good checkpoint is " + root.resolve("checkpoint-1")),
                    message);
            assertEquals(before, content(root));
            String again = message(() -> saveFailing(directory, 1, new IOException("No space left on device")));
            assertTrue(again.contains("step 1 cannot be written"), again);
            assertEquals(before, content(root));
        }
    }

    private static void saveFailing(RunDirectory directory, int step, Exception failure) {
        directory.save(new TrainingState(step, Position.START, 3, Map.of()), TENSORS, model -> {
            Files.writeString(model.resolve("model.safetensors"), "half of a model");
            switch (failure) {
                case IOException e -> throw e;
                case RuntimeException e -> throw e;
                default -> throw new IllegalStateException(failure);
            }
        });
    }

    /// A caller must be able to tell a lost device from a full disk.
    @Test
    void save_aFaultOfTheDeviceKeepsItsType() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(""))) {
            GatunException lost = new GatunException(GatunException.Status.DEVICE_ERROR, "cudaMemcpy: 719");
            assertSame(lost, assertThrows(GatunException.class, () -> saveFailing(directory, 1, lost)));
            assertEquals(List.of(".lock", "recipe.json"), names(root));
        }
    }

    @Test
    void saveModel_replacesTheModelAsAWhole() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(""))) {
            directory.saveModel(model -> Files.writeString(model.resolve("a"), "1"));
            directory.saveModel(model -> Files.writeString(model.resolve("b"), "2"));
            assertEquals(List.of("b"), names(root.resolve("model")));
            assertEquals(List.of(".lock", "model", "recipe.json"), names(root));
        }
    }

    @Test
    void create_refusesADirectoryThatHoldsSomething() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(""))) {
            save(directory, 7);
        }
        Map<String, String> before = content(root);
        String same = message(() -> RunDirectory.create(root, recipe("")));
        assertTrue(same.contains("holds a run of this recipe, at step 7: go on with --resume"), same);
        String other = message(() -> RunDirectory.create(root, recipe(", 'beta': 2")));
        assertTrue(other.contains("holds a run of another recipe (beta is absent there, 2 here): choose another --out."
                + " Nothing was overwritten"), other);
        assertEquals(other, message(() -> RunDirectory.resume(root, recipe(", 'beta': 2"))));
        assertEquals(before, content(root));

        Path photos = Files.createDirectories(folder.resolve("photos"));
        Files.writeString(photos.resolve("cat.png"), "");
        assertTrue(message(() -> RunDirectory.create(photos, recipe(""))).contains("is not empty and holds no run"));
        assertEquals(List.of("cat.png"), names(photos));
        assertTrue(message(() -> RunDirectory.create(photos.resolve("cat.png"), recipe(""))).contains("a file"));
    }

    /// What failed before its first step, for want of data for instance, must not stand in the way.
    @Test
    void create_takesADirectoryWhoseRunNeverBegan() throws IOException {
        RunDirectory.create(root, recipe("")).close();
        RunDirectory.create(root, recipe(", 'beta': 2")).close();
        assertTrue(Files.readString(root.resolve("recipe.json")).contains("beta"));
        try (RunDirectory directory = RunDirectory.resume(root, recipe(", 'beta': 2"))) {
            assertNull(directory.latest());
        }
    }

    @Test
    void resume_saysThatThereIsNothing() {
        assertTrue(message(() -> RunDirectory.resume(root, recipe(""))).contains("holds no run to resume"));
        assertFalse(Files.exists(root));
    }

    @Test
    void open_letsOneInAtATime() {
        try (RunDirectory first = RunDirectory.create(root, recipe(""))) {
            assertTrue(message(() -> RunDirectory.resume(root, recipe(""))).contains("another training writes there"));
            assertNull(first.latest());
        }
        RunDirectory.resume(root, recipe("")).close();
    }

    @Test
    void resume_removesWhatAKilledProcessLeft() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(""))) {
            save(directory, 1);
        }
        Files.createDirectories(root.resolve(".checkpoint-2.part/deep"));
        Files.writeString(root.resolve(".checkpoint-2.part/deep/model"), "half");
        try (RunDirectory directory = RunDirectory.resume(root, recipe(""))) {
            assertEquals(List.of(".lock", "checkpoint-1", "recipe.json"), names(root));
            assertEquals(1, assertNotNullAnd(directory.latest()).state().step());
        }
    }

    @Test
    void latest_saysWhichCheckpointIsDamaged() throws IOException {
        try (RunDirectory directory = RunDirectory.create(root, recipe(""))) {
            save(directory, 1);
            save(directory, 2);
            Path state = root.resolve("checkpoint-2/training_state.json");
            String good = Files.readString(state);
            Files.writeString(state, good.substring(0, 40));
            String cut = message(directory::latest);
            assertTrue(cut.contains("not valid JSON") && cut.endsWith("Delete " + root.resolve("checkpoint-2")
                    + " to go on from checkpoint-1"), cut);
            Files.writeString(state, good.replace(recipe("").hash(), "another"));
            assertTrue(message(directory::latest).contains("it is a checkpoint of another recipe"));
            Files.writeString(state, good.replace("\"step\" : 2", "\"step\" : 3"));
            assertTrue(message(directory::latest).contains("checkpoint-2 holds step 3"));
            Files.writeString(state, good.replace("\"epoch\" : 2", "\"epoch\" : 0.5"));
            assertTrue(message(directory::latest).contains("'epoch' is 0.5, expected an integer"));
            Files.writeString(state, good);
            assertEquals(2, assertNotNullAnd(directory.latest()).state().step());
        }
    }
}
