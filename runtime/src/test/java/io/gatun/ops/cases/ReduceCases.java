package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.OUTER;

import io.gatun.ops.Reduce;
import io.gatun.runtime.DType;

/// Cases of [Reduce].
public final class ReduceCases {
    private static final float FACTOR = 0.7f;

    private ReduceCases() {}

    /// Sums over S of [B, S, C], of a product where there is a second operand.
    public static OpCase sumRows(DType dtype, DType yType, int b, int s, int c, boolean isProduct) {
        OpCaseBuilder builder = OpCase.of("sum_rows", dtype, "B=%d S=%d C=%d to %s%s", b, s, c, yType,
                isProduct ? " PRODUCT" : "")
                .out("y", yType, OUTER, b, c)
                .in("a", dtype, OUTER, Fill.normal(1), b, s, c);
        if (isProduct) {
            builder.in("b", dtype, OUTER, Fill.normal(1), b, s, c);
        }
        return builder.workspace((stream, t) -> Reduce.sumRowsWorkspaceBytes(stream, t.get("a")))
                .build((stream, t) -> Reduce.sumRows(stream, t.get("y"), t.get("a"), t.get("b"), t.get("workspace")),
                        (in, out, round) -> {
                            float[] a = in.floats("a");
                            double[] y = out.get("y");
                            for (int i = 0; i < y.length; i++) {
                                double sum = 0;
                                for (int row = 0; row < s; row++) {
                                    int at = (i / c * s + row) * c + i % c;
                                    double value = isProduct ? round.f32(a[at] * (double) in.floats("b")[at]) : a[at];
                                    sum = round.f32(sum + value);
                                }
                                y[i] = round.store(yType, sum);
                            }
                        });
    }

    /// The sum of everything, with a factor.
    public static OpCase sum(DType dtype, int n) {
        return OpCase.of("sum", dtype, "n=%d", n)
                .out("y", DType.F32, CONTIGUOUS, 1)
                .in("x", dtype, CONTIGUOUS, Fill.normal(1), n)
                .workspace((stream, t) -> Reduce.sumWorkspaceBytes(stream, t.get("x")))
                .build((stream, t) -> Reduce.sum(stream, t.get("y"), t.get("x"), FACTOR, t.get("workspace")),
                        (in, out, round) -> {
                            double sum = 0;
                            for (float x : in.floats("x")) {
                                sum = round.f32(sum + x);
                            }
                            out.get("y")[0] = round.f32(FACTOR * sum);
                        });
    }
}
