package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.LinearCases;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class LinearTest {
    private static final int[] SIZES = {1, 3, 31, 33, 127, 257, 1000};

    @ParameterizedTest
    @CsvSource({"F32, OUT_IN", "F32, IN_OUT", "BF16, OUT_IN", "BF16, IN_OUT", "F16, OUT_IN", "F16, IN_OUT"})
    void linear_oddSizes(DType dtype, WeightLayout layout) {
        for (int size : SIZES) {
            OpCheck.check(LinearCases.linear(dtype, dtype, null, layout, 1, size, 33));
            OpCheck.check(LinearCases.linear(dtype, DType.F32, dtype, layout, 3, 33, size));
        }
        for (int n : new int[] {2, 7, 8, 9, 16, 17, 31, 33}) {
            OpCheck.check(LinearCases.linear(dtype, dtype, DType.F32, layout, n, 127, 31));
        }
        OpCheck.check(LinearCases.linear(dtype, dtype, null, layout, 0, 5, 7));
        OpCheck.check(LinearCases.linear(dtype, dtype, dtype, layout, 3, 257, 257));
    }

    /// A sum of no terms.
    @ParameterizedTest
    @EnumSource(WeightLayout.class)
    void linear_noColumns(WeightLayout layout) {
        OpCheck.check(LinearCases.linear(DType.F32, DType.F32, DType.F32, layout, 3, 0, 5));
        OpCheck.check(LinearCases.linear(DType.BF16, DType.F32, null, layout, 33, 0, 5));
    }

    @ParameterizedTest
    @EnumSource(WeightLayout.class)
    void linear_nanStaysInItsRow(WeightLayout layout) {
        OpCheck.check(LinearCases.linear(DType.F32, DType.F32, null, layout, 3, 33, 31).with("x",
                Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
        OpCheck.check(LinearCases.linear(DType.BF16, DType.BF16, null, layout, 3, 33, 31).with("x",
                Fill.normal(1).with(40, 1000, Double.POSITIVE_INFINITY), "an inf"));
    }

    @ParameterizedTest
    @CsvSource({"F32, OUT_IN", "F32, IN_OUT", "BF16, OUT_IN", "BF16, IN_OUT", "F16, OUT_IN", "F16, IN_OUT"})
    void linear_rowHasTheSameBitsForAnyN(DType dtype, WeightLayout layout) {
        int c = 259;
        int f = 131;
        Fill sameRows = (random, i) -> Math.sin(i % c) + i % c % 7;
        OpCase alone = LinearCases.linear(dtype, DType.F32, DType.F32, layout, 1, c, f).with("x", sameRows, "");
        HostValues one = OpCheck.run(alone, alone.values(1));
        for (int n : new int[] {2, 8, 9, 64}) {
            OpCase opCase = LinearCases.linear(dtype, DType.F32, DType.F32, layout, n, c, f).with("x", sameRows, "");
            HostValues all = OpCheck.run(opCase, opCase.values(1));
            for (int i = 0; i < n * f; i++) {
                assertEquals(one.floats("y")[i % f], all.floats("y")[i],
                        "%s on cpu: y[%d, %d], expected as with N = 1".formatted(opCase, i / f, i % f));
            }
        }
    }

    @ParameterizedTest
    @EnumSource(WeightLayout.class)
    void linear_badArguments(WeightLayout layout) {
        OpCase opCase = LinearCases.linear(DType.BF16, DType.BF16, DType.F32, layout, 3, 5, 7);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "weight", DType.BF16, new int[] {6, 6}, "weight");
        BadArguments.refuses(opCase, "weight", DType.F32, opCase.operands().get(2).shape(), "weight");
        BadArguments.refuses(opCase, "bias", DType.F32, new int[] {6}, "bias");
        BadArguments.refuses(opCase, "bias", DType.F16, new int[] {7}, "bias");
    }

    @Test
    void linear_rowAlone() {
        OpCheck.rowAlone(LinearCases.linear(DType.F32, DType.F32, null, WeightLayout.OUT_IN, 33, 127, 31), "y", "x");
        OpCheck.rowAlone(LinearCases.linear(DType.F16, DType.F16, null, WeightLayout.IN_OUT, 33, 127, 31), "y", "x");
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void matmulOuter_oddSizes(DType dtype) {
        for (int size : SIZES) {
            OpCheck.check(LinearCases.outer(dtype, DType.F32, size, 5, 33));
            OpCheck.check(LinearCases.outer(dtype, dtype, 3, size, 7));
            OpCheck.check(LinearCases.outer(dtype, DType.F32, 33, 3, size));
        }
        OpCheck.check(LinearCases.outer(dtype, DType.F32, 64, 64, 96));
        OpCheck.check(LinearCases.outer(dtype, dtype, 257, 129, 65));
    }

    /// No rows are a sum of no terms; no columns are no work.
    @Test
    void matmulOuter_emptyDimensions() {
        OpCheck.check(LinearCases.outer(DType.BF16, DType.F32, 0, 3, 5));
        OpCheck.check(LinearCases.outer(DType.F32, DType.F32, 4, 0, 5));
        OpCheck.check(LinearCases.outer(DType.F32, DType.F32, 4, 3, 0));
    }

    /// Many rows for few results are where a library would like to split the sum over threads.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void matmulOuter_longSums(DType dtype) {
        OpCheck.check(LinearCases.outer(dtype, DType.F32, 4096, 8, 9));
        OpCheck.check(LinearCases.outer(dtype, DType.F32, 2000, 1, 1));
    }

    /// A NaN of a row of the one spoils a row of y, of the other a column.
    @Test
    void matmulOuter_nanStaysInItsColumn() {
        Fill fill = Fill.normal(1).with(40, 1000, Double.NaN);
        for (int n : new int[] {31, 32, 33}) {
            OpCheck.check(LinearCases.outer(DType.F32, DType.F32, n, 33, 31).with("a", fill, "a NaN"));
            OpCheck.check(LinearCases.outer(DType.BF16, DType.F32, n, 33, 31).with("b", fill, "a NaN"));
        }
    }

    @Test
    void matmulOuter_badArguments() {
        OpCase opCase = LinearCases.outer(DType.BF16, DType.F32, 3, 5, 7);
        BadArguments.refuses(opCase, "a", DType.BF16, new int[] {4, 5}, null);
        BadArguments.refuses(opCase, "b", DType.F32, new int[] {3, 7}, null);
        BadArguments.refuses(opCase, "y", DType.F16, new int[] {5, 7}, null);
        BadArguments.refuses(opCase, "y", DType.F32, new int[] {7, 5}, null);
        BadArguments.refuses(opCase, "y", DType.F32, new int[] {5, 7, 1}, null);
    }
}
