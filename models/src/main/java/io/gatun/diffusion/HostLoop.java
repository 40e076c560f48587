package io.gatun.diffusion;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Runs a [Trajectory] on a model that is a Java function: its input is downloaded and its output uploaded in each
/// call. For tests, and for replaying recorded outputs; what goes in and comes out is [B, C, H, W].
public final class HostLoop implements AutoCloseable {
    private final Stream stream;
    private final DeviceArena arena;
    private final Tensor output;
    private final Tensor planar;
    private final SamplingLoop loop;
    private final int elements;
    private int calls;

    /// @param images         B
    /// @param channels       C of the sample
    /// @param outputChannels of the model's output, C or 2 C
    /// @param recorded       whether [#noise] will be given
    public HostLoop(Stream stream, Trajectory trajectory, int images, int channels, int height, int width,
            int outputChannels, boolean recorded) {
        this.stream = stream;
        elements = Math.multiplyExact(Math.multiplyExact(images, channels), Math.multiplyExact(height, width));
        arena = stream.device().newArena("host loop");
        try {
            output = arena.allocate(DType.F32, images, outputChannels, height, width);
            planar = arena.allocate(DType.F32, images, channels, height, width);
            Tensor channelsLast = channelsLast(output);
            SamplingLoop.Settings settings = SamplingLoop.Settings.of(images, height, width, channels, DType.F32);
            loop = SamplingLoop.of(stream, trajectory, recorded ? settings.withRecordedNoise() : settings,
                    (plan, inputs) -> channelsLast);
        } catch (RuntimeException e) {
            arena.close();
            throw e;
        }
    }

    private static Tensor channelsLast(Tensor x) {
        return x.permute(0, 2, 3, 1);
    }

    /// The noise of the steps: [Trajectory#noiseOfCalls].
    public void noise(float[] recorded) {
        float[] ofCalls = loop.trajectory().noiseOfCalls(recorded, elements);
        try (DeviceArena scratch = stream.device().newArena("recorded noise")) {
            long[] shape = planar.shape();
            Tensor noise = scratch.allocate(DType.F32, loop.trajectory().calls(), shape[0], shape[1], shape[2],
                    shape[3]);
            noise.copyFrom(stream, ofCalls);
            Elementwise.copy(stream, loop.noise(), noise.permute(0, 1, 3, 4, 2));
            stream.synchronize();
        }
    }

    /// Begins with standard normal noise, which is scaled as the sampler wants it.
    public void start(float[] initial, long... seeds) {
        requireSize("the initial noise", elements, initial);
        planar.copyFrom(stream, initial);
        loop.startFromNoise(channelsLast(planar), seeds);
        calls = 0;
    }

    /// What the model sees in the next call.
    public float[] input() {
        return planar(loop.input());
    }

    /// The sample as it is now.
    public float[] sample() {
        return planar(loop.sample());
    }

    private float[] planar(Tensor x) {
        Elementwise.copy(stream, channelsLast(planar), x);
        return planar.toFloats(stream);
    }

    /// Takes what the model gave for the next call.
    public void step(float[] modelOutput) {
        if (calls >= loop.trajectory().calls()) {
            throw GatunException.invalid("the loop has ended: it has %d calls", loop.trajectory().calls());
        }
        requireSize("the model's output", output.elements(), modelOutput);
        output.copyFrom(stream, modelOutput);
        loop.step();
        calls++;
    }

    private static void requireSize(String what, long expected, float[] values) {
        if (values.length != expected) {
            throw GatunException.invalid("%s has %d elements, expected %d", what, values.length, expected);
        }
    }

    /// Frees the loop's memory; twice is fine.
    @Override
    public void close() {
        loop.close();
        arena.close();
    }
}
