package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import io.gatun.train.TrainingRun.End;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Does a run do at each step what its recipe says, and go on where it was stopped?
class TrainingRunTest {
    private static final String OFTEN = ", 'logging_steps': 2, 'eval_steps': 5, 'save_steps': 4, 'sample_steps': 6";

    @TempDir
    private Path folder;
    private final List<String> told = new ArrayList<>();

    private final TrainingRun.Listener listener = new TrainingRun.Listener() {
        @Override
        public void step(int step, int steps, Map<String, Double> figures) {
            told.add(step + "/" + steps);
        }

        @Override
        public void warning(String message) {
            told.add(message);
        }
    };

    private static RunCheckpoint latest(RunDirectory directory) {
        RunCheckpoint latest = directory.latest();
        assertNotNull(latest);
        return latest;
    }

    @Test
    void run_logsEvaluatesSamplesAndSavesWhenDue() throws IOException {
        Recipe recipe = RunDirectoryTest.recipe(OFTEN);
        FakeTask task = new FakeTask(recipe);
        try (RunDirectory directory = RunDirectory.create(folder, recipe)) {
            assertEquals(End.FINISHED, new TrainingRun(task, recipe, directory, listener).run());
            assertEquals(12, told.size());
            assertEquals("12/12", told.getLast());
            List<String> lines = Files.readAllLines(directory.metrics());
            assertEquals(List.of(2, 4, 5, 6, 8, 10, 12), lines.stream()
                    .map(line -> Integer.parseInt(line.replaceAll("\\D*(\\d+).*", "$1"))).toList());
            assertTrue(lines.getFirst().matches("\\{\"step\":2,\"loss\":[0-9.]+,\"grad_norm\":0.5,"
                    + "\"images_per_second\":[0-9.E]+}"), lines.getFirst());
            assertTrue(lines.get(2).startsWith("{\"step\":5,\"eval_loss\":"), lines.get(2));
            assertEquals(3, task.evaluations); // 5, 10 and the end
            assertEquals(2, task.samples);
            assertTrue(Files.exists(folder.resolve("samples/step-000006.txt")));
            assertTrue(Files.exists(folder.resolve("loss.png")));
            assertTrue(Files.exists(folder.resolve("model/config.json")));
            assertEquals(12, latest(directory).state().step());
            assertTrue(latest(directory).state().metrics().containsKey("eval_loss"));
            assertTrue(Files.exists(folder.resolve("checkpoint-8")));
            assertFalse(Files.exists(folder.resolve("checkpoint-4")));
        }
    }

    /// A sample is not worth a run, a loss that is no number is worth none.
    @Test
    void run_sampleFailsOrEvaluationIsNaN() {
        Recipe recipe = RunDirectoryTest.recipe(OFTEN);
        FakeTask unlucky = new FakeTask(recipe) {
            @Override
            public void sample(Path samples, String name) {
                throw GatunException.invalid("no room for %s", name);
            }
        };
        try (RunDirectory directory = RunDirectory.create(folder.resolve("samples"), recipe)) {
            assertEquals(End.FINISHED, new TrainingRun(unlucky, recipe, directory, listener).run());
            assertTrue(told.contains("no sample at step 6: no room for step-000006"), told::toString);
        }
        FakeTask wrong = new FakeTask(recipe) {
            @Override
            public Map<String, Double> evaluate() {
                return Map.of("eval_loss", Double.NaN);
            }
        };
        try (RunDirectory directory = RunDirectory.create(folder.resolve("nan"), recipe)) {
            GatunException e = assertThrows(GatunException.class,
                    () -> new TrainingRun(wrong, recipe, directory, listener).run());
            assertTrue(e.getMessage().startsWith("eval_loss is NaN at step 5: stopped. The last good checkpoint is"),
                    e.getMessage());
        }
    }

    /// Stopped at any step and resumed, the weights are those of a run that was not.
    @Test
    void run_resumedIsBitEqual() {
        Recipe recipe = RunDirectoryTest.recipe(OFTEN);
        FakeTask whole = new FakeTask(recipe);
        try (RunDirectory directory = RunDirectory.create(folder.resolve("whole"), recipe)) {
            new TrainingRun(whole, recipe, directory, listener).run();
        }
        for (int stop : new int[] {1, 6, 11}) { // in the first epoch, at an end of one, before the last step
            Path root = folder.resolve("stopped-" + stop);
            int at = stop;
            TrainingRun[] run = new TrainingRun[1];
            FakeTask first = new FakeTask(recipe) {
                private int step;

                @Override
                public void step() {
                    super.step();
                    if (++step == at) {
                        run[0].stop();
                    }
                }
            };
            try (RunDirectory directory = RunDirectory.create(root, recipe)) {
                run[0] = new TrainingRun(first, recipe, directory, listener);
                assertEquals(End.STOPPED, run[0].run());
                assertEquals(stop, latest(directory).state().step());
                assertFalse(Files.exists(root.resolve("model")));
            }
            FakeTask second = new FakeTask(recipe);
            try (RunDirectory directory = RunDirectory.resume(root, recipe)) {
                TrainingRun resumed = new TrainingRun(second, recipe, directory, listener);
                assertEquals(End.FINISHED, resumed.run());
                assertEquals(12, resumed.step());
            }
            assertArrayEquals(whole.weights(), second.weights(), "stopped at " + stop);
        }
    }

    @Test
    void run_aLossThatIsNoNumberKeepsTheLastCheckpoint() {
        Recipe recipe = RunDirectoryTest.recipe(OFTEN);
        FakeTask diverging = new FakeTask(recipe) {
            private int step;

            @Override
            public void step() {
                step++;
            }

            @Override
            public Map<String, Double> figures() {
                return Map.of("loss", step < 7 ? 1.0 : Double.NaN);
            }
        };
        try (RunDirectory directory = RunDirectory.create(folder, recipe)) {
            TrainingRun run = new TrainingRun(diverging, recipe, directory, listener);
            String message = assertThrows(GatunException.class, run::run).getMessage();
            assertTrue(message.startsWith("loss is NaN at step 8: stopped. The last good checkpoint is "
                    + folder.resolve("checkpoint-4") + ". A smaller learning_rate"), message);
            assertEquals(4, latest(directory).state().step());
            assertFalse(Files.exists(folder.resolve("model")));
        }
    }

    /// The norm of a step that a loss scale skips is infinite; that is no reason to stop.
    @Test
    void run_aNormThatIsNotFiniteEndsNothing() {
        Recipe recipe = RunDirectoryTest.recipe("");
        FakeTask task = new FakeTask(recipe) {
            @Override
            public Map<String, Double> figures() {
                return Map.of("loss", 1.0, "grad_norm", Double.POSITIVE_INFINITY);
            }
        };
        try (RunDirectory directory = RunDirectory.create(folder, recipe)) {
            assertEquals(End.FINISHED, new TrainingRun(task, recipe, directory, listener).run());
            assertNull(latest(directory).state().metrics().get("grad_norm"));
        }
    }

    @Test
    void run_aFailedUpdateKeepsTheLastCheckpoint() {
        Recipe recipe = RunDirectoryTest.recipe(OFTEN);
        GatunException fault = new GatunException(GatunException.Status.DEVICE_ERROR, "launch failed");
        FakeTask failing = new FakeTask(recipe) {
            private int step;

            @Override
            public void step() {
                if (++step == 10) {
                    throw fault;
                }
                super.step();
            }
        };
        try (RunDirectory directory = RunDirectory.create(folder, recipe)) {
            TrainingRun run = new TrainingRun(failing, recipe, directory, listener);
            assertEquals(fault, assertThrows(GatunException.class, run::run));
            assertEquals(8, latest(directory).state().step());
        }
    }

    @Test
    void run_aSampleThatFailsIsAWarning() {
        Recipe recipe = RunDirectoryTest.recipe(OFTEN);
        FakeTask task = new FakeTask(recipe) {
            @Override
            public void sample(Path samples, String name) throws IOException {
                throw new IOException("no paint");
            }
        };
        try (RunDirectory directory = RunDirectory.create(folder, recipe)) {
            assertEquals(End.FINISHED, new TrainingRun(task, recipe, directory, listener).run());
            assertTrue(told.stream().anyMatch(line -> line.contains("no sample at step 6") && line.contains("paint")));
        }
    }
}
