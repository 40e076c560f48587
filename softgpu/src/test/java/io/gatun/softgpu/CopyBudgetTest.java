package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.LanguageModel;
import io.gatun.io.Checkpoint;
import io.gatun.models.ModelLoader;
import io.gatun.models.Quantization;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.TransferCounters.Snapshot;
import io.gatun.softgpu.SoftGpu.Counter;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Is the budget of copies kept exactly? Counted twice: by the runtime, and by the stand-ins behind its back.
class CopyBudgetTest extends SoftGpuTest {
    private static final int SHORT = 4;
    private static final int LONG = 11;
    /// Bytes; of what a model keeps beside its weights.
    private static final long TABLES = 64 << 10;

    private static long fileBytes(Models model) {
        try (Checkpoint checkpoint = Checkpoint.open(model.directory())) {
            return checkpoint.names().stream().mapToLong(name -> checkpoint.info(name).bytes()).sum();
        }
    }

    /// The file's tensor bytes once, from pinned memory; one allocation; no kernel.
    @ParameterizedTest
    @EnumSource
    void load_copiesTheFileOnce(Models golden) {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream()) {
            Snapshot before = device.counters().snapshot();
            gpu.clearCounters();
            long mallocs = gpu.calls().get("cudaMalloc");
            try (ModelLoader.Result model = ModelLoader.load(device, stream, golden.directory(), DType.F32, n -> {})) {
                Snapshot moved = device.counters().snapshot().since(before);
                assertEquals(fileBytes(golden), moved.hostToDevice());
                assertEquals(fileBytes(golden), gpu.counter(Counter.BYTES_TO_DEVICE));
                assertEquals(0, gpu.counter(Counter.BYTES_PAGEABLE));
                assertEquals(0, moved.deviceToHost());
                assertEquals(0, gpu.counter(Counter.BYTES_TO_HOST));
                assertEquals(1, moved.allocations());
                assertEquals(1, gpu.calls().get("cudaMalloc") - mallocs);
                assertEquals(0, moved.launches());
                assertEquals(0, gpu.counter(Counter.LAUNCHES));
                assertEquals(0, moved.conversions());
                assertNotNull(model.upload());
                assertEquals(fileBytes(golden), model.upload().bytes());
            }
        }
    }

    /// The file's bytes once, as they are stored; converted on the device.
    @ParameterizedTest
    @EnumSource
    void load_convertsOnTheDevice(Models golden) {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream()) {
            gpu.clearCounters();
            Snapshot before = device.counters().snapshot();
            try (ModelLoader.Result model = ModelLoader.load(device, stream, golden.directory(), DType.BF16, n -> {})) {
                Snapshot moved = device.counters().snapshot().since(before);
                assertEquals(fileBytes(golden), gpu.counter(Counter.BYTES_TO_DEVICE));
                assertEquals(0, gpu.counter(Counter.BYTES_PAGEABLE));
                assertEquals(model.weightBytes(), moved.conversions());
                assertEquals(model.network().weights().size(), moved.launches(), "one conversion per weight");
                assertEquals(moved.launches(), gpu.counter(Counter.LAUNCHES));
            }
        }
    }

    /// The file's bytes once; matrices become e4m3 there, and what they were made from is freed.
    @ParameterizedTest
    @EnumSource
    void load_quantizesOnTheDevice(Models golden) {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream()) {
            gpu.clearCounters();
            Snapshot before = device.counters().snapshot();
            long free = device.memoryFree();
            try (ModelLoader.Result model = ModelLoader.load(device, stream, golden.directory(), DType.BF16,
                    Quantization.FP8, n -> {})) {
                Snapshot moved = device.counters().snapshot().since(before);
                assertEquals(fileBytes(golden), moved.hostToDevice());
                assertEquals(fileBytes(golden), gpu.counter(Counter.BYTES_TO_DEVICE));
                assertEquals(0, gpu.counter(Counter.BYTES_PAGEABLE));
                assertEquals(0, moved.deviceToHost());
                assertNotNull(model.upload());
                assertEquals(fileBytes(golden), model.upload().bytes());
                long weights = model.network().weights().values().stream().mapToLong(
                        t -> DeviceArena.bytesFor(t.dtype(), t.shape())).sum();
                long kept = free - device.memoryFree();
                assertTrue(kept >= weights && kept < weights + TABLES, kept + " bytes for " + weights);
            }
        }
    }

    /// Per step: nothing to the device, 4 bytes per sequence to the host without a copy command, no allocation, one
    /// graph.
    @ParameterizedTest
    @EnumSource
    void decodeStep_isOneGraph(Models golden) {
        try (LanguageModel model = golden.load(4)) {
            for (int b : new int[] {1, 3, 4}) {
                generate(model, b, LONG); // captures
                Map<Counter, Long> few = generate(model, b, SHORT);
                Snapshot before = model.counters();
                Map<Counter, Long> many = generate(model, b, LONG);
                Snapshot moved = model.counters().since(before);
                String what = golden + " batch " + b;
                int steps = LONG - SHORT;
                for (Counter counter : List.of(Counter.BYTES_TO_DEVICE, Counter.BYTES_TO_HOST, Counter.COPIES_TO_DEVICE,
                        Counter.COPIES_TO_HOST, Counter.BYTES_ON_DEVICE, Counter.LAUNCHES)) {
                    assertEquals(few.get(counter), many.get(counter), what + ": " + counter + " of a step");
                }
                assertEquals(steps, many.get(Counter.GRAPH_LAUNCHES) - few.get(Counter.GRAPH_LAUNCHES), what);
                assertEquals(0, moved.allocations(), what);
                assertEquals(4L * b * LONG, moved.deviceToHost(), what);
            }
        }
    }

    private Map<Counter, Long> generate(LanguageModel model, int b, int maxNewTokens) {
        gpu.clearCounters();
        List<int[]> prompts = new ArrayList<>();
        for (int i = 0; i < b; i++) {
            prompts.add(new int[] {i + 1, 2, 3});
        }
        model.generateAll(prompts, Models.greedy(maxNewTokens));
        Map<Counter, Long> counted = new java.util.EnumMap<>(Counter.class);
        for (Counter counter : Counter.values()) {
            counted.put(counter, gpu.counter(counter));
        }
        return counted;
    }
}
