package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.models.GoldenCase;
import io.gatun.models.Layers;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import io.gatun.models.blocks.Border;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.function.BiFunction;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Do pipelines go between pixels and latents as diffusers' pipelines do?
@Tag("device")
class LatentCodersTest {
    private static final GoldenCase VQ = new GoldenCase("diffusers/vqmodel");
    private static final float SCALE = 0.25f;

    @TempDir
    private Path folder;

    /// Latents are divided by `scaling_factor` and quantised, whether or not the network could start from ids.
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void vqDecode_scaledLatents(boolean lookupFromCodebook) {
        float[] scaled = VQ.floats("latents");
        for (int i = 0; i < scaled.length; i++) {
            scaled[i] *= SCALE;
        }
        float[] decoded = run(lookupFromCodebook, scaled, VQ.shape("latents"), VQ.shape("decoded"),
                (coder, net) -> x -> coder.decode(net, x));
        assertClose(VQ.floats("decoded"), 1, decoded);
    }

    @Test
    void vqEncode_scalesLatents() {
        float[] latents = run(false, VQ.floats("image"), VQ.shape("image"), VQ.shape("latents"),
                (coder, net) -> x -> coder.encode(net, x, null));
        assertClose(VQ.floats("latents"), SCALE, latents);
    }

    /// @param from channels first, as the result is
    private float[] run(boolean lookupFromCodebook, float[] from, long[] shape, long[] to,
            BiFunction<LatentCoder, Layers, UnaryOperator<Tensor>> pass) {
        ModelDirectory model = ModelDirectory.of(VQ);
        model.config().put("scaling_factor", SCALE).put("lookup_from_codebook", lookupFromCodebook);
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2));
                Stream stream = device.newStream();
                LatentCoder coder = LatentCoders.open(device, stream, model.write(folder), "VQModel",
                        ImageModel.Options.defaults().withDtype(DType.F32), null);
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, shape);
            Tensor y = arena.allocate(DType.F32, to);
            x.copyFrom(stream, from);
            try (Plan plan = Plan.of(device, recorder -> {
                Layers net = new Layers(device, stream, recorder);
                Border.channelsFirstInto(net, y, pass.apply(coder, net).apply(Border.channelsLast(net, x, DType.F32)));
            })) {
                plan.run();
            }
            return y.toFloats(stream);
        }
    }

    private static void assertClose(float[] expected, float scale, float[] actual) {
        assertEquals(expected.length, actual.length);
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i] * scale, actual[i], VQ.tolerance() * Math.max(1, Math.abs(expected[i])),
                    TestDevice.NAME + " element " + i);
        }
    }
}
