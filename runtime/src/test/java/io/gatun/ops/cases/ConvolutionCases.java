package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.runtime.DType;
import org.jspecify.annotations.Nullable;

/// Cases of [Convolution] and of the device's choice between it and a vendor's library.
public final class ConvolutionCases {
    private ConvolutionCases() {}

    /// Images [B, H, W, C] to F channels through kernels of kh x kw.
    public record Sizes(int b, int h, int w, int c, int f, int kh, int kw) {
        /// A square kernel.
        public static Sizes of(int b, int h, int w, int c, int f, int kernel) {
            return new Sizes(b, h, w, c, f, kernel, kernel);
        }

        @Override
        public String toString() {
            return "B=%d %dx%d C=%d F=%d kernel=%dx%d".formatted(b, h, w, c, f, kh, kw);
        }
    }

    /// Who computes; the device as in inference or as in training.
    public enum Via { OWN_KERNEL, DEVICE, TRAINING }

    /// @param bias x's dtype or f32; null: none
    public static OpCase conv2d(DType dtype, @Nullable DType bias, Sizes s, Geometry g, ActivationKind activation,
            Via via) {
        int outH = (int) g.outputHeight(s.h, s.kh);
        int outW = (int) g.outputWidth(s.w, s.kw);
        int inputs = s.c / g.groups();
        int outputs = s.f / g.groups();
        int[] weightShape = {s.f, s.kh, s.kw, inputs};
        return operands("conv2d", dtype, bias, s, named(g) + " " + activation + " " + via, outH, outW, weightShape)
                .flops(2L * s.b * outH * outW * s.f * s.kh * s.kw * inputs)
                .build((stream, t) -> {
                    switch (via) {
                        case DEVICE -> stream.device().convolution(stream, t.get("y"), t.get("x"),
                                t.get("weight").frozen(), t.get("bias"), g, activation);
                        case TRAINING -> stream.device().trainingConvolution(stream, t.get("y"), t.get("x"),
                                t.get("weight"), t.get("bias"), g, activation);
                        case OWN_KERNEL -> Convolution.conv2d(stream, t.get("y"), t.get("x"), t.get("weight"),
                                t.get("bias"), g, activation);
                    }
                }, (in, out, round) -> {
                    float[] x = in.floats("x");
                    float[] w = in.floats("weight");
                    for (int at = 0; at < s.b * outH * outW * s.f; at++) {
                        int f = at % s.f;
                        int j = at / s.f % outW;
                        int i = at / s.f / outW % outH;
                        int b = at / s.f / outW / outH;
                        double sum = 0;
                        for (int u = 0; u < s.kh; u++) {
                            for (int v = 0; v < s.kw; v++) {
                                int row = i * g.strideH() - g.padTop() + u * g.dilationH();
                                int column = j * g.strideW() - g.padLeft() + v * g.dilationW();
                                if (row >= 0 && row < s.h && column >= 0 && column < s.w) {
                                    for (int c = 0; c < inputs; c++) {
                                        float xv = x[((b * s.h + row) * s.w + column) * s.c + f / outputs * inputs + c];
                                        float wv = w[((f * s.kh + u) * s.kw + v) * inputs + c];
                                        sum = round.f32(sum + round.f32((double) xv * wv));
                                    }
                                }
                            }
                        }
                        out.get("y")[at] = finish(in, round, dtype, f, sum, activation, via);
                    }
                });
    }

    /// @param bias x's dtype or f32; null: none
    public static OpCase convTranspose2d(DType dtype, @Nullable DType bias, Sizes s, Transposed g,
            ActivationKind activation, Via via) {
        int outH = (int) g.outputHeight(s.h, s.kh);
        int outW = (int) g.outputWidth(s.w, s.kw);
        int inputs = s.c / g.groups();
        int outputs = s.f / g.groups();
        int[] weightShape = {s.c, s.kh, s.kw, outputs};
        return operands("conv_transpose2d", dtype, bias, s, named(g) + " " + activation + " " + via, outH, outW,
                weightShape).flops(2L * s.b * s.h * s.w * s.c * s.kh * s.kw * outputs)
                .build((stream, t) -> {
                    switch (via) {
                        case DEVICE -> stream.device().transposedConvolution(stream, t.get("y"), t.get("x"),
                                t.get("weight").frozen(), t.get("bias"), g, activation);
                        case TRAINING -> stream.device().trainingTransposedConvolution(stream, t.get("y"), t.get("x"),
                                t.get("weight"), t.get("bias"), g, activation);
                        case OWN_KERNEL -> Convolution.convTranspose2d(stream, t.get("y"), t.get("x"),
                                t.get("weight"), t.get("bias"), g, activation);
                    }
                }, (in, out, round) -> {
                    double[] sums = new double[s.b * outH * outW * s.f];
                    for (int u = 0; u < s.kh; u++) {
                        for (int v = 0; v < s.kw; v++) {
                            scatter(in, round, s, g, u, v, sums);
                        }
                    }
                    for (int at = 0; at < sums.length; at++) {
                        out.get("y")[at] = finish(in, round, dtype, at % s.f, sums[at], activation, via);
                    }
                });
    }

    static String named(Geometry g) {
        return "stride=%dx%d pads=%d,%d,%d,%d dilation=%dx%d groups=%d".formatted(g.strideH(), g.strideW(),
                g.padTop(), g.padLeft(), g.padBottom(), g.padRight(), g.dilationH(), g.dilationW(), g.groups());
    }

    static String named(Transposed g) {
        return "stride=%dx%d pads=%d,%d outputPads=%d,%d dilation=%dx%d groups=%d".formatted(g.strideH(), g.strideW(),
                g.padH(), g.padW(), g.outputPadH(), g.outputPadW(), g.dilationH(), g.dilationW(), g.groups());
    }

    /// What all inputs add through tap (u, v).
    private static void scatter(HostValues in, Rounding round, Sizes s, Transposed g, int u, int v, double[] sums) {
        float[] x = in.floats("x");
        float[] w = in.floats("weight");
        int outH = (int) g.outputHeight(s.h, s.kh);
        int outW = (int) g.outputWidth(s.w, s.kw);
        int inputs = s.c / g.groups();
        int outputs = s.f / g.groups();
        for (int pixel = 0; pixel < s.b * s.h * s.w; pixel++) {
            int row = pixel / s.w % s.h * g.strideH() - g.padH() + u * g.dilationH();
            int column = pixel % s.w * g.strideW() - g.padW() + v * g.dilationW();
            if (row < 0 || row >= outH || column < 0 || column >= outW) {
                continue;
            }
            int to = ((pixel / s.w / s.h * outH + row) * outW + column) * s.f;
            for (int c = 0; c < s.c; c++) {
                for (int f = 0; f < outputs; f++) {
                    float wv = w[((c * s.kh + u) * s.kw + v) * outputs + f];
                    int at = to + c / inputs * outputs + f;
                    sums[at] = round.f32(sums[at] + round.f32((double) x[pixel * s.c + c] * wv));
                }
            }
        }
    }

    private static OpCaseBuilder operands(String op, DType dtype, @Nullable DType bias, Sizes s, String options,
            int outH, int outW, int[] weightShape) {
        double terms = Math.max(1, (double) s.c * s.kh * s.kw);
        OpCaseBuilder b = OpCase.of(op, dtype, "%s bias %s %s", s, bias, options)
                .accuracy(Accuracy.PRODUCT)
                .out("y", dtype, ANY, s.b, outH, outW, s.f)
                .in("x", dtype, ANY, Fill.normal(1), s.b, s.h, s.w, s.c)
                .in("weight", dtype, ANY, Fill.normal(1 / Math.sqrt(terms)), weightShape);
        return bias == null ? b : b.in("bias", bias, CONTIGUOUS, Fill.normal(1), s.f);
    }

    /// A device may add bias and apply the activation in passes of their own, which round in between.
    private static double finish(HostValues in, Rounding round, DType dtype, int f, double sum,
            ActivationKind activation, Via via) {
        boolean rounds = via != Via.OWN_KERNEL;
        double product = rounds ? round.store(dtype, sum) : sum;
        double biased = in.has("bias") ? round.f32(product + in.floats("bias")[f]) : product;
        double v = rounds ? round.store(dtype, biased) : biased;
        double y = switch (activation) {
            case NONE -> v;
            case SILU -> round.f32(v / round.f32(1 + round.f32(Math.exp(-v))));
            case RELU -> v < 0 ? 0 : v;
            case TANH -> round.f32(Math.tanh(v));
        };
        return round.store(dtype, y);
    }
}
