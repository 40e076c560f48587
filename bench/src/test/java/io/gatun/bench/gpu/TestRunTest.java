package io.gatun.bench.gpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.gpu.Outcome.Status;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What is known of tests whose JVM did not end as it should?
class TestRunTest {
    private static final String FEED = "JUnit Jupiter > NormTest > rmsNorm_oddWidth(DType) > [1] F32 :: ";

    @TempDir
    private Path folder;

    /// A shell in place of JUnit's console launcher; its eighth argument is the folder for reports.
    private List<Outcome> run(String script) {
        return new TestRun(Part.TESTS, List.of("sh", "-c", script, "sh"), folder.resolve("suite.log"))
                .run("NormTest", new Deadline.Limit(Duration.ofSeconds(60), false), List.of());
    }

    @Test
    void run_reportIsTruncated() {
        List<Outcome> outcomes = run("echo '" + FEED + "SUCCESSFUL'; "
                + "printf '<testsuite><testcase name=' > \"$8/TEST-junit-jupiter.xml\"");
        assertEquals(List.of(Status.PASSED, Status.FAILED), outcomes.stream().map(Outcome::status).toList());
        assertEquals("NormTest.rmsNorm_oddWidth(DType) > [1] F32", outcomes.getFirst().name());
        assertTrue(outcomes.getLast().detail().startsWith("the report of its tests cannot be read: "),
                outcomes.getLast()::detail);
    }

    @Test
    void run_died() {
        List<Outcome> outcomes = run("echo '" + FEED + "STARTED'; exit 134");
        assertEquals(List.of("NormTest at rmsNorm_oddWidth(DType) > [1] F32"),
                outcomes.stream().map(Outcome::name).toList());
        assertEquals(Status.FAILED, outcomes.getFirst().status());
    }
}
