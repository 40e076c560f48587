package io.gatun.cli;

import io.gatun.diffusion.HostLoop;
import io.gatun.diffusion.Trajectory;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;

/// A sampler on recorded model outputs: `init`, `model_outputs` [calls, ...] and, where there is any, `noise` in,
/// `samples` [calls, ...] and `timesteps` out.
final class Replay {
    private Replay() {}

    static void run(Device device, Trajectory trajectory, Path recorded, Path out, long seed) {
        try (SafetensorsFile io = SafetensorsFile.open(recorded)) {
            int[] image = imageShape(io.info("init").shape());
            float[] init = io.floats("init");
            float[] outputs = io.floats("model_outputs");
            long[] outputShape = io.info("model_outputs").shape();
            int calls = trajectory.calls();
            if (outputShape.length == 0 || outputShape[0] != calls) {
                throw GatunException.invalid("%s: model_outputs is %s, expected [%d, ...]: one for each call", recorded,
                        Arrays.toString(outputShape), calls);
            }
            int size = outputs.length / calls;
            int pixels = image[0] * image[2] * image[3];
            if (size != init.length && size != 2 * init.length) {
                throw GatunException.invalid("%s: model_outputs has %d elements a call, expected %d like init, or twice"
                        + " as many", recorded, size, init.length);
            }
            boolean hasNoise = io.names().contains("noise");
            float[] samples = new float[calls * init.length];
            try (Stream stream = device.newStream();
                    HostLoop loop = new HostLoop(stream, trajectory, image[0], image[1], image[2], image[3],
                            size / pixels, hasNoise)) {
                if (hasNoise) {
                    loop.noise(io.floats("noise"));
                }
                long[] seeds = new long[image[0]];
                Arrays.setAll(seeds, b -> seed + b);
                loop.start(init, seeds);
                for (int call = 0; call < calls; call++) {
                    loop.step(Arrays.copyOfRange(outputs, call * size, (call + 1) * size));
                    System.arraycopy(loop.sample(), 0, samples, call * init.length, init.length);
                }
            }
            long[] shape = size == init.length ? outputShape : withCalls(calls, io.info("init").shape());
            SafetensorsWriter.write(out, Map.of("samples", TensorSource.of(samples, shape),
                    "timesteps", TensorSource.of(trajectory.timesteps(), calls)), Map.of());
        }
    }

    private static long[] withCalls(int calls, long[] shape) {
        long[] all = new long[shape.length + 1];
        all[0] = calls;
        System.arraycopy(shape, 0, all, 1, shape.length);
        return all;
    }

    /// [B, C, H, W] of an image of any rank: [n] is one image, [B, n] are images of one channel, and what lies between
    /// the channels and the last dimension counts as height.
    private static int[] imageShape(long[] shape) {
        long elements = Arrays.stream(shape).reduce(1, Math::multiplyExact);
        if (elements < 1 || elements > Integer.MAX_VALUE) {
            throw GatunException.invalid("init is %s, expected 1 to 2^31 - 1 elements", Arrays.toString(shape));
        }
        int rank = shape.length;
        long images = rank >= 2 ? shape[0] : 1;
        long channels = rank >= 3 ? shape[1] : 1;
        long width = rank >= 1 ? shape[rank - 1] : 1;
        return new int[] {(int) images, (int) channels, (int) (elements / (images * channels * width)), (int) width};
    }
}
