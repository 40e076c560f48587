package io.gatun.generate;

import java.nio.IntBuffer;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/// One call of generate, as the engine sees it: prompts that run together.
final class Request {
    final List<int[]> prompts;
    final List<? extends TokenSink> sinks;
    final GenerationConfig config;
    /// Number of each prompt among equal ones of the request: what keys its random draws, so that a prompt gets the
    /// same ids alone and in any batch, and repeated prompts get different ones.
    final int[] drawKeys;
    final CompletableFuture<Outcome> outcome = new CompletableFuture<>();
    final long submitted = System.nanoTime();
    private volatile boolean cancelled;

    /// The finished sequences in the order of the prompts (beam search: the best of each prompt, best first).
    record Outcome(List<Finished> sequences, GenerationResult.Timings timings) {}

    record Finished(int[] ids, FinishReason reason, int promptTokens, double score, List<TokenLogprob> logprobs) {}

    Request(List<int[]> prompts, List<? extends TokenSink> sinks, GenerationConfig config) {
        this.prompts = prompts;
        this.sinks = sinks;
        this.config = config;
        this.drawKeys = new int[prompts.size()];
        Map<IntBuffer, Integer> seen = new HashMap<>();
        for (int i = 0; i < drawKeys.length; i++) {
            drawKeys[i] = seen.merge(IntBuffer.wrap(prompts.get(i)), 1, Integer::sum) - 1;
        }
    }

    /// Ends the request after the step that is running; its sequences keep what they have.
    void cancel() {
        cancelled = true;
    }

    /// Why the request should end now, or null.
    @Nullable FinishReason interrupted() {
        if (cancelled) {
            return FinishReason.CANCELLED;
        }
        var deadline = config.deadline();
        return deadline != null && System.nanoTime() - submitted >= deadline.toNanos() ? FinishReason.DEADLINE : null;
    }
}
