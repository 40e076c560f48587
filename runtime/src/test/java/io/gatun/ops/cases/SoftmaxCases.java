package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Softmax;
import io.gatun.runtime.DType;

/// Cases of [Softmax].
public final class SoftmaxCases {
    private SoftmaxCases() {}

    public static OpCase softmax(DType xType, DType yType, int n, int c) {
        return operands("softmax", xType, yType, n, c).build((s, t) -> Softmax.softmax(s, t.get("y"), t.get("x")),
                (in, out, round) -> rows(in, out.get("y"), round, yType, n, c, false));
    }

    public static OpCase logSoftmax(DType xType, DType yType, int n, int c) {
        return operands("log_softmax", xType, yType, n, c).build(
                (s, t) -> Softmax.logSoftmax(s, t.get("y"), t.get("x")),
                (in, out, round) -> rows(in, out.get("y"), round, yType, n, c, true));
    }

    private static OpCaseBuilder operands(String op, DType xType, DType yType, int n, int c) {
        OpCaseBuilder b = OpCase.of(op, xType, "to %s N=%d C=%d", yType, n, c)
                .out("y", yType, ROWS, n, c)
                .in("x", xType, ROWS, Fill.normal(3), n, c);
        return xType == yType ? b.aliasing("y", "x") : b;
    }

    private static void rows(HostValues in, double[] y, Rounding round, DType yType, int n, int c, boolean log) {
        float[] x = in.floats("x");
        for (int row = 0; row < n; row++) {
            int first = row * c;
            double max = Double.NEGATIVE_INFINITY;
            for (int k = 0; k < c; k++) {
                max = Math.max(max, x[first + k]);
            }
            double sum = 0;
            for (int k = 0; k < c; k++) {
                sum = round.f32(sum + round.f32(Math.exp(round.f32(x[first + k] - max))));
            }
            for (int k = 0; k < c; k++) {
                double shifted = round.f32(x[first + k] - max);
                double value;
                if (max == Double.NEGATIVE_INFINITY) {
                    value = log ? max : 0;
                } else if (max == Double.POSITIVE_INFINITY) {
                    value = Double.NaN;
                } else {
                    value = log ? shifted - round.f32(Math.log(sum)) : round.f32(Math.exp(shifted)) / sum;
                }
                y[first + k] = round.store(yType, round.f32(value));
            }
        }
    }
}
