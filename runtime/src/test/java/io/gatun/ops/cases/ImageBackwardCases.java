package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;

import io.gatun.ops.Image;
import io.gatun.runtime.DType;

/// Cases of max pooling and of the gradients of upsampling and pooling in [Image].
public final class ImageBackwardCases {
    /// Few values, so that many pixels of a window are equal.
    private static final Fill EQUAL_ONES = (random, i) -> random.nextInt(-2, 3) * 0.5;

    private ImageBackwardCases() {}

    /// Maxima of size x size pixels of [B, H, W, C].
    public static OpCase maxPool(DType dtype, int b, int h, int w, int c, int size, int stride, int pad) {
        int newH = outputs(h, size, stride, pad);
        int newW = outputs(w, size, stride, pad);
        return OpCase.of("max_pool", dtype, "B=%d H=%d W=%d C=%d size=%d stride=%d pad=%d", b, h, w, c, size, stride,
                pad)
                .out("y", dtype, ANY, b, newH, newW, c)
                .in("x", dtype, ANY, Fill.normal(1), b, h, w, c)
                .accuracy(Accuracy.EXACT)
                .build((s, t) -> Image.maxPool(s, t.get("y"), t.get("x"), size, stride, pad), (in, out, round) -> {
                    double[] y = out.get("y");
                    for (int i = 0; i < y.length; i++) {
                        y[i] = in.floats("x")[largest(in.floats("x"), i, h, w, c, newH, newW, size, stride, pad)];
                    }
                });
    }

    private static int outputs(int in, int size, int stride, int pad) {
        return in + 2 * pad < size ? 0 : (in + 2 * pad - size) / stride + 1;
    }

    /// Where the maximum of y's element lies: the first of equal ones, a NaN before all numbers.
    private static int largest(float[] x, int element, int h, int w, int c, int newH, int newW, int size, int stride,
            int pad) {
        int top = element / c / newW % newH * stride - pad;
        int left = element / c % newW * stride - pad;
        int found = -1;
        for (int k = 0; k < size * size; k++) {
            int row = top + k / size;
            int column = left + k % size;
            if (row >= 0 && row < h && column >= 0 && column < w) {
                int at = ((element / c / newW / newH * h + row) * w + column) * c + element % c;
                if (found < 0 || x[at] > x[found] || Float.isNaN(x[at])) {
                    found = at;
                }
            }
        }
        return found;
    }

    /// The gradient of [#maxPool].
    public static OpCase maxPoolBackward(DType dtype, int b, int h, int w, int c, int size, int stride, int pad) {
        int newH = outputs(h, size, stride, pad);
        int newW = outputs(w, size, stride, pad);
        return OpCase.of("max_pool_backward", dtype, "B=%d H=%d W=%d C=%d size=%d stride=%d pad=%d", b, h, w, c, size,
                stride, pad)
                .out("dx", dtype, ANY, b, h, w, c)
                .in("dy", dtype, ANY, Fill.normal(1), b, newH, newW, c)
                .in("x", dtype, ANY, EQUAL_ONES, b, h, w, c)
                .build((s, t) -> Image.maxPoolBackward(s, t.get("dx"), t.get("dy"), t.get("x"), size, stride, pad),
                        (in, out, round) -> {
                            double[] sums = new double[b * h * w * c];
                            for (int i = 0; i < b * newH * newW * c; i++) {
                                int at = largest(in.floats("x"), i, h, w, c, newH, newW, size, stride, pad);
                                sums[at] = round.f32(sums[at] + in.floats("dy")[i]);
                            }
                            store(out.get("dx"), sums, dtype, round);
                        });
    }

    /// The gradient of [B, H, W, C] shown at newH x newW.
    public static OpCase upsampleNearestBackward(DType dtype, int b, int h, int w, int c, int newH, int newW) {
        return OpCase.of("upsample_nearest_backward", dtype, "B=%d H=%d W=%d C=%d to %d x %d", b, h, w, c, newH, newW)
                .out("dx", dtype, ANY, b, h, w, c)
                .in("dy", dtype, ANY, Fill.normal(1), b, newH, newW, c)
                .build((s, t) -> Image.upsampleNearestBackward(s, t.get("dx"), t.get("dy")), (in, out, round) -> {
                    double[] sums = new double[b * h * w * c];
                    for (int i = 0; i < b * newH * newW * c; i++) {
                        int row = i / c / newW % newH * h / newH;
                        int column = i / c % newW * w / newW;
                        int at = ((i / c / newW / newH * h + row) * w + column) * c + i % c;
                        sums[at] = round.f32(sums[at] + in.floats("dy")[i]);
                    }
                    store(out.get("dx"), sums, dtype, round);
                });
    }

    /// The gradient of means of size x size pixels of [B, H, W, C].
    public static OpCase averagePoolBackward(DType dtype, int b, int h, int w, int c, int size) {
        int newH = h / size;
        int newW = w / size;
        return OpCase.of("average_pool_backward", dtype, "B=%d H=%d W=%d C=%d size=%d", b, h, w, c, size)
                .out("dx", dtype, ANY, b, h, w, c)
                .in("dy", dtype, ANY, Fill.normal(1), b, newH, newW, c)
                .build((s, t) -> Image.averagePoolBackward(s, t.get("dx"), t.get("dy"), size), (in, out, round) -> {
                    double[] dx = out.get("dx");
                    for (int i = 0; i < dx.length; i++) {
                        int row = i / c / w % h / size;
                        int column = i / c % w / size;
                        int from = ((i / c / w / h * newH + row) * newW + column) * c + i % c;
                        dx[i] = row < newH && column < newW
                                ? round.store(dtype, round.f32(in.floats("dy")[from] / (double) (size * size))) : 0;
                    }
                });
    }

    private static void store(double[] out, double[] sums, DType dtype, Rounding round) {
        for (int i = 0; i < sums.length; i++) {
            out[i] = round.store(dtype, sums[i]);
        }
    }
}
