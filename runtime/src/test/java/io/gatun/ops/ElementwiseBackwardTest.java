package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import io.gatun.ops.cases.ElementwiseBackwardCases;
import io.gatun.ops.cases.ElementwiseBackwardCases.Gated;
import io.gatun.ops.cases.ElementwiseBackwardCases.Unary;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class ElementwiseBackwardTest {
    private static final DType[] FLOATS = {DType.F32, DType.BF16, DType.F16};
    private static final int[][] SHAPES = {{1}, {3}, {31}, {33}, {127}, {257}, {1000}, {0}, {3, 5, 7}};
    /// Without a size of 1: where the terms of a derivative cancel, one element of the obvious computation may be right
    /// by luck.
    private static final int[][] GATED_SHAPES = {{3}, {31}, {33}, {127}, {257}, {1000}, {0}, {3, 5, 7}};
    /// Work for two threads.
    private static final int[] LARGE = {37, 1000};

    @ParameterizedTest
    @EnumSource(Unary.class)
    void unary_oddSizes(Unary f) {
        for (DType dtype : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(ElementwiseBackwardCases.unary(f, dtype, shape));
            }
            for (String input : new String[] {"dy", f.input()}) {
                OpCheck.check(ElementwiseBackwardCases.unary(f, dtype, 3, 33).with(input,
                        Fill.normal(3).withSpecials(), "specials in " + input));
            }
        }
        OpCheck.check(ElementwiseBackwardCases.unary(f, DType.F32, LARGE));
    }

    /// Where a power of x overflows, the derivative is 1, or 0, still.
    @ParameterizedTest
    @EnumSource(names = {"GELU_ERF", "GELU_TANH", "QUICK_GELU", "SILU"})
    void unary_largeInputs(Unary f) {
        for (double x : new double[] {200, 1e10, 1e20, 1e38}) {
            for (double sign : new double[] {1, -1}) {
                OpCase opCase = ElementwiseBackwardCases.unary(f, DType.F32, 1).with("x", Fill.constant(sign * x),
                        "x = " + sign * x).with("dy", Fill.constant(2), "");
                OpCheck.assertValues(opCase, "dx", OpCheck.run(opCase, opCase.values(1)), sign > 0 ? 2 : 0);
            }
        }
    }

    @ParameterizedTest
    @EnumSource(Gated.class)
    void gated_oddSizes(Gated f) {
        for (DType dtype : FLOATS) {
            for (int[] shape : GATED_SHAPES) {
                OpCheck.check(ElementwiseBackwardCases.gated(f, dtype, shape));
            }
            for (String input : new String[] {"dy", "gate", "up"}) {
                OpCheck.check(ElementwiseBackwardCases.gated(f, dtype, 3, 33).with(input, Fill.normal(3).withSpecials(),
                        "specials in " + input));
            }
        }
        OpCheck.check(ElementwiseBackwardCases.gated(f, DType.BF16, LARGE));
    }

    @Test
    void gaussian_oddSizes() {
        for (DType dtype : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(ElementwiseBackwardCases.gaussian(dtype, shape));
            }
            OpCheck.check(ElementwiseBackwardCases.gaussian(dtype, 3, 33).with("logvar", Fill.normal(3).withSpecials(),
                    "specials"));
        }
    }

    @Test
    void clamp_oddSizes() {
        for (DType dtype : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(ElementwiseBackwardCases.clamp(dtype, -0.5f, 0.25f, shape));
            }
        }
        OpCheck.check(ElementwiseBackwardCases.clamp(DType.BF16, Float.NEGATIVE_INFINITY, 0, LARGE));
    }

    @Test
    void dropout_oddSizes() {
        for (DType dtype : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(ElementwiseBackwardCases.dropout(dtype, 0.1f, 7, shape));
            }
        }
        OpCheck.check(ElementwiseBackwardCases.dropout(DType.BF16, 0.5f, 0, LARGE));
    }

    @ParameterizedTest
    @CsvSource({"0, 1", "1, 0", "0.25, 0.75"})
    void dropout_share(float probability, double kept) {
        OpCase opCase = ElementwiseBackwardCases.dropout(DType.F32, probability, 3, 10_000).with("x", Fill.constant(1),
                "ones");
        double count = 0;
        for (float y : OpCheck.run(opCase, opCase.values(1)).floats("y")) {
            count += y != 0 ? 1 : 0;
        }
        assertEquals(kept, count / 10_000, probability % 1 == 0 ? 0 : 0.02, opCase.toString());
    }

    /// Another step keeps other elements.
    @Test
    void dropout_byStep() {
        OpCase first = ElementwiseBackwardCases.dropout(DType.F32, 0.5f, 3, 100);
        OpCase second = ElementwiseBackwardCases.dropout(DType.F32, 0.5f, 4, 100);
        HostValues one = OpCheck.run(first, first.values(1));
        HostValues two = OpCheck.run(second, second.values(1));
        int different = 0;
        for (int i = 0; i < 100; i++) {
            different += one.floats("y")[i] == 0 != (two.floats("y")[i] == 0) ? 1 : 0;
        }
        assertNotEquals(0, different);
    }

    @Test
    void backward_badArguments() {
        for (Unary f : Unary.values()) {
            BadArguments.check(ElementwiseBackwardCases.unary(f, DType.BF16, 3, 5));
        }
        for (Gated f : Gated.values()) {
            BadArguments.check(ElementwiseBackwardCases.gated(f, DType.F32, 3, 5));
        }
        BadArguments.check(ElementwiseBackwardCases.gaussian(DType.F16, 3, 5));
        BadArguments.check(ElementwiseBackwardCases.clamp(DType.F16, 0, 1, 3, 5));
        BadArguments.check(ElementwiseBackwardCases.dropout(DType.F16, 0.5f, 1, 3, 5));
    }
}
