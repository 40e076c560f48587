package io.gatun.text;

import java.nio.charset.StandardCharsets;
import java.util.stream.IntStream;

/// Text from token ids that arrive one at a time. What [#append] returns never changes later, never ends in half a
/// character, and all of it together with [#flush()] is `Tokenizer.decode` of all the ids.
///
/// A byte-level tokenizer gives each character as soon as its last byte is there. With byte fallback (`<0xNN>` tokens)
/// a run of byte tokens is held back until it ends, because one bad byte makes the whole run U+FFFD. Other tokenizers
/// give each token's text at once; the few whose decoder looks at the whole sequence (CTC, GPT-1's suffixes) give
/// everything at the end. The cost of a token does not depend on how many came before it.
///
/// Not for several threads at once.
public final class StreamingDecoder {
    private final Tokenizer tokenizer;
    private final DecoderShape shape;
    private final Utf8Assembler utf8 = new Utf8Assembler();
    private int[] pending = new int[8];
    private int numPending;
    private boolean begun;

    StreamingDecoder(Tokenizer tokenizer, DecoderShape shape) {
        this.tokenizer = tokenizer;
        this.shape = shape;
    }

    /// Takes the next id and returns the text that became final, often empty. Special ids give no text.
    public String append(int id) {
        if (!tokenizer.hasText(id)) {
            return "";
        }
        String text = tokenizer.tokenText(id);
        return switch (shape) {
            case DecoderShape.Bytes _ -> appendBytes(text);
            case DecoderShape.Pieces pieces -> {
                hold(id);
                yield pieces.byteRuns() && isByteToken(text) ? "" : decodePending(pieces);
            }
            case DecoderShape.Whole _ -> {
                hold(id);
                yield "";
            }
        };
    }

    /// Ends the sequence and returns the text that was held back. The next [#append] begins a new sequence.
    public String flush() {
        String rest = switch (shape) {
            case DecoderShape.Bytes _ -> utf8.finish();
            case DecoderShape.Pieces pieces -> decodePending(pieces);
            case DecoderShape.Whole _ -> tokenizer.decodeAll(IntStream.of(pending).limit(numPending));
        };
        numPending = 0;
        begun = false;
        return rest;
    }

    private void hold(int id) {
        if (numPending == pending.length) {
            pending = java.util.Arrays.copyOf(pending, 2 * numPending);
        }
        pending[numPending++] = id;
    }

    /// The first piece is decoded as it is, because decoders treat the beginning of a text specially (a leading space
    /// goes); as long as it is empty the next tokens still belong to the beginning.
    private String decodePending(DecoderShape.Pieces pieces) {
        IntStream ids = IntStream.of(pending).limit(numPending);
        String text = begun
                ? tokenizer.decodeAll(IntStream.concat(IntStream.of(pieces.anchor()), ids))
                        .substring(pieces.anchorLength())
                : tokenizer.decodeAll(ids);
        if (begun || !text.isEmpty()) {
            begun = true;
            numPending = 0;
        }
        return text;
    }

    private String appendBytes(String token) {
        byte[] bytes = new byte[token.length()];
        for (int i = 0; i < bytes.length; i++) {
            int value = ByteAlphabet.valueOf(token.charAt(i));
            if (value < 0) {
                return utf8.append(token.getBytes(StandardCharsets.UTF_8));
            }
            bytes[i] = (byte) value;
        }
        return utf8.append(bytes);
    }

    private static boolean isByteToken(String text) {
        return text.length() == 6 && text.startsWith("<0x") && text.endsWith(">");
    }
}
