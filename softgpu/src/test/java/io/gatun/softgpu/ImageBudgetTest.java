package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.SampleConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.TransferCounters.Snapshot;
import io.gatun.softgpu.SoftGpu.Counter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/// Does a sampling loop stay on the device? Counted twice: by the runtime, and by the stand-ins behind its back.
class ImageBudgetTest extends SoftGpuTest {
    private static final List<Counter> NOT_IN_A_LOOP = List.of(Counter.BYTES_TO_DEVICE, Counter.BYTES_TO_HOST,
            Counter.BYTES_PAGEABLE, Counter.COPIES_TO_DEVICE, Counter.COPIES_TO_HOST, Counter.LIVE_ALLOCATIONS,
            Counter.LIVE_PINNED, Counter.LAUNCHES);
    private static final List<String> NOT_CALLED_IN_A_LOOP = List.of("cudaMalloc", "cudaFree", "cudaMemcpyAsync",
            "cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize");

    private record Moment(Map<Counter, Long> counted, Map<String, Long> calls, Snapshot snapshot) {}

    private static ImageModel load(String name) {
        Path directory = Path.of(System.getProperty("gatun.root"), "models/src/test/resources/golden/pipeline", name,
                "pipeline");
        return ImageModel.load(directory, ImageModel.Options.defaults().withDevice("cuda").withDtype(DType.F32));
    }

    private Moment now(ImageModel model) {
        Map<Counter, Long> counted = new EnumMap<>(Counter.class);
        for (Counter counter : Counter.values()) {
            counted.put(counter, gpu.counter(counter));
        }
        return new Moment(counted, Map.copyOf(gpu.calls()), model.counters());
    }

    /// Between the first step and the last: one graph a step and nothing else.
    private void assertLoopStaysOnTheDevice(ImageModel model, SampleConfig.Builder settings, int calls) {
        List<Moment> moments = new ArrayList<>();
        model.sample(settings.progress((done, all) -> moments.add(now(model))).build());
        assertEquals(calls, moments.size());
        Moment first = moments.getFirst();
        Moment last = moments.getLast();
        for (Counter counter : NOT_IN_A_LOOP) {
            assertEquals(first.counted.get(counter), last.counted.get(counter), counter + " in the loop");
        }
        for (String call : NOT_CALLED_IN_A_LOOP) {
            assertEquals(first.calls.get(call), last.calls.get(call), call + " in the loop");
        }
        assertEquals(calls - 1, last.counted.get(Counter.GRAPH_LAUNCHES) - first.counted.get(Counter.GRAPH_LAUNCHES));
        Snapshot moved = last.snapshot.since(first.snapshot);
        assertEquals(0, moved.hostToDevice());
        assertEquals(0, moved.deviceToHost());
        assertEquals(0, moved.allocations());
        assertEquals(calls - 1, moved.launches());
    }

    @Test
    void loop_isOneGraphAStep() {
        try (ImageModel model = load("ddpm_unet2d")) {
            assertLoopStaysOnTheDevice(model, SampleConfig.builder().count(2).steps(4), 4);
        }
    }

    @Test
    void guidedLoop_isOneGraphAStep() {
        try (ImageModel model = load("stable_diffusion")) {
            assertLoopStaysOnTheDevice(model, SampleConfig.builder().prompt("a cat").scheduler("euler").steps(3), 3);
        }
    }

    /// What leaves the device: the pixels, and two numbers per image that say whether they are numbers.
    @Test
    void sample_copiesThePixelsOnce() {
        try (ImageModel model = load("ddpm_unet2d")) {
            Snapshot[] atEnd = new Snapshot[1];
            Images images = model.sample(SampleConfig.builder().count(2).steps(1)
                    .progress((done, all) -> atEnd[0] = model.counters()).build());
            assertEquals(images.rgb().length + 2 * 2 * Long.BYTES, model.counters().since(atEnd[0]).deviceToHost());
        }
    }

    @Test
    void sample_faultLeavesTheModelUsable() {
        try (ImageModel model = load("ddpm_unet2d")) {
            SampleConfig config = SampleConfig.builder().steps(2).build();
            model.sample(config);
            long live = gpu.counter(Counter.LIVE_BYTES);
            gpu.fail("cudaGraphLaunch", 1, 1);
            GatunException e = assertThrows(GatunException.class, () -> model.sample(config));
            assertTrue(e.getMessage().contains("cudaGraphLaunch"), e.getMessage());
            gpu.clearFaults();
            assertEquals(1, model.sample(config).count());
            assertEquals(live, gpu.counter(Counter.LIVE_BYTES));
        }
    }
}
