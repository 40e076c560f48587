package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Fp8;
import io.gatun.runtime.DType;
import org.jspecify.annotations.Nullable;

/// Cases of [Fp8].
public final class Fp8Cases {
    private Fp8Cases() {}

    /// x [N, C].
    public static OpCase quantizeRows(DType dtype, int n, int c) {
        return OpCase.of("quantize_rows", dtype, "N=%d C=%d", n, c)
                .accuracy(Accuracy.EXACT)
                .out("y", DType.F8_E4M3, ROWS, n, c)
                .out("scale", DType.F32, CONTIGUOUS, n)
                .in("x", dtype, ROWS, Fill.normal(3), n, c)
                .build((s, t) -> Fp8.quantizeRows(s, t.get("y"), t.get("scale"), t.get("x")), (in, out, round) -> {
                    float[] x = in.floats("x");
                    for (int i = 0; i < n; i++) {
                        double largest = 1e-30f;
                        boolean finite = true;
                        for (int k = 0; k < c; k++) {
                            largest = Math.max(largest, Math.abs(x[i * c + k]));
                            finite &= Float.isFinite(x[i * c + k]);
                        }
                        float scale = finite ? (float) (largest / 448) : Float.NaN;
                        out.get("scale")[i] = scale;
                        for (int k = 0; k < c; k++) {
                            out.get("y")[i * c + k] = finite ? (double) x[i * c + k] / scale : 0;
                        }
                    }
                });
    }

    /// [N, C] times [F, C].
    ///
    /// @param dtype of x: bf16, f16 or f8_e4m3
    /// @param yType f32, or a 16-bit float
    /// @param bias  y's dtype or f32; null: no bias
    public static OpCase linear(DType dtype, DType yType, @Nullable DType bias, int n, int c, int f) {
        boolean scaled = dtype == DType.F8_E4M3;
        double deviation = 1 / Math.sqrt(Math.max(1, c));
        OpCaseBuilder b = OpCase.of("linear_fp8", dtype, "to %s N=%d C=%d F=%d bias %s", yType, n, c, f, bias)
                .accuracy(Accuracy.PRODUCT)
                .out("y", yType, ROWS, n, f)
                .in("x", dtype, ROWS, Fill.normal(scaled ? 100 : 1), n, c)
                .in("weight", DType.F8_E4M3, ROWS, Fill.normal(100), f, c)
                .in("weight_scale", DType.F32, CONTIGUOUS, Fill.uniform(deviation / 200, deviation / 50), f)
                .flops(2L * n * c * f);
        if (scaled) {
            b.in("x_scale", DType.F32, CONTIGUOUS, Fill.uniform(0.005, 0.02), n);
        }
        if (bias != null) {
            b.in("bias", bias, CONTIGUOUS, Fill.normal(1), f);
        }
        return b.build((s, t) -> Fp8.linear(s, t.get("y"), t.get("x"), t.get("x_scale"), t.get("weight"),
                t.get("weight_scale"), t.get("bias")), (in, out, round) -> {
                    float[] x = in.floats("x");
                    float[] w = in.floats("weight");
                    for (int i = 0; i < n; i++) {
                        for (int j = 0; j < f; j++) {
                            double sum = 0;
                            for (int k = 0; k < c; k++) {
                                sum = round.f32(sum + (double) x[i * c + k] * w[j * c + k]);
                            }
                            double y = round.f32(sum * in.floats("weight_scale")[j]);
                            y *= scaled ? in.floats("x_scale")[i] : 1;
                            y += bias == null ? 0 : in.floats("bias")[j];
                            out.get("y")[i * f + j] = round.store(yType, round.f32(y));
                        }
                    }
                });
    }

    /// The same of e4m3 operands, by the device's choice.
    public static OpCase matmul(DType yType, @Nullable DType bias, int n, int c, int f) {
        OpCase own = linear(DType.F8_E4M3, yType, bias, n, c, f);
        return new OpCase("matmul_fp8", yType, own.sizes(), own.operands(), own.aliases(), (s, t) -> s.device()
                .matmulFp8(s, t.get("y"), t.get("x"), t.get("x_scale"), t.get("weight"), t.get("weight_scale"),
                        t.get("bias")), own.workspace(), own.reference(), Accuracy.E4M3_PRODUCT, own.flops());
    }
}
