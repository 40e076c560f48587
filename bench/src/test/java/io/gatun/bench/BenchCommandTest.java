package io.gatun.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/// Does the command measure what its options name, and refuse before it measures?
class BenchCommandTest {
    /// @param message of what was refused; empty where nothing was
    private record Run(int code, String out, String message) {}

    private static Run bench(String... options) {
        List<String> args = new ArrayList<>(List.of("--trial", "--threads", "1", "--dtype", "f32"));
        args.addAll(List.of(options));
        StringBuilder message = new StringBuilder();
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        PrintStream before = System.out;
        int code;
        try (PrintStream out = new PrintStream(bytes, true, StandardCharsets.UTF_8)) {
            System.setOut(out);
            code = new CommandLine(new BenchCommand()).setExecutionExceptionHandler((e, command, parsed) -> {
                message.append(e.getMessage());
                return 2;
            }).execute(args.toArray(String[]::new));
        } finally {
            System.setOut(before);
        }
        return new Run(code, bytes.toString(StandardCharsets.UTF_8), message.toString());
    }

    @Test
    void only_fitsKernelsOrTasks() {
        Run kernels = bench("--kernels", "--train", "--only", "norm_linear_qkv");
        assertEquals(0, kernels.code, kernels.message);
        assertTrue(kernels.out.contains("norm RMS QKV") && !kernels.out.contains("training"), kernels.out);
        Run tasks = bench("--kernels", "--train", "--only", "unet");
        assertEquals(0, tasks.code, tasks.message);
        assertTrue(tasks.out.contains("training") && !tasks.out.contains("kernels:"), tasks.out);
    }

    @Test
    void only_alone() {
        Run run = bench("--only", "unet");
        assertEquals(0, run.code, run.message);
        assertTrue(run.out.contains("\ntraining\n") && !run.out.contains("\nmodels\n"), run.out);
    }

    @Test
    void only_fitsNothing() {
        String kernel = "an op's name, such as rmsnorm";
        String task = "gpt124m, gpt or unet";
        assertRefused("part of " + kernel, "--kernels", "--only", "unet");
        assertRefused("part of " + task, "--train", "--only", "rmsnorm");
        assertRefused("part of " + kernel + ", or of " + task, "--kernels", "--train", "--only", "magic");
        assertRefused("part of " + kernel + ", or of " + task, "--only", "magic");
        assertRefused("part of an op's name in the set hopper, such as rmsnorm", "--kernels", "--set", "HOPPER",
                "--only", "argmax");
    }

    private static void assertRefused(String expected, String... options) {
        Run run = bench(options);
        assertEquals(2, run.code, run.out);
        assertTrue(run.message.startsWith("--only is ") && run.message.endsWith(", expected " + expected),
                run.message);
        assertEquals("", run.out);
    }

    @Test
    void quantization_ofNothing() {
        Run kernels = bench("--kernels", "--quantization", "FP8");
        assertEquals("--quantization is fp8, which --models alone measures: pass that too", kernels.message);
        Run floats = bench("--models", "--quantization", "FP8");
        assertEquals("--quantization fp8 computes in bf16 or f16, --dtype is f32", floats.message);
        assertEquals("", kernels.out + floats.out);
    }

    @Test
    void preparePeer_ofNothing() {
        Run alone = bench("--kernels", "--prepare-peer");
        assertEquals("--prepare-peer needs --peer PYTHON", alone.message);
        Run models = bench("--models", "--prepare-peer", "--peer", "python3");
        assertEquals("--prepare-peer needs --kernels or --train, for which the peer compiles", models.message);
        Run quantized = bench("--train", "--prepare-peer", "--peer", "python3", "--quantization", "FP8");
        assertEquals("--quantization is fp8, expected none with --prepare-peer: the peer knows none",
                quantized.message);
        Run json = bench("--train", "--prepare-peer", "--peer", "python3", "--json", "peer.json");
        assertEquals("--prepare-peer measures and writes nothing: expected without --models, --host, --images, --json,"
                + " --plot and --make-checkpoint", json.message);
        assertEquals("", alone.out + models.out + quantized.out + json.out);
    }

    @Test
    void device_unknown() {
        assertEquals("--device is auto, expected cpu, cuda or cuda:N: how is measured depends on it",
                bench("--kernels", "--device", "auto").message);
    }

    /// Before the memory's rate is measured, which takes seconds.
    @Test
    void model_unsuitable(@TempDir Path folder) throws IOException {
        String none = folder.resolve("none").toString();
        assertSays(bench("--models", "--model", none), "no directory " + none);
        assertSays(bench("--models", "--model", folder.toString()),
                "no file config.json: expected the directory of a model of type gpt2 or llama");
        Files.writeString(folder.resolve("config.json"), "{\"model_type\": \"llama\"}");
        assertSays(bench("--images", "--model", folder.toString()),
                "config.json is that of llama, expected one of UNet2DModel");
    }

    private static void assertSays(Run run, String expected) {
        assertEquals(2, run.code, run.out);
        assertTrue(run.message.contains(expected), run.message);
    }

    @Test
    void seconds_tooFew() {
        Run none = bench("--kernels", "--seconds", "0");
        assertEquals("--seconds is 0.0, expected more than 0", none.message);
        Run hardlyAny = bench("--kernels", "--only", "rmsnorm", "--seconds", "1e-9");
        assertEquals(0, hardlyAny.code, hardlyAny.message);
    }

    /// A peer that fails costs none of our figures.
    @Test
    void peer_fails(@TempDir Path folder) throws IOException {
        Path peer = Files.writeString(folder.resolve("python"), """
                #!/bin/sh
                while read -r request; do
                  case $request in
                    *'"do":"hello"'*) echo '{"peer": "none"}' ;;
                    *'"do":"training"'*) echo '{"training": 0, "skipped": {}}' ;;
                    *) echo '{"error": "it has no memory"}' ;;
                  esac
                done
                """);
        assertTrue(peer.toFile().setExecutable(true));
        Path json = folder.resolve("all.json");
        Run run = bench("--models", "--train", "--only", "gpt", "--peer", peer.toString(), "--json", json.toString());
        assertEquals(0, run.code, run.message);
        JsonNode result = new ObjectMapper().readTree(json.toFile());
        assertTrue(result.has("models") && result.has("training"), result::toString);
        assertFalse(result.has("models against the peer") || result.has("training against the peer"), result::toString);
        assertEquals("the peer failed at 'model': it has no memory", result.get("skipped: f32 by the peer").asText());
        assertEquals("the peer failed at 'training_steps': it has no memory",
                result.get("skipped: gpt f32, all").asText());
    }

    /// What has begun is known before it ends, and what comes behind can be measured alone.
    @Test
    void after_someCases(@TempDir Path folder) throws IOException {
        Path json = folder.resolve("all.json");
        Run all = bench("--kernels", "--only", "rmsnorm", "--json", json.toString());
        assertEquals(0, all.code, all.message);
        JsonNode result = new ObjectMapper().readTree(json.toFile());
        int cases = result.get("cases").asInt();
        assertTrue(cases > 1, result::toString);
        assertEquals(cases, result.get("begun").asInt());
        assertTrue(result.get("beginning").asText().contains("rmsnorm"), result::toString);
        Run last = bench("--kernels", "--only", "rmsnorm", "--json", json.toString(), "--after",
                Integer.toString(cases - 1));
        assertEquals(0, last.code, last.message);
        JsonNode rest = new ObjectMapper().readTree(json.toFile());
        assertEquals(result.get("beginning"), rest.get("beginning"));
        assertTrue(rest.get("kernels").size() < result.get("kernels").size(), rest::toString);
    }

    @Test
    void after_nothing() {
        assertEquals("--after is -1, expected 0 or more", bench("--kernels", "--after", "-1").message);
        Run all = bench("--kernels", "--only", "rmsnorm", "--after", "1000");
        assertTrue(all.message.matches("--after is 1000, expected less than \\d+: there are no more kernel cases"),
                all.message);
        assertEquals("--after is 1, expected with --kernels: it counts kernel cases",
                bench("--host", "--after", "1").message);
    }

    @Test
    void kernels_areInBothSets() {
        Setup setup = new Setup("cpu", 1, Setup.Effort.TRIAL, new TimeLimit(null), null);
        Set<String> ordinary = names(KernelCases.groups(List.of(DType.F32, DType.BF16), setup));
        Set<String> hopper = names(HopperCases.groups(setup));
        assertTrue(ordinary.containsAll(hopper), "only in the set hopper: " + minus(hopper, ordinary));
        assertTrue(hopper.containsAll(Set.of("norm_linear", "norm_linear_qkv", "attention_decode")), hopper::toString);
        assertFalse(hopper.containsAll(ordinary), "the set for large GPUs is everything");
    }

    private static Set<String> names(List<List<OpCase>> groups) {
        return groups.stream().flatMap(List::stream).map(OpCase::op).collect(Collectors.toCollection(TreeSet::new));
    }

    private static Set<String> minus(Set<String> from, Set<String> names) {
        Set<String> rest = new TreeSet<>(from);
        rest.removeAll(names);
        return rest;
    }
}
