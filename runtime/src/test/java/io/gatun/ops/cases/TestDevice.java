package io.gatun.ops.cases;

import io.gatun.runtime.Device;

/// The device that a test run is about: `-Dgatun.test.device`, else the CPU. The same tests run on the CPU, on softgpu
/// and on a GPU.
public final class TestDevice {
    private TestDevice() {}

    /// What [Device#open] takes.
    public static String name() {
        return System.getProperty("gatun.test.device", "cpu");
    }

    public static boolean isCpu() {
        return name().equals("cpu");
    }

    public static Device open(int threads) {
        return Device.open(name(), new Device.Options(threads));
    }
}
