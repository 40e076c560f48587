package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import io.gatun.ops.Image.Sinusoids;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.ImageCases;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class ImageTest {
    private static final int[] CHANNELS = {1, 3, 16, 33};

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void upsampleNearest_oddSizes(DType dtype) {
        for (int c : CHANNELS) {
            OpCheck.check(ImageCases.upsampleNearest(dtype, 2, 3, 5, c, 6, 10));
            OpCheck.check(ImageCases.upsampleNearest(dtype, 1, 5, 7, c, 9, 13));
            OpCheck.check(ImageCases.upsampleNearest(dtype, 1, 5, 4, c, 3, 1));
        }
        OpCheck.check(ImageCases.upsampleNearest(dtype, 0, 3, 5, 3, 6, 10));
        OpCheck.check(ImageCases.upsampleNearest(dtype, 1, 16, 17, 32, 32, 34));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void averagePool_oddSizes(DType dtype) {
        for (int c : CHANNELS) {
            OpCheck.check(ImageCases.averagePool(dtype, 2, 5, 7, c, 2));
            OpCheck.check(ImageCases.averagePool(dtype, 1, 7, 3, c, 3));
            OpCheck.check(ImageCases.averagePool(dtype, 1, 2, 3, c, 1));
        }
        OpCheck.check(ImageCases.averagePool(dtype, 1, 3, 3, 5, 4));
        OpCheck.check(ImageCases.averagePool(dtype, 1, 32, 34, 32, 2));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void pooling_nanStaysInItsPixel(DType dtype) {
        Fill spoilt = Fill.normal(1).with(9, 1000, Double.NaN);
        OpCheck.check(ImageCases.averagePool(dtype, 1, 4, 4, 3, 2).with("x", spoilt, "a NaN"));
        OpCheck.check(ImageCases.upsampleNearest(dtype, 1, 4, 4, 3, 8, 8).with("x", spoilt, "a NaN"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void timestepEmbedding_oddSizes(DType dtype) {
        for (int e : new int[] {4, 5, 32, 33, 320}) {
            for (Sinusoids order : Sinusoids.values()) {
                OpCheck.check(ImageCases.timestepEmbedding(dtype, 3, e, order, 0, false));
                OpCheck.check(ImageCases.timestepEmbedding(dtype, 3, e, order, 1, false));
                OpCheck.check(ImageCases.timestepEmbedding(dtype, 2, e, order, 0, true));
            }
        }
        OpCheck.check(ImageCases.timestepEmbedding(dtype, 0, 4, Sinusoids.SIN_COS, 0, false));
    }

    /// A loop that runs past its last step shows it.
    @ParameterizedTest
    @CsvSource({"0", "4", "5", "-1"})
    void timestepEmbedding_counterAtTheEdges(int counter) {
        OpCheck.check(ImageCases.timestepEmbedding(DType.F32, 2, 5, Sinusoids.COS_SIN, 0, true)
                .with("counter", Fill.constant(counter), "counter " + counter));
    }

    /// Recorded from `get_timestep_embedding` of diffusers, E = 8, t = 3 and 981.
    @ParameterizedTest
    @EnumSource(Sinusoids.class)
    void timestepEmbedding_asDiffusers(Sinusoids order) {
        float[] expected = order == Sinusoids.COS_SIN
                ? new float[] {-0.989992499f, 0.955336511f, 0.999550045f, 0.99999553f, 0.141120002f, 0.295520186f,
                    0.0299954992f, 0.00299999537f, 0.679957211f, -0.757958531f, -0.926715195f, 0.556191802f,
                    0.73325181f, -0.652302742f, -0.37576443f, 0.831053972f}
                : new float[] {0.141120002f, 0.138798103f, 0.00646325899f, 0.000299999956f, -0.989992499f,
                    0.990320683f, 0.999979138f, 0.99999994f, 0.73325181f, 0.999817491f, 0.856315196f, 0.0979427248f,
                    0.679957211f, 0.0191033632f, -0.516453564f, 0.995192051f};
        try (Device device = TestDevice.open(1);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("diffusers")) {
            Tensor timesteps = arena.allocate(DType.F32, 2);
            Tensor y = arena.allocate(DType.F32, 2, 8);
            timesteps.copyFrom(stream, 3f, 981);
            Image.timestepEmbedding(stream, y, timesteps, null, order, order == Sinusoids.COS_SIN ? 0 : 1);
            assertArrayEquals(expected, y.toFloats(stream), 2e-6f);
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void rgb8_oddSizes(DType dtype) {
        for (int c : new int[] {1, 3}) {
            OpCheck.check(ImageCases.rgb8(dtype, 2, 3, 5, c, 0.5f, 0.5f));
            OpCheck.check(ImageCases.rgb8(dtype, 1, 33, 127, c, 0.3f, 0.1f));
            OpCheck.check(ImageCases.rgb8(dtype, 1, 0, 5, c, 1, 0));
        }
    }

    /// 0.5, 1.5 and 2.5 of 255, and values beyond both ends.
    @Test
    void rgb8_tiesToEven() {
        OpCheck.check(ImageCases.rgb8(DType.F32, 1, 1, 2, 3, 1 / 255f, 0).with("x",
                Fill.values(0.5, 1.5, 2.5, -1, 256, 254.5), "ties"));
    }

    @Test
    void image_badArguments() {
        BadArguments.check(ImageCases.upsampleNearest(DType.F32, 1, 2, 3, 4, 4, 6));
        OpCase pool = ImageCases.averagePool(DType.BF16, 1, 4, 6, 3, 2);
        BadArguments.check(pool);
        BadArguments.refuses(pool, "y", DType.BF16, new int[] {1, 2, 2, 3}, "y");
        OpCase embedding = ImageCases.timestepEmbedding(DType.F32, 3, 8, Sinusoids.SIN_COS, 1, true);
        BadArguments.check(embedding);
        BadArguments.refuses(embedding, "y", DType.F32, new int[] {3, 3}, "y");
        BadArguments.refuses(embedding, "timesteps", DType.F32, new int[] {0}, "timesteps");
        OpCase pixels = ImageCases.rgb8(DType.F32, 1, 2, 2, 3, 1, 0);
        BadArguments.check(pixels);
        BadArguments.refuses(pixels, "x", DType.F32, new int[] {1, 2, 2, 4}, "x");
    }
}
