package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// From logits to the next id, in the order of Hugging Face transformers. The state of the sequences is on the device.
public final class Sampling {
    private Sampling() {}

    /// Columns of a `params` tensor: temperature (0: greedy), top-k (0: off), top-p (1: off), min-p (0: off),
    /// repetition penalty (1: off), presence and frequency penalty (0: off), reserved.
    public static final int FIELDS = Gatun.GT_SAMPLING_FIELDS();

    /// What a negative number in a record says.
    public enum Fault {
        NAN(Gatun.GT_FAULT_NAN(), "the logits hold a NaN"),
        NO_TOKEN(Gatun.GT_FAULT_NO_TOKEN(), "no token is left to choose from"),
        FULL(Gatun.GT_FAULT_FULL(), "the sequence has no room left");

        private final int code;
        private final String text;

        Fault(int code, String text) {
            this.code = code;
            this.text = text;
        }

        /// The fault behind a negative record.
        public static Fault of(int record) {
            for (Fault fault : values()) {
                if (fault.code == -record) {
                    return fault;
                }
            }
            throw new IllegalArgumentException("record " + record + " is no fault");
        }

        @Override
        public String toString() {
            return text;
        }
    }

    /// `ids[b]` = lowest index of the largest of `logits[b]`; -1 for a row with a NaN.
    ///
    /// @param ids    [B] i32
    /// @param logits [B, V] f32, bf16 or f16
    public static void argmax(Stream stream, Tensor ids, Tensor logits) {
        stream.enter("argmax");
        try {
            stream.check(Gatun.gt_argmax(stream.descriptor(), ids.on(stream), logits.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// Penalties, temperature, top-k, top-p and min-p, in place and in this order; removed logits become -inf. Ties:
    /// the
    /// lower id stays.
    ///
    /// @param logits        [B, V] f32
    /// @param tokens        [B, M] i32: prompt and generated ids
    /// @param lengths       [B] i32: how many are set; idle when <= 0
    /// @param promptLengths [B] i32
    /// @param params        [B, FIELDS] f32
    public static void processLogits(Stream stream, Tensor logits, Tensor tokens, Tensor lengths, Tensor promptLengths,
            Tensor params) {
        stream.enter("process_logits");
        try {
            stream.check(Gatun.gt_process_logits(stream.descriptor(), logits.on(stream), tokens.on(stream),
                    lengths.on(stream), promptLengths.on(stream), params.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// Chooses an id per row (argmax at temperature 0, else a draw with Philox4x32-10, Salmon et al., SC 2011) and
    /// advances the sequence's state on the device. A fault makes the row idle and stands in `record` as a negative
    /// number, see [Fault].
    ///
    /// @param ids       [B] i32: input of the next step
    /// @param positions [B] i32: its position
    /// @param record    [B] i32: id or -fault, for the host
    /// @param tokens    [B, M] i32, `lengths` [B] i32 and `promptLengths` [B] i32 as in [#processLogits]; advanced
    /// @param logits    [B, V] f32
    /// @param params    [B, FIELDS] f32
    /// @param seeds     [B, 2] i64: seed and sequence number
    public static void sample(Stream stream, Tensor ids, Tensor positions, Tensor record, Tensor tokens, Tensor lengths,
            Tensor promptLengths, Tensor logits, Tensor params, Tensor seeds) {
        stream.enter("sample");
        try {
            stream.check(Gatun.gt_sample(stream.descriptor(), ids.on(stream), positions.on(stream), record.on(stream),
                    tokens.on(stream), lengths.on(stream), promptLengths.on(stream), logits.on(stream),
                    params.on(stream), seeds.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// [#processLogits], then [#sample], in one launch and with the same bits. The operands are theirs; the logits are
    /// changed.
    public static void choose(Stream stream, Tensor ids, Tensor positions, Tensor record, Tensor tokens, Tensor lengths,
            Tensor promptLengths, Tensor logits, Tensor params, Tensor seeds) {
        stream.enter("choose");
        try {
            stream.check(Gatun.gt_choose(stream.descriptor(), ids.on(stream), positions.on(stream), record.on(stream),
                    tokens.on(stream), lengths.on(stream), promptLengths.on(stream), logits.on(stream),
                    params.on(stream), seeds.on(stream)));
        } finally {
            stream.exit();
        }
    }
}
