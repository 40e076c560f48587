package io.gatun.bench.gpu;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/// Runs a program, for a limited time, with all it prints in a log.
///
/// @param exit    its status
/// @param ended   whether it ended by itself in time
/// @param output  standard output; standard error is in the log alone
record Child(int exit, boolean ended, double seconds, String output) {
    private static final int LAST_LINES = 6;
    private static final int NOT_STARTED = 127;

    boolean isFine() {
        return ended && exit == 0;
    }

    /// @param log to append to
    static Child run(Path log, Duration limit, List<String> command) {
        long start = System.nanoTime();
        StringBuilder output = new StringBuilder();
        try (Writer writer = Files.newBufferedWriter(log, StandardOpenOption.CREATE, StandardOpenOption.APPEND)) {
            writer.write("$ " + String.join(" ", command) + "\n");
            writer.flush();
            Process process;
            try {
                process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.appendTo(log.toFile()))
                        .start();
            } catch (IOException e) {
                writer.write(e.getMessage() + "\n");
                return new Child(NOT_STARTED, true, 0, String.valueOf(e.getMessage()));
            }
            CompletableFuture<Boolean> ended = process.onExit().thenApply(p -> true)
                    .completeOnTimeout(false, limit.toMillis(), TimeUnit.MILLISECONDS);
            ended.thenAccept(inTime -> {
                if (!inTime) {
                    process.descendants().forEach(ProcessHandle::destroyForcibly);
                    process.destroyForcibly();
                }
            });
            try (BufferedReader reader = process.inputReader(StandardCharsets.UTF_8)) {
                for (String line = reader.readLine(); line != null; line = reader.readLine()) {
                    writer.write(line + "\n");
                    writer.flush();
                    output.append(line).append('\n');
                }
            }
            boolean inTime = ended.join();
            return new Child(process.waitFor(), inTime, (System.nanoTime() - start) * 1e-9, output.toString());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted", e);
        }
    }

    /// A check that this run was.
    Outcome outcome(Part part, String name, Path log) {
        return new Outcome(part, name, isFine() ? Outcome.Status.PASSED : Outcome.Status.FAILED, seconds,
                isFine() ? "" : trouble(log));
    }

    /// Why it is not fine, with the last lines of the log.
    String trouble(Path log) {
        String how = ended ? "exit status " + exit : "did not end in time";
        try {
            List<String> lines = Files.readAllLines(log);
            return how + ", see " + log.getFileName() + ":\n"
                    + String.join("\n", lines.subList(Math.max(0, lines.size() - LAST_LINES), lines.size()));
        } catch (IOException e) {
            return how + "; " + e;
        }
    }

    /// Where a program is: on the PATH or in one of these folders; null where it is not.
    static @Nullable Path find(String program, String... folders) {
        String path = System.getenv().getOrDefault("PATH", "") + ":" + String.join(":", folders);
        for (String folder : path.split(":")) {
            Path file = Path.of(folder, program);
            if (!folder.isEmpty() && Files.isExecutable(file) && Files.isRegularFile(file)) {
                return file;
            }
        }
        return null;
    }
}
