package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Quantise;
import io.gatun.runtime.DType;

/// Cases of [Quantise].
public final class QuantiseCases {
    private QuantiseCases() {}

    /// The nearest of K codes for each of N rows of C.
    public static OpCase nearestCode(DType dtype, int n, int k, int c) {
        return OpCase.of("nearest_code", dtype, "N=%d K=%d C=%d", n, k, c)
                .out("ids", DType.I32, CONTIGUOUS, n)
                .in("x", dtype, ROWS, Fill.normal(1), n, c)
                .in("codebook", dtype, ROWS, Fill.normal(1), k, c)
                .flops(3L * n * k * c)
                .build((s, t) -> Quantise.nearestCode(s, t.get("ids"), t.get("x"), t.get("codebook")),
                        (in, out, round) -> {
                            for (int i = 0; i < n; i++) {
                                out.get("ids")[i] = nearest(in.floats("x"), i * c, in.floats("codebook"), k, c);
                            }
                        });
    }

    private static int nearest(float[] x, int row, float[] codebook, int k, int c) {
        int best = 0;
        double bestDistance = Double.POSITIVE_INFINITY;
        for (int code = 0; code < k; code++) {
            double distance = 0;
            for (int i = 0; i < c; i++) {
                if (Float.isNaN(x[row + i])) {
                    return -1;
                }
                double d = (double) x[row + i] - codebook[code * c + i];
                distance += d * d;
            }
            if (distance < bestDistance) {
                best = code;
                bestDistance = distance;
            }
        }
        return best;
    }
}
