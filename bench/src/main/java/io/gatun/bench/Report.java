package io.gatun.bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import io.gatun.io.AtomicFile;
import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Results as a table for people and as JSON for programs, from the same rows.
final class Report {
    private final Map<String, Object> machine;
    private final @Nullable Path json;
    private final Map<String, List<Map<String, Object>>> sections = new LinkedHashMap<>();
    private final Map<String, Object> attached = new LinkedHashMap<>();

    /// @param json file for the results, besides what is printed
    Report(Map<String, Object> machine, @Nullable Path json) {
        this.machine = machine;
        this.json = json;
    }

    /// @param rows all with the same columns; none: there is no such section
    void add(String section, List<Map<String, Object>> rows) {
        if (!rows.isEmpty()) {
            sections.put(section, rows);
        }
    }

    /// A row with a measure, its spread and its unit.
    static Map<String, Object> measure(String measure, String unit, Spread spread) {
        Map<String, Object> row = new LinkedHashMap<>();
        row.put("measure", measure);
        spread.putInto(row);
        row.put("unit", unit);
        return row;
    }

    /// Adds something that the JSON holds and the table leaves out.
    void attach(String name, Object value) {
        attached.put(name, value);
    }

    String text() {
        StringBuilder text = new StringBuilder();
        machine.forEach((name, value) -> {
            List<?> lines = value instanceof List<?> list ? list : List.of(value);
            for (int i = 0; i < lines.size(); i++) {
                text.append("%-21s %s%n".formatted(i == 0 ? name : "", lines.get(i)));
            }
        });
        sections.forEach((name, rows) -> {
            text.append("%n%s%n".formatted(name));
            appendTable(text, rows);
        });
        return text.toString();
    }

    private static void appendTable(StringBuilder text, List<Map<String, Object>> rows) {
        List<List<String>> lines = new ArrayList<>();
        lines.add(List.copyOf(rows.getFirst().keySet()));
        rows.forEach(row -> lines.add(row.values().stream().map(Report::format).toList()));
        int columns = lines.getFirst().size();
        int[] width = new int[columns];
        for (List<String> line : lines) {
            for (int i = 0; i < columns; i++) {
                width[i] = Math.max(width[i], line.get(i).length());
            }
        }
        for (List<String> line : lines) {
            StringBuilder padded = new StringBuilder();
            for (int i = 0; i < columns; i++) {
                boolean number = rows.getFirst().values().toArray()[i] instanceof Number;
                padded.append(("  %" + (number ? "" : "-") + width[i] + "s").formatted(line.get(i)));
            }
            text.append(padded.toString().stripTrailing()).append(System.lineSeparator());
        }
    }

    /// Four digits that count.
    private static String format(Object value) {
        if (!(value instanceof Double d)) {
            return value.toString();
        }
        double size = Math.abs(d);
        int decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
        return d.isNaN() ? "-" : String.format(Locale.ROOT, "%." + decimals + "f", d);
    }

    /// Writes what there is, so that whoever ends this early has it.
    void save() {
        if (json == null) {
            return;
        }
        Map<String, Object> all = new LinkedHashMap<>();
        all.put("machine", machine);
        all.putAll(sections);
        all.putAll(attached);
        try {
            AtomicFile.replace(json, new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT)
                    .writeValueAsBytes(all));
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, "cannot write %s: %s".formatted(json,
                    IoReason.of(e)), e);
        }
    }
}
