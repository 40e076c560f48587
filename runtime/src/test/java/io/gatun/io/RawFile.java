package io.gatun.io;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/// Writes safetensors files byte by byte, valid or not, without the writer under test; and tells what is mapped.
final class RawFile {
    private RawFile() {}

    static byte[] bytes(long headerLength, byte[] header, byte... data) {
        return ByteBuffer.allocate(8 + header.length + data.length).order(ByteOrder.LITTLE_ENDIAN).putLong(headerLength)
                .put(header).put(data).array();
    }

    static byte[] bytes(String header, byte... data) {
        byte[] utf8 = header.getBytes(StandardCharsets.UTF_8);
        return bytes(utf8.length, utf8, data);
    }

    static Path write(Path file, String header, byte... data) throws IOException {
        return Files.write(file, bytes(header, data));
    }

    /// A file with one F32 vector.
    static Path vector(Path file, String name, float... values) throws IOException {
        byte[] data = new byte[4 * values.length];
        MemorySegment.ofArray(data).copyFrom(MemorySegment.ofArray(values));
        return write(file, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[%d],\"data_offsets\":[0,%d]}}".formatted(name,
                values.length, data.length), data);
    }

    static boolean isMapped(Path file) throws IOException {
        String path = file.toRealPath().toString();
        try (var lines = Files.lines(Path.of("/proc/self/maps"))) {
            return lines.anyMatch(line -> line.endsWith(path));
        }
    }

    /// Bytes of a mapped file that are in this process's memory.
    static long residentBytes(Path file) throws IOException {
        String path = file.toRealPath().toString();
        long bytes = 0;
        boolean inside = false;
        for (String line : Files.readAllLines(Path.of("/proc/self/smaps"))) {
            if (line.matches("[0-9a-f]+-[0-9a-f]+ .*")) {
                inside = line.endsWith(path);
            } else if (inside && line.startsWith("Rss:")) {
                bytes += Long.parseLong(line.replaceAll("\\D", "")) << 10;
            }
        }
        return bytes;
    }
}
