package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Linear;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import org.jspecify.annotations.Nullable;

/// Cases of [Linear].
public final class LinearCases {
    private LinearCases() {}

    /// [N, C] times [F, C] or [C, F].
    ///
    /// @param yType x's dtype or f32
    /// @param bias  x's dtype or f32; null: no bias
    public static OpCase linear(DType dtype, DType yType, @Nullable DType bias, WeightLayout layout, int n, int c,
            int f) {
        boolean outIn = layout == WeightLayout.OUT_IN;
        OpCaseBuilder b = OpCase.of("linear", dtype, "to %s N=%d C=%d F=%d %s bias %s", yType, n, c, f, layout, bias)
                .accuracy(Accuracy.PRODUCT)
                .out("y", yType, ROWS, n, f)
                .in("x", dtype, ROWS, Fill.normal(1), n, c)
                .in("weight", dtype, ROWS, Fill.normal(1 / Math.sqrt(Math.max(1, c))), outIn ? f : c, outIn ? c : f)
                .flops(2L * n * c * f);
        if (bias != null) {
            b.in("bias", bias, CONTIGUOUS, Fill.normal(1), f);
        }
        return b.build((s, t) -> Linear.linear(s, t.get("y"), t.get("x"), t.get("weight"), t.get("bias"), layout),
                (in, out, round) -> {
                    float[] x = in.floats("x");
                    float[] w = in.floats("weight");
                    for (int i = 0; i < n; i++) {
                        for (int j = 0; j < f; j++) {
                            double sum = 0;
                            for (int k = 0; k < c; k++) {
                                double weight = outIn ? w[j * c + k] : w[k * f + j];
                                sum = round.f32(sum + round.f32(x[i * c + k] * weight));
                            }
                            double y = bias == null ? sum : sum + in.floats("bias")[j];
                            out.get("y")[i * f + j] = round.store(yType, round.f32(y));
                        }
                    }
                });
    }

    /// [N, F] and [N, C] to [F, C], by the device's choice.
    ///
    /// @param yType the others' dtype or f32
    public static OpCase outer(DType dtype, DType yType, int n, int f, int c) {
        return OpCase.of("matmulOuter", dtype, "to %s N=%d F=%d C=%d", yType, n, f, c)
                .accuracy(dtype == DType.F32 ? Accuracy.PRODUCT
                        : n < 1000 ? Accuracy.NARROW_PRODUCT : Accuracy.LONG_NARROW_PRODUCT)
                .out("y", yType, ROWS, f, c)
                .in("a", dtype, ROWS, Fill.normal(1 / Math.sqrt(Math.max(1, n))), n, f)
                .in("b", dtype, ROWS, Fill.normal(1), n, c)
                .flops(2L * n * c * f)
                .build((s, t) -> s.device().matmulOuter(s, t.get("y"), t.get("a"), t.get("b")),
                        (in, out, round) -> {
                            float[] a = in.floats("a");
                            float[] b = in.floats("b");
                            for (int at = 0; at < f * c; at++) {
                                double sum = 0;
                                for (int i = 0; i < n; i++) {
                                    sum = round.f32(sum + round.f32((double) a[i * f + at / c] * b[i * c + at % c]));
                                }
                                out.get("y")[at] = round.store(yType, sum);
                            }
                        });
    }
}
