package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.Noise.BetaSchedule;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.NoiseCases;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class NoiseTest {
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void normal_oddSizes(DType dtype) {
        OpCheck.check(NoiseCases.normal(dtype, 1, 1, 1, 1));
        OpCheck.check(NoiseCases.normal(dtype, 2, 3, 5, 3));
        OpCheck.check(NoiseCases.normal(dtype, 3, 9, 7, 4));
        OpCheck.check(NoiseCases.normal(dtype, 0, 3, 3, 4));
        OpCheck.rowAlone(NoiseCases.normal(dtype, 3, 5, 7, 4), "y", "seeds");
    }

    /// Mean, variance and tails of many draws.
    @Test
    void normal_isStandardNormal() {
        int n = 40_000;
        OpCase opCase = NoiseCases.normal(DType.F32, 1, 100, 100, 4);
        float[] y = OpCheck.run(opCase, opCase.values(1)).floats("y");
        double mean = 0;
        double square = 0;
        int beyondTwo = 0;
        for (float v : y) {
            mean += v / n;
            square += (double) v * v / n;
            beyondTwo += Math.abs(v) > 2 ? 1 : 0;
        }
        assertEquals(n, y.length);
        assertEquals(0, mean, 4 / Math.sqrt(n));
        assertEquals(1, square, 4 * Math.sqrt(2.0 / n));
        assertEquals(0.0455, (double) beyondTwo / n, 0.005);
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void addNoise_oddSizes(DType dtype) {
        for (boolean isDrawn : new boolean[] {false, true}) {
            OpCheck.check(NoiseCases.addNoise(dtype, 1, 1, 1, 1, isDrawn));
            OpCheck.check(NoiseCases.addNoise(dtype, 3, 5, 7, 3, isDrawn));
            OpCheck.check(NoiseCases.addNoise(dtype, 2, 9, 8, 4, isDrawn));
        }
        OpCheck.rowAlone(NoiseCases.addNoise(dtype, 3, 5, 7, 4, true), "y", "x", "seeds", "timesteps");
    }

    /// A time step that is not in the table spoils its image alone.
    @Test
    void addNoise_unknownTimestep() {
        OpCheck.check(NoiseCases.addNoise(DType.F32, 3, 2, 3, 4, false)
                .with("timesteps", Fill.values(3, -1, 49), "one below"));
        OpCheck.check(NoiseCases.addNoise(DType.F32, 3, 2, 3, 4, true)
                .with("timesteps", Fill.values(3, 49, 50), "one above"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void velocity_oddSizes(DType dtype) {
        OpCheck.check(NoiseCases.velocity(dtype, 1, 1, 1, 1));
        OpCheck.check(NoiseCases.velocity(dtype, 3, 5, 7, 3));
        OpCheck.check(NoiseCases.velocity(dtype, 2, 9, 8, 4));
    }

    @ParameterizedTest
    @EnumSource
    void schedule_everyKind(BetaSchedule kind) {
        for (int steps : new int[] {1, 2, 7, 200}) {
            OpCheck.check(NoiseCases.schedule(kind, steps, 0.00085, 0.012, false));
        }
        OpCheck.check(NoiseCases.schedule(kind, 200, 0.00085, 0.012, true));
    }

    /// What torch gives over 1000 steps: first and last beta, first, middle and last product.
    @ParameterizedTest
    @CsvSource({
        "LINEAR, 1e-4, 0.02, false, 9.99999975e-5, 0.0199999996, 0.999899983, 0.0777966529, 4.03583035e-5",
        "SCALED_LINEAR, 8.5e-4, 0.012, false, 8.49999953e-4, 0.0119999992, 0.999149978, 0.276332468, 0.00466009509",
        "COSINE, 0, 0, false, 4.12842237e-5, 0.999000013, 0.999958694, 0.492285043, 2.42873499e-9",
        "SCALED_LINEAR, 8.5e-4, 0.012, true, 8.50021839e-4, 1, 0.999149978, 0.241018549, 0",
        "SIGMOID, 1e-4, 0.02, false, 1.49205196e-4, 0.0199507959, 0.99985081, 0.298887581, 3.96818214e-5"
    })
    void schedule_likeTorch(BetaSchedule kind, double from, double to, boolean zeroSnr, double firstBeta,
            double lastBeta, double first, double middle, double last) {
        OpCase opCase = NoiseCases.schedule(kind, 1000, from, to, zeroSnr);
        HostValues out = OpCheck.run(opCase, opCase.values(1));
        near(opCase, firstBeta, out.floats("betas")[0]);
        near(opCase, lastBeta, out.floats("betas")[999]);
        near(opCase, first, out.floats("alphas_cumprod")[0]);
        near(opCase, middle, out.floats("alphas_cumprod")[500]);
        near(opCase, last, out.floats("alphas_cumprod")[999]);
    }

    private static void near(OpCase opCase, double expected, double actual) {
        assertEquals(expected, actual, 2e-6 * expected, opCase.toString());
    }

    @Test
    void noise_imageAlone() {
        OpCheck.rowAlone(NoiseCases.normal(DType.F32, 3, 9, 11, 8), "y", "seeds");
        OpCheck.rowAlone(NoiseCases.addNoise(DType.F32, 3, 3, 5, 3, true), "y", "x", "seeds", "timesteps");
        OpCheck.rowAlone(NoiseCases.velocity(DType.BF16, 3, 3, 5, 3), "y", "x", "noise", "timesteps");
    }

    /// The linear schedule scaled by 1000 / T.
    @Test
    void schedule_scaledBySteps() {
        OpCheck.check(NoiseCases.schedule(BetaSchedule.LINEAR, 200, 5 * 1e-4, 5 * 0.02, false));
    }

    @Test
    void noise_badArguments() {
        BadArguments.check(NoiseCases.normal(DType.F32, 2, 3, 4, 3));
        BadArguments.check(NoiseCases.addNoise(DType.BF16, 2, 3, 4, 3, true));
        BadArguments.check(NoiseCases.velocity(DType.F32, 2, 3, 4, 3));
        BadArguments.check(NoiseCases.schedule(BetaSchedule.LINEAR, 5, 0.1, 0.2, false));
        BadArguments.refuses(NoiseCases.velocity(DType.F32, 2, 3, 4, 3), "noise", DType.F32, new int[] {2, 4, 3, 3},
                "noise");
        BadArguments.refuses(NoiseCases.normal(DType.F32, 2, 3, 4, 3), "seeds", DType.I64, new int[] {3, 2}, "seeds");
    }
}
