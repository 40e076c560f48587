package io.gatun.train.data;

import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.Reader;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.BitSet;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/// Text to train on: a file, or the `.txt` files in a folder and the folders in it, in the order of their paths.
/// Strict UTF-8.
///
/// A file is read in pieces, because a tokenizer needs a hundred times the memory of its text. A piece ends, where
/// possible, after the line break of a line that is followed by a line that begins with a word, which is a place
/// where no tokenizer in use joins characters.
///
/// @param files at least one
public record TextCorpus(List<Path> files) {
    private static final int PIECE_CHARS = 1 << 20;

    public TextCorpus {
        files = List.copyOf(files);
    }

    /// @throws GatunException when there is no text
    public static TextCorpus open(Path data) {
        if (Files.isRegularFile(data)) {
            return new TextCorpus(List.of(data));
        }
        if (!Files.isDirectory(data)) {
            throw GatunException.invalid("%s: no such file or folder; expected a text file or a folder of .txt files",
                    data);
        }
        try (Stream<Path> all = Files.walk(data)) {
            List<Path> found = all.filter(file -> Files.isRegularFile(file) && file.toString().endsWith(".txt"))
                    .sorted().toList();
            if (found.isEmpty()) {
                throw GatunException.invalid("%s: no .txt files in this folder", data);
            }
            return new TextCorpus(found);
        } catch (IOException e) {
            throw unreadable(data, e);
        }
    }

    /// The distinct code points of all files.
    public IntStream characters() {
        BitSet seen = new BitSet();
        for (Path file : files) {
            readPieces(file, PIECE_CHARS, piece -> piece.codePoints().forEach(seen::set));
        }
        return seen.stream();
    }

    /// SHA-256 of all files, with their lengths between them.
    byte[] digest() {
        MessageDigest sha = sha256();
        byte[] buffer = new byte[1 << 16];
        for (Path file : files) {
            try (InputStream in = Files.newInputStream(file)) {
                long length = 0;
                for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
                    sha.update(buffer, 0, n);
                    length += n;
                }
                sha.update(Long.toString(length).getBytes(StandardCharsets.UTF_8));
            } catch (IOException e) {
                throw unreadable(file, e);
            }
        }
        return sha.digest();
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java has it
        }
    }

    /// Gives the pieces of a file, in order.
    public void readPieces(Path file, Consumer<String> consumer) {
        readPieces(file, PIECE_CHARS, consumer);
    }

    /// @param size of a piece at most, in UTF-16 units
    static void readPieces(Path file, int size, Consumer<String> consumer) {
        char[] buffer = new char[size];
        int filled = 0;
        try (Reader in = new InputStreamReader(Files.newInputStream(file), StandardCharsets.UTF_8.newDecoder())) {
            while (true) {
                int read = in.read(buffer, filled, size - filled);
                if (read < 0) {
                    break;
                }
                filled += read;
                if (filled == size) {
                    int end = cut(buffer, filled);
                    consumer.accept(new String(buffer, 0, end));
                    filled -= end;
                    System.arraycopy(buffer, end, buffer, 0, filled);
                }
            }
        } catch (CharacterCodingException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT,
                    file + ": not UTF-8 text; convert it, with iconv for instance", e);
        } catch (IOException e) {
            throw unreadable(file, e);
        }
        if (filled > 0) {
            consumer.accept(new String(buffer, 0, filled));
        }
    }

    /// Where a piece ends: between lines, else between words, else between characters.
    private static int cut(char[] text, int length) {
        for (int i = length - 1; i >= 2; i--) {
            if (text[i - 1] == '\n' && !Character.isWhitespace(text[i - 2]) && Character.isLetterOrDigit(text[i])) {
                return i;
            }
        }
        for (int i = length - 2; i >= 1; i--) {
            if (text[i] == ' ' && Character.isLetterOrDigit(text[i - 1]) && Character.isLetterOrDigit(text[i + 1])) {
                return i;
            }
        }
        return Character.isHighSurrogate(text[length - 1]) ? length - 1 : length;
    }

    private static GatunException unreadable(Path file, IOException e) {
        return new GatunException(GatunException.Status.INVALID_ARGUMENT, file + ": cannot be read: "
                + IoReason.of(e), e);
    }
}
