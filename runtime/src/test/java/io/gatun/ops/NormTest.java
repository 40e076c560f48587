package io.gatun.ops;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.NormCases;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class NormTest {
    private static final int[] WIDTHS = {1, 3, 31, 33, 127, 257, 1000};
    private static final Set<Part> ALL = EnumSet.complementOf(EnumSet.of(Part.F32_PARAMETERS));
    private static final List<Set<Part>> PARTS = List.of(Set.of(), EnumSet.of(Part.WEIGHT, Part.BIAS), ALL,
            EnumSet.of(Part.RESIDUAL), EnumSet.allOf(Part.class));
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
