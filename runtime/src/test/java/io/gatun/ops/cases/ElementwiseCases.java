package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/// Cases of [Elementwise].
public final class ElementwiseCases {
    /// Spread wide enough that activations reach both of their tails.
    private static final double DEVIATION = 3;
    private static final float FACTOR = 0.3f;
    private static final float SLOPE = 0.2f;

    private ElementwiseCases() {}

    /// `y = f(x)`.
    public enum Unary {
        SCALE((s, y, x) -> Elementwise.scale(s, y, x, FACTOR), (x, r) -> r.f32(FACTOR * x)),
        GELU_ERF(Elementwise::geluErf, ElementwiseCases::geluErf),
        GELU_TANH(Elementwise::geluTanh, ElementwiseCases::geluTanh),
        QUICK_GELU(Elementwise::quickGelu, (x, r) -> r.f32(x * sigmoid(r.f32(1.702f * x), r))),
        SILU(Elementwise::silu, ElementwiseCases::silu),
        RELU(Elementwise::relu, (x, r) -> x > 0 || Double.isNaN(x) ? x : 0),
        LEAKY_RELU((s, y, x) -> Elementwise.leakyRelu(s, y, x, SLOPE), (x, r) -> x > 0 ? x : r.f32(SLOPE * x)),
        TANH(Elementwise::tanh, (x, r) -> r.f32(Math.tanh(x))),
        SIGMOID(Elementwise::sigmoid, ElementwiseCases::sigmoid);

        private final UnaryOp op;
        private final UnaryFormula formula;

        Unary(UnaryOp op, UnaryFormula formula) {
            this.op = op;
            this.formula = formula;
        }
    }

    /// `y = f(a, b)`; the names of the operands are those of the ABI.
    public enum Binary {
        ADD("a", "b", Elementwise::add, (a, b, r) -> r.f32(a + b)),
        MUL("a", "b", Elementwise::mul, (a, b, r) -> r.f32(a * b)),
        SWIGLU("gate", "up", Elementwise::swiglu, (a, b, r) -> r.f32(silu(a, r) * b)),
        GEGLU("gate", "up", Elementwise::geglu, (a, b, r) -> r.f32(geluErf(a, r) * b)),
        GEGLU_TANH("gate", "up", Elementwise::gegluTanh, (a, b, r) -> r.f32(geluTanh(a, r) * b));

        private final String first;
        private final String second;
        private final BinaryOp op;
        private final BinaryFormula formula;

        Binary(String first, String second, BinaryOp op, BinaryFormula formula) {
            this.first = first;
            this.second = second;
            this.op = op;
            this.formula = formula;
        }
    }

    /// `y = f(a, b, c)`; the names of the operands are those of the ABI.
    public enum Ternary {
        MODULATE("x", "scale", "shift", Elementwise::modulate, (x, scale, shift, r) -> r.f32(
                r.f32(x * r.f32(1 + scale)) + shift)),
        ADD_GATED("x", "gate", "h", Elementwise::addGated, (x, gate, h, r) -> r.f32(x + r.f32(gate * h))),
        GAUSSIAN("mean", "logvar", "eps", Elementwise::gaussian, (mean, logvar, eps, r) -> r.f32(
                mean + r.f32(r.f32(Math.exp(r.f32(0.5 * Math.clamp(logvar, -30, 20)))) * eps)));

        private final List<String> inputs;
        private final TernaryOp op;
        private final TernaryFormula formula;

        /// The names of the inputs.
        public List<String> inputs() {
            return inputs;
        }

        Ternary(String first, String second, String third, TernaryOp op, TernaryFormula formula) {
            this.inputs = List.of(first, second, third);
            this.op = op;
            this.formula = formula;
        }
    }

    private interface UnaryOp {
        void run(Stream stream, Tensor y, Tensor x);
    }

    private interface UnaryFormula {
        double of(double x, Rounding round);
    }

    private interface BinaryOp {
        void run(Stream stream, Tensor y, Tensor a, Tensor b);
    }

    private interface BinaryFormula {
        double of(double a, double b, Rounding round);
    }

    private interface TernaryOp {
        void run(Stream stream, Tensor y, Tensor a, Tensor b, Tensor c);
    }

    private interface TernaryFormula {
        double of(double a, double b, double c, Rounding round);
    }

    public static OpCase unary(Unary f, DType dtype, int... shape) {
        return OpCase.of(f.name().toLowerCase(Locale.ROOT), dtype, "%s", Arrays.toString(shape))
                .out("y", dtype, ANY, shape)
                .in("x", dtype, ANY, Fill.normal(DEVIATION), shape)
                .aliasing("y", "x")
                .build((s, t) -> f.op.run(s, t.get("y"), t.get("x")), (in, out, round) -> {
                    float[] x = in.floats("x");
                    double[] y = out.get("y");
                    for (int i = 0; i < x.length; i++) {
                        y[i] = round.store(dtype, f.formula.of(x[i], round));
                    }
                });
    }

    public static OpCase binary(Binary f, DType dtype, int... shape) {
        return OpCase.of(f.name().toLowerCase(Locale.ROOT), dtype, "%s", Arrays.toString(shape))
                .out("y", dtype, ANY, shape)
                .in(f.first, dtype, ANY, Fill.normal(DEVIATION), shape)
                .in(f.second, dtype, ANY, Fill.normal(DEVIATION), shape)
                .aliasing("y", f.first)
                .aliasing("y", f.second)
                .build((s, t) -> f.op.run(s, t.get("y"), t.get(f.first), t.get(f.second)), (in, out, round) -> {
                    float[] a = in.floats(f.first);
                    float[] b = in.floats(f.second);
                    double[] y = out.get("y");
                    for (int i = 0; i < a.length; i++) {
                        y[i] = round.store(dtype, f.formula.of(a[i], b[i], round));
                    }
                });
    }

    public static OpCase ternary(Ternary f, DType dtype, int... shape) {
        OpCaseBuilder builder = OpCase.of(f.name().toLowerCase(Locale.ROOT), dtype, "%s", Arrays.toString(shape))
                .out("y", dtype, ANY, shape);
        f.inputs.forEach(name -> builder.in(name, dtype, ANY, Fill.normal(DEVIATION), shape).aliasing("y", name));
        return builder.build((s, t) -> f.op.run(s, t.get("y"), t.get(f.inputs.get(0)), t.get(f.inputs.get(1)),
                t.get(f.inputs.get(2))), (in, out, round) -> {
                    float[] a = in.floats(f.inputs.get(0));
                    float[] b = in.floats(f.inputs.get(1));
                    float[] c = in.floats(f.inputs.get(2));
                    double[] y = out.get("y");
                    for (int i = 0; i < a.length; i++) {
                        y[i] = round.store(dtype, f.formula.of(a[i], b[i], c[i], round));
                    }
                });
    }

    /// Floats of one dtype to another.
    public static OpCase cast(DType from, DType to, int... shape) {
        return OpCase.of("cast", from, "to %s %s", to, Arrays.toString(shape))
                .out("y", to, ANY, shape)
                .in("x", from, ANY, Fill.normal(DEVIATION).withSpecials(), shape)
                .accuracy(Accuracy.EXACT)
                .build((s, t) -> Elementwise.cast(s, t.get("y"), t.get("x")),
                        (in, out, round) -> copyElements(in.array("x"), out.get("y")));
    }

    public static OpCase fill(DType dtype, double value, int... shape) {
        return OpCase.of("fill", dtype, "%s %s", value, Arrays.toString(shape))
                .out("y", dtype, ANY, shape)
                .accuracy(Accuracy.EXACT)
                .build((s, t) -> Elementwise.fill(s, t.get("y"), value),
                        (in, out, round) -> Arrays.fill(out.get("y"), dtype.isFloat() ? value : (long) value));
    }

    public static OpCase copy(DType dtype, int... shape) {
        Fill fill = dtype.isFloat() ? Fill.normal(DEVIATION).withSpecials() : Fill.integers(0, 200);
        return OpCase.of("copy", dtype, "%s", Arrays.toString(shape))
                .out("y", dtype, ANY, shape)
                .in("x", dtype, ANY, fill, shape)
                .accuracy(Accuracy.EXACT)
                .build((s, t) -> Elementwise.copy(s, t.get("y"), t.get("x")),
                        (in, out, round) -> copyElements(in.array("x"), out.get("y")));
    }

    public static OpCase countNonfinite(DType dtype, int... shape) {
        return OpCase.of("count_nonfinite", dtype, "%s", Arrays.toString(shape))
                .out("count", DType.I64, CONTIGUOUS, 1)
                .in("x", dtype, ANY, Fill.normal(DEVIATION).withSpecials(), shape)
                .build((s, t) -> Elementwise.countNonfinite(s, t.get("count"), t.get("x")), (in, out, round) -> {
                    int count = 0;
                    for (float x : in.floats("x")) {
                        count += Float.isFinite(x) ? 0 : 1;
                    }
                    out.get("count")[0] = count;
                });
    }

    private static void copyElements(HostArray x, double[] y) {
        for (int i = 0; i < y.length; i++) {
            y[i] = x.at(i);
        }
    }

    private static double sigmoid(double x, Rounding r) {
        return r.f32(1 / r.f32(1 + r.f32(Math.exp(-x))));
    }

    private static double silu(double x, Rounding r) {
        return r.f32(x * sigmoid(x, r));
    }

    private static double geluErf(double x, Rounding r) {
        return r.f32(r.f32(x * r.f32(1 + r.f32(Erf.erf(r.f32(x * r.f32(Math.sqrt(0.5))))))) * 0.5);
    }

    static double geluTanh(double x, Rounding r) {
        double cube = r.f32(r.f32(x * x) * x);
        double inner = r.f32(r.f32(Math.sqrt(2 / Math.PI)) * r.f32(x + r.f32(0.044715 * cube)));
        return r.f32(r.f32(x * r.f32(1 + r.f32(Math.tanh(inner)))) * 0.5);
    }
}
