package io.gatun.text;

import ai.djl.huggingface.tokenizers.jni.TokenizersLibrary;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.BitSet;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// Text to token ids and back, as a model directory's `tokenizer.json` says, by the Hugging Face tokenizers library.
///
/// There is no truncation and no padding, whatever the file asks for. The library is loaded when the first tokenizer is
/// opened (see [NativeTokenizers]); it never uses the network.
///
/// Any number of threads may use one tokenizer. [#close()] waits for the calls in progress; a call after it throws
/// [IllegalStateException].
public final class Tokenizer implements AutoCloseable {
    /// Whether the post-processor's tokens (`<s>`, `[CLS]`, ...) are added around a text.
    public enum SpecialTokens {
        ADD,
        /// For text that already holds them, such as a rendered chat template.
        OMIT
    }

    private static final TokenizersLibrary LIBRARY = TokenizersLibrary.LIB;

    private final TokenizerFile file;
    private final BitSet special;
    private final DecoderShape shape;
    /// Reading: a call uses the handle. Writing: the handle is freed.
    private final ReentrantReadWriteLock lock = new ReentrantReadWriteLock();
    private long handle;

    private Tokenizer(TokenizerFile file, BitSet special, long handle) {
        this.file = file;
        this.special = special;
        this.handle = handle;
        this.shape = DecoderShape.of(this, file);
    }

    /// Opens `modelDir/tokenizer.json`.
    ///
    /// @param moreSpecialIds ids that decoding drops besides the file's own special tokens, such as `eos_token_id` of
    ///         config.json; an id that the file does not know is fine
    /// @throws GatunException `INVALID_ARGUMENT` when the file is missing or damaged; `UNSUPPORTED` when the library
    ///         cannot be loaded
    public static Tokenizer open(Path modelDir, int... moreSpecialIds) {
        return of(TokenizerFile.read(modelDir), modelDir.resolve("tokenizer.json"), moreSpecialIds);
    }

    /// A tokenizer from the text of a `tokenizer.json`.
    ///
    /// @param origin what messages call it
    static Tokenizer of(String json, Path origin) {
        return of(TokenizerFile.of(json, origin), origin);
    }

    private static Tokenizer of(TokenizerFile file, Path origin, int... moreSpecialIds) {
        BitSet special = (BitSet) file.special().clone();
        for (int id : moreSpecialIds) {
            special.set(id);
        }
        long handle;
        try {
            handle = NativeTokenizers.create(file.json());
        } catch (GatunException e) {
            throw e;
        } catch (RuntimeException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, origin
                    + ": the tokenizers library refuses it: " + e.getMessage(), e);
        }
        LIBRARY.disableTruncation(handle);
        LIBRARY.disablePadding(handle);
        return new Tokenizer(file, special, handle);
    }

    /// The ids of a text, with the special tokens that the file's post-processor adds.
    public int[] encode(String text) {
        return encode(text, SpecialTokens.ADD);
    }

    /// The ids of a text. An unpaired surrogate counts as U+FFFD.
    public int[] encode(String text, SpecialTokens specialTokens) {
        String wellFormed = wellFormed(text);
        lock.readLock().lock();
        try {
            long encoding = LIBRARY.encode(requireOpen(), wellFormed, specialTokens == SpecialTokens.ADD);
            try {
                return Arrays.stream(LIBRARY.getTokenIds(encoding)).mapToInt(Math::toIntExact).toArray();
            } finally {
                LIBRARY.deleteEncoding(encoding);
            }
        } finally {
            lock.readLock().unlock();
        }
    }

    /// The text of ids, without the special ones, which are dropped by id: the library's own skipping compares texts
    /// and misses special tokens whose stored form the normalizer changes. An id that the file does not have gives no
    /// text, because a model's vocabulary is often padded beyond the tokenizer's.
    ///
    /// @throws GatunException for a negative id
    public String decode(int[] ids) {
        return decodeAll(Arrays.stream(ids).filter(this::hasText));
    }

    /// The text of ids that all have one. The library gets them as they are.
    String decodeAll(IntStream ids) {
        long[] wide = ids.asLongStream().toArray();
        lock.readLock().lock();
        try {
            return LIBRARY.decode(requireOpen(), wide, false);
        } finally {
            lock.readLock().unlock();
        }
    }

    /// A decoder for ids that arrive one at a time; for one thread.
    public StreamingDecoder newStream() {
        return new StreamingDecoder(this, shape);
    }

    /// One more than the largest id of the vocabulary and the added tokens.
    public int vocabSize() {
        return file.texts().length;
    }

    /// The text of the tokenizer.json.
    public String json() {
        return file.json();
    }

    /// The ids that decoding drops, ascending.
    public int[] specialIds() {
        return special.stream().toArray();
    }

    /// A token as the file stores it (`▁the`, `Ġthe`, `<0x0A>`), null for an id that the file does not have.
    public @Nullable String tokenText(int id) {
        return id >= 0 && id < file.texts().length ? file.texts()[id] : null;
    }

    /// Whether an id takes part in decoding.
    boolean hasText(int id) {
        if (id < 0) {
            throw GatunException.invalid("cannot decode token id %d: expected 0 or more", id);
        }
        return !special.get(id) && tokenText(id) != null;
    }

    /// Frees the native tokenizer; twice is fine.
    @Override
    public void close() {
        lock.writeLock().lock();
        try {
            if (handle != 0) {
                LIBRARY.deleteTokenizer(handle);
                handle = 0;
            }
        } finally {
            lock.writeLock().unlock();
        }
    }

    private long requireOpen() {
        if (handle == 0) {
            throw new IllegalStateException("the tokenizer is closed");
        }
        return handle;
    }

    private static String wellFormed(String text) {
        StringBuilder repaired = null;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (!Character.isSurrogate(c)) {
                continue;
            }
            if (Character.isHighSurrogate(c) && i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1))) {
                i++;
                continue;
            }
            if (repaired == null) {
                repaired = new StringBuilder(text);
            }
            repaired.setCharAt(i, '\uFFFD');
        }
        return repaired == null ? text : repaired.toString();
    }
}
