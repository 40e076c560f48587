package io.gatun.generate;

import java.time.Duration;
import java.util.List;

/// One generated sequence.
///
/// @param text         decoded output without special tokens and without the stop string; empty without a tokenizer
/// @param ids          output ids, an end token included
/// @param finishReason why it ended
/// @param promptTokens ids of the prompt
/// @param score        beam search: the sum of log-probabilities over length^penalty; else 0
/// @param logprobs     one per output id where asked for, else empty
/// @param timings      where the time of the whole request went
public record GenerationResult(String text, int[] ids, FinishReason finishReason, int promptTokens, double score,
        List<TokenLogprob> logprobs, Timings timings) {

    /// @param queued  from the call until the engine took it up
    /// @param prefill until the first token was chosen
    /// @param decode  from then to the end
    /// @param steps   decode steps
    public record Timings(Duration queued, Duration prefill, Duration decode, int steps) {
        /// Output tokens per second of one sequence while decoding; 0 without a step.
        public double tokensPerSecond() {
            return steps == 0 ? 0 : steps / (decode.toNanos() * 1e-9);
        }
    }
}
