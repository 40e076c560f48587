package io.gatun.ops;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.QuantiseCases;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class QuantiseTest {
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void nearestCode_oddSizes(DType dtype) {
        for (int c : new int[] {1, 3, 4, 33, 257}) {
            OpCheck.check(QuantiseCases.nearestCode(dtype, 7, 35, c));
        }
        OpCheck.check(QuantiseCases.nearestCode(dtype, 0, 35, 3));
        OpCheck.check(QuantiseCases.nearestCode(dtype, 5, 1, 3));
        OpCheck.check(QuantiseCases.nearestCode(dtype, 131, 257, 4));
    }

    /// Whole numbers have many equal distances, all exact.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void nearestCode_lowestOfEquals(DType dtype) {
        OpCheck.check(QuantiseCases.nearestCode(dtype, 37, 100, 3).with("x", Fill.integers(-2, 3), "whole")
                .with("codebook", Fill.integers(-2, 3), "codes"));
    }

    @Test
    void nearestCode_nanAndInf() {
        OpCase opCase = QuantiseCases.nearestCode(DType.F32, 37, 100, 3);
        OpCheck.check(opCase.with("x", Fill.normal(1).withSpecials(), "specials"));
        OpCheck.check(opCase.with("codebook", Fill.normal(1).with(1, 7, Double.NaN), "codes with NaN"));
    }

    @Test
    void nearestCode_rowAlone() {
        OpCheck.rowAlone(QuantiseCases.nearestCode(DType.F32, 67, 33, 5), "ids", "x");
    }

    @Test
    void nearestCode_badArguments() {
        OpCase opCase = QuantiseCases.nearestCode(DType.BF16, 3, 5, 4);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "codebook", DType.BF16, new int[] {0, 4}, "codebook");
        BadArguments.refuses(opCase, "codebook", DType.BF16, new int[] {5, 3}, "codebook");
    }
}
