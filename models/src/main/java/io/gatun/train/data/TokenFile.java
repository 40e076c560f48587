package io.gatun.train.data;

import io.gatun.io.AtomicFile;
import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import io.gatun.text.Tokenizer;
import io.gatun.text.Tokenizer.SpecialTokens;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// The token ids of a corpus, made once, kept in a file, and mapped.
///
/// The file, little endian: 8 bytes `GTTOKENS`; version, bytes per id (2 or 4), V as i32; 4 bytes of zero; number of
/// ids as i64; SHA-256 of the tokenizer and the text; the ids, unsigned. It is made anew when tokenizer or text differ.
///
/// May be shared between threads. Windows must not be used after [#close()], which may be called twice.
public final class TokenFile implements AutoCloseable {
    private static final byte[] MAGIC = "GTTOKENS".getBytes(StandardCharsets.US_ASCII);
    private static final int VERSION = 1;
    private static final int HASH_BYTES = 32;
    private static final int HEADER_BYTES = 64;
    private static final int BUFFER_BYTES = 1 << 20;
    private static final int MAX_SHORT_VOCAB = 1 << 16;
    private static final int HELD_OUT_SHARE = 10; // one in so many, at the end
    private static final ByteOrder ORDER = ByteOrder.LITTLE_ENDIAN;
    private static final ValueLayout.OfShort SHORT = ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ORDER);
    private static final ValueLayout.OfInt INT = ValueLayout.JAVA_INT_UNALIGNED.withOrder(ORDER);

    /// No token stands between two files.
    public static final int NO_SEPARATOR = -1;

    /// @param bytesPerId 2 or 4
    private record Header(int bytesPerId, int vocabSize, long count, byte[] hash) {
        long fileBytes() {
            return HEADER_BYTES + count * bytesPerId;
        }

        ByteBuffer bytes() {
            ByteBuffer bytes = ByteBuffer.allocate(HEADER_BYTES).order(ORDER).put(MAGIC).putInt(VERSION)
                    .putInt(bytesPerId).putInt(vocabSize).putInt(0).putLong(count);
            return bytes.put(hash).flip();
        }
    }

    private final Path path;
    private final Header header;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment ids;

    private TokenFile(Path path, Header header) {
        this.path = path;
        this.header = header;
        try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
            this.ids = channel.map(FileChannel.MapMode.READ_ONLY, 0, header.fileBytes(), arena)
                    .asSlice(HEADER_BYTES);
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, path + ": cannot be mapped: "
                    + IoReason.of(e), e);
        }
    }

    /// Opens the token file of a corpus; makes it where it is missing or belongs to another corpus or tokenizer.
    ///
    /// @param path      of the token file, in a folder that exists
    /// @param separator id after each file but the last, such as the end of text, or [#NO_SEPARATOR]
    /// @throws GatunException when the text cannot be read, gives no tokens, or the file cannot be written
    public static TokenFile open(Path path, TextCorpus corpus, Tokenizer tokenizer, int separator) {
        byte[] hash = hash(corpus, tokenizer, separator);
        Header header = read(path);
        if (header == null || !Arrays.equals(header.hash, hash)) {
            header = write(path, corpus, tokenizer, separator, hash);
        }
        return new TokenFile(path, header);
    }

    private static byte[] hash(TextCorpus corpus, Tokenizer tokenizer, int separator) {
        MessageDigest sha = TextCorpus.sha256();
        sha.update(tokenizer.json().getBytes(StandardCharsets.UTF_8));
        sha.update(Integer.toString(separator).getBytes(StandardCharsets.UTF_8));
        return sha.digest(corpus.digest());
    }

    /// Null where there is no whole token file of this version.
    private static @Nullable Header read(Path path) {
        if (!Files.isRegularFile(path)) {
            return null;
        }
        ByteBuffer bytes = ByteBuffer.allocate(HEADER_BYTES).order(ORDER);
        long fileBytes;
        try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
            fileBytes = channel.size();
            while (bytes.hasRemaining() && channel.read(bytes) >= 0) {
                continue;
            }
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, path + ": cannot be read: "
                    + IoReason.of(e), e);
        }
        byte[] magic = new byte[MAGIC.length];
        if (bytes.flip().limit() < HEADER_BYTES) {
            return null;
        }
        bytes.get(magic);
        if (!Arrays.equals(magic, MAGIC) || bytes.getInt() != VERSION) {
            return null;
        }
        int bytesPerId = bytes.getInt();
        int vocabSize = bytes.getInt();
        bytes.getInt();
        byte[] hash = new byte[HASH_BYTES];
        Header header = new Header(bytesPerId, vocabSize, bytes.getLong(), hash);
        bytes.get(hash);
        return header.fileBytes() == fileBytes ? header : null;
    }

    private static Header write(Path path, TextCorpus corpus, Tokenizer tokenizer, int separator, byte[] hash) {
        int vocabSize = Math.max(tokenizer.vocabSize(), separator + 1);
        int bytesPerId = vocabSize <= MAX_SHORT_VOCAB ? Short.BYTES : Integer.BYTES;
        Header[] written = new Header[1];
        AtomicFile.replace(path, HEADER_BYTES, out -> {
            Encoder encoder = new Encoder(out.position(HEADER_BYTES), bytesPerId);
            try {
                encode(corpus, tokenizer, separator, encoder);
                encoder.flush();
            } catch (UncheckedIOException e) {
                throw e.getCause();
            }
            if (encoder.count == 0) {
                throw GatunException.invalid("%s: the text gives no tokens", corpus.files().getFirst());
            }
            Header header = new Header(bytesPerId, vocabSize, encoder.count, hash);
            ByteBuffer bytes = header.bytes();
            while (bytes.hasRemaining()) {
                out.write(bytes, bytes.position());
            }
            written[0] = header;
        });
        return written[0];
    }

    private static void encode(TextCorpus corpus, Tokenizer tokenizer, int separator, Encoder encoder) {
        for (Path file : corpus.files()) {
            if (separator != NO_SEPARATOR && encoder.count > 0) {
                encoder.put(separator);
            }
            corpus.readPieces(file, piece -> {
                for (int id : tokenizer.encode(piece, SpecialTokens.OMIT)) {
                    encoder.put(id);
                }
            });
        }
    }

    /// Ids on their way into the file.
    private static final class Encoder {
        private final FileChannel out;
        private final int bytesPerId;
        private final ByteBuffer buffer = ByteBuffer.allocateDirect(BUFFER_BYTES).order(ORDER);
        private long count;

        Encoder(FileChannel out, int bytesPerId) {
            this.out = out;
            this.bytesPerId = bytesPerId;
        }

        void put(int id) {
            if (!buffer.hasRemaining()) {
                flush();
            }
            if (bytesPerId == Short.BYTES) {
                buffer.putShort((short) id);
            } else {
                buffer.putInt(id);
            }
            count++;
        }

        void flush() {
            buffer.flip();
            try {
                while (buffer.hasRemaining()) {
                    out.write(buffer);
                }
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
            buffer.clear();
        }
    }

    /// Number of ids.
    public long size() {
        return header.count;
    }

    /// V
    public int vocabSize() {
        return header.vocabSize;
    }

    public int get(long index) {
        return header.bytesPerId == Short.BYTES
                ? Short.toUnsignedInt(ids.get(SHORT, index * Short.BYTES)) : ids.get(INT, index * Integer.BYTES);
    }

    /// All but the last tenth, to train on.
    ///
    /// @param length T; a window has one id more, the last one's target
    /// @throws GatunException when there is not one window
    public TokenWindows trainWindows(int length) {
        return new TokenWindows(this, 0, size() - size() / HELD_OUT_SHARE, length);
    }

    /// The last tenth, to evaluate on.
    ///
    /// @param length T
    /// @throws GatunException when there is not one window
    public TokenWindows heldOutWindows(int length) {
        return new TokenWindows(this, size() - size() / HELD_OUT_SHARE, size(), length);
    }

    /// The whole file.
    ///
    /// @param length T
    /// @throws GatunException when there is not one window
    public TokenWindows windows(int length) {
        return new TokenWindows(this, 0, size(), length);
    }

    @Override
    public String toString() {
        return "%s (%,d ids)".formatted(path, size());
    }

    /// Unmaps the file.
    @Override
    public void close() {
        if (arena.scope().isAlive()) {
            arena.close();
        }
    }
}
