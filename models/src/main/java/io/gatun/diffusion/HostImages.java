package io.gatun.diffusion;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Images between the host, where they are [B, C, H, W], and the device, where they are [B, H, W, C].
final class HostImages {
    private HostImages() {}

    /// Floats on the device, in the arena.
    static Tensor upload(DeviceArena arena, Stream stream, float[] values, long... shape) {
        Tensor tensor = arena.allocate(DType.F32, shape);
        tensor.copyFrom(stream, values);
        return tensor;
    }

    /// x [B, H, W, C] f32 as [B, C, H, W].
    static float[] channelsFirst(Device device, Stream stream, Tensor x) {
        try (DeviceArena arena = device.newArena("channels first")) {
            Tensor copy = arena.allocate(DType.F32, nchw(x));
            Elementwise.copy(stream, copy, x.permute(0, 3, 1, 2));
            return copy.toFloats(stream);
        }
    }

    static long[] nchw(Tensor x) {
        return new long[] {x.size(0), x.size(3), x.size(1), x.size(2)};
    }

    /// The sample as it is now.
    static SampleConfig.Preview preview(Device device, Stream stream, SamplingLoop loop, int call, int calls) {
        return new SampleConfig.Preview(call, calls, channelsFirst(device, stream, loop.sample()), nchw(loop.sample()));
    }
}
