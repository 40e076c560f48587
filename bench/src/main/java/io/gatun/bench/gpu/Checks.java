package io.gatun.bench.gpu;

import io.gatun.bench.gpu.Outcome.Status;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Function;

/// Runs checks, several at a time, and has the report written after each; what no time is left for is left out.
///
/// @param deadline of all of them
record Checks(SuiteReport report, Deadline deadline) {
    /// @param limit how long it may take
    /// @param run   with the limit that is left for it
    record Check(Part part, String name, Duration limit, Function<Deadline.Limit, List<Outcome>> run) {}

    void run(int atOnce, List<Check> checks) {
        try (ExecutorService pool = Executors.newFixedThreadPool(atOnce)) {
            checks.stream().map(check -> CompletableFuture.runAsync(() -> report.add(outcomes(check)), pool)).toList()
                    .forEach(CompletableFuture::join);
        }
    }

    private List<Outcome> outcomes(Check check) {
        Deadline.Limit limit = deadline.limit(check.limit);
        if (limit.isOver()) {
            return List.of(Outcome.leftOut(check.part, check.name, "the suite's time was over"));
        }
        try {
            return check.run.apply(limit);
        } catch (RuntimeException e) {
            return List.of(new Outcome(check.part, check.name, Status.FAILED, 0, "the suite itself: " + e));
        }
    }
}
