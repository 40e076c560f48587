package io.gatun.bench.gpu;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/// Runs a program, for a limited time; what it printed goes into a log when it has ended, the middle of much left out.
///
/// @param exit   its status; -1 where the system did not end it
/// @param ended  whether it ended by itself in time
/// @param isCut  whether it did not because the suite's time was over
/// @param output standard output
/// @param errors standard error, or why it did not start
record Child(int exit, boolean ended, boolean isCut, double seconds, String output, String errors) {
    private static final int LAST_LINES = 6;
    private static final String SANITIZER = "=========";
    private static final int NOT_STARTED = 127;
    private static final int NOT_ENDED = -1;
    /// For the rest of a program's output, and for the system to end it: a GPU that hangs may keep it.
    private static final Duration GRACE = Duration.ofSeconds(5);
    private static final int LOOK_MILLIS = 500;
    /// Characters of either output that a log keeps; a hundred such fit in what it may have.
    private static final int LOGGED = 48 << 10;
    private static final long LOG_BYTES = 12 << 20;
    private static final Object LOG_LOCK = new Object();

    boolean isFine() {
        return ended && exit == 0;
    }

    /// A file that a program writes again and again, and how long it may leave it as it is.
    record Progress(Path file, Duration most) {}

    /// @param log to append to; children that run at the same time may have the same
    static Child run(Path log, Deadline.Limit limit, List<String> command) {
        return run(log, limit, null, command);
    }

    /// @param progress ends the program too where it makes none; null: none is expected
    static Child run(Path log, Deadline.Limit limit, @Nullable Progress progress, List<String> command) {
        Child child = run(limit, progress, command);
        append(log, "$ %s\n%s%s\n".formatted(String.join(" ", command), shortened(child.output),
                shortened(child.errors)));
        return child;
    }

    private static Child run(Deadline.Limit limit, @Nullable Progress progress, List<String> command) {
        long start = System.nanoTime();
        try {
            Path errors = Files.createTempFile("gatun-stderr", ".txt");
            try {
                Process process;
                try {
                    process = new ProcessBuilder(command).redirectError(errors.toFile()).start();
                } catch (IOException e) {
                    return new Child(NOT_STARTED, true, false, 0, "", e.getMessage() + "\n");
                }
                CompletableFuture<Boolean> ended = process.onExit().thenApply(p -> true)
                        .completeOnTimeout(false, limit.time().toMillis(), TimeUnit.MILLISECONDS);
                if (progress != null) {
                    Thread.ofVirtual().start(() -> watch(progress, ended));
                }
                ended.thenAccept(inTime -> {
                    if (!inTime) {
                        process.descendants().forEach(ProcessHandle::destroyForcibly);
                        process.destroyForcibly();
                    }
                });
                StringBuffer output = new StringBuffer();
                Thread reader = Thread.ofPlatform().daemon().start(() -> readAll(process, output));
                boolean inTime = ended.join();
                long nanos = System.nanoTime() - start;
                boolean isOver = nanos >= TimeUnit.MILLISECONDS.toNanos(limit.time().toMillis());
                reader.join(GRACE); // what outlives it may hold its output open
                int exit = process.waitFor(GRACE.toSeconds(), TimeUnit.SECONDS) ? process.exitValue() : NOT_ENDED;
                return new Child(exit, inTime, !inTime && limit.isCut() && isOver, nanos * 1e-9, output.toString(),
                        read(errors));
            } finally {
                Files.delete(errors);
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted", e);
        }
    }

    private static void readAll(Process process, StringBuffer output) {
        try (BufferedReader reader = process.inputReader(StandardCharsets.UTF_8)) {
            for (String line = reader.readLine(); line != null; line = reader.readLine()) {
                output.append(line).append('\n');
            }
        } catch (IOException e) {
            output.append("its output cannot be read: ").append(e).append('\n');
        }
    }

    /// Until it has ended, or makes no progress any more.
    private static void watch(Progress progress, CompletableFuture<Boolean> ended) {
        long since = System.nanoTime();
        long written = 0;
        try {
            while (!ended.isDone()) {
                Thread.sleep(LOOK_MILLIS);
                long now = progress.file.toFile().lastModified(); // 0: not yet
                if (now != written) {
                    written = now;
                    since = System.nanoTime();
                } else if (System.nanoTime() - since > progress.most.toNanos()) {
                    ended.complete(false);
                }
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static String read(Path file) throws IOException {
        return new String(Files.readAllBytes(file), StandardCharsets.UTF_8); // replaces what is no text
    }

    private static String shortened(String text) {
        return text.length() <= LOGGED ? text : text.substring(0, LOGGED / 3) + "\n[...]\n"
                + text.substring(text.length() - 2 * LOGGED / 3);
    }

    private static void append(Path log, String text) {
        synchronized (LOG_LOCK) {
            try {
                if (!Files.exists(log) || Files.size(log) < LOG_BYTES) {
                    Files.writeString(log, text, StandardOpenOption.CREATE,
                            StandardOpenOption.APPEND);
                }
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    }

    /// A check that this run was.
    Outcome outcome(Part part, String name) {
        if (isCut && findings().isEmpty()) {
            return Outcome.leftOut(part, name, "did not end before the suite's time was over");
        }
        return new Outcome(part, name, isFine() ? Outcome.Status.PASSED : Outcome.Status.FAILED, seconds,
                isFine() ? "" : trouble());
    }

    /// Why it is not fine: what compute-sanitizer found first, else the last lines that it printed.
    String trouble() {
        String how = ended ? "exit status " + exit : "did not end in %.0f s".formatted(seconds);
        List<String> lines = findings();
        if (lines.isEmpty()) {
            List<String> all = (output + errors).lines().filter(line -> !line.isBlank()).toList();
            lines = all.subList(Math.max(0, all.size() - LAST_LINES), all.size());
        }
        return how + ": " + String.join("\n", lines);
    }

    /// The first lines of compute-sanitizer, which tells what it finds at once, behind the one with its name.
    private List<String> findings() {
        return output.lines().filter(line -> line.startsWith(SANITIZER)).skip(1).limit(LAST_LINES).toList();
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
