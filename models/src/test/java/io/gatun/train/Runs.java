package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.StoredDType;
import io.gatun.models.TestDevice;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;

/// Runs of recipes on the tests' device, to their end or to a step where they are stopped, and what they leave behind.
///
/// @param data what they are trained on
record Runs(Path data) {
    TrainingTask open(Recipe recipe, Path root, int threads) {
        return TrainingTasks.open(new TrainingTask.Request(recipe, data, root, TestDevice.NAME, threads));
    }

    /// A run from its beginning to its end, on one thread.
    ///
    /// @return what was measured last
    Map<String, Double> whole(Recipe recipe, Path root) {
        return run(recipe, root, false, 0, 1);
    }

    /// @param stopAt step; 0: the end
    Map<String, Double> run(Recipe recipe, Path root, boolean resume, int stopAt, int threads) {
        TrainingRun[] run = new TrainingRun[1];
        TrainingRun.Listener listener = new TrainingRun.Listener() {
            @Override
            public void step(int step, int steps, Map<String, Double> figures) {
                if (step == stopAt) {
                    run[0].stop();
                }
            }

            @Override
            public void warning(String message) {
                if (!message.startsWith("cannot draw")) { // a machine without fonts
                    throw new AssertionError(message);
                }
            }
        };
        try (RunDirectory directory = resume ? RunDirectory.resume(root, recipe) : RunDirectory.create(root, recipe);
                TrainingTask task = open(recipe, root, threads)) {
            run[0] = new TrainingRun(task, recipe, directory, listener);
            assertEquals(stopAt == 0 ? TrainingRun.End.FINISHED : TrainingRun.End.STOPPED, run[0].run());
            return run[0].figures();
        }
    }

    /// All tensors of a checkpoint.
    static Map<String, float[]> state(Path root, int step) {
        Map<String, float[]> state = new TreeMap<>();
        try (SafetensorsFile file = SafetensorsFile.open(root.resolve("checkpoint-" + step)
                .resolve("training_state.safetensors"))) {
            for (String name : file.names()) {
                state.put(name, file.info(name).dtype() == StoredDType.F32 ? file.floats(name)
                        : new float[] {file.longs(name)[0]});
            }
        }
        return state;
    }

    static void assertEqualBits(Map<String, float[]> expected, Map<String, float[]> found) {
        assertEquals(expected.keySet(), found.keySet());
        expected.forEach((name, values) -> assertArrayEquals(values, found.get(name), name));
    }
}
