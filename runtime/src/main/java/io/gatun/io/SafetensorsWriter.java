package io.gatun.io;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import io.gatun.runtime.GatunException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/// Writes safetensors files that every reader of the format takes. The same tensors and metadata give the same bytes.
///
/// The header is padded with spaces so that the data begins at a multiple of 8; tensors follow each other by size of
/// their elements, widest first, then by name, so that each is aligned to its elements (the format allows no gaps).
public final class SafetensorsWriter {
    private static final int ALIGNMENT = 8;
    private static final int BUFFER_BYTES = 1 << 20;

    private SafetensorsWriter() {}

    private record Entry(String name, TensorSource source) {}

    /// Writes a file, or replaces one as a whole: it is written under another name in the same folder, synced, and
    /// renamed. When that fails, on a full disk for instance, nothing is left and an old file is as it was.
    ///
    /// @throws GatunException when the file cannot be written or the tensors cannot be put into one
    public static void write(Path file, Map<String, TensorSource> tensors, Map<String, String> metadata) {
        List<Entry> entries = new ArrayList<>();
        tensors.forEach((name, source) -> entries.add(new Entry(name, source)));
        entries.sort(Comparator.comparingInt((Entry e) -> -e.source.dtype().bits()).thenComparing(Entry::name));
        byte[] header = header(file, entries, metadata);
        long bytes = SafetensorsHeader.LENGTH_BYTES + header.length;
        for (Entry entry : entries) {
            bytes += entry.source.bytes();
        }
        AtomicFile.replace(file, bytes, out -> {
            ByteBuffer buffer = ByteBuffer.allocateDirect(BUFFER_BYTES).order(ByteOrder.LITTLE_ENDIAN);
            out.write(buffer.putLong(header.length).flip());
            write(out, MemorySegment.ofArray(header), buffer);
            for (Entry entry : entries) {
                write(out, entry.source.data(), buffer);
            }
        });
    }

    private static byte[] header(Path file, List<Entry> entries, Map<String, String> metadata) {
        if (entries.size() > SafetensorsHeader.MAX_TENSORS) {
            throw GatunException.invalid("%s: %d tensors, expected at most %d: write several files", file,
                    entries.size(), SafetensorsHeader.MAX_TENSORS);
        }
        ByteArrayOutputStream text = new ByteArrayOutputStream();
        try (JsonGenerator json = new JsonFactory().createGenerator(text)) {
            json.writeStartObject();
            if (!metadata.isEmpty()) {
                json.writeObjectFieldStart(SafetensorsHeader.METADATA);
                for (Map.Entry<String, String> pair : new TreeMap<>(metadata).entrySet()) {
                    json.writeStringField(checked(pair.getKey()), checked(pair.getValue()));
                }
                json.writeEndObject();
            }
            long at = 0;
            for (Entry entry : entries) {
                writeTensor(json, entry, at);
                at += entry.source.bytes();
            }
            json.writeEndObject();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // the stream is memory
        }
        while (text.size() % ALIGNMENT != 0) {
            text.write(' ');
        }
        if (text.size() > StrictJson.MAX_BYTES) {
            throw GatunException.invalid("%s: the header has %,d bytes, the format allows %,d: write several files",
                    file, text.size(), StrictJson.MAX_BYTES);
        }
        return text.toByteArray();
    }

    /// Jackson writes half of a surrogate pair as a question mark.
    private static String checked(String text) {
        if (!StrictJson.isUnicode(text)) {
            throw GatunException.invalid("%s holds half of a surrogate pair and cannot be written",
                    TensorInfo.quote(text));
        }
        return text;
    }

    private static void writeTensor(JsonGenerator json, Entry entry, long at) throws IOException {
        if (entry.name.equals(SafetensorsHeader.METADATA)) {
            throw GatunException.invalid("%s is the name of the metadata, not of a tensor", entry.name);
        }
        TensorSource source = entry.source;
        json.writeObjectFieldStart(checked(entry.name));
        json.writeStringField("dtype", source.dtype().name());
        json.writeFieldName("shape");
        json.writeArray(source.shape(), 0, source.shape().length);
        json.writeFieldName("data_offsets");
        json.writeArray(new long[] {at, at + source.bytes()}, 0, 2);
        json.writeEndObject();
    }

    private static void write(FileChannel out, MemorySegment bytes, ByteBuffer buffer) throws IOException {
        for (long at = 0; at < bytes.byteSize(); at += buffer.limit()) {
            buffer.clear().limit((int) Math.min(buffer.capacity(), bytes.byteSize() - at));
            MemorySegment.ofBuffer(buffer).copyFrom(bytes.asSlice(at, buffer.limit()));
            while (buffer.hasRemaining()) {
                out.write(buffer);
            }
        }
    }
}
