package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Noise: normal numbers, images with noise added, and the tables that say how much. Images are [B, H, W, C], any
/// strides.
///
/// The normals of an image depend on its seed, the step and an element's place as [C, H, W] alone: not on the layout,
/// the other images or the device.
public final class Noise {
    private Noise() {}

    /// How betas are spread over the training steps; `from` and `to` are beta_start and beta_end.
    public enum BetaSchedule {
        /// `linspace(from, to)`. Ho, Jain and Abbeel 2020, arXiv 2006.11239.
        LINEAR,
        /// `linspace(sqrt(from), sqrt(to))^2`: Stable Diffusion's.
        SCALED_LINEAR,
        /// From `cos((t/T + 0.008) / 1.008 pi / 2)^2`. Nichol and Dhariwal 2021, arXiv 2102.09672.
        COSINE,
        /// `sigmoid(linspace(-6, 6)) (to - from) + from`.
        SIGMOID,
        /// The betas that are there.
        GIVEN;

        private int code() {
            return switch (this) {
                case LINEAR -> Gatun.GT_BETAS_LINEAR();
                case SCALED_LINEAR -> Gatun.GT_BETAS_SCALED_LINEAR();
                case COSINE -> Gatun.GT_BETAS_COSINE();
                case SIGMOID -> Gatun.GT_BETAS_SIGMOID();
                case GIVEN -> Gatun.GT_BETAS_GIVEN();
            };
        }
    }

    /// `y` = standard normals from Philox4x32-10 (Salmon et al., SC 2011).
    ///
    /// @param y     [B, H, W, C] f32, bf16 or f16
    /// @param seeds [B, 2] i64: seed and sequence number of each image
    /// @param step  what tells these normals from others of the same seed
    public static void normal(Stream stream, Tensor y, Tensor seeds, int step) {
        stream.enter("normal");
        try {
            stream.check(Gatun.gt_normal(stream.descriptor(), y.on(stream), seeds.on(stream), step));
        } finally {
            stream.exit();
        }
    }

    /// `y = sqrt(a) x + sqrt(1 - a) noise`, `a = alphasCumprod[timesteps[b]]`. Ho, Jain and Abbeel 2020, arXiv
    /// 2006.11239.
    ///
    /// @param y             [B, H, W, C] f32, bf16 or f16, may be `x`
    /// @param x             like y
    /// @param noise         like y; null: the normals of `step`
    /// @param seeds         [B, 2] i64; null where noise is given
    /// @param alphasCumprod [T] f32
    /// @param timesteps     [B] i32; outside 0 .. T-1 gives a NaN image
    public static void addNoise(Stream stream, Tensor y, Tensor x, @Nullable Tensor noise, @Nullable Tensor seeds,
            int step, Tensor alphasCumprod, Tensor timesteps) {
        stream.enter("add_noise");
        try {
            stream.check(Gatun.gt_add_noise(stream.descriptor(), y.on(stream), x.on(stream), on(noise, stream),
                    on(seeds, stream), step, alphasCumprod.on(stream), timesteps.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = sqrt(a) noise - sqrt(1 - a) x`: the target of v-prediction. Salimans and Ho 2022, arXiv 2202.00512.
    /// Operands as in [#addNoise].
    public static void velocity(Stream stream, Tensor y, Tensor x, Tensor noise, Tensor alphasCumprod,
            Tensor timesteps) {
        stream.enter("velocity");
        try {
            stream.check(Gatun.gt_velocity(stream.descriptor(), y.on(stream), x.on(stream), noise.on(stream),
                    alphasCumprod.on(stream), timesteps.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `betas` by the formula, and their `alphasCumprod[t] = product of 1 - betas[i], i <= t`, each rounded to f32.
    /// With `zeroSnr` the last product is 0 (Lin et al. 2023, arXiv 2305.08891).
    ///
    /// @param betas         [T] f32, read where GIVEN
    /// @param alphasCumprod [T] f32
    public static void schedule(Stream stream, Tensor betas, Tensor alphasCumprod, BetaSchedule schedule, double from,
            double to, boolean zeroSnr) {
        stream.enter("noise_schedule");
        try {
            stream.check(Gatun.gt_noise_schedule(stream.descriptor(), betas.on(stream), alphasCumprod.on(stream),
                    schedule.code(), from, to, zeroSnr ? 1 : 0));
        } finally {
            stream.exit();
        }
    }
}
