package io.gatun.bench.gpu;

/// What came of one check: a program, a test, a benchmark.
///
/// @param detail why it failed or was left out; else empty
record Outcome(Part part, String name, Status status, double seconds, String detail) {
    enum Status { PASSED, FAILED, SKIPPED }

    static Outcome skipped(Part part, String name, String why) {
        return new Outcome(part, name, Status.SKIPPED, 0, why);
    }
}
