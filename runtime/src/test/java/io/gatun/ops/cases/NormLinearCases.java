package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;
import static java.util.stream.Collectors.joining;

import io.gatun.ops.Elementwise;
import io.gatun.ops.Fp8;
import io.gatun.ops.Linear;
import io.gatun.ops.Linear.InputNorm;
import io.gatun.ops.Linear.InputNormKind;
import io.gatun.ops.Linear.MlpActivation;
import io.gatun.ops.Linear.Product;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Norm;
import io.gatun.runtime.DType;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.Map;
import java.util.stream.IntStream;

/// Cases of [Linear#normLinear] and its kin, each also as the ops one by one.
public final class NormLinearCases {
    private static final float EPS = 1e-5f;

    private NormLinearCases() {}

    /// How many weights there are, and what becomes of their products.
    public enum Form { ONE, GATED, QKV }

    /// A case's choices. Everything that may be left out is there where `isFull`.
    public record Choice(InputNormKind norm, Form form, WeightLayout layout, MlpActivation activation, DType yType,
            boolean isFull, boolean isF8) {
        public Choice(InputNormKind norm, Form form, WeightLayout layout, MlpActivation activation, DType yType,
                boolean isFull) {
            this(norm, form, layout, activation, yType, isFull, false);
        }

        /// The same with weights f8_e4m3 [F, C].
        public Choice f8() {
            return new Choice(norm, form, WeightLayout.OUT_IN, activation, yType, isFull, true);
        }

        /// The same with results of another dtype.
        public Choice to(DType type) {
            return new Choice(norm, form, layout, activation, type, isFull, isF8);
        }

        boolean hasNorm() {
            return norm != InputNormKind.NONE;
        }

        int outputs() {
            return form == Form.QKV ? 3 : 1;
        }

        int weights() {
            return form == Form.ONE ? 1 : form == Form.GATED ? 2 : 3;
        }

        @Override
        public String toString() {
            return "norm %s %s %s %s to %s%s%s".formatted(norm, form, layout, activation, yType, isFull ? "" : " bare",
                    isF8 ? " f8" : "");
        }
    }

    /// In one launch; queries, keys and values have `f`, `f` + 1 and `f` + 2 columns.
    public static OpCase fused(DType dtype, Choice choice, int n, int c, int f) {
        return build(dtype, choice, n, c, columns(choice, f), NormLinearCases::runFused);
    }

    /// Queries of `f` columns, keys and values of `kv`, in one launch.
    public static OpCase fusedQkv(DType dtype, Choice choice, int n, int c, int f, int kv) {
        return build(dtype, choice, n, c, new int[] {f, kv, kv}, NormLinearCases::runFused);
    }

    /// As norm, products, activation, multiplication.
    public static OpCase oneByOne(DType dtype, Choice choice, int n, int c, int f) {
        return build(dtype, choice, n, c, columns(choice, f), NormLinearCases::runOneByOne);
    }

    private interface Run {
        void run(Stream stream, Choice choice, Map<String, Tensor> t);
    }

    /// Of each weight; no two of queries, keys and values are alike, so that none is taken for another.
    private static int[] columns(Choice choice, int f) {
        return IntStream.range(0, choice.weights()).map(i -> choice.form == Form.QKV ? f + i : f).toArray();
    }

    private static OpCase build(DType dtype, Choice choice, int n, int c, int[] columns, Run run) {
        String op = choice.form == Form.QKV ? "norm_linear_qkv" : "norm_linear";
        String f = IntStream.of(columns).limit(choice.outputs()).mapToObj(Integer::toString).collect(joining("+"));
        OpCaseBuilder b = OpCase.of(op, dtype, "N=%d C=%d F=%s %s", n, c, f, choice).accuracy(Accuracy.NARROW_PRODUCT);
        for (int i = 0; i < choice.outputs(); i++) {
            b.out(y(choice, i), choice.yType, ROWS, n, columns[i]);
        }
        boolean full = choice.isFull && choice.hasNorm();
        if (full) {
            b.out("residual_out", dtype, ROWS, n, c).in("residual", dtype, ROWS, Fill.normal(1), n, c)
                    .in("norm_weight", DType.F32, CONTIGUOUS, Fill.uniform(0.5, 1.5), c);
        }
        b.in("x", dtype, ROWS, Fill.normal(1), n, c);
        if (full && choice.norm == InputNormKind.LAYER) {
            b.in("norm_bias", dtype, CONTIGUOUS, Fill.normal(0.5), c);
        }
        for (int i = 0; i < choice.weights(); i++) {
            boolean outIn = choice.layout == WeightLayout.OUT_IN;
            double deviation = 1 / Math.sqrt(Math.max(1, c));
            b.in(weight(choice, i), choice.isF8 ? DType.F8_E4M3 : dtype, ROWS,
                    Fill.normal(choice.isF8 ? 100 : deviation), outIn ? columns[i] : c, outIn ? c : columns[i]);
            if (choice.isF8) {
                b.in(scale(choice, i), DType.F32, CONTIGUOUS, Fill.uniform(deviation / 200, deviation / 50),
                        columns[i]);
            }
            if (choice.isFull) {
                DType biasType = choice.isF8 ? choice.yType : dtype;
                b.in(bias(choice, i), i == 1 ? DType.F32 : biasType, CONTIGUOUS, Fill.normal(1), columns[i]);
            }
        }
        return b.flops(2L * n * c * Arrays.stream(columns).sum())
                .build((s, t) -> run.run(s, choice, t), (in, out, round) -> {
                    for (int i = 0; i < n; i++) {
                        row(choice, dtype, in, out, round, i, c, columns);
                    }
                });
    }

    private static String y(Choice choice, int i) {
        return choice.form == Form.QKV ? "qkv".substring(i, i + 1) : "y";
    }

    private static String weight(Choice choice, int i) {
        return choice.form == Form.QKV ? y(choice, i) + "_weight" : i == 0 ? "weight" : "up";
    }

    private static String scale(Choice choice, int i) {
        return choice.form == Form.QKV ? y(choice, i) + "_scale" : i == 0 ? "weight_scale" : "up_scale";
    }

    private static String bias(Choice choice, int i) {
        return choice.form == Form.QKV ? y(choice, i) + "_bias" : i == 0 ? "bias" : "up_bias";
    }

    private static Product product(Choice choice, Map<String, Tensor> t, int i) {
        return new Product(t.get(y(choice, i)), t.get(weight(choice, i)), t.get(scale(choice, i)),
                t.get(bias(choice, i)));
    }

    private static void runFused(Stream s, Choice choice, Map<String, Tensor> t) {
        InputNorm norm = new InputNorm(choice.norm, t.get("residual"), t.get("residual_out"), t.get("norm_weight"),
                t.get("norm_bias"), EPS);
        Tensor x = t.get("x");
        switch (choice.form) {
            case ONE -> Linear.normLinear(s, x, norm, product(choice, t, 0), choice.layout, choice.activation);
            case GATED -> Linear.normLinearGated(s, x, norm, product(choice, t, 0), t.get("up"), t.get("up_scale"),
                    t.get("up_bias"), choice.layout, choice.activation);
            case QKV -> Linear.normLinearQkv(s, x, norm, product(choice, t, 0), product(choice, t, 1),
                    product(choice, t, 2), choice.layout);
        }
    }

    private static void runOneByOne(Stream s, Choice choice, Map<String, Tensor> t) {
        Tensor x = t.get("x");
        try (var arena = s.device().newArena("one by one")) {
            Tensor n = choice.hasNorm() ? arena.allocate(x.dtype(), x.shape()) : x;
            switch (choice.norm) {
                case NONE -> { }
                case LAYER -> Norm.layerNorm(s, n, t.get("residual_out"), null, null, x, t.get("residual"),
                        t.get("norm_weight"), t.get("norm_bias"), EPS);
                case RMS -> Norm.rmsNorm(s, n, t.get("residual_out"), null, x, t.get("residual"),
                        t.get("norm_weight"), EPS);
            }
            for (int i = 0; i < choice.outputs(); i++) {
                Tensor y = t.get(y(choice, i));
                multiply(s, choice, t, y, n, i);
                if (choice.form == Form.GATED) {
                    Tensor up = arena.allocate(y.dtype(), y.shape());
                    multiply(s, choice, t, up, n, 1);
                    gate(s, y, up, choice.activation);
                } else {
                    activate(s, y, choice.activation);
                }
            }
            s.synchronize();
        }
    }

    private static void multiply(Stream s, Choice choice, Map<String, Tensor> t, Tensor y, Tensor n, int i) {
        Tensor w = t.get(weight(choice, i));
        Tensor bias = t.get(bias(choice, i));
        if (choice.isF8) {
            Fp8.linear(s, y, n, null, w, t.get(scale(choice, i)), bias);
        } else {
            Linear.linear(s, y, n, w, bias, choice.layout);
        }
    }

    private static void gate(Stream s, Tensor y, Tensor up, MlpActivation activation) {
        switch (activation) {
            case NONE -> Elementwise.mul(s, y, y, up);
            case GELU_ERF -> Elementwise.geglu(s, y, y, up);
            case GELU_TANH -> Elementwise.gegluTanh(s, y, y, up);
            case SILU -> Elementwise.swiglu(s, y, y, up);
            default -> throw new IllegalArgumentException("no op for a gate by " + activation);
        }
    }

    private static void activate(Stream s, Tensor y, MlpActivation activation) {
        switch (activation) {
            case NONE -> { }
            case GELU_ERF -> Elementwise.geluErf(s, y, y);
            case GELU_TANH -> Elementwise.geluTanh(s, y, y);
            case QUICK_GELU -> Elementwise.quickGelu(s, y, y);
            case SILU -> Elementwise.silu(s, y, y);
            case RELU -> Elementwise.relu(s, y, y);
        }
    }

    private static void row(Choice choice, DType dtype, HostValues in, Map<String, double[]> out, Rounding round, int i,
            int c, int[] columns) {
        double[] n = new double[c];
        for (int k = 0; k < c; k++) {
            n[k] = in.floats("x")[i * c + k];
            if (in.has("residual")) {
                n[k] = round.store(dtype, round.f32(n[k] + in.floats("residual")[i * c + k]));
                out.get("residual_out")[i * c + k] = n[k];
            }
        }
        if (choice.hasNorm()) {
            normalise(choice, dtype, in, round, n);
        }
        for (int j = 0; j < choice.outputs(); j++) {
            int f = columns[j];
            for (int k = 0; k < f; k++) {
                double product = round.store(choice.yType, dot(choice, in, round, n, j, k, f));
                double v = activated(product, choice, round);
                if (choice.form == Form.GATED) {
                    double up = round.store(choice.yType, dot(choice, in, round, n, 1, k, f));
                    v = round.f32(v * up);
                }
                out.get(y(choice, j))[i * f + k] = round.store(choice.yType, v);
            }
        }
    }

    private static void normalise(Choice choice, DType dtype, HostValues in, Rounding round, double[] n) {
        boolean layer = choice.norm == InputNormKind.LAYER;
        double mean = 0;
        for (double v : n) {
            mean = round.f32(mean + v);
        }
        mean = layer ? round.f32(mean / n.length) : 0;
        double squares = 0;
        for (double v : n) {
            double d = round.f32(v - mean);
            squares = round.f32(squares + round.f32(d * d));
        }
        double rstd = round.f32(1 / round.f32(Math.sqrt(round.f32(round.f32(squares / n.length) + EPS))));
        for (int k = 0; k < n.length; k++) {
            double v = round.f32(round.f32(n[k] - mean) * rstd);
            v = layer ? v : round.store(dtype, v);
            v = in.has("norm_weight") ? round.f32(v * in.floats("norm_weight")[k]) : v;
            v = in.has("norm_bias") ? round.f32(v + in.floats("norm_bias")[k]) : v;
            n[k] = round.store(dtype, v);
        }
    }

    private static double dot(Choice choice, HostValues in, Rounding round, double[] n, int which, int column,
            int columns) {
        float[] w = in.floats(weight(choice, which));
        double sum = 0;
        for (int k = 0; k < n.length; k++) {
            double weight = choice.layout == WeightLayout.OUT_IN ? w[column * n.length + k] : w[k * columns + column];
            sum = round.f32(sum + round.f32(n[k] * weight));
        }
        if (choice.isF8) {
            sum = round.f32(sum * in.floats(scale(choice, which))[column]);
        }
        return choice.isFull ? round.f32(sum + in.floats(bias(choice, which))[column]) : sum;
    }

    /// Those of the cases that are compared with a reference; the others are compared with the ops one by one.
    private static double activated(double x, Choice choice, Rounding round) {
        return switch (choice.activation) {
            case SILU -> round.f32(x / round.f32(1 + round.f32(Math.exp(-x))));
            case RELU -> x < 0 ? 0 : x;
            case GELU_TANH -> ElementwiseCases.geluTanh(x, round);
            case NONE -> x;
            default -> throw new IllegalArgumentException("no reference for " + choice.activation);
        };
    }
}
