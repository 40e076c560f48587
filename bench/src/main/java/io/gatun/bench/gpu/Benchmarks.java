package io.gatun.bench.gpu;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.MissingNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/// Runs `gatun bench` for a part of the suite, with PyTorch as the peer where there is one.
final class Benchmarks {
    private static final Deadline.Limit PEER_CHECK = new Deadline.Limit(Duration.ofMinutes(2), false);
    private static final Duration PREPARATION = Duration.ofMinutes(5);
    private static final int AWAITED_SECONDS = 60;
    /// Of a benchmark's time, for its start and for what it does not interrupt.
    private static final long SPARE_SECONDS = 15;
    /// Of a part: each begins with what a JVM and the peer take to start.
    private static final int MOST_TRIES = 5;
    private static final Set<Part> COMPILED = Set.of(Part.HOPPER, Part.TRAIN);

    private final List<String> gatun;
    private final Path log;
    private final Facts facts;
    private final SuiteReport report;
    private final Set<Part> parts;
    private final boolean dryRun;
    private final Duration stall;
    private final String python = System.getenv().getOrDefault("PYTHON", "python3");
    private final CompletableFuture<Boolean> hasPeer;

    /// @param gatun how the command line of Gatun begins
    /// @param log   in the folder of the results
    /// @param parts of the suite that will run
    /// @param stall how long a case of kernels may take, with what the peer compiles for it
    Benchmarks(List<String> gatun, Path log, Facts facts, SuiteReport report, Set<Part> parts, boolean dryRun,
            Duration stall) {
        this.gatun = gatun;
        this.log = log;
        this.facts = facts;
        this.report = report;
        this.parts = parts;
        this.dryRun = dryRun;
        this.stall = stall;
        boolean measures = parts.stream().anyMatch(part -> part.compareTo(Part.HOPPER) >= 0);
        hasPeer = dryRun || !measures ? CompletableFuture.completedFuture(false) : CompletableFuture.supplyAsync(
                () -> Child.run(log, PEER_CHECK, List.of(python, "-c", "import torch; torch.zeros(1).cuda()"))
                        .isFine());
    }

    static String name(Part part) {
        return name(options(part));
    }

    private static String name(List<String> options) {
        return "gatun bench " + String.join(" ", options);
    }

    private static List<String> options(Part part) {
        return switch (part) {
            case HOPPER -> List.of("--kernels", "--set", "hopper");
            case TRAIN -> List.of("--train", "--only", "gpt124m", "--dtype", "bf16");
            case MODELS -> List.of("--models", "--quantization", "fp8");
            default -> List.of("--" + part);
        };
    }

    /// What PyTorch compiles, compiled while other parts run: it keeps that in a cache on the disk.
    final class Preparation implements AutoCloseable {
        private final CompletableFuture<Void> work;

        private Preparation(List<Part> compiled, Deadline deadline) {
            work = CompletableFuture.allOf(compiled.stream().map(part -> CompletableFuture.runAsync(
                    () -> prepare(part, deadline.limit(PREPARATION)))).toArray(CompletableFuture[]::new));
        }

        private void prepare(Part part, Deadline.Limit limit) {
            if (hasPeer.join()) {
                List<String> command = new ArrayList<>(gatun);
                command.add("bench");
                command.addAll(options(part));
                command.addAll(List.of("--device", "cuda", "--peer", python, "--prepare-peer"));
                Child.run(log, limit, command);
            }
        }

        /// Waits for its end, not for long, so that it does not disturb what is measured.
        void await() {
            hasPeer.join();
            work.completeOnTimeout(null, AWAITED_SECONDS, TimeUnit.SECONDS).join();
            close();
        }

        /// Ends what is left of it; nothing else runs now.
        @Override
        public void close() {
            ProcessHandle.current().descendants().forEach(ProcessHandle::destroyForcibly);
        }
    }

    /// Begins it where other parts run at the same time.
    Preparation prepare(Deadline deadline) {
        boolean others = parts.stream().anyMatch(part -> part.compareTo(Part.HOPPER) < 0 && part != Part.FACTS);
        return new Preparation(others ? COMPILED.stream().filter(parts::contains).toList() : List.of(), deadline);
    }

    /// Kernels are measured on behind a case that failed or hung, in a process of its own: a fault of the device is no
    /// reason to know nothing of the others. Models likewise without fp8.
    List<Outcome> run(Part part, Deadline.Limit limit) {
        long start = System.nanoTime();
        List<Outcome> outcomes = new ArrayList<>();
        List<String> options = options(part);
        try (Facts.Watch watch = facts.watch()) {
            for (int i = 0; i < MOST_TRIES && !options.isEmpty(); i++) {
                Deadline.Limit left = new Deadline.Limit(limit.time().minusNanos(System.nanoTime() - start),
                        limit.isCut());
                if (i > 0 && left.time().toSeconds() <= SPARE_SECONDS) {
                    break;
                }
                options = measure(part, options, left, outcomes);
            }
            if (watch != null) {
                report.fact("lowest, median, highest during " + part, watch.summary());
            }
        }
        return outcomes;
    }

    /// Returns the options for what is to be measured after it; none: nothing is.
    private List<String> measure(Part part, List<String> options, Deadline.Limit limit, List<Outcome> outcomes) {
        Path json = log.resolveSibling(part + ".json"); // there it is found if the suite itself is ended
        try {
            Files.deleteIfExists(json);
            Child bench = Child.run(log, limit, part == Part.HOPPER || part == Part.KERNELS
                    ? new Child.Progress(json, stall) : null, command(options, limit, json));
            JsonNode found = MissingNode.getInstance();
            if (Files.exists(json)) {
                found = new ObjectMapper().readTree(json.toFile());
                report.addBenchmark(part, found, bench.isFine() ? bench.output()
                        : bench.ended() ? "it failed\n" : "it did not end\n");
                Files.delete(json);
            }
            String at = found.path("beginning").asText();
            outcomes.add(bench.outcome(part, name(options) + (bench.isFine() || at.isEmpty() ? "" : " at " + at)));
            return bench.isFine() || bench.isCut() ? List.of() : rest(part, options, found);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private List<String> rest(Part part, List<String> options, JsonNode found) {
        int begun = found.path("begun").asInt();
        if (begun > 0 && begun < found.path("cases").asInt()) {
            List<String> after = new ArrayList<>(options(part));
            after.addAll(List.of("--after", Integer.toString(begun)));
            return after;
        }
        List<String> plain = List.of("--models");
        return part == Part.MODELS && !options.equals(plain) ? plain : List.of();
    }

    private List<String> command(List<String> options, Deadline.Limit limit, Path json) {
        List<String> command = new ArrayList<>(gatun);
        command.add("bench");
        command.addAll(options);
        command.addAll(List.of("--device", "cuda", "--json", json.toString()));
        if (limit.isCut()) {
            command.addAll(List.of("--seconds", Long.toString(Math.max(1, limit.time().toSeconds() - SPARE_SECONDS))));
        }
        if (dryRun) {
            command.addAll(List.of("--trial", "--threads", "1"));
        } else if (hasPeer.join()) {
            command.addAll(List.of("--peer", python));
        } else {
            report.fact("peer", "none: " + python + " has no torch that sees the GPU, see suite.log");
        }
        return command;
    }
}
