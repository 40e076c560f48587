package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.GoldenCase;
import io.gatun.models.ModelLoader;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import io.gatun.runtime.TransferCounters.Snapshot;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Is memory planned without work on the device, which could still run when what it works on is gone?
@Tag("device")
class MemoryPlanTest {
    static java.util.stream.Stream<GoldenCase> cases() {
        return java.util.stream.Stream.of(GoldenCase.GPT2, GoldenCase.LLAMA);
    }

    @ParameterizedTest
    @MethodSource("cases")
    void make_launchesNothing(GoldenCase golden) {
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(1)); Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, golden.model(), DType.F32, n -> {})) {
            Snapshot before = device.counters().snapshot();
            MemoryPlan plan = MemoryPlan.make(device, stream, model.network(), model.weightBytes(), 3, 64);
            Snapshot made = device.counters().snapshot().since(before);
            String what = "%s on %s: %s".formatted(golden, TestDevice.NAME, made);
            assertEquals(1, plan.pages(), what);
            assertTrue(plan.workspaceBytes() > 0, what);
            assertEquals(new Snapshot(0, 0, 0, 0, 0, 0), made, what);
        }
    }
}
