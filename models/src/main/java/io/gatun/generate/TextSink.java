package io.gatun.generate;

import io.gatun.text.StopStrings;
import io.gatun.text.StreamingDecoder;
import io.gatun.text.Tokenizer;
import java.util.List;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// Turns the ids of one sequence into text as they come, and ends the sequence at a stop string. Without a tokenizer
/// only ids pass. Used on the engine thread, while the tokenizer is certainly open.
final class TextSink implements TokenSink {
    /// Prompt ids that the decoder sees; more where they would begin inside a run of byte tokens.
    private static final int CONTEXT_IDS = 16;

    private final @Nullable StreamingDecoder decoder;
    private final StopStrings stops;
    private final StringBuilder text = new StringBuilder();
    private @Nullable Consumer<TokenStream.Token> listener;
    /// Text of the prompt that the decoder still holds back and will emit with the first text of the continuation.
    private String heldOfPrompt = "";

    /// @param prompt what the text continues: a tokenizer may write the first token of a text without its space
    TextSink(@Nullable Tokenizer tokenizer, int[] prompt, List<String> stopStrings) {
        this.decoder = tokenizer == null ? null : tokenizer.newStream();
        this.stops = new StopStrings(stopStrings);
        if (tokenizer != null && decoder != null) {
            StreamingDecoder ofPrompt = tokenizer.newStream();
            for (int i = contextStart(tokenizer, prompt); i < prompt.length; i++) {
                decoder.append(prompt[i]);
                ofPrompt.append(prompt[i]);
            }
            heldOfPrompt = ofPrompt.flush();
        }
    }

    private static int contextStart(Tokenizer tokenizer, int[] prompt) {
        int start = Math.max(0, prompt.length - CONTEXT_IDS);
        while (start > 0 && isByteToken(tokenizer.tokenText(prompt[start]))) {
            start--;
        }
        return start;
    }

    private static boolean isByteToken(@Nullable String text) {
        return text != null && text.startsWith("<0x");
    }

    void listener(Consumer<TokenStream.Token> consumer) {
        listener = consumer;
    }

    @Override
    public boolean accept(int id, @Nullable TokenLogprob logprob) {
        String delta = decoder == null ? "" : stops.accept(withoutPrompt(decoder.append(id)));
        text.append(delta);
        if (listener != null) {
            listener.accept(new TokenStream.Token(id, delta, logprob));
        }
        return stops.finished();
    }

    /// Adds what was held back and turns out to be final; afterwards the text is complete.
    void finish() {
        if (decoder == null) {
            return;
        }
        String rest = stops.finished() ? "" : stops.accept(withoutPrompt(decoder.flush())) + stops.flush();
        text.append(rest);
        if (listener != null && !rest.isEmpty()) {
            listener.accept(new TokenStream.Token(-1, rest, null));
        }
    }

    /// What new ids add to a text that may begin with the end of the prompt. Bytes that complete a character begun in
    /// the prompt give that character.
    private String withoutPrompt(String decoded) {
        if (decoded.isEmpty()) {
            return decoded;
        }
        String held = heldOfPrompt;
        heldOfPrompt = "";
        return decoded.startsWith(held) ? decoded.substring(held.length()) : decoded;
    }

    String text() {
        return text.toString();
    }
}
