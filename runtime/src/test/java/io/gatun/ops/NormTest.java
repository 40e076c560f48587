package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.NormCases;
import io.gatun.ops.cases.NormCases.Channels;
import io.gatun.ops.cases.NormCases.Groups;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class NormTest {
    private static final int[] WIDTHS = {1, 3, 31, 33, 127, 257, 1000};
    private static final Set<Part> ALL = EnumSet.complementOf(EnumSet.of(Part.F32_PARAMETERS,
            Part.MODULATION));
    private static final List<Set<Part>> PARTS = List.of(Set.of(), EnumSet.of(Part.WEIGHT, Part.BIAS), ALL,
            EnumSet.of(Part.RESIDUAL), EnumSet.complementOf(EnumSet.of(Part.MODULATION)));
    private static final Set<Part> ALL_OF_IMAGES = EnumSet.complementOf(EnumSet.of(Part.RESIDUAL,
            Part.F32_PARAMETERS));
    private static final List<Set<Part>> IMAGE_PARTS = List.of(Set.of(), EnumSet.of(Part.WEIGHT, Part.BIAS),
            ALL_OF_IMAGES, EnumSet.complementOf(EnumSet.of(Part.RESIDUAL)));
    /// Where a row of 33 gets a value that spoils it.
    private static final int SECOND_ROW = 40;

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void layerNorm_oddWidths(DType dtype) {
        for (int c : WIDTHS) {
            for (Set<Part> parts : PARTS) {
                OpCheck.check(NormCases.layerNorm(dtype, 3, c, parts));
            }
        }
        OpCheck.check(NormCases.layerNorm(dtype, 0, 5, ALL));
        OpCheck.check(NormCases.layerNorm(dtype, 257, 257, ALL));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void rmsNorm_oddWidths(DType dtype) {
        for (int c : WIDTHS) {
            for (Set<Part> parts : PARTS) {
                OpCheck.check(NormCases.rmsNorm(dtype, 3, c, parts));
            }
        }
        OpCheck.check(NormCases.rmsNorm(dtype, 0, 5, ALL));
        OpCheck.check(NormCases.rmsNorm(dtype, 257, 257, ALL));
    }

    /// One-pass variance would lose everything here.
    @Test
    void layerNorm_largeMean() {
        Fill offset = (random, i) -> 1000 + random.nextGaussian();
        OpCheck.check(NormCases.layerNorm(DType.F32, 3, 257, Set.of(Part.STATISTICS)).with("x", offset, "mean 1000"));
    }

    @Test
    void layerNorm_constantRow() {
        OpCheck.check(NormCases.layerNorm(DType.F32, 3, 33, ALL).with("x", Fill.constant(2), "constant")
                .with("residual", Fill.constant(-1), "residual"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void layerNorm_nanSpoilsItsRowOnly(DType dtype) {
        OpCheck.check(NormCases.layerNorm(dtype, 3, 33, ALL)
                .with("x", Fill.normal(1).with(SECOND_ROW, 1000, Double.NaN), "a NaN"));
        OpCheck.check(NormCases.layerNorm(dtype, 3, 33, ALL)
                .with("x", Fill.normal(1).with(SECOND_ROW, 1000, Double.POSITIVE_INFINITY), "an Inf"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void rmsNorm_nanSpoilsItsRowOnly(DType dtype) {
        OpCheck.check(NormCases.rmsNorm(dtype, 3, 33, ALL)
                .with("x", Fill.normal(1).with(SECOND_ROW, 1000, Double.NaN), "a NaN"));
        OpCheck.check(NormCases.rmsNorm(dtype, 3, 33, ALL)
                .with("x", Fill.normal(1).with(SECOND_ROW, 1000, Double.NEGATIVE_INFINITY), "an Inf"));
    }

    /// With a row of +1 and -1 the normalised value is just below 1, which bf16 rounds to 1 before the weight.
    @Test
    void rmsNorm_roundsBeforeTheWeight() {
        OpCase opCase = NormCases.rmsNorm(DType.BF16, 1, 2, Set.of(Part.WEIGHT, Part.F32_PARAMETERS))
                .with("x", Fill.values(1, -1), "+-1").with("weight", Fill.constant(1 + 0x1p-8 + 0x1p-20), "halfway");
        HostValues out = OpCheck.run(opCase, opCase.values(1));
        OpCheck.assertValues(opCase, "y", out, 1 + 0x1p-7, -(1 + 0x1p-7));
    }

    @Test
    void layerNorm_rowAlone() {
        OpCheck.rowAlone(NormCases.layerNorm(DType.F32, 9, 127, ALL), "y", "x", "residual", "residual_out", "mean",
                "rstd");
    }

    @Test
    void rmsNorm_rowAlone() {
        OpCheck.rowAlone(NormCases.rmsNorm(DType.BF16, 9, 127, ALL), "y", "x", "residual", "residual_out", "rstd");
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void groupNorm_oddSizes(DType dtype) {
        for (Channels channels : Channels.values()) {
            for (Set<Part> parts : IMAGE_PARTS) {
                OpCheck.check(groupNorm(dtype, channels, 2, 35, 12, 3, parts));
            }
            for (int s : new int[] {1, 3, 127, 257}) {
                OpCheck.check(groupNorm(dtype, channels, 1, s, 33, 11, ALL_OF_IMAGES));
            }
            OpCheck.check(groupNorm(dtype, channels, 1, 9, 1040, 2, ALL_OF_IMAGES));
            OpCheck.check(groupNorm(dtype, channels, 0, 9, 6, 2, ALL_OF_IMAGES));
        }
    }

    /// Several blocks of pixels for each group, and work for two threads.
    @ParameterizedTest
    @EnumSource(Channels.class)
    void groupNorm_manyPixels(Channels channels) {
        OpCheck.check(groupNorm(DType.F32, channels, 1, 9001, 8, 2, ALL_OF_IMAGES));
        OpCheck.check(groupNorm(DType.BF16, channels, 2, 1000, 32, 8, Set.of(Part.STATISTICS)));
    }

    @ParameterizedTest
    @EnumSource(ActivationKind.class)
    void groupNorm_activations(ActivationKind activation) {
        OpCheck.check(NormCases.groupNorm(DType.F32, new Groups(Channels.LAST, 2, 33, 8, 2), 1e-6f, activation,
                ALL_OF_IMAGES));
        OpCheck.check(NormCases.groupNorm(DType.BF16, new Groups(Channels.FIRST, 2, 33, 8, 8), 1e-6f, activation,
                ALL_OF_IMAGES));
    }

    /// Sums of the values or of their squares would lose everything here.
    @ParameterizedTest
    @EnumSource(Channels.class)
    void groupNorm_largeMean(Channels channels) {
        Fill offset = (random, i) -> 10000 + random.nextGaussian();
        OpCheck.check(groupNorm(DType.F32, channels, 1, 257, 8, 2, Set.of(Part.STATISTICS)).with("x", offset,
                "mean 10000"));
        OpCheck.check(groupNorm(DType.F32, channels, 1, 257, 8, 2, Set.of(Part.STATISTICS)).with("x",
                Fill.normal(1).with(0, 1 << 30, 10000), "first of 10000"));
        for (int i = 0; i < 12; i++) {  // a sum of squares less a square of sums is negative by a rounding for some
            OpCheck.check(groupNorm(DType.F32, channels, 1, 100, 8, 2, Set.of(Part.STATISTICS)).with("x",
                    Fill.constant(1e6 / 3 * (1 + 0.137 * i)), "constant, far from 0"));
        }
    }

    /// Whole vectors of bf16: channels summed in pairs where a group has an even number of them, and values so far
    /// from zero that they are centred first.
    @ParameterizedTest
    @ValueSource(ints = {8, 16})
    void groupNorm_bf16FarFromZero(int groups) {
        OpCase opCase = groupNorm(DType.BF16, Channels.LAST, 1, 300, 80, groups, ALL_OF_IMAGES);
        for (double mean : new double[] {3, 100, 10000}) {
            OpCheck.check(opCase.with("x", (random, i) -> mean + random.nextGaussian(), "mean " + mean));
        }
    }

    /// The eps decides where a group is constant.
    @ParameterizedTest
    @ValueSource(floats = {1e-5f, 1e-6f})
    void groupNorm_constantGroup(float eps) {
        OpCheck.check(NormCases.groupNorm(DType.F32, new Groups(Channels.LAST, 1, 33, 6, 2), eps, ActivationKind.NONE,
                ALL_OF_IMAGES).with("x", Fill.constant(3), "constant"));
        OpCheck.check(NormCases.groupNorm(DType.F32, new Groups(Channels.LAST, 1, 33, 6, 2), eps, ActivationKind.NONE,
                ALL_OF_IMAGES).with("x", Fill.normal(1e-3), "small"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void groupNorm_nanSpoilsItsGroupOnly(DType dtype) {
        for (Channels channels : Channels.values()) {
            for (int at : new int[] {0, 150}) {
                OpCheck.check(groupNorm(dtype, channels, 2, 33, 6, 3, ALL_OF_IMAGES).with("x",
                        Fill.normal(1).with(at, 1000, Double.NaN), "a NaN"));
            }
        }
    }

    @ParameterizedTest
    @EnumSource(Channels.class)
    void groupNorm_imageAlone(Channels channels) {
        OpCheck.rowAlone(groupNorm(DType.F32, channels, 5, 300, 8, 2, ALL_OF_IMAGES), "y", "x", "mean", "rstd",
                "scale", "shift");
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void batchNorm_oddSizes(DType dtype) {
        for (Channels channels : Channels.values()) {
            for (Set<Part> parts : List.of(Set.<Part>of(), EnumSet.of(Part.WEIGHT, Part.BIAS),
                    EnumSet.of(Part.WEIGHT, Part.BIAS, Part.F32_PARAMETERS))) {
                OpCheck.check(NormCases.batchNorm(dtype, channels, 2, 35, 13, ActivationKind.RELU, parts));
                OpCheck.check(NormCases.batchNorm(dtype, channels, 1, 3, 520, ActivationKind.NONE, parts));
            }
            OpCheck.check(NormCases.batchNorm(dtype, channels, 1, 4100, 8, ActivationKind.TANH, Set.of(Part.WEIGHT)));
            OpCheck.check(NormCases.batchNorm(dtype, channels, 0, 4, 8, ActivationKind.TANH, Set.of(Part.WEIGHT)));
        }
    }

    @Test
    void batchNorm_nanStays() {
        OpCheck.check(NormCases.batchNorm(DType.F32, Channels.LAST, 2, 35, 13, ActivationKind.RELU, Set.of())
                .with("x", Fill.normal(1).withSpecials(), "specials"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void batchNormTrain_oddSizes(DType dtype) {
        for (Channels channels : Channels.values()) {
            for (Set<Part> parts : IMAGE_PARTS.subList(0, 2)) {
                OpCheck.check(NormCases.batchNormTrain(dtype, channels, 3, 35, 13, ActivationKind.RELU, parts));
            }
            OpCheck.check(NormCases.batchNormTrain(dtype, channels, 2, 1, 520, ActivationKind.NONE,
                    EnumSet.of(Part.STATISTICS)));
            OpCheck.check(NormCases.batchNormTrain(dtype, channels, 2, 600, 3, ActivationKind.NONE,
                    EnumSet.of(Part.STATISTICS, Part.WEIGHT, Part.F32_PARAMETERS)));
        }
    }

    @ParameterizedTest
    @EnumSource(Channels.class)
    void batchNormTrain_largeMean(Channels channels) {
        Fill offset = (random, i) -> 10000 + random.nextGaussian();
        OpCheck.check(NormCases.batchNormTrain(DType.F32, channels, 3, 50, 5, ActivationKind.NONE,
                EnumSet.of(Part.STATISTICS)).with("x", offset, "mean 10000"));
    }

    @Test
    void batchNormTrain_badArguments() {
        OpCase opCase = NormCases.batchNormTrain(DType.BF16, Channels.LAST, 2, 9, 6, ActivationKind.NONE,
                EnumSet.of(Part.WEIGHT, Part.BIAS, Part.STATISTICS));
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "running_var", DType.F32, new int[] {5}, "running_var");
        OpCase single = NormCases.batchNormTrain(DType.F32, Channels.LAST, 1, 1, 6, ActivationKind.NONE, Set.of());
        GatunException e = assertThrows(GatunException.class, () -> OpCheck.run(single, single.values(1)));
        assertTrue(e.getMessage().contains("x has 1 values per channel and 6 channels, expected at least 2"),
                e.getMessage());
    }

    private static OpCase groupNorm(DType dtype, Channels channels, int b, int s, int c, int groups, Set<Part> parts) {
        return NormCases.groupNorm(dtype, new Groups(channels, b, s, c, groups), 1e-5f, ActivationKind.SILU, parts);
    }

    @Test
    void groupNorm_badArguments() {
        OpCase opCase = groupNorm(DType.BF16, Channels.LAST, 2, 9, 6, 3, ALL_OF_IMAGES);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "x", DType.BF16, new int[] {2, 0, 6}, null);
        BadArguments.refuses(opCase, "scale", DType.BF16, new int[] {1, 6}, "scale");
        BadArguments.refuses(opCase, "weight", DType.F16, new int[] {6}, "weight");
    }

    /// Neither layout: pixels and channels both have gaps.
    @Test
    void groupNorm_scatteredImage() {
        try (Device device = TestDevice.open(1);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("scattered")) {
            Tensor x = arena.allocate(DType.F32, 2, 4, 6, 2).select(3, 0);
            GatunException e = assertThrows(GatunException.class, () -> Norm.groupNorm(stream, x, null, null, x, null,
                    null, null, null, 2, 1e-5f, ActivationKind.NONE, arena.allocate(DType.U8, 4096)));
            assertTrue(e.getMessage().startsWith("groupnorm: x has strides [48, 12, 2]"), e.getMessage());
        }
    }

    @Test
    void batchNorm_badArguments() {
        OpCase opCase = NormCases.batchNorm(DType.BF16, Channels.LAST, 2, 9, 6, ActivationKind.NONE,
                EnumSet.of(Part.WEIGHT, Part.BIAS));
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "var", DType.BF16, new int[] {5}, "var");
    }

    @Test
    void layerNorm_badArguments() {
        OpCase opCase = NormCases.layerNorm(DType.BF16, 3, 5, ALL);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "x", DType.BF16, new int[] {3, 0}, null);
        BadArguments.refuses(opCase, "weight", DType.F16, new int[] {5}, "weight");
    }

    @Test
    void rmsNorm_badArguments() {
        OpCase opCase = NormCases.rmsNorm(DType.F32, 3, 5, ALL);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "residual", DType.F32, new int[] {3, 4}, "residual");
        BadArguments.refuses(opCase, "weight", DType.F32, new int[] {4}, "weight");
    }
}
