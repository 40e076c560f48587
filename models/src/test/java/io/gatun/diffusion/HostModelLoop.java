package io.gatun.diffusion;

import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// A loop over one square image of one channel whose model runs on the host: its output is uploaded before each step.
final class HostModelLoop implements AutoCloseable {
    private final Stream stream;
    private final DeviceArena arena;
    private final Tensor output;
    private final SamplingLoop loop;

    /// @param channels of the model's output
    HostModelLoop(Stream stream, Trajectory trajectory, int size, int channels) {
        this.stream = stream;
        arena = stream.device().newArena("model output");
        output = arena.allocate(DType.F32, channels, 1, size, size);
        Tensor channelsLast = output.permute(1, 2, 3, 0);
        SamplingLoop.Settings settings = SamplingLoop.Settings.of(1, size, size, 1, DType.F32);
        boolean draws = false;
        for (int i = 0; i < trajectory.calls(); i++) {
            draws |= trajectory.drawsNoise(i);
        }
        loop = SamplingLoop.of(stream, trajectory, draws ? settings.withRecordedNoise() : settings,
                (plan, inputs) -> channelsLast);
    }

    /// One set of normals for each call that draws noise, in their order.
    void noise(float[] drawn) {
        Trajectory trajectory = loop.trajectory();
        int size = (int) loop.sample().elements();
        float[] ofCalls = new float[trajectory.calls() * size];
        int from = 0;
        for (int call = 0; call < trajectory.calls(); call++) {
            if (trajectory.drawsNoise(call)) {
                System.arraycopy(drawn, from, ofCalls, call * size, size);
                from += size;
            }
        }
        loop.noise().copyFrom(stream, ofCalls);
    }

    void start(float[] initial) {
        try (DeviceArena scratch = stream.device().newArena("init")) {
            Tensor noise = scratch.allocate(DType.F32, loop.sample().shape());
            noise.copyFrom(stream, initial);
            loop.startFromNoise(noise, 0);
            stream.synchronize();
        }
    }

    float[] input() {
        return loop.input().toFloats(stream);
    }

    float[] sample() {
        return loop.sample().toFloats(stream);
    }

    void step(float[] modelOutput) {
        output.copyFrom(stream, modelOutput);
        loop.step();
    }

    @Override
    public void close() {
        loop.close();
        arena.close();
    }
}
