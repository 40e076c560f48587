package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.Locale;

/// Cases of [Elementwise]: gradients, clamp and dropout.
public final class ElementwiseBackwardCases {
    /// Spread wide enough that activations reach both of their tails.
    private static final double DEVIATION = 3;
    private static final float SLOPE = 0.2f;
    private static final long SEED = 0x1234_5678_9abc_def0L;
    private static final int LAYER = 3;

    private ElementwiseBackwardCases() {}

    /// `dx = dy f'(x)`, of tanh and sigmoid by the result instead of x.
    public enum Unary {
        GELU_ERF("x", Elementwise::geluErfBackward, (x, r) -> geluErf(x, r).derivative),
        GELU_TANH("x", Elementwise::geluTanhBackward, (x, r) -> geluTanh(x, r).derivative),
        QUICK_GELU("x", Elementwise::quickGeluBackward, (x, r) -> {
            double z = r.f32(1.702f * x);
            double s = sigmoid(z, r);
            return r.f32(s * r.f32(1 + r.f32(z * r.f32(1 - s))));
        }),
        SILU("x", Elementwise::siluBackward, (x, r) -> silu(x, r).derivative),
        RELU("x", Elementwise::reluBackward, (x, r) -> x <= 0 ? 0 : 1),
        LEAKY_RELU("x", (s, dx, dy, x) -> Elementwise.leakyReluBackward(s, dx, dy, x, SLOPE),
                (x, r) -> x > 0 ? 1 : SLOPE),
        TANH("y", Elementwise::tanhBackward, (y, r) -> r.f32(1 - r.f32(y * y))),
        SIGMOID("y", Elementwise::sigmoidBackward, (y, r) -> r.f32(y * r.f32(1 - y)));

        private final String input;
        private final UnaryOp op;
        private final Derivative derivative;

        Unary(String input, UnaryOp op, Derivative derivative) {
            this.input = input;
            this.op = op;
            this.derivative = derivative;
        }

        public String input() {
            return input;
        }
    }

    /// `y = f(gate) up`.
    public enum Gated {
        SWIGLU(Elementwise::swigluBackward, ElementwiseBackwardCases::silu),
        GEGLU(Elementwise::gegluBackward, ElementwiseBackwardCases::geluErf),
        GEGLU_TANH(Elementwise::gegluTanhBackward, ElementwiseBackwardCases::geluTanh);

        private final GatedOp op;
        private final Activation activation;

        Gated(GatedOp op, Activation activation) {
            this.op = op;
            this.activation = activation;
        }
    }

    private interface UnaryOp {
        void run(Stream stream, Tensor dx, Tensor dy, Tensor x);
    }

    private interface Derivative {
        double of(double x, Rounding round);
    }

    private interface GatedOp {
        void run(Stream stream, Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up);
    }

    private interface Activation {
        Slope of(double x, Rounding round);
    }

    private record Slope(double value, double derivative) {}

    public static OpCase unary(Unary f, DType dtype, int... shape) {
        return OpCase.of(f.name().toLowerCase(Locale.ROOT) + "_backward", dtype, "%s", Arrays.toString(shape))
                .out("dx", dtype, ANY, shape)
                .in("dy", dtype, ANY, Fill.normal(1), shape)
                .in(f.input, dtype, ANY, Fill.normal(f.input.equals("y") ? 0.5 : DEVIATION), shape)
                .aliasing("dx", "dy")
                .aliasing("dx", f.input)
                .accuracy(Accuracy.GRADIENT)
                .build((s, t) -> f.op.run(s, t.get("dx"), t.get("dy"), t.get(f.input)), (in, out, round) -> {
                    float[] dy = in.floats("dy");
                    float[] x = in.floats(f.input);
                    for (int i = 0; i < x.length; i++) {
                        double derivative = f.derivative.of(x[i], round);
                        double product = f == Unary.RELU && x[i] <= 0 ? 0 : dy[i] * derivative;
                        out.get("dx")[i] = round.store(dtype, round.f32(product));
                    }
                });
    }

    public static OpCase gated(Gated f, DType dtype, int... shape) {
        return OpCase.of(f.name().toLowerCase(Locale.ROOT) + "_backward", dtype, "%s", Arrays.toString(shape))
                .out("dgate", dtype, ANY, shape)
                .out("dup", dtype, ANY, shape)
                .in("dy", dtype, ANY, Fill.normal(1), shape)
                .in("gate", dtype, ANY, Fill.normal(DEVIATION), shape)
                .in("up", dtype, ANY, Fill.normal(1), shape)
                .aliasing("dgate", "gate")
                .aliasing("dgate", "dy")
                .aliasing("dup", "up")
                .aliasing("dup", "dy")
                .accuracy(Accuracy.GRADIENT)
                .build((s, t) -> f.op.run(s, t.get("dgate"), t.get("dup"), t.get("dy"), t.get("gate"), t.get("up")),
                        (in, out, round) -> {
                            float[] dy = in.floats("dy");
                            for (int i = 0; i < dy.length; i++) {
                                Slope slope = f.activation.of(in.floats("gate")[i], round);
                                double factor = round.f32((double) dy[i] * in.floats("up")[i]);
                                out.get("dgate")[i] = round.store(dtype, round.f32(factor * slope.derivative));
                                out.get("dup")[i] = round.store(dtype, round.f32(dy[i] * slope.value));
                            }
                        });
    }

    public static OpCase gaussian(DType dtype, int... shape) {
        return OpCase.of("gaussian_backward", dtype, "%s", Arrays.toString(shape))
                .out("dlogvar", dtype, ANY, shape)
                .in("dy", dtype, ANY, Fill.normal(1), shape)
                .in("logvar", dtype, ANY, Fill.normal(DEVIATION).with(2, 9, 20, 21, -30, -31), shape)
                .in("eps", dtype, ANY, Fill.normal(1), shape)
                .aliasing("dlogvar", "dy")
                .aliasing("dlogvar", "logvar")
                .accuracy(Accuracy.GRADIENT)
                .build((s, t) -> Elementwise.gaussianBackward(s, t.get("dlogvar"), t.get("dy"), t.get("logvar"),
                        t.get("eps")), (in, out, r) -> {
                            float[] logvar = in.floats("logvar");
                            for (int i = 0; i < logvar.length; i++) {
                                double deviation = r.f32(Math.exp(r.f32(0.5 * logvar[i])));
                                double inside = r.f32(r.f32((double) in.floats("dy")[i] * in.floats("eps")[i])
                                        * r.f32(0.5 * deviation));
                                boolean isClamped = logvar[i] < -30 || logvar[i] > 20;
                                out.get("dlogvar")[i] = r.store(dtype, isClamped ? 0 : inside);
                            }
                        });
    }

    public static OpCase clamp(DType dtype, float low, float high, int... shape) {
        return OpCase.of("clamp", dtype, "%s to %s %s", low, high, Arrays.toString(shape))
                .out("y", dtype, ANY, shape)
                .in("x", dtype, ANY, Fill.normal(1).withSpecials(), shape)
                .aliasing("y", "x")
                .accuracy(Accuracy.EXACT)
                .build((s, t) -> Elementwise.clamp(s, t.get("y"), t.get("x"), low, high), (in, out, round) -> {
                    float[] x = in.floats("x");
                    for (int i = 0; i < x.length; i++) {
                        out.get("y")[i] = Float.isNaN(x[i]) ? x[i] : Math.clamp(x[i], low, high);
                    }
                });
    }

    public static OpCase dropout(DType dtype, float probability, int step, int... shape) {
        float factor = probability < 1 ? 1 / (1 - probability) : 0;
        return OpCase.of("dropout", dtype, "p=%s step=%d %s", probability, step, Arrays.toString(shape))
                .out("y", dtype, CONTIGUOUS, shape)
                .in("x", dtype, CONTIGUOUS, Fill.normal(1), shape)
                .in("step", DType.I32, CONTIGUOUS, Fill.constant(step), 1)
                .aliasing("y", "x")
                .accuracy(Accuracy.EXACT)
                .build((s, t) -> Elementwise.dropout(s, t.get("y"), t.get("x"), probability, SEED, t.get("step"),
                        LAYER), (in, out, round) -> {
                            float[] x = in.floats("x");
                            for (int i = 0; i < x.length; i++) {
                                boolean isKept = Philox.uniform(SEED, LAYER, step, i) > probability;
                                out.get("y")[i] = isKept ? (float) (x[i] * (double) factor) : 0;
                            }
                        });
    }

    private static double sigmoid(double x, Rounding r) {
        return r.f32(1 / r.f32(1 + r.f32(Math.exp(-x))));
    }

    private static Slope silu(double x, Rounding r) {
        double s = sigmoid(x, r);
        return new Slope(r.f32(x * s), r.f32(s * r.f32(1 + r.f32(x * r.f32(1 - s)))));
    }

    private static Slope geluErf(double x, Rounding r) {
        double cdf = r.f32(r.f32(1 + r.f32(Erf.erf(r.f32(x * r.f32(Math.sqrt(0.5)))))) * 0.5);
        double density = r.f32(r.f32(1 / Math.sqrt(2 * Math.PI)) * r.f32(Math.exp(r.f32(r.f32(-0.5 * x) * x))));
        return new Slope(r.f32(x * cdf), r.f32(cdf + r.f32(x * density)));
    }

    /// As torch writes it.
    private static Slope geluTanh(double x, Rounding r) {
        double beta = r.f32(Math.sqrt(2 / Math.PI));
        double square = r.f32(x * x);
        double tanh = r.f32(Math.tanh(r.f32(beta * r.f32(x + r.f32(0.044715 * r.f32(square * x))))));
        double left = r.f32(0.5 * x);
        double right = r.f32(1 + tanh);
        double inner = r.f32(beta * r.f32(1 + r.f32(3 * 0.044715 * square)));
        double slope = r.f32(r.f32(left * r.f32(1 - r.f32(tanh * tanh))) * inner);
        return new Slope(r.f32(left * right), r.f32(r.f32(0.5 * right) + slope));
    }
}
