package io.gatun.models;

import io.gatun.ops.Attention;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// The rows of one forward pass: N tokens of B sequences, one behind the other. All tensors are on the device, so a
/// captured pass can be started again after they changed.
///
/// @param ids        [N] i32
/// @param positions  [N] i32, place of each token in its sequence; negative: idle
/// @param queryStart [B + 1] i32, first row of each sequence
/// @param pageTable  [B, pages] i32, where each sequence's keys and values are
/// @param counters   [B, G] i32, zeros that [Attention#decode] counts with and leaves as zeros; null in prompts
/// @param sequenceLength length of the sequence that is being prefilled; 0 in decode steps
/// @param hasPast    whether earlier tokens of a sequence are in the cache already
public record Batch(Tensor ids, Tensor positions, Tensor queryStart, Tensor pageTable,
        @Nullable Tensor counters, int sequenceLength, boolean hasPast) {
    /// Whether these are the next tokens of several sequences, rather than the prompt of one.
    public boolean isDecode() {
        return sequenceLength == 0;
    }

    /// N
    public long rows() {
        return ids.size(0);
    }
}
