package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// One step of any diffusion sampler in one launch. A call of the model has a row in a table of coefficients; a counter
/// on the device says which is next, so that a captured step can be launched again and again. Images are [B, H, W, C],
/// any strides.
public final class Diffusion {
    private Diffusion() {}

    /// Columns of a table of coefficients.
    public static final int FIELDS = 66;
    /// The most slots of state.
    public static final int SLOTS = 5;
    /// Coefficients of a target: of x, e, d, noise and the slots.
    public static final int SOURCES = 9;

    /// The first columns of a table; see [#step].
    public static final class Field {
        public static final int GUIDANCE = 0;
        public static final int RESCALE = 1;
        public static final int DENOISED_X = 2;
        public static final int DENOISED_OUTPUT = 3;
        public static final int CLIP = 4;
        public static final int INPUT = 5;
        public static final int MIN_LOG = 6;
        public static final int MAX_LOG = 7;
        public static final int KNOWN = 8;
        public static final int KNOWN_NOISE = 9;
        /// Here the coefficients of the targets x, S_0 .. S_4 begin, SOURCES of each.
        public static final int UPDATE = 12;

        private Field() {}
    }

    /// What the second half of a model's channels says about the noise. Nichol and Dhariwal 2021, arXiv 2102.09672.
    public enum LearnedVariance {
        NONE,
        /// The variance itself.
        VALUE,
        /// Where its logarithm lies between two that the table names.
        RANGE;

        private int code() {
            return switch (this) {
                case NONE -> Gatun.GT_VARIANCE_NONE();
                case VALUE -> Gatun.GT_VARIANCE_VALUE();
                case RANGE -> Gatun.GT_VARIANCE_RANGE();
            };
        }
    }

    /// Operands of [#step] that stay the same over a loop.
    ///
    /// @param sample     [B, H, W, C] f32: x, replaced
    /// @param state      [K, B, H, W, C] f32: S_0 ..; null: none
    /// @param input      [B or 2 B, H, W, C] floats: the model's next input; null: not wanted
    /// @param counter    [2] i32: the number of the call, and 0
    /// @param output     [B or 2 B, H, W, C] floats: what the model gave; of 2 B the first half is unconditional
    /// @param variance   like output: the model's other channels; null with [LearnedVariance#NONE]
    /// @param statistics [B, 2] f32 of [#statistics]; null: 1 and 0
    /// @param table      [N, FIELDS] f32
    /// @param noise      [N, B, H, W, C] f32; null: Philox's
    /// @param seeds      [B, 2] i64; null where noise is given or not asked for
    /// @param mask       [B, H, W, 1 or C] f32, 1 where the sample is made; null: no inpainting
    /// @param known      [B, H, W, C] f32: what is there where the mask is 0; null without a mask
    /// @param knownNoise like known: its noise
    public record Operands(Tensor sample, @Nullable Tensor state, @Nullable Tensor input, Tensor counter, Tensor output,
            @Nullable Tensor variance, @Nullable Tensor statistics, Tensor table, @Nullable Tensor noise,
            @Nullable Tensor seeds, @Nullable Tensor mask, @Nullable Tensor known, @Nullable Tensor knownNoise,
            LearnedVariance learnedVariance) {}

    /// With the row of the counter, u and c the halves of an output of 2 B images (Ho and Salimans 2022, arXiv
    /// 2207.12598):
    ///
    /// - `e = u + GUIDANCE (c - u)`, times `statistics[b, 0]`
    /// - `d = DENOISED_X x + DENOISED_OUTPUT e`, cut to +-CLIP; with `s = statistics[b, 1] > 0` cut to +-s and divided
    /// by s
    /// - each target = the sum of its coefficients times x, e, d, noise, S_j; a slot whose coefficients are all 0 stays
    /// - `x = mask x + (1 - mask) (KNOWN known + KNOWN_NOISE knownNoise)`
    /// - `input` = x times INPUT of the next row; the counter goes up by one
    ///
    /// Beyond the table nothing happens.
    public static void step(Stream stream, Operands o) {
        stream.enter("diffusion_step");
        try {
            stream.check(Gatun.gt_diffusion_step(stream.descriptor(), o.sample.on(stream), on(o.state, stream),
                    on(o.input, stream), o.counter.on(stream), o.output.on(stream), on(o.variance, stream),
                    on(o.statistics, stream), o.table.on(stream), on(o.noise, stream), on(o.seeds, stream),
                    on(o.mask, stream), on(o.known, stream), on(o.knownNoise, stream), o.learnedVariance.code()));
        } finally {
            stream.exit();
        }
    }

    /// The input of the first call: x times INPUT of the counter's row. Operands as in [Operands].
    public static void input(Stream stream, Tensor input, Tensor sample, Tensor table, Tensor counter) {
        stream.enter("diffusion_input");
        try {
            stream.check(Gatun.gt_diffusion_input(stream.descriptor(), input.on(stream), sample.on(stream),
                    table.on(stream), counter.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// What a step needs to know of whole images:
    ///
    /// - `statistics[b, 0] = phi std(c) / std(e) + 1 - phi`, phi the row's RESCALE (Lin et al. 2023, arXiv 2305.08891)
    /// - `statistics[b, 1] = min(max(quantile(|d|, ratio), 1), largest)`, or 0 where ratio is 0 (Saharia et al. 2022,
    ///   arXiv 2205.11487)
    ///
    /// @param statistics [B, 2] f32; the others as in [Operands]
    public static void statistics(Stream stream, Tensor statistics, Tensor sample, Tensor output, Tensor table,
            Tensor counter, float ratio, float largest) {
        stream.enter("diffusion_statistics");
        try {
            stream.check(Gatun.gt_diffusion_statistics(stream.descriptor(), statistics.on(stream), sample.on(stream),
                    output.on(stream), table.on(stream), counter.on(stream), ratio, largest));
        } finally {
            stream.exit();
        }
    }
}
