package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;

import io.gatun.ops.Image;
import io.gatun.ops.Image.Sinusoids;
import io.gatun.runtime.DType;

/// Cases of [Image].
public final class ImageCases {
    /// Steps of a loop that a counter picks from.
    private static final int STEPS = 5;

    private ImageCases() {}

    /// [B, H, W, C] shown at newH x newW.
    public static OpCase upsampleNearest(DType dtype, int b, int h, int w, int c, int newH, int newW) {
        return OpCase.of("upsample_nearest", dtype, "B=%d H=%d W=%d C=%d to %d x %d", b, h, w, c, newH, newW)
                .out("y", dtype, ANY, b, newH, newW, c)
                .in("x", dtype, ANY, Fill.normal(1), b, h, w, c)
                .accuracy(Accuracy.EXACT)
                .build((s, t) -> Image.upsampleNearest(s, t.get("y"), t.get("x")), (in, out, round) -> {
                    double[] y = out.get("y");
                    for (int i = 0; i < y.length; i++) {
                        int row = i / c / newW % newH * h / newH;
                        int column = i / c % newW * w / newW;
                        y[i] = in.floats("x")[((i / c / newW / newH * h + row) * w + column) * c + i % c];
                    }
                });
    }

    /// Means of size x size pixels of [B, H, W, C].
    public static OpCase averagePool(DType dtype, int b, int h, int w, int c, int size) {
        int newH = h / size;
        int newW = w / size;
        return OpCase.of("average_pool", dtype, "B=%d H=%d W=%d C=%d size=%d", b, h, w, c, size)
                .out("y", dtype, ANY, b, newH, newW, c)
                .in("x", dtype, ANY, Fill.normal(1), b, h, w, c)
                .build((s, t) -> Image.averagePool(s, t.get("y"), t.get("x"), size), (in, out, round) -> {
                    double[] y = out.get("y");
                    for (int i = 0; i < y.length; i++) {
                        int row = i / c / newW % newH * size;
                        int column = i / c % newW * size;
                        int first = ((i / c / newW / newH * h + row) * w + column) * c + i % c;
                        double sum = 0;
                        for (int k = 0; k < size * size; k++) {
                            sum = round.f32(sum + in.floats("x")[first + (k / size * w + k % size) * c]);
                        }
                        y[i] = round.store(dtype, round.f32(sum / (size * size)));
                    }
                });
    }

    /// [B, E] of B time steps, or of the one that a counter picks. Frequencies and angles are f32 by specification.
    public static OpCase timestepEmbedding(DType dtype, int b, int e, Sinusoids order, float shift,
            boolean hasCounter) {
        OpCaseBuilder builder = OpCase.of("timestep_embedding", dtype, "B=%d E=%d %s shift=%s%s", b, e, order, shift,
                hasCounter ? " counter" : "")
                .out("y", dtype, ANY, b, e)
                .in("timesteps", DType.F32, CONTIGUOUS, Fill.uniform(0, 1000), hasCounter ? STEPS : b);
        if (hasCounter) {
            builder.in("counter", DType.I32, CONTIGUOUS, Fill.constant(STEPS - 2), 1);
        }
        return builder.build((s, t) -> Image.timestepEmbedding(s, t.get("y"), t.get("timesteps"), t.get("counter"),
                order, shift), (in, out, round) -> {
                    int half = e / 2;
                    for (int i = 0; i < b * e; i++) {
                        int column = i % e;
                        float t = timestep(in, i / e, hasCounter);
                        float exponent = (float) -Math.log(10000) * (column % half) / (half - shift);
                        float angle = t * (float) Math.exp(exponent);
                        boolean isSine = column < half == (order == Sinusoids.SIN_COS);
                        double y = column == 2 * half ? 0 * t : isSine ? Math.sin(angle) : Math.cos(angle);
                        out.get("y")[i] = round.store(dtype, round.f32(y));
                    }
                });
    }

    /// Pixels of [B, H, W, C], C 1 or 3.
    public static OpCase rgb8(DType dtype, int b, int h, int w, int c, float scale, float offset) {
        return OpCase.of("rgb8", dtype, "B=%d H=%d W=%d C=%d scale=%s offset=%s", b, h, w, c, scale, offset)
                .out("y", DType.U8, CONTIGUOUS, b, h, w, 3)
                .in("x", dtype, ANY, Fill.normal(1).withSpecials(), b, h, w, c)
                .build((s, t) -> Image.rgb8(s, t.get("y"), t.get("x"), scale, offset), (in, out, round) -> {
                    for (int i = 0; i < b * h * w * 3; i++) {
                        float v = Math.fma(in.floats("x")[i / 3 * c + (c == 1 ? 0 : i % 3)], scale, offset);
                        out.get("y")[i] = v > 0 ? Math.rint(255f * Math.min(v, 1)) : 0;
                    }
                });
    }

    private static float timestep(HostValues in, int b, boolean hasCounter) {
        if (!hasCounter) {
            return in.floats("timesteps")[b];
        }
        long step = in.longs("counter")[0];
        return step < 0 || step >= STEPS ? Float.NaN : in.floats("timesteps")[(int) step];
    }
}
