package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.DeviceLostException;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.OutOfDeviceMemoryException;
import io.gatun.softgpu.SoftGpu.Counter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// What happens to a training when a CUDA call fails: does the exception name it, is the device's memory free again, is
/// the last checkpoint whole, and does the run go on from it to the bits of a run in which nothing failed?
class TrainingFaultTest extends SoftGpuTest {
    private static final int LAUNCH_FAILURE = 719;

    @TempDir
    private Path folder;

    /// Every function that a training calls, at its first use, in the middle, and at its last.
    @TestFactory
    List<DynamicTest> languageModel_everyCallMayFail() throws IOException {
        return everyCallMayFail(Trainings.LANGUAGE_MODEL);
    }

    @TestFactory
    List<DynamicTest> classifier_everyCallMayFail() throws IOException {
        return everyCallMayFail(Trainings.CLASSIFIER);
    }

    private List<DynamicTest> everyCallMayFail(Trainings training) throws IOException {
        Path data = training.writeData(folder);
        Path whole = folder.resolve("whole");
        gpu.clearCounters();
        training.run(data, whole);
        List<DynamicTest> tests = new ArrayList<>();
        Map<String, Long> calls = gpu.calls();
        calls.forEach((symbol, uses) -> {
            boolean isHarmless = Faults.HARMLESS.contains(symbol);
            for (long nth : new TreeSet<>(isHarmless ? List.of(1L) : List.of(1L, uses / 2 + 1, uses))) {
                if (uses > 0 && nth <= uses) {
                    tests.add(DynamicTest.dynamicTest(symbol + " use " + nth + " of " + uses,
                            () -> fails(training, data, whole, symbol, nth)));
                }
            }
        });
        assertTrue(tests.size() > 40, tests.size() + " tests: " + calls);
        return tests;
    }

    private void fails(Trainings training, Path data, Path whole, String symbol, long nth) throws IOException {
        reset();
        Path root = folder.resolve(symbol + "-" + nth);
        gpu.fail(symbol, nth, Faults.codeFor(symbol));
        GatunException failure = null;
        try {
            training.run(data, root);
        } catch (GatunException e) {
            failure = e;
        }
        gpu.clearFaults();
        if (Faults.HARMLESS.contains(symbol)) {
            assertNull(failure);
        } else {
            // The last calls are those of closing, where a failure is logged: nobody could do anything about it.
            if (failure != null) {
                Faults.assertNames(symbol, failure);
            } else {
                assertTrue(Faults.CLOSING.contains(symbol), symbol + " failed and nobody was told");
            }
            assertEquals(Map.of(), live(), "not freed after " + symbol + " failed");
        }
        if (failure == null) {
            assertEquals(Trainings.STEPS, Trainings.lastStep(root));
        }
        assertGoesOn(training, data, whole, root);
    }

    /// All checkpoints are those of the run in which nothing failed; and so is what is made from the last of them.
    private static void assertGoesOn(Trainings training, Path data, Path whole, Path root) throws IOException {
        int last = Trainings.lastStep(root);
        for (int step = 1; step <= last; step++) {
            assertSame(whole, root, step);
        }
        training.run(data, root);
        assertSame(whole, root, Trainings.STEPS);
        assertTrue(Files.exists(root.resolve("model/config.json")));
    }

    private static void assertSame(Path whole, Path root, int step) throws IOException {
        List<byte[]> expected = Trainings.tensors(whole, step);
        List<byte[]> found = Trainings.tensors(root, step);
        for (int i = 0; i < expected.size(); i++) {
            assertArrayEquals(expected.get(i), found.get(i), "checkpoint of step " + step);
        }
    }

    /// A kernel that faults ends the run with the last checkpoint whole; the next process goes on from it.
    @ParameterizedTest
    @EnumSource
    void run_losesTheDevice(Trainings training) throws IOException {
        Path data = training.writeData(folder);
        Path whole = folder.resolve("whole");
        gpu.clearCounters();
        training.run(data, whole);
        long graphs = gpu.counter(Counter.GRAPH_LAUNCHES);
        assertEquals(Trainings.STEPS - 1, graphs, "steps that are graphs");
        Path root = folder.resolve("lost");
        reset();
        gpu.fail("cudaGraphLaunch", graphs - 1, LAUNCH_FAILURE);
        DeviceLostException lost = assertThrows(DeviceLostException.class, () -> training.run(data, root));
        assertTrue(lost.getMessage().contains("(719)"), lost.getMessage());
        assertEquals(Trainings.STEPS - 2, Trainings.lastStep(root));
        reset();
        assertGoesOn(training, data, whole, root);
    }

    /// On a device that is too small nothing is begun, and nothing is left.
    @ParameterizedTest
    @EnumSource
    void run_withoutMemory(Trainings training) throws IOException {
        Path data = training.writeData(folder);
        gpu.setCapacity(16L << 10);
        OutOfDeviceMemoryException e = assertThrows(OutOfDeviceMemoryException.class,
                () -> training.run(data, folder.resolve("run")));
        assertTrue(e.getMessage().contains("has no memory for"), e.getMessage());
        assertEquals(0, Trainings.lastStep(folder.resolve("run")));
        assertNull(live().get(Counter.LIVE_BYTES));
    }
}
