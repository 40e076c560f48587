package io.gatun.text;

import io.gatun.text.TokenizerFile.Decoder;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// How much of a token sequence a tokenizer's decoder must see before the text of a token is final. Only decoders whose
/// source was read are declared piecewise; everything else waits for the end.
sealed interface DecoderShape {
    /// Every token is a string of bytes and the text is their UTF-8 (decoder `ByteLevel`: GPT-2, Llama 3, Qwen).
    record Bytes() implements DecoderShape {}

    /// A token's text depends on the tokens before it only through the question whether there are any.
    ///
    /// @param anchor an id with a plain text, decoded in front of a piece so that the piece is not the beginning
    /// @param anchorLength how much of the decoded text is the anchor's
    /// @param byteRuns whether `<0xNN>` tokens form bytes; a run of them is valid or invalid UTF-8 as a whole
    record Pieces(int anchor, int anchorLength, boolean byteRuns) implements DecoderShape {}

    /// The text of any token may depend on all of them.
    record Whole() implements DecoderShape {}

    Pattern PLAIN = Pattern.compile("[A-Za-z]+");

    static DecoderShape of(Tokenizer tokenizer, TokenizerFile file) {
        List<Decoder> decoders = file.decoders();
        if (decoders.size() == 1 && decoders.getFirst().type().equals("ByteLevel")) {
            return new Bytes();
        }
        boolean fused = false;
        for (Decoder decoder : decoders) {
            if (!isPiecewise(decoder, fused)) {
                return new Whole();
            }
            fused |= decoder.type().equals("Fuse");
        }
        Pieces pieces = anchored(tokenizer, file,
                decoders.stream().anyMatch(decoder -> decoder.type().equals("ByteFallback")));
        return pieces == null ? new Whole() : pieces;
    }

    /// After `Fuse` a decoder sees one string, so what it does to a token must not depend on the neighbours.
    private static boolean isPiecewise(Decoder decoder, boolean fused) {
        return switch (decoder.type()) {
            // One character cannot straddle two tokens, and it cannot make or unmake a byte token.
            case "Replace" -> decoder.pattern() != null && decoder.pattern().codePointCount(0,
                    decoder.pattern().length()) == 1 && !"<0x>".contains(decoder.pattern());
            case "Strip" -> !fused || decoder.stop() == 0;
            case "ByteFallback", "WordPiece", "Metaspace" -> !fused;
            case "Fuse" -> true;
            default -> false;
        };
    }

    private static @Nullable Pieces anchored(Tokenizer tokenizer, TokenizerFile file, boolean byteRuns) {
        for (int id = 0; id < file.texts().length; id++) {
            String text = file.texts()[id];
            if (text == null || file.added().get(id) || !PLAIN.matcher(text).matches()) {
                continue;
            }
            String once = tokenizer.decodeAll(IntStream.of(id));
            if (once.equals(text) && tokenizer.decodeAll(IntStream.of(id, id)).startsWith(once)) {
                return new Pieces(id, once.length(), byteRuns);
            }
        }
        return null;
    }
}
