package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;

import io.gatun.ops.Noise;
import io.gatun.ops.Noise.BetaSchedule;
import io.gatun.runtime.DType;

/// Cases of [Noise].
public final class NoiseCases {
    private static final int STEP = 7;
    private static final int TRAINING_STEPS = 50;
    private static final Fill SEEDS = Fill.values(-5, 3, 123456789012L, 0, 77, 2);

    private NoiseCases() {}

    /// Normals of [B, H, W, C].
    public static OpCase normal(DType dtype, int b, int h, int w, int c) {
        return OpCase.of("normal", dtype, "B=%d H=%d W=%d C=%d", b, h, w, c)
                .out("y", dtype, ANY, b, h, w, c)
                .in("seeds", DType.I64, CONTIGUOUS, SEEDS, b, 2)
                .build((s, t) -> Noise.normal(s, t.get("y"), t.get("seeds"), STEP), (in, out, round) -> {
                    double[] y = out.get("y");
                    for (int i = 0; i < y.length; i++) {
                        y[i] = round.store(dtype, drawn(in, i, h, w, c, STEP, round));
                    }
                });
    }

    /// The normal of an element that lies at index i of [B, H, W, C] and is counted as [C, H, W].
    static double drawn(HostValues in, int i, int h, int w, int c, int step, Rounding round) {
        int image = i / (h * w * c);
        int pixel = i / c % (h * w);
        long element = (long) (i % c) * h * w + pixel;
        long[] seeds = in.longs("seeds");
        return Philox.normal(seeds[2 * image], (int) seeds[2 * image + 1], step, element, round);
    }

    /// Noise added to [B, H, W, C], given or drawn.
    public static OpCase addNoise(DType dtype, int b, int h, int w, int c, boolean isDrawn) {
        OpCaseBuilder builder = operands("add_noise", dtype, b, h, w, c);
        if (isDrawn) {
            builder.in("seeds", DType.I64, CONTIGUOUS, SEEDS, b, 2);
        } else {
            builder.in("noise", dtype, ANY, Fill.normal(1), b, h, w, c);
        }
        return builder.build((s, t) -> Noise.addNoise(s, t.get("y"), t.get("x"), t.get("noise"), t.get("seeds"), STEP,
                t.get("alphas_cumprod"), t.get("timesteps")), (in, out, round) -> {
                    double[] y = out.get("y");
                    for (int i = 0; i < y.length; i++) {
                        double noise = isDrawn ? drawn(in, i, h, w, c, STEP, round) : in.floats("noise")[i];
                        y[i] = mix(in, i / (h * w * c), in.floats("x")[i], noise, dtype, round);
                    }
                });
    }

    /// The velocity of [B, H, W, C].
    public static OpCase velocity(DType dtype, int b, int h, int w, int c) {
        return operands("velocity", dtype, b, h, w, c).in("noise", dtype, ANY, Fill.normal(1), b, h, w, c)
                .build((s, t) -> Noise.velocity(s, t.get("y"), t.get("x"), t.get("noise"), t.get("alphas_cumprod"),
                        t.get("timesteps")), (in, out, round) -> {
                            double[] y = out.get("y");
                            for (int i = 0; i < y.length; i++) {
                                double x = in.floats("x")[i];
                                y[i] = mix(in, i / (h * w * c), in.floats("noise")[i], -x, dtype, round);
                            }
                        });
    }

    private static OpCaseBuilder operands(String op, DType dtype, int b, int h, int w, int c) {
        return OpCase.of(op, dtype, "B=%d H=%d W=%d C=%d", b, h, w, c)
                .out("y", dtype, ANY, b, h, w, c)
                .in("x", dtype, ANY, Fill.normal(1), b, h, w, c)
                .in("alphas_cumprod", DType.F32, CONTIGUOUS, Fill.uniform(0, 1), TRAINING_STEPS)
                .in("timesteps", DType.I32, CONTIGUOUS, Fill.integers(0, TRAINING_STEPS), b)
                .aliasing("y", "x");
    }

    /// `sqrt(a) first + sqrt(1 - a) second`.
    private static double mix(HostValues in, int image, double first, double second, DType dtype, Rounding round) {
        int t = (int) in.longs("timesteps")[image];
        if (t < 0 || t >= TRAINING_STEPS) {
            return Double.NaN;
        }
        double a = in.floats("alphas_cumprod")[t];
        double signal = round.f32(round.f32(Math.sqrt(a)) * first);
        double noise = round.f32(round.f32(Math.sqrt(round.f32(1 - a))) * second);
        return round.store(dtype, signal + noise);
    }

    /// A schedule of T steps; betas are read where they are given.
    public static OpCase schedule(BetaSchedule kind, int steps, double from, double to, boolean zeroSnr) {
        return OpCase.of("noise_schedule", DType.F32, "%s T=%d zero SNR %b", kind, steps, zeroSnr)
                .inOut("betas", DType.F32, CONTIGUOUS, Fill.uniform(0.001, 0.1), steps)
                .out("alphas_cumprod", DType.F32, CONTIGUOUS, steps)
                .build((s, t) -> Noise.schedule(s, t.get("betas"), t.get("alphas_cumprod"), kind, from, to, zeroSnr),
                        (in, out, round) -> schedule(out.get("betas"), out.get("alphas_cumprod"), kind, from, to,
                                zeroSnr, round));
    }

    private static void schedule(double[] betas, double[] products, BetaSchedule kind, double from, double to,
            boolean zeroSnr, Rounding round) {
        int n = betas.length;
        for (int t = 0; t < n; t++) {
            double beta = switch (kind) {
                case LINEAR -> even(from, to, t, n, round);
                case SCALED_LINEAR -> Math.pow(even(Math.sqrt(from), Math.sqrt(to), t, n, round), 2);
                case COSINE -> Math.min(1 - cosine((t + 1.0) / n) / cosine((double) t / n), 0.999);
                case SIGMOID -> round.f32(round.f32(to - from)
                        * round.f32(1 / (1 + Math.exp(-even(-6, 6, t, n, round))))) + round.f32(from);
                case GIVEN -> betas[t];
            };
            betas[t] = (float) beta; // everything is derived from the rounded betas
        }
        multiply(products, betas, round);
        if (zeroSnr) {
            double first = round.f32(Math.sqrt(products[0]));
            double last = round.f32(Math.sqrt(products[n - 1]));
            double previous = 1;
            for (int t = 0; t < n; t++) {
                double root = round.f32(round.f32(round.f32(Math.sqrt(products[t])) - last)
                        * round.f32(first / round.f32(first - last)));
                betas[t] = round.f32(1 - round.f32(round.f32(root * root) / previous));
                previous = round.f32(root * root);
            }
            multiply(products, betas, round);
        }
    }

    private static void multiply(double[] products, double[] betas, Rounding round) {
        double product = 1;
        for (int t = 0; t < betas.length; t++) {
            product *= round.f32(1 - betas[t]);
            products[t] = round.f32(product);
        }
    }

    private static double even(double from, double to, int i, int n, Rounding round) {
        if (n == 1) {
            return round.f32(from);
        }
        double step = round.f32(round.f32(round.f32(to) - round.f32(from)) / (n - 1));
        return i < n / 2 ? round.f32(round.f32(from) + round.f32(step * i))
                : round.f32(round.f32(to) - round.f32(step * (n - 1 - i)));
    }

    private static double cosine(double x) {
        return Math.pow(Math.cos((x + 0.008) / 1.008 * Math.PI / 2), 2);
    }
}
