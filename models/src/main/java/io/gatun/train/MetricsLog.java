package io.gatun.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.io.AtomicFile;
import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// `metrics.jsonl`: one JSON object per line, `{"step": 10, "loss": 3.2, ...}`. What is not a number is null. For one
/// thread.
public final class MetricsLog implements AutoCloseable {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    /// @param step after which it was measured
    public record Line(int step, Map<String, Double> values) {}

    private final Path file;
    private final List<Line> lines;
    private final FileChannel out;

    private MetricsLog(Path file, List<Line> lines, FileChannel out) {
        this.file = file;
        this.lines = lines;
        this.out = out;
    }

    /// Opens the log of a run at a step. Lines of later steps, which the run will make again, and a last line that was
    /// cut off are dropped.
    ///
    /// @throws GatunException when the file cannot be written
    public static MetricsLog open(Path file, int step) {
        try {
            List<Line> lines = new ArrayList<>();
            StringBuilder kept = new StringBuilder();
            for (String text : Files.exists(file) ? Files.readAllLines(file) : List.<String>of()) {
                Line line = parse(text);
                if (line != null && line.step <= step) {
                    lines.add(line);
                    kept.append(text).append('\n');
                }
            }
            byte[] bytes = kept.toString().getBytes(StandardCharsets.UTF_8);
            AtomicFile.replace(file, bytes);
            return new MetricsLog(file, lines,
                    FileChannel.open(file, StandardOpenOption.WRITE, StandardOpenOption.APPEND));
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, file + ": cannot be opened: "
                    + IoReason.of(e), e);
        }
    }

    /// Null where it is no line of a log.
    private static @Nullable Line parse(String text) {
        try {
            JsonNode json = MAPPER.readTree(text);
            if (!json.path("step").isInt()) {
                return null;
            }
            Map<String, Double> values = new LinkedHashMap<>();
            json.properties().forEach(field -> {
                if (!field.getKey().equals("step")) {
                    values.put(field.getKey(), field.getValue().isNumber() ? field.getValue().asDouble() : Double.NaN);
                }
            });
            return new Line(json.path("step").asInt(), values);
        } catch (JsonProcessingException e) {
            return null;
        }
    }

    private static void write(FileChannel out, byte[] bytes) throws IOException {
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        while (buffer.hasRemaining()) {
            out.write(buffer);
        }
    }

    /// Adds a line, which is in the file when this returns.
    ///
    /// @throws GatunException when it cannot be written
    public void append(int step, Map<String, Double> values) {
        ObjectNode json = MAPPER.createObjectNode().put("step", step);
        values.forEach((name, value) -> {
            if (Double.isFinite(value)) {
                json.put(name, value);
            } else {
                json.putNull(name);
            }
        });
        try {
            write(out, (json + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, file + ": cannot be written: "
                    + IoReason.of(e), e);
        }
        lines.add(new Line(step, new LinkedHashMap<>(values)));
    }

    /// All lines, in their order.
    public List<Line> lines() {
        return List.copyOf(lines);
    }

    @Override
    public void close() {
        try {
            out.close();
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, file + ": cannot be closed: "
                    + IoReason.of(e), e);
        }
    }
}
