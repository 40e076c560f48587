package io.gatun.bench.gpu;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.bench.gpu.Outcome.Status;
import io.gatun.io.AtomicFile;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// The results as `results.json` and `results.md`. Written again after each check, whole or not at all, so that a
/// suite that is ended before its end leaves what it has. Checks that run at the same time may add theirs.
final class SuiteReport {
    private final Path folder;
    private final Map<String, Object> facts = new LinkedHashMap<>();
    private final List<Outcome> outcomes = new ArrayList<>();
    private final Map<String, JsonNode> benchmarks = new LinkedHashMap<>();
    private final StringBuilder tables = new StringBuilder();

    SuiteReport(Path folder) {
        this.folder = folder;
    }

    synchronized void fact(String name, Object value) {
        facts.put(name, value);
    }

    synchronized void add(List<Outcome> more) {
        outcomes.addAll(more);
        write();
    }

    /// Beside what there is of the same part.
    ///
    /// @param json  what `gatun bench --json` wrote
    /// @param table what it printed
    synchronized void addBenchmark(Part part, JsonNode json, String table) {
        benchmarks.merge(part.toString(), json, SuiteReport::joined);
        tables.append("\n## ").append(part).append("\n\n```\n").append(table).append("```\n");
    }

    /// Rows of both, and what was skipped in either; else what the later one says.
    private static JsonNode joined(JsonNode earlier, JsonNode later) {
        ObjectNode all = earlier.deepCopy();
        later.properties().forEach(field -> {
            JsonNode known = all.get(field.getKey());
            if (known instanceof ArrayNode rows && field.getValue() instanceof ArrayNode more) {
                rows.addAll(more);
            } else if (known instanceof ObjectNode entries && field.getValue() instanceof ObjectNode more) {
                entries.setAll(more);
            } else {
                all.set(field.getKey(), field.getValue());
            }
        });
        return all;
    }

    synchronized List<Outcome> all(Status status) {
        return outcomes.stream().filter(o -> o.status() == status).toList();
    }

    /// One line per part: how many passed, failed, were left out.
    synchronized List<String> summary() {
        return Arrays.stream(Part.values()).filter(part -> outcomes.stream().anyMatch(o -> o.part() == part))
                .map(part -> "%-10s %5d passed %4d failed %4d skipped %4d left out".formatted(part,
                        count(part, Status.PASSED), count(part, Status.FAILED), count(part, Status.SKIPPED),
                        count(part, Status.LEFT_OUT))).toList();
    }

    private long count(Part part, Status status) {
        return outcomes.stream().filter(o -> o.part() == part && o.status() == status).count();
    }

    synchronized void write() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("facts", facts);
        json.put("summary", summary());
        json.put("failed", all(Status.FAILED));
        json.put("left out", all(Status.LEFT_OUT));
        json.put("checks", outcomes);
        json.putAll(benchmarks);
        try {
            AtomicFile.replace(folder.resolve("results.json"), new ObjectMapper()
                    .enable(SerializationFeature.INDENT_OUTPUT).writeValueAsBytes(json));
            AtomicFile.replace(folder.resolve("results.md"), markdown().getBytes(StandardCharsets.UTF_8));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private String markdown() {
        StringBuilder text = new StringBuilder("# GPU suite\n\n");
        facts.forEach((name, value) -> {
            if (value instanceof List<?> lines) {
                text.append("- ").append(name).append(":\n");
                lines.forEach(line -> text.append("  - `").append(line).append("`\n"));
            } else {
                text.append("- ").append(name).append(": `").append(value).append("`\n");
            }
        });
        text.append("\n## Checks\n\n```\n");
        summary().forEach(line -> text.append(line).append('\n'));
        text.append("```\n");
        appendList(text, "Failed", all(Status.FAILED));
        appendList(text, "Left out", all(Status.LEFT_OUT));
        appendList(text, "Skipped", all(Status.SKIPPED));
        return text.append(tables).toString();
    }

    private static void appendList(StringBuilder text, String title, List<Outcome> outcomes) {
        if (!outcomes.isEmpty()) {
            text.append("\n### ").append(title).append("\n\n");
            for (Outcome o : outcomes) {
                text.append("- ").append(o.part()).append(": ").append(o.name()).append(": ").append(o.reason())
                        .append('\n');
            }
        }
    }
}
