package io.gatun.models.vae;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import io.gatun.models.ComponentLoader;
import io.gatun.models.GoldenCase;
import io.gatun.models.Layers;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What of autoencoders the command line does not show: an image's independence of its batch, scales per channel.
@Tag("device")
class AutoencoderKlTest {
    private static final GoldenCase GOLDEN = new GoldenCase("diffusers/vae_sd");

    @TempDir
    private Path folder;

    private static <T> float[] run(Path model, ComponentLoader.Family<T> family, float[] input, long[] shape,
            int threads, Pass<T> pass) {
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(threads));
                Stream stream = device.newStream(); DeviceArena arena = device.newArena("test");
                ComponentLoader.Component<T> loaded = ComponentLoader.load(device, stream, model, DType.F32, family,
                        n -> {})) {
            Tensor x = arena.allocate(DType.F32, shape);
            x.copyFrom(stream, input);
            Tensor[] result = new Tensor[1];
            try (Plan plan = Plan.of(device, recorder -> {
                Layers net = new Layers(device, stream, recorder);
                Tensor y = pass.run(loaded.network(), net, x);
                if (result[0] == null) {
                    result[0] = arena.allocate(DType.F32, y.shape());
                }
                net.copyInto(result[0], y);
            })) {
                plan.run();
                return result[0].toFloats(stream);
            }
        }
    }

    private interface Pass<T> {
        Tensor run(T network, Layers net, Tensor x);
    }

    /// Three images together, each alone, and one thread: the same bits.
    @Test
    void decode_imageAlone() {
        int n = 6 * 5 * 4;
        float[] z = new float[3 * n];
        for (int i = 0; i < z.length; i++) {
            z[i] = (float) Math.sin(1 + i);
        }
        float[] all = run(GOLDEN.model(), AutoencoderKl.FAMILY, z, new long[] {3, 6, 5, 4}, 2,
                (vae, net, x) -> vae.decode(net, x));
        int out = all.length / 3;
        for (int b = 0; b < 3; b++) {
            float[] alone = run(GOLDEN.model(), AutoencoderKl.FAMILY, Arrays.copyOfRange(z, b * n, (b + 1) * n),
                    new long[] {1, 6, 5, 4}, 1, (vae, net, x) -> vae.decode(net, x));
            assertArrayEquals(Arrays.copyOfRange(all, b * out, (b + 1) * out), alone, "image " + b);
        }
    }

    @Test
    void latents_meanAndDeviationPerChannel() {
        ModelDirectory directory = ModelDirectory.of(GOLDEN);
        directory.config().put("scaling_factor", 0.5);
        directory.config().putArray("latents_mean").add(1).add(-2).add(0.5).add(0);
        directory.config().putArray("latents_std").add(4).add(2).add(1).add(0.25);
        directory.write(folder);
        float[] values = {3, 3, 3, 3, -1, -1, -1, -1};
        float[] scaled = run(folder, AutoencoderKl.FAMILY, values, new long[] {1, 1, 2, 4}, 1, (vae, net, x) -> {
            Tensor y = net.copy(x);
            vae.toLatents(net, y);
            return y;
        });
        float[] expected = {0.25f, 1.25f, 1.25f, 6, -0.25f, 0.25f, -0.75f, -2};
        assertArrayEquals(expected, scaled, 1e-6f);
        float[] back = run(folder, AutoencoderKl.FAMILY, scaled, new long[] {1, 1, 2, 4}, 1, (vae, net, x) -> {
            Tensor y = net.copy(x);
            vae.fromLatents(net, y);
            return y;
        });
        assertArrayEquals(values, back, 1e-6f);
    }
}
