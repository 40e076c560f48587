package io.gatun.bench.gpu;

import io.gatun.bench.gpu.Outcome.Status;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// The whole suite: runs its parts one after the other, each check in a process of its own, and writes what came of
/// them. `-Dgatun.suite` is the unpacked archive.
@Command(name = "gpu-suite.sh", mixinStandardHelpOptions = true,
        description = "Tests everything on this machine's GPU, then measures it; exits 1 where a check failed.")
public final class GpuSuite implements Callable<Integer> {
    private static final Duration SHORT = Duration.ofMinutes(3);
    private static final Duration LONG = Duration.ofMinutes(20);
    private static final String FOUND_BY_SANITIZER = "86";
    private static final String TRIAL_LIMIT = "33";
    private static final List<String> TRIAL_TESTS = List.of("io.gatun.ops.GoldenOpsTest",
            "io.gatun.models.GoldenForwardTest");
    private static final List<String> LARGE_TESTS = List.of("io.gatun.ops.LargeSizes", "io.gatun.ops.LargeIndices");
    private static final List<String> MEMCHECK_TESTS = List.of("io.gatun.ops.NormTest", "io.gatun.ops.SoftmaxTest",
            "io.gatun.ops.SamplingTest", "io.gatun.ops.AttentionTest", "io.gatun.ops.PagedAttentionTest",
            "io.gatun.models.GoldenForwardTest");
    private static final List<String> RACECHECK_TESTS = List.of("io.gatun.ops.NormTest", "io.gatun.ops.AttentionTest",
            "io.gatun.ops.PagedAttentionTest");

    private final Path suite = Path.of(System.getProperty("gatun.suite", "."));
    private final String python = System.getenv().getOrDefault("PYTHON", "python3");
    private final @Nullable Path sanitizer = Child.find("compute-sanitizer", "/usr/local/cuda/bin");

    @Spec
    private CommandSpec spec;

    @Parameters(arity = "0..1", paramLabel = "OUT_DIR", defaultValue = "gpu-suite-results",
            description = "where results.json, results.md and the logs go (default: ${DEFAULT-VALUE})")
    private Path out;

    @Option(names = "--only", split = ",", paramLabel = "PART",
            description = "only these parts: facts, ptx, tests, large, sanitizer, kernels, models")
    private @Nullable Set<Part> only;

    @Option(names = "--dry-run", description = "small sizes, few tests and no peer, to try the suite itself")
    private boolean dryRun;

    /// For picocli.
    public GpuSuite() {}

    /// Ends the JVM with 0, or 1 where a check failed, or 2 where the command line is wrong.
    public static void main(String[] args) {
        System.exit(new CommandLine(new GpuSuite()).setCaseInsensitiveEnumValuesAllowed(true).execute(args));
    }

    @Override
    public Integer call() throws IOException {
        Files.createDirectories(out);
        SuiteReport report = new SuiteReport(out);
        report.facts().put("commit", System.getProperty("gatun.commit", "unknown"));
        report.facts().put("command", "gpu-suite.sh " + String.join(" ",
                spec.commandLine().getParseResult().originalArgs()));
        report.facts().put("started", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString());
        Facts facts = new Facts(log("suite"));
        report.facts().put("gpu", facts.gpu());
        for (Part part : only == null ? EnumSet.allOf(Part.class) : EnumSet.copyOf(only)) {
            System.out.println("gpu-suite: " + part);
            report.add(switch (part) {
                case FACTS -> List.of(facts.doctor(gatun(), report.facts()));
                case PTX -> ptx();
                case TESTS -> tests();
                case LARGE -> large();
                case SANITIZER -> sanitized();
                case KERNELS, MODELS -> List.of(benchmark(part, facts, report));
            });
            report.write();
        }
        report.summary().forEach(System.out::println);
        List<Outcome> failed = report.all(Status.FAILED);
        failed.forEach(o -> System.out.printf("FAILED %s: %s: %s%n", o.part(), o.name(), o.detail()));
        System.out.println("gpu-suite: " + (failed.isEmpty() ? "all well" : failed.size() + " checks failed")
                + ", results in " + out);
        return failed.isEmpty() ? 0 : 1;
    }

    private Path log(String name) {
        return out.resolve(name + ".log");
    }

    private List<Outcome> ptx() {
        Path log = log("suite");
        List<Outcome> outcomes = new ArrayList<>();
        for (Path program : programs()) {
            String name = program.getFileName().toString();
            if (dryRun) {
                outcomes.add(Outcome.skipped(Part.PTX, name, "needs a GPU"));
                continue;
            }
            Child alone = Child.run(log, SHORT, List.of(program.toString()));
            boolean skipped = alone.output().startsWith("skipped:");
            outcomes.add(skipped ? Outcome.skipped(Part.PTX, name, alone.output().strip())
                    : alone.outcome(Part.PTX, name, log));
            for (String tool : List.of("memcheck", "racecheck")) {
                String checked = name + " under " + tool;
                outcomes.add(sanitizer == null ? Outcome.skipped(Part.PTX, checked, "no compute-sanitizer")
                        : Child.run(log, SHORT, under(tool, List.of(program.toString()))).outcome(Part.PTX, checked,
                                log));
            }
        }
        return outcomes;
    }

    private List<Path> programs() {
        try (Stream<Path> files = Files.list(suite.resolve("ptx"))) {
            return files.sorted().toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private List<String> under(String tool, List<String> command) {
        List<String> checked = new ArrayList<>(List.of(String.valueOf(sanitizer), "--tool", tool, "--error-exitcode",
                FOUND_BY_SANITIZER));
        checked.addAll(command);
        return checked;
    }

    /// Runtime's and models' at the same time: most of it is oracles on the CPU.
    private List<Outcome> tests() {
        List<CompletableFuture<List<Outcome>>> runs = Stream.of("runtime", "models")
                .map(module -> CompletableFuture.supplyAsync(() -> tests(module))).toList();
        return runs.stream().flatMap(run -> run.join().stream()).toList();
    }

    private List<Outcome> tests(String module) {
        List<String> selectors = dryRun ? select(TRIAL_TESTS.stream().filter(test -> isOf(module, test)).toList())
                : List.of("--scan-classpath", suite.resolve("tests").resolve(module).toString(), "--include-tag",
                        "device | cuda");
        return new TestRun(Part.TESTS, testJava(), log("tests-" + module), LONG).run("tests of " + module, selectors);
    }

    private boolean isOf(String module, String test) {
        return Files.exists(suite.resolve("tests").resolve(module).resolve(test.replace('.', '/') + ".class"));
    }

    private List<Outcome> large() {
        List<String> selectors = select(LARGE_TESTS);
        selectors.addAll(List.of("--config", "junit.jupiter.execution.parallel.enabled=true"));
        return new TestRun(Part.LARGE, testJava(dryRun ? "-Dgatun.test.limit=" + TRIAL_LIMIT : ""), log("large"), LONG)
                .run("large sizes", selectors);
    }

    private List<Outcome> sanitized() {
        if (sanitizer == null || dryRun) {
            return List.of(Outcome.skipped(Part.SANITIZER, "tests under compute-sanitizer",
                    dryRun ? "needs a GPU" : "no compute-sanitizer"));
        }
        List<Outcome> outcomes = new ArrayList<>();
        for (String tool : List.of("memcheck", "racecheck")) {
            outcomes.addAll(new TestRun(Part.SANITIZER, under(tool, testJava()), log("sanitizer"), LONG).run(
                    "tests under " + tool, select(tool.equals("memcheck") ? MEMCHECK_TESTS : RACECHECK_TESTS)));
        }
        return outcomes;
    }

    private Outcome benchmark(Part part, Facts facts, SuiteReport report) throws IOException {
        Path json = Files.createTempFile("gatun-bench", ".json");
        List<String> command = gatun();
        command.addAll(List.of("bench", "--" + part, "--device", "cuda", "--json", json.toString()));
        if (dryRun) {
            command.addAll(List.of("--trial", "--threads", "1"));
        } else if (Child.run(log("suite"), SHORT, List.of(python, "-c", "import torch; torch.zeros(1).cuda()"))
                .isFine()) {
            command.addAll(List.of("--peer", python));
        } else {
            report.facts().put("peer", "none: " + python + " has no torch that sees the GPU, see suite.log");
        }
        try (Facts.Watch watch = facts.watch()) {
            Child bench = Child.run(log("suite"), LONG, command);
            if (watch != null) {
                report.facts().put("lowest, median, highest during " + part, watch.summary());
            }
            if (bench.isFine()) {
                report.addBenchmark(part, json, bench.output());
            }
            return bench.outcome(part, "gatun bench --" + part, log("suite"));
        } finally {
            Files.delete(json);
        }
    }

    private static List<String> select(List<String> classes) {
        List<String> selectors = new ArrayList<>();
        classes.forEach(name -> selectors.addAll(List.of("--select-class", name)));
        return selectors;
    }

    private List<String> gatun() {
        List<String> command = java(suite.resolve("lib") + "/*");
        command.add("io.gatun.cli.Main");
        return command;
    }

    private List<String> testJava(String... options) {
        List<String> command = java(String.join(File.pathSeparator, suite.resolve("lib") + "/*",
                suite.resolve("test-lib") + "/*", suite.resolve("tests/runtime").toString(),
                suite.resolve("tests/models").toString()));
        command.add("-Dgatun.test.device=cuda");
        Arrays.stream(options).filter(option -> !option.isEmpty()).forEach(command::add);
        return command;
    }

    /// With this JVM's own settings of Gatun.
    private static List<String> java(String classPath) {
        Path java = Path.of(System.getProperty("java.home"), "bin", "java");
        List<String> command = new ArrayList<>(List.of(java.toString(), "--enable-native-access=ALL-UNNAMED",
                "--illegal-native-access=deny", "--sun-misc-unsafe-memory-access=allow", "-cp", classPath));
        System.getProperties().stringPropertyNames().stream().filter(name -> name.startsWith("gatun.")).sorted()
                .forEach(name -> command.add("-D" + name + "=" + System.getProperty(name)));
        return command;
    }
}
