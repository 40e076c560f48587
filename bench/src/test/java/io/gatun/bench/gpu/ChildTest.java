package io.gatun.bench.gpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bench.gpu.Outcome.Status;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What is known of a program that was ended, or that failed?
class ChildTest {
    private static final long LESS_THAN_IT_SLEEPS = 90_000_000_000L;
    /// Long enough for a shell to say something on a busy machine.
    private static final int ENOUGH = 10;

    @TempDir
    private Path folder;

    /// Its limit is what is left of the suite's time.
    private Outcome run(int seconds, String script) {
        return Child.run(folder.resolve("suite.log"), new Deadline.Limit(Duration.ofSeconds(seconds), true),
                List.of("sh", "-c", script)).outcome(Part.SANITIZER, "NormTest under memcheck");
    }

    @Test
    void outcome_cut() {
        String banner = "echo '========= COMPUTE-SANITIZER'; ";
        assertEquals(Status.LEFT_OUT, run(1, banner + "sleep 100").status());
        Outcome found = run(ENOUGH, banner + "echo '========= Invalid __global__ read of size 16 bytes'; sleep 100");
        assertEquals(Status.FAILED, found.status());
        assertTrue(found.detail().matches("did not end in \\d+ s: ========= Invalid __global__ read of size 16 bytes"),
                found::detail);
    }

    /// The suite goes on although something holds the output open.
    @Test
    void run_outlived() {
        long start = System.nanoTime();
        assertEquals(Status.LEFT_OUT, run(1, "(setsid sleep 120 &); sleep 300").status());
        assertTrue(System.nanoTime() - start < LESS_THAN_IT_SLEEPS, "waited for what outlives the program");
    }

    @Test
    void outcome_failed() {
        assertEquals("exit status 3: last words", run(60, "echo; echo last words; exit 3").detail());
        assertEquals("exit status 86: ========= Error: Race reported", run(60, """
                echo '========= COMPUTE-SANITIZER'
                echo '========= Error: Race reported'
                echo 'Test run finished'
                exit 86
                """).detail());
    }
}
