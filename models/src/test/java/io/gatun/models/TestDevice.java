package io.gatun.models;

/// The device that a test run is about: `-Dgatun.test.device`, else the CPU. The same tests run on the CPU, on softgpu
/// and on a GPU.
public final class TestDevice {
    /// What `Device.open` takes.
    public static final String NAME = System.getProperty("gatun.test.device", "cpu");

    private TestDevice() {}

    public static boolean isCpu() {
        return NAME.equals("cpu");
    }
}
