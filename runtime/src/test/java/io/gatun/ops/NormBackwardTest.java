package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.NormBackwardCases;
import io.gatun.ops.cases.NormBackwardImageCases;
import io.gatun.ops.cases.NormCases.Channels;
import io.gatun.ops.cases.NormCases.Groups;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class NormBackwardTest {
    private static final int REPEATS = 30;
    /// Of the images whose gradients are held against differences, and the step of those.
    private static final int S = 7;
    private static final int C = 6;
    private static final int G = 2;
    private static final double STEP = 1e-5;
    private static final int[] WIDTHS = {1, 3, 33, 257, 1000};
    private static final Set<Part> ALL = EnumSet.of(Part.RESIDUAL, Part.WEIGHT, Part.BIAS);
    private static final List<Set<Part>> PARTS = List.of(Set.of(), ALL, EnumSet.of(Part.BIAS),
            EnumSet.of(Part.WEIGHT, Part.F32_PARAMETERS));
    private static final Set<Part> AFFINE = EnumSet.of(Part.WEIGHT, Part.BIAS);
    private static final Set<Part> MODULATED = EnumSet.of(Part.WEIGHT, Part.BIAS, Part.MODULATION);
    private static final List<Set<Part>> IMAGE_PARTS = List.of(Set.of(), AFFINE, MODULATED,
            EnumSet.of(Part.WEIGHT, Part.BIAS, Part.MODULATION, Part.F32_PARAMETERS));

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void layerNormBackward_oddWidths(DType dtype) {
        for (int c : WIDTHS) {
            for (Set<Part> parts : PARTS) {
                OpCheck.check(NormBackwardCases.layerNorm(dtype, 3, c, parts));
            }
        }
        OpCheck.check(NormBackwardCases.layerNorm(dtype, 1, 1030, ALL));
        OpCheck.check(NormBackwardCases.layerNorm(dtype, 0, 5, ALL));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void rmsNormBackward_oddWidths(DType dtype) {
        for (int c : WIDTHS) {
            for (Set<Part> parts : PARTS) {
                OpCheck.check(NormBackwardCases.rmsNorm(dtype, 3, c, parts));
            }
        }
        OpCheck.check(NormBackwardCases.rmsNorm(dtype, 1, 1030, ALL));
        OpCheck.check(NormBackwardCases.rmsNorm(dtype, 0, 5, ALL));
    }

    /// Several chunks of rows, and work for two threads.
    @Test
    void layerNormBackward_manyRows() {
        OpCheck.check(NormBackwardCases.layerNorm(DType.F32, 1001, 33, ALL));
        OpCheck.check(NormBackwardCases.layerNorm(DType.BF16, 1001, 5, ALL));
    }

    @Test
    void rmsNormBackward_manyRows() {
        OpCheck.check(NormBackwardCases.rmsNorm(DType.F32, 1001, 33, ALL));
    }

    @Test
    void layerNormBackward_repeats() {
        repeats(NormBackwardCases.layerNorm(DType.BF16, 130, 70, ALL));
    }

    private static void repeats(OpCase opCase) {
        HostValues in = opCase.values(1);
        HostValues first = OpCheck.run(opCase, in);
        for (int i = 1; i < REPEATS; i++) {
            HostValues again = OpCheck.run(opCase, in);
            opCase.operands().stream().filter(Operand::isWritten)
                    .forEach(o -> OpCheck.assertSameBits(opCase + ": ", o, first, again));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void layerNormBackward_nanSpoilsItsRowOnly(DType dtype) {
        OpCheck.check(NormBackwardCases.layerNorm(dtype, 3, 33, Set.of()).with("dy",
                Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
        OpCheck.check(NormBackwardCases.rmsNorm(dtype, 3, 33, Set.of()).with("x",
                Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
    }

    @Test
    void layerNormBackward_rowAlone() {
        OpCheck.rowAlone(NormBackwardCases.layerNorm(DType.F32, 9, 127, EnumSet.of(Part.RESIDUAL)), "dx", "dy", "x",
                "residual", "mean", "rstd");
    }

    @Test
    void layerNormBackward_badArguments() {
        OpCase opCase = NormBackwardCases.layerNorm(DType.BF16, 3, 5, ALL);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "x", DType.BF16, new int[] {3, 0}, null);
        BadArguments.refuses(opCase, "dweight", DType.BF16, new int[] {5}, "dweight");
        GatunException e = assertThrows(GatunException.class, () -> OpCheck.run(opCase, opCase.values(1), "workspace"));
        assertTrue(e.getMessage().startsWith("layernorm_backward: workspace has 0 bytes, expected "), e.getMessage());
    }

    @Test
    void rmsNormBackward_badArguments() {
        OpCase opCase = NormBackwardCases.rmsNorm(DType.F32, 3, 5, ALL);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "residual", DType.F32, new int[] {3, 4}, "residual");
        BadArguments.refuses(opCase, "rstd", DType.F32, new int[] {4}, "rstd");
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void groupNormBackward_oddSizes(DType dtype) {
        for (Channels channels : Channels.values()) {
            for (Set<Part> parts : IMAGE_PARTS) {
                OpCheck.check(groupNorm(dtype, channels, 2, 35, 12, 3, parts));
            }
            OpCheck.check(groupNorm(dtype, channels, 1, 1, 33, 11, MODULATED));
            OpCheck.check(groupNorm(dtype, channels, 1, 257, 3, 1, MODULATED));
            OpCheck.check(groupNorm(dtype, channels, 1, 2, 1040, 2, MODULATED));
            OpCheck.check(groupNorm(dtype, channels, 0, 9, 6, 2, AFFINE));
        }
    }

    @ParameterizedTest
    @EnumSource(ActivationKind.class)
    void groupNormBackward_activations(ActivationKind activation) {
        OpCheck.check(NormBackwardImageCases.groupNorm(DType.F32, new Groups(Channels.LAST, 2, 33, 8, 2), activation,
                MODULATED));
        OpCheck.check(NormBackwardImageCases.groupNorm(DType.BF16, new Groups(Channels.FIRST, 2, 33, 8, 8), activation,
                MODULATED));
    }

    /// Several blocks of pixels for each group, and work for two threads.
    @ParameterizedTest
    @EnumSource(Channels.class)
    void groupNormBackward_manyPixels(Channels channels) {
        OpCheck.check(groupNorm(DType.F32, channels, 1, 5001, 8, 2, AFFINE));
    }

    @ParameterizedTest
    @EnumSource(Channels.class)
    void groupNormBackward_imageAlone(Channels channels) {
        OpCheck.rowAlone(NormBackwardImageCases.groupNorm(DType.F32, new Groups(channels, 5, 150, 8, 2),
                ActivationKind.SILU, EnumSet.of(Part.MODULATION)), "dx", "dy", "x", "mean", "rstd", "scale", "shift",
                "dscale", "dshift");
    }

    @Test
    void groupNormBackward_nanSpoilsItsGroupOnly() {
        for (Channels channels : Channels.values()) {
            OpCheck.check(groupNorm(DType.F32, channels, 2, 33, 6, 3, Set.of()).with("dy",
                    Fill.normal(1).with(150, 1000, Double.NaN), "a NaN"));
        }
    }

    @ParameterizedTest
    @EnumSource(Channels.class)
    void groupNormBackward_repeats(Channels channels) {
        repeats(groupNorm(DType.BF16, channels, 2, 150, 12, 3, MODULATED));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void batchNormBackward_oddSizes(DType dtype) {
        for (Channels channels : Channels.values()) {
            for (Set<Part> parts : List.of(Set.<Part>of(), AFFINE)) {
                OpCheck.check(NormBackwardImageCases.batchNorm(dtype, channels, 3, 35, 13, ActivationKind.RELU, parts));
                OpCheck.check(NormBackwardImageCases.batchNorm(dtype, channels, 2, 1, 520, ActivationKind.NONE, parts));
            }
            OpCheck.check(NormBackwardImageCases.batchNorm(dtype, channels, 0, 4, 8, ActivationKind.TANH, AFFINE));
        }
        repeats(NormBackwardImageCases.batchNorm(dtype, Channels.LAST, 3, 35, 13, ActivationKind.RELU, AFFINE));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void groupNormDoubleBackward_oddSizes(DType dtype) {
        for (Channels channels : Channels.values()) {
            for (Set<Part> parts : List.of(Set.<Part>of(), Set.of(Part.WEIGHT),
                    EnumSet.of(Part.WEIGHT, Part.F32_PARAMETERS))) {
                OpCheck.check(NormBackwardImageCases.groupNormDouble(dtype, new Groups(channels, 2, 35, 12, 3), parts));
            }
            OpCheck.check(NormBackwardImageCases.groupNormDouble(dtype, new Groups(channels, 0, 3, 4, 2),
                    Set.of(Part.WEIGHT)));
        }
        OpCheck.check(NormBackwardImageCases.groupNormDouble(dtype, new Groups(Channels.LAST, 5, 1, 130, 1),
                Set.of(Part.WEIGHT)));
        repeats(NormBackwardImageCases.groupNormDouble(dtype, new Groups(Channels.LAST, 2, 35, 12, 3),
                Set.of(Part.WEIGHT)));
    }

    /// Of L = sum(u * dx), dx as group norm's backward gives it for the statistics of x: what central differences say.
    @Test
    void groupNormDoubleBackward_isTheDerivative() {
        OpCase plain = NormBackwardImageCases.groupNormDouble(DType.F32, new Groups(Channels.LAST, 1, S, C, G),
                Set.of(Part.WEIGHT));
        double[] x = doubles(plain.values(1), "x");
        double[] mean = new double[G];
        double[] rstd = new double[G];
        for (int g = 0; g < G; g++) {
            int group = g;
            double[] values = IntStream.range(0, S * C).filter(i -> i % C / (C / G) == group).mapToDouble(i -> x[i])
                    .toArray();
            mean[g] = Arrays.stream(values).average().orElseThrow();
            rstd[g] = 1 / Math.sqrt(Arrays.stream(values).map(v -> v * v).average().orElseThrow() - mean[g] * mean[g]);
        }
        OpCase opCase = plain.with("mean", Fill.values(mean), "of x").with("rstd", Fill.values(rstd), "of x");
        HostValues in = opCase.values(1);
        HostValues out = OpCheck.run(opCase, in);
        Map<String, double[]> inputs = Map.of("x", x, "dy", doubles(in, "dy"), "weight", doubles(in, "weight"), "u",
                doubles(in, "u"));
        Map.of("dx", "x", "ddy", "dy", "dweight", "weight").forEach((gradient, operand) -> {
            double[] values = inputs.get(operand);
            for (int i = 0; i < values.length; i++) {
                double at = values[i];
                values[i] = at + STEP;
                double above = penalty(inputs);
                values[i] = at - STEP;
                double below = penalty(inputs);
                values[i] = at;
                assertEquals((above - below) / (2 * STEP), out.array(gradient).at(i), 1e-5, gradient + " " + i);
            }
        });
    }

    private static double penalty(Map<String, double[]> in) {
        double penalty = 0;
        for (int group = 0; group < G; group++) {
            double n = (double) S * C / G;
            double[] sums = new double[7];
            for (int i = 0; i < S * C; i++) {
                double v = in.get("x")[i];
                double u = in.get("u")[i];
                double g = in.get("dy")[i] * in.get("weight")[i % C];
                double[] addends = {v, v * v, g, g * v, u, u * v, u * g};
                for (int k = 0; k < sums.length && i % C / (C / G) == group; k++) {
                    sums[k] += addends[k] / n;
                }
            }
            double mean = sums[0];
            double rstd = 1 / Math.sqrt(sums[1] - mean * mean);
            double meanGh = (sums[3] - mean * sums[2]) * rstd;
            double meanUh = (sums[5] - mean * sums[4]) * rstd;
            penalty += n * rstd * (sums[6] - sums[2] * sums[4] - meanGh * meanUh);
        }
        return penalty;
    }

    private static double[] doubles(HostValues values, String name) {
        float[] floats = values.floats(name);
        return IntStream.range(0, floats.length).mapToDouble(i -> floats[i]).toArray();
    }

    private static OpCase groupNorm(DType dtype, Channels channels, int b, int s, int c, int groups, Set<Part> parts) {
        return NormBackwardImageCases.groupNorm(dtype, new Groups(channels, b, s, c, groups), ActivationKind.SILU,
                parts);
    }

    @Test
    void groupNormBackward_badArguments() {
        OpCase opCase = groupNorm(DType.BF16, Channels.LAST, 2, 9, 6, 3, MODULATED);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "x", DType.BF16, new int[] {2, 0, 6}, null);
        BadArguments.refuses(opCase, "dscale", DType.F32, new int[] {2, 6}, "dscale");
        GatunException e = assertThrows(GatunException.class, () -> OpCheck.run(opCase, opCase.values(1), "shift"));
        assertTrue(e.getMessage().startsWith("groupnorm_backward: shift is NULL"), e.getMessage());
    }

    @Test
    void batchNormBackward_badArguments() {
        OpCase opCase = NormBackwardImageCases.batchNorm(DType.BF16, Channels.LAST, 2, 9, 6, ActivationKind.NONE,
                AFFINE);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "mean", DType.F32, new int[] {5}, "mean");
    }

    @Test
    void groupNormDoubleBackward_badArguments() {
        OpCase opCase = NormBackwardImageCases.groupNormDouble(DType.BF16, new Groups(Channels.LAST, 2, 9, 6, 3),
                Set.of(Part.WEIGHT));
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "u", DType.BF16, new int[] {2, 9, 3}, "u");
    }
}
