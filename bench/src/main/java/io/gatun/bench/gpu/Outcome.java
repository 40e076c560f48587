package io.gatun.bench.gpu;

/// What came of one check: a program, a test, a benchmark.
///
/// @param detail why it failed or was left out; else empty
record Outcome(Part part, String name, Status status, double seconds, String detail) {
    /// `LEFT_OUT`: for want of time, so that nothing is known.
    enum Status { PASSED, FAILED, SKIPPED, LEFT_OUT }

    static Outcome skipped(Part part, String name, String why) {
        return new Outcome(part, name, Status.SKIPPED, 0, why);
    }

    static Outcome leftOut(Part part, String name, String why) {
        return new Outcome(part, name, Status.LEFT_OUT, 0, why);
    }

    /// The first line that says something.
    String reason() {
        return detail.lines().map(String::strip).filter(line -> !line.isEmpty()).findFirst().orElse("");
    }
}
