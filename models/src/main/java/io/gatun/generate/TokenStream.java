package io.gatun.generate;

import io.gatun.runtime.GatunException;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/// The tokens of one sequence as they come. Iterate it once, from one thread; [#cancel] may be called from any.
///
/// ```java
/// try (TokenStream tokens = model.stream("Once upon a time", config)) {
///     for (TokenStream.Token token : tokens) {
///         System.out.print(token.text());
///     }
/// }
/// ```
///
/// Leaving the loop early and closing cancels the generation. The texts never hold half a character and their
/// concatenation is the text of the result.
public final class TokenStream implements Iterable<TokenStream.Token>, AutoCloseable {
    private static final Token END = new Token(-1, "", null);

    /// @param id      the token; -1 for text that became final only at the end
    /// @param text    what became final with it, possibly empty
    /// @param logprob where asked for
    public record Token(int id, String text, @Nullable TokenLogprob logprob) {}

    private final LinkedBlockingQueue<Token> queue = new LinkedBlockingQueue<>();
    private final Request request;
    private final Supplier<GenerationResult> result;
    private boolean ended;

    /// @param done   happens when everything has been said
    /// @param result waits for that
    TokenStream(TextSink sink, Request request, CompletableFuture<?> done, Supplier<GenerationResult> result) {
        this.request = request;
        this.result = result;
        sink.listener(queue::add);
        done.whenComplete((value, failure) -> queue.add(END));
    }

    @Override
    public Iterator<Token> iterator() {
        return new Iterator<>() {
            private @Nullable Token next;

            @Override
            public boolean hasNext() {
                if (next == null && !ended) {
                    next = take();
                    ended = next == END;
                }
                if (ended) {
                    result();
                }
                return !ended;
            }

            @Override
            public Token next() {
                if (!hasNext()) {
                    throw new NoSuchElementException();
                }
                Token token = next;
                next = null;
                return token == null ? END : token;
            }
        };
    }

    private Token take() {
        try {
            return queue.take();
        } catch (InterruptedException e) {
            cancel();
            Thread.currentThread().interrupt();
            throw new GatunException(GatunException.Status.CANCELLED, "interrupted while waiting for a token", e);
        }
    }

    /// Ends the generation after the step that is running.
    public void cancel() {
        request.cancel();
    }

    /// Waits for the end; throws what the generation threw.
    public GenerationResult result() {
        return result.get();
    }

    /// Cancels what is still running. Twice is fine.
    @Override
    public void close() {
        request.cancel();
    }
}
