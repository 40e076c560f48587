package io.gatun.bench.gpu;

import io.gatun.bench.gpu.Outcome.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// What GPU is this, with which driver, and at which clocks does it run while we measure? As nvidia-smi says.
final class Facts {
    private static final List<String> WANTED = List.of("name", "driver_version", "compute_cap", "memory.total",
            "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit", "temperature.gpu",
            "ecc.mode.current", "mig.mode.current");
    private static final List<String> WATCHED = List.of("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu");
    private static final Duration LIMIT = Duration.ofSeconds(60);
    private static final String EVERY_MILLIS = "200";

    private final @Nullable Path smi = Child.find("nvidia-smi");
    private final Path log;

    Facts(Path log) {
        this.log = log;
    }

    /// By nvidia-smi's own names.
    Map<String, Object> gpu() {
        Map<String, Object> facts = new LinkedHashMap<>();
        if (smi == null) {
            facts.put("nvidia-smi", "not found");
            return facts;
        }
        List<String> values = query(smi, String.join(",", WANTED));
        for (int i = 0; i < WANTED.size(); i++) { // one by one where the driver does not know one: it refuses them all
            List<String> value = values.size() == WANTED.size() ? values.subList(i, i + 1) : query(smi, WANTED.get(i));
            facts.put(WANTED.get(i), String.join(" ", value));
        }
        return facts;
    }

    private List<String> query(Path program, String what) {
        Child answer = Child.run(log, new Deadline.Limit(LIMIT, false), List.of(program.toString(),
                "--query-gpu=" + what, "--format=csv,noheader"));
        return List.of(answer.output().strip().split(",\\s*"));
    }

    /// Tells what Gatun finds; fails where it finds no device.
    Outcome doctor(List<String> gatun, Deadline.Limit limit, SuiteReport report) {
        List<String> command = new ArrayList<>(gatun);
        command.add("doctor");
        Child doctor = Child.run(log, limit, command);
        List<String> lines = doctor.output().lines().toList();
        report.fact("doctor", lines);
        boolean found = lines.stream().anyMatch(line -> line.contains("cuda:0:"));
        return new Outcome(Part.FACTS, "gatun doctor finds cuda:0", doctor.isFine() && found ? Status.PASSED
                : Status.FAILED, doctor.seconds(), found ? "" : doctor.trouble());
    }

    /// What lies between the kernels of a graph, and between the phases of one that stays.
    Outcome boundaries(Path program, Deadline.Limit limit, SuiteReport report) {
        Child measured = Child.run(log, limit, List.of(program.toString()));
        report.fact("boundaries", measured.output().lines().toList());
        return measured.outcome(Part.FACTS, "boundaries");
    }

    /// Samples clocks until it is closed; null where there is no nvidia-smi.
    @Nullable Watch watch() {
        return smi == null ? null : new Watch(smi);
    }

    /// Lowest, median and highest of what was watched.
    static final class Watch implements AutoCloseable {
        private final Path samples;
        private final Process process;

        private Watch(Path smi) {
            try {
                samples = Files.createTempFile("gatun-clocks", ".csv");
                process = new ProcessBuilder(smi.toString(), "--query-gpu=" + String.join(",", WATCHED),
                        "--format=csv,noheader,nounits", "-lms", EVERY_MILLIS).redirectErrorStream(true)
                        .redirectOutput(samples.toFile()).start();
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }

        /// Ends the watch.
        Map<String, Object> summary() {
            process.destroy();
            Map<String, Object> summary = new LinkedHashMap<>();
            try {
                List<String[]> rows = Files.readAllLines(samples).stream().map(line -> line.split(",\\s*"))
                        .filter(row -> row.length == WATCHED.size()).toList();
                for (int i = 0; i < WATCHED.size(); i++) {
                    int column = i;
                    double[] values = rows.stream().map(row -> row[column])
                            .filter(text -> text.matches("[0-9.]+")).mapToDouble(Double::parseDouble).sorted()
                            .toArray();
                    summary.put(WATCHED.get(i), values.length == 0 ? "unknown"
                            : Arrays.asList(values[0], values[values.length / 2], values[values.length - 1]));
                }
                Files.delete(samples);
            } catch (IOException e) {
                summary.put("clocks", "unknown: " + e);
            }
            return summary;
        }

        @Override
        public void close() {
            process.destroy();
        }
    }
}
