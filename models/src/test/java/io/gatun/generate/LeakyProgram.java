package io.gatun.generate;

import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Leaks;
import java.nio.file.Path;

/// A program that forgets to close; run by [ObservabilityTest] in a process of its own.
final class LeakyProgram {
    private LeakyProgram() {}

    /// @param args a model directory
    public static void main(String[] args) throws InterruptedException {
        try (LanguageModel closed = Small.load(Path.of(args[0]))) {
            closed.generate(new int[] {1}, GenerationConfig.builder().maxNewTokens(1).build());
        }
        System.out.println("closed: [" + Leaks.report() + "]");
        forgetModel(args[0]);
        Device device = Device.open(TestDevice.NAME);
        forgetArena(device);
        System.out.println(Leaks.report());
        for (int i = 0; i < 50 && !Thread.interrupted(); i++) {
            System.gc();
            Thread.sleep(10);
        }
        System.out.println("end");
    }

    private static void forgetModel(String directory) {
        Small.load(Path.of(directory));
    }

    private static void forgetArena(Device device) {
        device.newArena("forgotten arena").allocate(DType.F32, 10);
    }
}
