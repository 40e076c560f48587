package io.gatun.bench.gpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.bench.gpu.Outcome.Status;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What is left of a part of the suite when one of its cases ends the process, or never ends? The command line of Gatun
/// is a shell's here.
class BenchmarksTest {
    /// What is left of the suite's time: that a case hangs must not be taken for its end.
    private static final Deadline.Limit LIMIT = new Deadline.Limit(Duration.ofMinutes(5), true);
    /// Long enough for a shell to begin on a busy machine.
    private static final Duration STALL = Duration.ofSeconds(10);

    @TempDir
    private Path folder;

    private List<Outcome> run(Part part, String script) throws IOException {
        Path file = Files.writeString(folder.resolve("gatun.sh"), """
                after=0 json= fp8=
                for option; do
                  case $before in
                    --after) after=$option ;;
                    --json) json=$option ;;
                    --quantization) fp8=$option ;;
                  esac
                  before=$option
                done
                """ + script);
        SuiteReport report = new SuiteReport(folder);
        Benchmarks benchmarks = new Benchmarks(List.of("sh", file.toString()), folder.resolve("suite.log"),
                new Facts(folder.resolve("suite.log")), report, Set.of(part), true, STALL);
        List<Outcome> outcomes = benchmarks.run(part, LIMIT);
        report.add(outcomes);
        return outcomes;
    }

    private JsonNode results(Part part) throws IOException {
        return new ObjectMapper().readTree(folder.resolve("results.json").toFile()).get(part.toString());
    }

    @Test
    void kernels_behindOnesThatFailOrHang() throws IOException {
        List<Outcome> outcomes = run(Part.HOPPER, """
                case $after in
                  0) echo '{"cases": 4, "begun": 2, "beginning": "b", "kernels": ["a"], "skipped": {"a": "x"}}' >"$json"
                     exit 1 ;;
                  2) echo '{"cases": 4, "begun": 3, "beginning": "c"}' >"$json"; sleep 300 ;;
                  3) echo '{"cases": 4, "begun": 4, "beginning": "d", "kernels": ["d"], "skipped": {}}' >"$json" ;;
                esac
                """);
        assertEquals(List.of(Status.FAILED, Status.FAILED, Status.PASSED),
                outcomes.stream().map(Outcome::status).toList());
        assertTrue(outcomes.get(0).name().endsWith("--set hopper at b"), outcomes.get(0)::name);
        assertTrue(outcomes.get(1).name().endsWith("--set hopper --after 2 at c"), outcomes.get(1)::name);
        assertTrue(outcomes.get(1).detail().startsWith("did not end in "), outcomes.get(1)::detail);
        assertEquals("[\"a\",\"d\"]", results(Part.HOPPER).get("kernels").toString());
        assertEquals("{\"a\":\"x\"}", results(Part.HOPPER).get("skipped").toString());
    }

    @Test
    void kernels_lastOneFails() throws IOException {
        List<Outcome> outcomes = run(Part.KERNELS, """
                echo '{"cases": 4, "begun": 4, "beginning": "d", "kernels": ["a"]}' >"$json"; exit 1
                """);
        assertEquals(1, outcomes.size(), outcomes::toString);
    }

    @Test
    void models_withoutWhatFails() throws IOException {
        List<Outcome> outcomes = run(Part.MODELS, """
                [ -z "$fp8" ] || exit 1
                echo '{"models": ["bf16"]}' >"$json"
                """);
        assertEquals(List.of(Status.FAILED, Status.PASSED), outcomes.stream().map(Outcome::status).toList());
        assertEquals("[\"bf16\"]", results(Part.MODELS).get("models").toString());
    }
}
