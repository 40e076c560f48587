package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;

import io.gatun.ops.Convolution;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.cases.ConvolutionCases.Sizes;
import io.gatun.ops.cases.ConvolutionCases.Via;
import io.gatun.runtime.DType;

/// Cases of the gradients in [Convolution] and of the device's choice between them and a vendor's library.
public final class ConvolutionBackwardCases {
    private ConvolutionBackwardCases() {}

    /// One output meets one input through tap (u, v) of a kernel: which triples do is the whole of a convolution.
    private interface Meeting {
        /// Row-major indices of y [B, H', W', F], x [B, H, W, C] and weight [F, kh, kw, C/G].
        void at(int y, int x, int weight);
    }

    /// All meetings of a plain convolution, in ascending (b, i, j, f, u, v, c).
    private static void meet(Sizes s, Geometry g, int outH, int outW, Meeting meeting) {
        int inputs = s.c() / g.groups();
        int outputs = s.f() / g.groups();
        for (int y = 0; y < s.b() * outH * outW * s.f(); y++) {
            int f = y % s.f();
            int j = y / s.f() % outW;
            int i = y / s.f() / outW % outH;
            int b = y / s.f() / outW / outH;
            for (int tap = 0; tap < s.kh() * s.kw(); tap++) {
                int row = i * g.strideH() - g.padTop() + tap / s.kw() * g.dilationH();
                int column = j * g.strideW() - g.padLeft() + tap % s.kw() * g.dilationW();
                if (row >= 0 && row < s.h() && column >= 0 && column < s.w()) {
                    for (int c = 0; c < inputs; c++) {
                        meeting.at(y, ((b * s.h() + row) * s.w() + column) * s.c() + f / outputs * inputs + c,
                                (f * s.kh() * s.kw() + tap) * inputs + c);
                    }
                }
            }
        }
    }

    /// @param s of the convolution whose gradient it is
    public static OpCase inputGradient(DType dtype, Sizes s, Geometry g, Via via) {
        return plain("conv2d_backward_input", dtype, s, g, via, false, (stream, t) -> {
            if (via != Via.OWN_KERNEL) {
                stream.device().convolutionInputGradient(stream, t.get("dx"), t.get("dy"), t.get("weight"), g);
            } else {
                Convolution.conv2dBackwardInput(stream, t.get("dx"), t.get("dy"), t.get("weight"), g);
            }
        });
    }

    /// @param s of the convolution whose gradient it is
    public static OpCase weightGradient(DType dtype, Sizes s, Geometry g, Via via) {
        return plain("conv2d_backward_weight", dtype, s, g, via, true, (stream, t) -> {
            if (via != Via.OWN_KERNEL) {
                stream.device().convolutionWeightGradient(stream, t.get("dweight"), t.get("dy"), t.get("x"), g);
            } else {
                Convolution.conv2dBackwardWeight(stream, t.get("dweight"), t.get("dy"), t.get("x"), g,
                        t.get("workspace"));
            }
        });
    }

    private static OpCase plain(String op, DType dtype, Sizes s, Geometry g, Via via, boolean ofWeight,
            OpCase.Call call) {
        int outH = (int) g.outputHeight(s.h(), s.kh());
        int outW = (int) g.outputWidth(s.w(), s.kw());
        int[] y = {s.b(), outH, outW, s.f()};
        int[] x = {s.b(), s.h(), s.w(), s.c()};
        int[] weight = {s.f(), s.kh(), s.kw(), s.c() / g.groups()};
        long flops = 2L * s.b() * outH * outW * s.f() * s.kh() * s.kw() * s.c() / g.groups();
        OpCaseBuilder b = OpCase.of(op, dtype, "%s %s %s", s, ConvolutionCases.named(g), via)
                .accuracy(Accuracy.PRODUCT).flops(flops);
        if (!ofWeight) {
            return b.out("dx", dtype, ANY, x).in("dy", dtype, ANY, Fill.normal(1), y)
                    .in("weight", dtype, ANY, Fill.normal(1 / Math.sqrt(Math.max(1, s.f() * s.kh() * s.kw()))), weight)
                    .build(call, (in, out, round) -> {
                        double[] sums = new double[out.get("dx").length];
                        float[] dy = in.floats("dy");
                        float[] w = in.floats("weight");
                        meet(s, g, outH, outW, (yi, xi, wi) -> add(sums, xi, dy[yi], w[wi], round));
                        store(sums, out.get("dx"), dtype, round);
                    });
        }
        return b.out("dweight", DType.F32, ANY, weight)
                .in("dy", dtype, ANY, Fill.normal(1 / Math.sqrt(Math.max(1, s.b() * outH * outW))), y)
                .in("x", dtype, ANY, Fill.normal(1), x)
                .workspace((stream, t) -> via != Via.OWN_KERNEL ? 0
                        : Convolution.backwardWeightWorkspaceBytes(stream, t.get("dweight"), t.get("dy"), g.groups()))
                .build(call, (in, out, round) -> {
                    double[] sums = new double[out.get("dweight").length];
                    float[] dy = in.floats("dy");
                    float[] xs = in.floats("x");
                    meet(s, g, outH, outW, (yi, xi, wi) -> add(sums, wi, dy[yi], xs[xi], round));
                    store(sums, out.get("dweight"), DType.F32, round);
                });
    }

    /// @param s of the transposed convolution whose gradient it is
    public static OpCase transposedInputGradient(DType dtype, Sizes s, Transposed g, Via via) {
        return transposed("conv_transpose2d_backward_input", dtype, s, g, via, false, (stream, t) -> {
            if (via != Via.OWN_KERNEL) {
                stream.device().transposedConvolutionInputGradient(stream, t.get("dx"), t.get("dy"), t.get("weight"),
                        g);
            } else {
                Convolution.convTranspose2dBackwardInput(stream, t.get("dx"), t.get("dy"), t.get("weight"), g);
            }
        });
    }

    /// @param s of the transposed convolution whose gradient it is
    public static OpCase transposedWeightGradient(DType dtype, Sizes s, Transposed g, Via via) {
        return transposed("conv_transpose2d_backward_weight", dtype, s, g, via, true, (stream, t) -> {
            if (via != Via.OWN_KERNEL) {
                stream.device().transposedConvolutionWeightGradient(stream, t.get("dweight"), t.get("dy"), t.get("x"),
                        g);
            } else {
                Convolution.convTranspose2dBackwardWeight(stream, t.get("dweight"), t.get("dy"), t.get("x"), g,
                        t.get("workspace"));
            }
        });
    }

    /// The meetings are those of the convolution that is transposed: its y is our x, its x our y.
    private static OpCase transposed(String op, DType dtype, Sizes s, Transposed t, Via via, boolean ofWeight,
            OpCase.Call call) {
        int outH = (int) t.outputHeight(s.h(), s.kh());
        int outW = (int) t.outputWidth(s.w(), s.kw());
        Sizes plain = new Sizes(s.b(), outH, outW, s.f(), s.c(), s.kh(), s.kw());
        Geometry g = new Geometry(t.strideH(), t.strideW(), t.padH(), t.padH(), t.padW(), t.padW(), t.dilationH(),
                t.dilationW(), t.groups());
        int[] y = {s.b(), outH, outW, s.f()};
        int[] x = {s.b(), s.h(), s.w(), s.c()};
        int[] weight = {s.c(), s.kh(), s.kw(), s.f() / t.groups()};
        OpCaseBuilder b = OpCase.of(op, dtype, "%s %s %s", s, ConvolutionCases.named(t), via).accuracy(Accuracy.PRODUCT)
                .flops(2L * s.b() * s.h() * s.w() * s.c() * s.kh() * s.kw() * s.f() / t.groups());
        if (!ofWeight) {
            return b.out("dx", dtype, ANY, x).in("dy", dtype, ANY, Fill.normal(1), y)
                    .in("weight", dtype, ANY, Fill.normal(1 / Math.sqrt(Math.max(1, s.f() * s.kh() * s.kw()))), weight)
                    .build(call, (in, out, round) -> {
                        double[] sums = new double[out.get("dx").length];
                        float[] dy = in.floats("dy");
                        float[] w = in.floats("weight");
                        meet(plain, g, s.h(), s.w(), (xi, yi, wi) -> add(sums, xi, dy[yi], w[wi], round));
                        store(sums, out.get("dx"), dtype, round);
                    });
        }
        return b.out("dweight", DType.F32, ANY, weight)
                .in("dy", dtype, ANY, Fill.normal(1 / Math.sqrt(Math.max(1, s.b() * s.h() * s.w()))), y)
                .in("x", dtype, ANY, Fill.normal(1), x)
                .workspace((stream, o) -> via != Via.OWN_KERNEL ? 0
                        : Convolution.backwardWeightWorkspaceBytes(stream, o.get("dweight"), o.get("x"), t.groups()))
                .build(call, (in, out, round) -> {
                    double[] sums = new double[out.get("dweight").length];
                    float[] dy = in.floats("dy");
                    float[] xs = in.floats("x");
                    meet(plain, g, s.h(), s.w(), (xi, yi, wi) -> add(sums, wi, dy[yi], xs[xi], round));
                    store(sums, out.get("dweight"), DType.F32, round);
                });
    }

    private static void add(double[] sums, int at, double a, double b, Rounding round) {
        sums[at] = round.f32(sums[at] + round.f32(a * b));
    }

    private static void store(double[] sums, double[] out, DType dtype, Rounding round) {
        for (int i = 0; i < sums.length; i++) {
            out[i] = round.store(dtype, sums[i]);
        }
    }
}
