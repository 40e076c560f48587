package io.gatun.diffusion;

import io.gatun.runtime.GatunException;
import java.util.List;

/// How much noise each training step adds: betas, and the products of 1 - beta, both as f32 tables that are rounded
/// where diffusers rounds them. [io.gatun.ops.Noise#schedule] makes the same tables on a device.
///
/// @param betas         [T]
/// @param alphasCumprod [T], `alphasCumprod[t]` = product of `1 - betas[i]`, i <= t
public record NoiseSchedule(float[] betas, float[] alphasCumprod) {
    private static final int MAX_STEPS = 1_000_000;
    private static final int DEFAULT_STEPS = 1000;
    private static final double MAX_COSINE_BETA = 0.999;
    private static final double COSINE_OFFSET = 0.008;
    private static final double SIGMOID_RANGE = 6;
    /// The smallest f16: an infinite ratio of noise to signal would be useless to a sampler.
    private static final float NEARLY_ZERO = 0x1p-24f;

    /// `beta_schedule`.
    enum Kind { LINEAR, SCALED_LINEAR, SQUAREDCOS_CAP_V2, SIGMOID }

    /// The schedule of a configuration that may leave out what the class of the sampler has a default for.
    static NoiseSchedule of(SchedulerConfig config, double betaStart, double betaEnd, Kind otherwise) {
        Kind kind = config.choice("beta_schedule", otherwise);
        double from = config.number("beta_start", betaStart);
        double to = config.number("beta_end", betaEnd);
        int steps = config.integer("num_train_timesteps", 1, MAX_STEPS, DEFAULT_STEPS);
        List<Double> trained = config.numbers("trained_betas");
        NoiseSchedule schedule = trained.isEmpty() ? of(kind, steps, from, to) : ofBetas(trained);
        return config.flag("rescale_betas_zero_snr", false) ? schedule.withZeroSnr() : schedule;
    }

    /// Betas from `from` to `to` in even steps. Ho, Jain and Abbeel 2020, arXiv 2006.11239, with 1e-4 and 0.02 for T =
    /// 1000.
    public static NoiseSchedule linear(int steps, double from, double to) {
        return of(Kind.LINEAR, steps, from, to);
    }

    /// [#linear] from 1e-4 to 0.02, both times 1000 / T, so that any number of training steps ends in about as much
    /// noise.
    public static NoiseSchedule linear(int steps) {
        double scale = 1000.0 / steps;
        return linear(steps, scale * 1e-4, scale * 0.02);
    }

    private static NoiseSchedule of(Kind kind, int steps, double from, double to) {
        float[] betas = new float[steps];
        for (int t = 0; t < steps; t++) {
            betas[t] = switch (kind) {
                case LINEAR -> linspace(from, to, t, steps);
                case SCALED_LINEAR -> {
                    float root = linspace(Math.sqrt(from), Math.sqrt(to), t, steps);
                    yield root * root;
                }
                case SQUAREDCOS_CAP_V2 ->
                    (float) Math.min(1 - cosine(t + 1, steps) / cosine(t, steps), MAX_COSINE_BETA);
                case SIGMOID -> {
                    float sigmoid = (float) (1 / (1 + Math.exp(-linspace(-SIGMOID_RANGE, SIGMOID_RANGE, t, steps))));
                    yield Math.fma(sigmoid, (float) (to - from), (float) from);
                }
            };
        }
        return new NoiseSchedule(betas, products(betas));
    }

    private static NoiseSchedule ofBetas(List<Double> trained) {
        float[] betas = new float[trained.size()];
        for (int t = 0; t < betas.length; t++) {
            betas[t] = trained.get(t).floatValue();
        }
        return new NoiseSchedule(betas, products(betas));
    }

    /// `linspace(from, to)[i]` in f32, each half from its own end: the bits of PyTorch.
    private static float linspace(double from, double to, int i, int steps) {
        float first = (float) from;
        float last = (float) to;
        if (steps == 1) {
            return first;
        }
        float step = (last - first) / (steps - 1);
        return i < steps / 2 ? Math.fma(step, (float) i, first) : Math.fma(-step, (float) (steps - 1 - i), last);
    }

    private static double cosine(int t, int steps) {
        double c = Math.cos(((double) t / steps + COSINE_OFFSET) / (1 + COSINE_OFFSET) * Math.PI / 2);
        return c * c;
    }

    private static float[] products(float[] betas) {
        float[] products = new float[betas.length];
        double product = 1;
        for (int t = 0; t < betas.length; t++) {
            product *= 1 - betas[t];
            products[t] = (float) product;
        }
        return products;
    }

    /// The square roots of the products shifted and scaled so that the last is 0 and the first stays. Lin et al. 2023,
    /// arXiv 2305.08891.
    ///
    /// @throws GatunException when the products do not fall, as with a single step
    NoiseSchedule withZeroSnr() {
        float first = (float) Math.sqrt(alphasCumprod[0]);
        float last = (float) Math.sqrt(alphasCumprod[alphasCumprod.length - 1]);
        if (!(first > last)) {
            throw GatunException.invalid("rescale_betas_zero_snr: the products of 1 - beta go from %s to %s in %d"
                    + " steps, expected to fall: leave it out or use other betas", alphasCumprod[0],
                    alphasCumprod[alphasCumprod.length - 1], alphasCumprod.length);
        }
        float[] rescaled = new float[betas.length];
        float previous = 1;
        for (int t = 0; t < rescaled.length; t++) {
            float root = ((float) Math.sqrt(alphasCumprod[t]) - last) * (first / (first - last));
            rescaled[t] = 1 - root * root / previous;
            previous = root * root;
        }
        return new NoiseSchedule(rescaled, products(rescaled));
    }

    /// Where the last product is 0 it becomes 2^-24: for samplers that divide by it.
    NoiseSchedule withFiniteSigmas(SchedulerConfig config) {
        if (!config.flag("rescale_betas_zero_snr", false)) {
            return this;
        }
        float[] products = alphasCumprod.clone();
        products[products.length - 1] = NEARLY_ZERO;
        return new NoiseSchedule(betas, products);
    }

    /// T.
    public int steps() {
        return betas.length;
    }

    /// `alphasCumprod[t]`; of the last step of a chain, where t is negative, `last`.
    double alphaCumprod(int t, double last) {
        if (t >= alphasCumprod.length) {
            throw GatunException.invalid("timestep %d, expected less than %d: steps_offset is too large", t,
                    alphasCumprod.length);
        }
        return t >= 0 ? alphasCumprod[t] : last;
    }

    /// `sqrt((1 - a) / a)` of every training step, in f32.
    float[] sigmas() {
        float[] sigmas = new float[alphasCumprod.length];
        for (int t = 0; t < sigmas.length; t++) {
            sigmas[t] = (float) Math.sqrt((1 - alphasCumprod[t]) / alphasCumprod[t]);
        }
        return sigmas;
    }
}
