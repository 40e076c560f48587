package io.gatun.io;

import com.fasterxml.jackson.core.JsonParseException;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// The first part of a safetensors file: `u64 N, little endian | N bytes of JSON | data`, with every rule of the format
/// checked. Nothing is allocated before the length that asks for it has been held against the file.
///
/// Accepts what safetensors 0.8 accepts, with two exceptions, both in favour of the written format: a header must begin
/// with `{`, and no key may occur twice. Beyond the format, tensors per file, rank and nesting are bounded, and strings
/// must be complete Unicode.
///
/// Source: https://github.com/huggingface/safetensors (README, Format).
///
/// @param tensors   in the order of their bytes
/// @param dataStart where the data begins in the file
record SafetensorsHeader(Map<String, TensorInfo> tensors, Map<String, String> metadata, long dataStart) {
    static final int LENGTH_BYTES = 8;
    static final String METADATA = "__metadata__";

    /// So that a small file cannot cost gigabytes of objects.
    static final int MAX_TENSORS = 500_000;
    /// The most dimensions that NumPy or PyTorch can make.
    private static final int MAX_RANK = 64;
    private static final int READ_CHUNK = 1 << 20;

    /// @param fileBytes size of the file
    static SafetensorsHeader read(FileChannel channel, Path file, long fileBytes) throws IOException {
        byte[] prefix = bytes(channel, file, 0, (int) Math.min(LENGTH_BYTES, fileBytes));
        long length = prefix.length < LENGTH_BYTES ? -1
                : ByteBuffer.wrap(prefix).order(ByteOrder.LITTLE_ENDIAN).getLong();
        long available = fileBytes - LENGTH_BYTES;
        if (length < 2 || length > StrictJson.MAX_BYTES || length > available) {
            throw GatunException.invalid("%s: not a safetensors file, or damaged: expected 8 bytes that hold the length"
                    + " of a header of 2 to %,d bytes, found %s in a file of %,d bytes. %s", file, StrictJson.MAX_BYTES,
                    prefix.length < LENGTH_BYTES ? prefix.length + " bytes" : "length " + Long.toUnsignedString(length),
                    fileBytes, advice(prefix));
        }
        byte[] text = bytes(channel, file, LENGTH_BYTES, (int) length);
        return parse(file, text, available - length);
    }

    private static String advice(byte[] prefix) {
        String start = new String(prefix, StandardCharsets.ISO_8859_1);
        return start.equals("version ") ? "It is a Git LFS pointer: run 'git lfs pull' to get the file itself"
                : start.startsWith("PK") || start.startsWith("\u0080\u0002")
                        ? "It looks like a pickle file of PyTorch: " + CheckpointFiles.CONVERT_PICKLE
                : start.startsWith("GGUF") ? "It is a GGUF file: " + CheckpointFiles.CONVERT_GGUF
                : "Copy or download it again";
    }

    private static byte[] bytes(FileChannel channel, Path file, long position, int count) throws IOException {
        ByteBuffer buffer = ByteBuffer.allocate(count);
        while (buffer.position() < count) {
            // in pieces: for a heap buffer the JDK allocates as much native memory as is asked for
            buffer.limit(Math.min(count, buffer.position() + READ_CHUNK));
            if (channel.read(buffer, position + buffer.position()) < 0) {
                throw GatunException.invalid("%s: ended while its header was read, is it still being written?", file);
            }
        }
        return buffer.array();
    }

    private static SafetensorsHeader parse(Path file, byte[] text, long dataBytes) {
        Map<String, String> metadata = new LinkedHashMap<>();
        List<TensorInfo> tensors = StrictJson.parse(file, "the header", text, json -> {
            List<TensorInfo> list = new ArrayList<>();
            while (json.nextToken() != JsonToken.END_OBJECT) {
                String name = StrictJson.name(json);
                json.nextToken();
                if (name.equals(METADATA)) {
                    readMetadata(json, metadata);
                } else if (list.size() == MAX_TENSORS) {
                    throw new JsonParseException(json, "more than " + MAX_TENSORS + " tensors");
                } else {
                    list.add(readTensor(json, name));
                }
            }
            return list;
        });
        tensors.sort(Comparator.comparingLong(TensorInfo::begin).thenComparingLong(TensorInfo::end));
        checkCoverage(file, tensors, dataBytes);
        Map<String, TensorInfo> byName = LinkedHashMap.newLinkedHashMap(tensors.size());
        tensors.forEach(tensor -> byName.put(tensor.name(), tensor));
        return new SafetensorsHeader(Collections.unmodifiableMap(byName), Collections.unmodifiableMap(metadata),
                (long) LENGTH_BYTES + text.length);
    }

    private static void readMetadata(JsonParser json, Map<String, String> metadata) throws IOException {
        if (json.currentToken() == JsonToken.VALUE_NULL) {
            return;
        }
        StrictJson.expect(json, JsonToken.START_OBJECT, METADATA + " to be an object of strings");
        while (json.nextToken() != JsonToken.END_OBJECT) {
            String key = StrictJson.name(json);
            json.nextToken();
            metadata.put(key, StrictJson.string(json, METADATA + " to hold strings"));
        }
    }

    /// `{"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}`; other fields are skipped.
    private static TensorInfo readTensor(JsonParser json, String name) throws IOException {
        StrictJson.expect(json, JsonToken.START_OBJECT, "a tensor to be an object");
        StoredDType dtype = null;
        long[] shape = null;
        long[] range = null;
        while (json.nextToken() != JsonToken.END_OBJECT) {
            String field = json.currentName();
            json.nextToken();
            switch (field) {
                case "dtype" -> dtype = readDType(json);
                case "shape" -> shape = readSizes(json, "shape", MAX_RANK);
                case "data_offsets" -> range = readSizes(json, "data_offsets", 2);
                default -> json.skipChildren();
            }
        }
        if (dtype == null || shape == null || range == null || range.length != 2) {
            throw new JsonParseException(json, "tensor " + TensorInfo.quote(name)
                    + ": expected dtype, shape and two data_offsets");
        }
        long bytes = bytes(dtype, shape);
        if (bytes < 0 || range[1] < range[0] || range[1] - range[0] != bytes) {
            throw new JsonParseException(json, "tensor %s %s%s: expected %s, found data_offsets %s".formatted(
                    TensorInfo.quote(name), dtype, Arrays.toString(shape),
                    bytes < 0 ? "a whole number of bytes below 2^60" : bytes + " bytes", Arrays.toString(range)));
        }
        return new TensorInfo(name, dtype, shape, range[0], range[1]);
    }

    private static StoredDType readDType(JsonParser json) throws IOException {
        String name = StrictJson.string(json, "dtype to be a string");
        try {
            return StoredDType.valueOf(name);
        } catch (IllegalArgumentException e) {
            throw StrictJson.unexpected(json, "one of the dtypes of the format");
        }
    }

    private static long[] readSizes(JsonParser json, String what, int most) throws IOException {
        StrictJson.expect(json, JsonToken.START_ARRAY, what + " to be an array");
        long[] sizes = new long[4];
        int n = 0;
        while (json.nextToken() != JsonToken.END_ARRAY) {
            if (n == most) {
                throw new JsonParseException(json, what + ": expected at most " + most + " numbers");
            }
            if (n == sizes.length) {
                sizes = Arrays.copyOf(sizes, 2 * n);
            }
            sizes[n++] = StrictJson.size(json, what);
        }
        return Arrays.copyOf(sizes, n);
    }

    /// Bytes of a packed tensor; -1 when the number of bits overflows or is not one of whole bytes.
    static long bytes(StoredDType dtype, long[] shape) {
        try {
            long bits = Math.multiplyExact(TensorInfo.elements(shape), dtype.bits());
            return bits % 8 == 0 ? bits / 8 : -1;
        } catch (ArithmeticException e) {
            return -1;
        }
    }

    /// Tensors follow each other without holes or overlap, up to the end of the file.
    private static void checkCoverage(Path file, List<TensorInfo> tensors, long dataBytes) {
        long end = 0;
        @Nullable TensorInfo previous = null;
        for (TensorInfo tensor : tensors) {
            if (tensor.begin() != end) {
                throw GatunException.invalid("%s: tensor %s begins at byte %d of the data, expected %d, where %s ends:"
                        + " the format allows neither holes nor overlap. Write the file again", file, tensor,
                        tensor.begin(), end, previous == null ? "the header" : previous);
            }
            end = tensor.end();
            previous = tensor;
        }
        if (end != dataBytes) {
            throw GatunException.invalid("%s: the header promises %,d bytes of data, the file has %,d. %s", file, end,
                    dataBytes, dataBytes < end ? "It was cut short: copy or download it again" : "Write it again");
        }
    }
}
