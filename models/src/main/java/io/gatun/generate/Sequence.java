package io.gatun.generate;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// One sequence on its way through the engine: its ids so far, its pages, and how it ended.
final class Sequence {
    final int drawIndex;
    final int[] prompt;
    final TokenSink sink;
    final int[] pages;
    final int maxNewTokens;
    final List<TokenLogprob> logprobs = new ArrayList<>();
    private int[] ids;
    private int length;
    @Nullable FinishReason finished;

    /// @param drawIndex keys its random draws, together with the seed
    Sequence(int drawIndex, int[] prompt, TokenSink sink, int[] pages, int maxNewTokens) {
        this.drawIndex = drawIndex;
        this.prompt = prompt;
        this.sink = sink;
        this.pages = pages;
        this.maxNewTokens = maxNewTokens;
        this.ids = Arrays.copyOf(prompt, prompt.length + maxNewTokens);
        this.length = prompt.length;
    }

    /// Prompt and output together.
    int length() {
        return length;
    }

    int id(int position) {
        return ids[position];
    }

    int numGenerated() {
        return length - prompt.length;
    }

    int[] generated() {
        return Arrays.copyOfRange(ids, prompt.length, length);
    }

    void append(int id) {
        ids[length++] = id;
    }
}
