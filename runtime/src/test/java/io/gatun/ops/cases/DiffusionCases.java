package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;

import io.gatun.ops.Diffusion;
import io.gatun.ops.Diffusion.Field;
import io.gatun.ops.Diffusion.LearnedVariance;
import io.gatun.runtime.DType;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;

/// Cases of [Diffusion].
public final class DiffusionCases {
    private static final int CALLS = 3;
    private static final int NOISE_SOURCE = 3;
    private static final int STATE_SOURCE = 4;
    private static final double GUIDANCE = 7.5;
    private static final double RESCALE = 0.7;
    private static final double DENOISED_X = 1.25;
    private static final double DENOISED_OUTPUT = -0.75;
    private static final double MIN_LOG = -4;
    private static final double MAX_LOG = -1;

    private DiffusionCases() {}

    /// What a step has beside the plainest one.
    public enum Part {
        GUIDANCE, DRAWN_NOISE, GIVEN_NOISE, VARIANCE_VALUE, VARIANCE_RANGE, STATISTICS, MASK, CLIP, INPUT
    }

    /// One call of a step of [B, H, W, C] with K slots.
    ///
    /// @param dtype of output, variance and input
    public static OpCase step(DType dtype, int b, int h, int w, int c, int slots, int call, Set<Part> parts) {
        int outputs = parts.contains(Part.GUIDANCE) ? 2 * b : b;
        OpCaseBuilder builder = OpCase.of("diffusion_step", dtype, "B=%d H=%d W=%d C=%d K=%d call %d %s", b, h, w, c,
                slots, call, parts)
                .inOut("sample", DType.F32, ANY, Fill.normal(1), b, h, w, c)
                .inOut("counter", DType.I32, CONTIGUOUS, Fill.values(call, 0), 2)
                .in("output", dtype, ANY, Fill.normal(1), outputs, h, w, c)
                .in("table", DType.F32, CONTIGUOUS, Fill.values(table(slots, parts)), CALLS, Diffusion.FIELDS);
        if (slots > 0) {
            builder.inOut("state", DType.F32, ANY, Fill.normal(1), slots, b, h, w, c);
        }
        if (parts.contains(Part.INPUT)) {
            builder.inOut("input", dtype, ANY, Fill.normal(1), outputs, h, w, c);
        }
        if (parts.contains(Part.VARIANCE_VALUE) || parts.contains(Part.VARIANCE_RANGE)) {
            builder.in("variance", dtype, ANY, Fill.uniform(0, 1), outputs, h, w, c);
        }
        if (parts.contains(Part.STATISTICS)) {
            builder.in("statistics", DType.F32, CONTIGUOUS, Fill.values(0.8, 1.5, 1, 0), b, 2);
        }
        if (parts.contains(Part.GIVEN_NOISE)) {
            builder.in("noise", DType.F32, ANY, Fill.normal(1), CALLS, b, h, w, c);
        }
        if (parts.contains(Part.DRAWN_NOISE)) {
            builder.in("seeds", DType.I64, CONTIGUOUS, Fill.values(5, 0, -77, 1), b, 2);
        }
        if (parts.contains(Part.MASK)) {
            builder.in("mask", DType.F32, ANY, Fill.values(1, 0, 0.5), b, h, w, 1)
                    .in("known", DType.F32, ANY, Fill.normal(1), b, h, w, c)
                    .in("known_noise", DType.F32, ANY, Fill.normal(1), b, h, w, c);
        }
        LearnedVariance learned = parts.contains(Part.VARIANCE_VALUE) ? LearnedVariance.VALUE
                : parts.contains(Part.VARIANCE_RANGE) ? LearnedVariance.RANGE : LearnedVariance.NONE;
        builder.accuracy(Accuracy.PRODUCT);
        return builder.build((s, t) -> Diffusion.step(s, new Diffusion.Operands(t.get("sample"), t.get("state"),
                t.get("input"), t.get("counter"), t.get("output"), t.get("variance"), t.get("statistics"),
                t.get("table"), t.get("noise"), t.get("seeds"), t.get("mask"), t.get("known"), t.get("known_noise"),
                learned)), (in, out, round) -> {
                    if (call >= 0 && call < CALLS) {
                        for (int i = 0; i < b * h * w * c; i++) {
                            new Element(in, out, round, dtype, b, h, w, c, slots, call, parts, i).step();
                        }
                        out.get("counter")[0] = call + 1;
                    }
                });
    }

    /// The input of a first call.
    public static OpCase input(DType dtype, int b, int h, int w, int c, int call, boolean isGuided) {
        int inputs = isGuided ? 2 * b : b;
        return OpCase.of("diffusion_input", dtype, "B=%d H=%d W=%d C=%d call %d guided %b", b, h, w, c, call, isGuided)
                .out("input", dtype, ANY, inputs, h, w, c)
                .in("sample", DType.F32, ANY, Fill.normal(1), b, h, w, c)
                .in("table", DType.F32, CONTIGUOUS, Fill.values(table(0, Set.of())), CALLS, Diffusion.FIELDS)
                .in("counter", DType.I32, CONTIGUOUS, Fill.values(call, 0), 2)
                .build((s, t) -> Diffusion.input(s, t.get("input"), t.get("sample"), t.get("table"), t.get("counter")),
                        (in, out, round) -> {
                            double[] y = out.get("input");
                            int n = b * h * w * c;
                            for (int i = 0; i < y.length; i++) {
                                double scale = call < CALLS ? inputScale(call) : Double.NaN;
                                y[i] = round.store(dtype, round.f32(scale * in.floats("sample")[i % n]));
                            }
                        });
    }

    /// Statistics of [B, H, W, C].
    public static OpCase statistics(DType dtype, int b, int h, int w, int c, boolean isGuided, float ratio) {
        Set<Part> parts = isGuided ? Set.of(Part.GUIDANCE, Part.STATISTICS) : Set.of();
        int outputs = isGuided ? 2 * b : b;
        float largest = 100;
        return OpCase.of("diffusion_statistics", dtype, "B=%d H=%d W=%d C=%d guided %b ratio %s", b, h, w, c, isGuided,
                ratio)
                .out("statistics", DType.F32, CONTIGUOUS, b, 2)
                .in("sample", DType.F32, ANY, Fill.normal(3), b, h, w, c)
                .in("output", dtype, ANY, Fill.normal(1), outputs, h, w, c)
                .in("table", DType.F32, CONTIGUOUS, Fill.values(table(0, parts)), CALLS, Diffusion.FIELDS)
                .in("counter", DType.I32, CONTIGUOUS, Fill.values(1, 0), 2)
                .build((s, t) -> Diffusion.statistics(s, t.get("statistics"), t.get("sample"), t.get("output"),
                        t.get("table"), t.get("counter"), ratio, largest), (in, out, round) -> {
                            for (int image = 0; image < b; image++) {
                                double[] y = out.get("statistics");
                                y[2 * image] = rescaling(in, round, image, b, h * w * c, isGuided);
                                y[2 * image + 1] = ratio == 0 ? 0
                                        : threshold(in, round, image, b, h * w * c, isGuided, ratio, y[2 * image]);
                            }
                        });
    }

    private static double inputScale(int call) {
        return 0.5 + 0.25 * call;
    }

    private static double coefficient(int call, int target, int source, int slots, Set<Part> parts) {
        boolean noisy = parts.contains(Part.DRAWN_NOISE) || parts.contains(Part.GIVEN_NOISE);
        boolean isKept = target > 0 && (target + call) % 3 == 0;
        boolean isUnread = source >= STATE_SOURCE
                && (source >= STATE_SOURCE + slots || (source + target + call) % 2 == 0);
        boolean isOtherNoise = source == NOISE_SOURCE && (target > 0 || !noisy);
        if (target > slots || isKept || isUnread || isOtherNoise) {
            return 0;
        }
        return (float) (0.1 * (1 + (target * 7 + source * 3 + call) % 11) - 0.45);
    }

    private static double[] table(int slots, Set<Part> parts) {
        double[] table = new double[CALLS * Diffusion.FIELDS];
        for (int call = 0; call < CALLS; call++) {
            int at = call * Diffusion.FIELDS;
            table[at + Field.GUIDANCE] = GUIDANCE;
            table[at + Field.RESCALE] = parts.contains(Part.STATISTICS) ? RESCALE : 0;
            table[at + Field.DENOISED_X] = DENOISED_X;
            table[at + Field.DENOISED_OUTPUT] = DENOISED_OUTPUT;
            table[at + Field.CLIP] = parts.contains(Part.CLIP) ? 1 : Double.POSITIVE_INFINITY;
            table[at + Field.INPUT] = inputScale(call);
            table[at + Field.MIN_LOG] = MIN_LOG;
            table[at + Field.MAX_LOG] = MAX_LOG;
            table[at + Field.KNOWN] = known(call);
            table[at + Field.KNOWN_NOISE] = knownNoise(call);
            for (int target = 0; target <= Diffusion.SLOTS; target++) {
                for (int source = 0; source < Diffusion.SOURCES; source++) {
                    table[at + Field.UPDATE + target * Diffusion.SOURCES + source] =
                            coefficient(call, target, source, slots, parts);
                }
            }
        }
        return table;
    }

    private static double known(int call) {
        return 1 - 0.125 * call;
    }

    private static double knownNoise(int call) {
        return call == CALLS - 1 ? 0 : 0.25;
    }

    /// e before it is rescaled.
    private static double guided(HostValues in, Rounding round, int b, int elements, int i, boolean isGuided) {
        double u = in.floats("output")[i];
        return isGuided ? round.f32(u + round.f32(GUIDANCE
                * round.f32(in.floats("output")[b * elements + i] - u))) : u;
    }

    private static double rescaling(HostValues in, Rounding round, int image, int b, int n, boolean isGuided) {
        if (!isGuided) {
            return 1;
        }
        double[] conditional = new double[n];
        double[] e = new double[n];
        for (int i = 0; i < n; i++) {
            conditional[i] = in.floats("output")[(b + image) * n + i];
            e[i] = guided(in, round, b, n, image * n + i, true);
        }
        return round.f32((float) RESCALE * deviation(conditional) / deviation(e) + (1 - (float) RESCALE));
    }

    private static double deviation(double[] values) {
        double mean = Arrays.stream(values).average().orElseThrow();
        return Math.sqrt(Arrays.stream(values).map(v -> (v - mean) * (v - mean)).sum() / (values.length - 1));
    }

    private static double threshold(HostValues in, Rounding round, int image, int b, int n, boolean isGuided,
            float ratio, double scale) {
        double[] magnitudes = new double[n];
        for (int i = 0; i < n; i++) {
            double e = round.f32(scale * guided(in, round, b, n, image * n + i, isGuided));
            double x = in.floats("sample")[image * n + i];
            magnitudes[i] = Math.abs(round.f32(round.f32(DENOISED_X * x) + round.f32(DENOISED_OUTPUT * e)));
        }
        Arrays.sort(magnitudes);
        if (Double.isNaN(magnitudes[n - 1])) {
            return Double.NaN;
        }
        float rank = ratio * (n - 1);
        int below = (int) rank;
        double low = magnitudes[below];
        double high = magnitudes[Math.min(below + 1, n - 1)];
        return Math.min(Math.max(round.f32(low + (rank - below) * (high - low)), 1), 100);
    }

    /// One element of a step: the formulas of the header, one by one.
    private record Element(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, int b, int h, int w,
            int c, int slots, int call, Set<Part> parts, int i) {
        private int elements() {
            return b * h * w * c;
        }

        private int image() {
            return i / (h * w * c);
        }

        void step() {
            double x = in.floats("sample")[i];
            double e = guided(in, round, b, h * w * c, i, parts.contains(Part.GUIDANCE));
            float[] statistics = parts.contains(Part.STATISTICS) ? in.floats("statistics") : new float[2 * b];
            if (parts.contains(Part.STATISTICS)) {
                e = round.f32(e * statistics[2 * image()]);
            }
            double d = round.f32(round.f32(DENOISED_X * x) + round.f32(DENOISED_OUTPUT * e));
            d = parts.contains(Part.CLIP) ? cut(d, 1) : d;
            double s = statistics[2 * image() + 1];
            d = s > 0 ? round.f32(cut(d, s) / s) : d;
            double[] sources = new double[Diffusion.SOURCES];
            sources[0] = x;
            sources[1] = e;
            sources[2] = d;
            sources[NOISE_SOURCE] = noise();
            for (int j = 0; j < slots; j++) {
                sources[STATE_SOURCE + j] = in.floats("state")[j * elements() + i];
            }
            double next = sum(0, sources);
            if (parts.contains(Part.MASK)) {
                next = blended(next);
            }
            out.get("sample")[i] = next;
            for (int target = 1; target <= slots; target++) {
                if ((target + call) % 3 != 0) {
                    out.get("state")[(target - 1) * elements() + i] = sum(target, sources);
                }
            }
            if (parts.contains(Part.INPUT) && call + 1 < CALLS) {
                double[] input = out.get("input");
                for (int at = i; at < input.length; at += elements()) {
                    input[at] = round.store(dtype, round.f32(inputScale(call + 1) * next));
                }
            }
        }

        private static double cut(double d, double limit) {
            return d > limit ? limit : d < -limit ? -limit : d;
        }

        private double sum(int target, double[] sources) {
            double sum = 0;
            for (int source = 0; source < sources.length; source++) {
                double factor = coefficient(call, target, source, slots, parts);
                sum = factor == 0 ? sum : round.f32(sum + round.f32(factor * sources[source]));
            }
            return sum;
        }

        private double noise() {
            double n = parts.contains(Part.GIVEN_NOISE) ? in.floats("noise")[call * elements() + i]
                    : parts.contains(Part.DRAWN_NOISE) ? NoiseCases.drawn(in, i, h, w, c, call + 1, round) : 0;
            int at = parts.contains(Part.GUIDANCE) ? elements() + i : i;
            if (parts.contains(Part.VARIANCE_VALUE)) {
                return round.f32(n * round.f32(Math.sqrt(in.floats("variance")[at])));
            }
            if (parts.contains(Part.VARIANCE_RANGE)) {
                double f = round.f32((in.floats("variance")[at] + 1) / 2);
                double log = round.f32(round.f32(f * MAX_LOG) + round.f32((1 - f) * MIN_LOG));
                return round.f32(n * round.f32(Math.exp(log / 2)));
            }
            return n;
        }

        private double blended(double x) {
            double m = in.floats("mask")[i / c];
            double k = round.f32(round.f32(known(call) * in.floats("known")[i])
                    + round.f32(knownNoise(call) * in.floats("known_noise")[i]));
            return round.f32(round.f32(m * x) + round.f32((1 - m) * k));
        }
    }
}
