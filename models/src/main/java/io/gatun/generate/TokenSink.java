package io.gatun.generate;

import org.jspecify.annotations.Nullable;

/// Where the engine puts the tokens of one sequence, on the engine thread; must not block.
interface TokenSink {
    /// Takes a token.
    ///
    /// @param logprob where asked for
    /// @return whether the sequence should end here
    boolean accept(int id, @Nullable TokenLogprob logprob);
}
