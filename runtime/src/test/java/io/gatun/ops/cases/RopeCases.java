package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.OUTER;

import io.gatun.ops.Rope;
import io.gatun.ops.Rope.Pairing;
import io.gatun.runtime.DType;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;

/// Cases of [Rope].
public final class RopeCases {
    private RopeCases() {}

    /// Angles of R/2 frequencies for M positions.
    public static OpCase table(int m, int half, long firstPosition, float attentionFactor) {
        return OpCase.of("rope_table", DType.F32, "M=%d R/2=%d first=%d factor=%s", m, half, firstPosition,
                attentionFactor)
                .out("table", DType.F32, CONTIGUOUS, m, 2, half)
                .in("inv_freq", DType.F32, CONTIGUOUS, (random, i) -> Math.pow(10000, -(double) i / half), half)
                .build((s, t) -> Rope.table(s, t.get("table"), t.get("inv_freq"), firstPosition, attentionFactor),
                        (in, out, round) -> {
                            double[] table = out.get("table");
                            for (int i = 0; i < m * half; i++) {
                                int p = i / half;
                                int k = i % half;
                                // the angle's rounding to f32 belongs to the definition
                                double angle = (float) (firstPosition + p) * in.floats("inv_freq")[k];
                                table[p * 2 * half + k] = round.f32(round.f32(Math.cos(angle)) * attentionFactor);
                                table[p * 2 * half + half + k] = round.f32(
                                        round.f32(Math.sin(angle)) * attentionFactor);
                            }
                        });
    }

    /// R of D elements of [N, H, D] turned by a table of M positions.
    ///
    /// @param positions [N]
    public static OpCase rope(DType dtype, int h, int d, int r, Pairing pairing, int m, int... positions) {
        return turned("rope", "y", "x", 1, Rope::rope, dtype, h, d, r, pairing, m, positions);
    }

    /// The same, turned back.
    public static OpCase ropeBackward(DType dtype, int h, int d, int r, Pairing pairing, int m, int... positions) {
        return turned("rope_backward", "dx", "dy", -1, Rope::ropeBackward, dtype, h, d, r, pairing, m, positions);
    }

    private interface Call {
        void run(Stream stream, Tensor y, Tensor x, Tensor positions, Tensor table, Pairing pairing);
    }

    private static OpCase turned(String op, String y, String x, int sign, Call call, DType dtype, int h, int d, int r,
            Pairing pairing, int m, int... positions) {
        int n = positions.length;
        double[] rows = Arrays.stream(positions).asDoubleStream().toArray();
        return OpCase.of(op, dtype, "N=%d H=%d D=%d R=%d %s", n, h, d, r, pairing)
                .out(y, dtype, OUTER, n, h, d)
                .in(x, dtype, OUTER, Fill.normal(2), n, h, d)
                .in("positions", DType.I32, CONTIGUOUS, Fill.values(rows), n)
                .in("table", DType.F32, CONTIGUOUS, Fill.uniform(-1, 1), m, 2, r / 2)
                .touching((long) n * r)
                .aliasing(y, x)
                .build((s, t) -> call.run(s, t.get(y), t.get(x), t.get("positions"), t.get("table"), pairing),
                        (in, out, round) -> {
                            for (int row = 0; row < n * h; row++) {
                                turn(in.floats(x), in.floats("table"), sign, out.get(y), round, dtype, row,
                                        positions[row / h], m, d, r, pairing);
                            }
                        });
    }

    /// The row of D elements.
    static void turn(float[] x, float[] table, int sign, double[] y, Rounding round, DType dtype, int row,
            int position, int m, int d, int r, Pairing pairing) {
        for (int k = 0; k < d; k++) {
            y[row * d + k] = position < m ? x[row * d + k] : Double.NaN;
        }
        if (position < 0 || position >= m) {
            return;
        }
        int half = r / 2;
        for (int i = 0; i < half; i++) {
            int first = row * d + (pairing == Pairing.HALF ? i : 2 * i);
            int second = row * d + (pairing == Pairing.HALF ? i + half : 2 * i + 1);
            double cos = table[position * r + i];
            double sin = sign * table[position * r + half + i];
            double a = x[first];
            double b = x[second];
            y[first] = round.store(dtype, round.f32(a * cos) - round.f32(b * sin));
            y[second] = round.store(dtype, round.f32(b * cos) + round.f32(a * sin));
        }
    }
}
