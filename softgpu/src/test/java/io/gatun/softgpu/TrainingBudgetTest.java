package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.TransferCounters.Snapshot;
import io.gatun.softgpu.SoftGpu.Counter;
import io.gatun.train.TrainingMemory;
import io.gatun.train.TrainingTask;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Is a training step one graph that the batch goes into, and two numbers come out of? Counted twice: by the runtime,
/// and by the stand-ins behind its back.
class TrainingBudgetTest extends SoftGpuTest {
    private static final int STEPS = 3;
    private static final double TOLERANCE = 0.1;
    /// Loss and gradient norm, f32.
    private static final long FOUND = 2 * Float.BYTES;
    private static final List<String> NOT_CALLED = List.of("cudaMalloc", "cudaFree", "cudaHostAlloc", "cudaFreeHost",
            "cudaDeviceSynchronize", "cudaGraphInstantiate", "cudaStreamBeginCapture");

    @TempDir
    private Path folder;

    /// Bytes of a batch: ids and next ids of the text, pixels in f32 and classes of the pictures.
    private static long batchBytes(Trainings training) {
        return switch (training) {
            case LANGUAGE_MODEL -> 2L * Trainings.BATCH * Trainings.LENGTH * Integer.BYTES;
            case CLASSIFIER -> (long) Trainings.BATCH * Trainings.SIZE * Trainings.SIZE * Float.BYTES
                    + Trainings.BATCH * Integer.BYTES;
        };
    }

    @ParameterizedTest
    @EnumSource
    void step_isOneGraph(Trainings training) throws IOException {
        Path data = training.writeData(folder);
        try (TrainingTask task = training.open(data, Files.createDirectory(folder.resolve("run")))) {
            task.step(); // loads kernels, chooses algorithms
            task.step(); // captures
            task.figures();
            Map<Counter, Long> before = counted();
            Map<String, Long> calls = gpu.calls();
            Snapshot start = task.counters();
            for (int step = 0; step < STEPS; step++) {
                task.step();
            }
            Map<String, Double> figures = task.figures();
            Map<Counter, Long> after = counted();
            after.replaceAll((counter, count) -> count - before.get(counter));
            Snapshot moved = task.counters().since(start);

            assertEquals(STEPS * batchBytes(training), after.get(Counter.BYTES_TO_DEVICE));
            assertEquals(2 * STEPS, after.get(Counter.COPIES_TO_DEVICE));
            assertEquals(STEPS * batchBytes(training), moved.hostToDevice());
            assertEquals(FOUND, after.get(Counter.BYTES_TO_HOST), "once, when somebody looks");
            assertEquals(1, after.get(Counter.COPIES_TO_HOST));
            assertEquals(FOUND, moved.deviceToHost());
            assertEquals(0, after.get(Counter.BYTES_PAGEABLE));
            assertEquals(STEPS, after.get(Counter.GRAPH_LAUNCHES));
            assertEquals(0, after.get(Counter.LAUNCHES), "beside the graphs");
            assertEquals(STEPS, moved.launches());
            assertEquals(0, moved.allocations());
            assertEquals(0, moved.allocatedBytes());
            assertEquals(0, moved.conversions());
            LIVE.forEach(counter -> assertEquals(0, after.get(counter), counter + " in a step"));
            NOT_CALLED.forEach(call -> assertEquals(calls.get(call), gpu.calls().get(call), call + " in a step"));
            assertTrue(figures.get("loss") > 0 && figures.get("grad_norm") > 0, figures::toString);
        }
    }

    /// What a training says that it will need is what it takes, in all and beside what the libraries work in; the
    /// stand-ins see the same peak. Nothing is computed: memory is what counts.
    @ParameterizedTest
    @EnumSource
    void memory_isAsPlanned(Trainings training) throws IOException {
        Path data = training.writeData(folder);
        gpu.setKernelsEmpty(true);
        try (TrainingTask task = training.openLarge(data, Files.createDirectory(folder.resolve("run")))) {
            TrainingMemory memory = task.memory();
            for (int step = 0; step < STEPS; step++) {
                task.step();
            }
            task.figures();
            task.evaluate();
            long planned = memory.peakBytes();
            long libraries = 32L << 20;
            assertEquals(planned, task.peakBytes(), TOLERANCE * planned, memory::toString);
            assertEquals(planned - libraries, task.peakBytes() - libraries, TOLERANCE * (planned - libraries),
                    memory::toString);
            assertEquals(task.peakBytes(), gpu.counter(Counter.PEAK_BYTES), TOLERANCE * planned);
            assertTrue(memory.fits(), memory::toString);
        }
    }

    private Map<Counter, Long> counted() {
        Map<Counter, Long> counted = new EnumMap<>(Counter.class);
        for (Counter counter : Counter.values()) {
            counted.put(counter, gpu.counter(counter));
        }
        return counted;
    }
}
