package io.gatun.ops;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.SoftmaxCases;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class SoftmaxTest {
    private static final DType[] FLOATS = {DType.F32, DType.BF16, DType.F16};
    private static final int[] WIDTHS = {1, 3, 31, 33, 127, 257, 1000};
    private static final double INF = Double.POSITIVE_INFINITY;

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void softmax_oddWidths(DType xType) {
        for (DType yType : FLOATS) {
            for (int c : WIDTHS) {
                OpCheck.check(SoftmaxCases.softmax(xType, yType, 3, c));
            }
        }
        OpCheck.check(SoftmaxCases.softmax(xType, DType.F32, 0, 5));
        OpCheck.check(SoftmaxCases.softmax(xType, DType.F32, 257, 127));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void logSoftmax_oddWidths(DType xType) {
        for (DType yType : FLOATS) {
            for (int c : WIDTHS) {
                OpCheck.check(SoftmaxCases.logSoftmax(xType, yType, 3, c));
            }
        }
        OpCheck.check(SoftmaxCases.logSoftmax(xType, DType.F32, 0, 5));
        OpCheck.check(SoftmaxCases.logSoftmax(xType, DType.F32, 257, 127));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void softmax_specialRows(DType dtype) {
        for (OpCase opCase : new OpCase[] {SoftmaxCases.softmax(dtype, dtype, 3, 33),
            SoftmaxCases.logSoftmax(dtype, dtype, 3, 33)}) {
            OpCheck.check(opCase.with("x", Fill.constant(-INF), "all -inf"));
            OpCheck.check(opCase.with("x", Fill.normal(1).with(0, 2, -INF), "some -inf"));
            OpCheck.check(opCase.with("x", Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
            OpCheck.check(opCase.with("x", Fill.normal(1).with(40, 1000, INF), "an inf"));
            OpCheck.check(opCase.with("x", Fill.normal(2000), "large"));
        }
    }

    @Test
    void softmax_rowAlone() {
        OpCheck.rowAlone(SoftmaxCases.softmax(DType.F32, DType.F32, 9, 127), "y", "x");
        OpCheck.rowAlone(SoftmaxCases.logSoftmax(DType.F16, DType.F32, 9, 127), "y", "x");
    }

    @Test
    void softmax_badArguments() {
        BadArguments.check(SoftmaxCases.softmax(DType.F32, DType.F32, 3, 5));
        BadArguments.refuses(SoftmaxCases.softmax(DType.F32, DType.F32, 3, 5), "y", DType.F32, new int[] {3, 4}, "y");
    }

    @Test
    void logSoftmax_badArguments() {
        BadArguments.check(SoftmaxCases.logSoftmax(DType.BF16, DType.F32, 3, 5));
    }
}
