package io.gatun.bench.gpu;

import io.gatun.bench.gpu.Checks.Check;
import io.gatun.bench.gpu.Outcome.Status;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileSystems;
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
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// The whole suite: runs its parts one after the other, each check in a process of its own, and writes what came of
/// them. `-Dgatun.suite` is the unpacked archive.
@Command(name = "gpu-suite.sh", mixinStandardHelpOptions = true,
        description = "Tests everything on this machine's GPU, then measures it; exits 1 where a check failed.")
public final class GpuSuite implements Callable<Integer> {
    private static final Duration SHORT = Duration.ofMinutes(3);
    private static final Duration LONG = Duration.ofMinutes(20);
    /// A case of kernels takes some 2 s (bench/results/h200.md), and longer where PyTorch and Triton compile for it.
    private static final Duration STALL = Duration.ofSeconds(90);
    private static final String FOUND_BY_SANITIZER = "86";
    private static final String TRIAL_LIMIT = "33";
    /// Classes of tests, and programs, at a time: most of what they do are oracles on the CPU.
    private static final int AT_ONCE = 8;
    private static final int REASON_CHARACTERS = 200;
    private static final List<String> TRIAL_TESTS = List.of("io.gatun.ops.GoldenOpsTest",
            "io.gatun.models.GoldenForwardTest");
    private static final List<String> LARGE_TESTS = List.of("io.gatun.ops.LargeSizes", "io.gatun.ops.LargeIndices");
    private static final List<String> MEMCHECK_TESTS = List.of("io.gatun.ops.NormTest", "io.gatun.ops.SoftmaxTest",
            "io.gatun.ops.SamplingTest", "io.gatun.ops.AttentionTest", "io.gatun.ops.PagedAttentionTest",
            "io.gatun.ops.DecodeAttentionTest", "io.gatun.ops.NormLinearTest", "io.gatun.models.GoldenForwardTest");
    private static final List<String> RACECHECK_TESTS = List.of("io.gatun.ops.NormTest", "io.gatun.ops.AttentionTest",
            "io.gatun.ops.PagedAttentionTest", "io.gatun.ops.DecodeAttentionTest", "io.gatun.ops.NormLinearTest");

    private final Path suite = Path.of(System.getProperty("gatun.suite", "."));
    private final @Nullable Path sanitizer = Child.find("compute-sanitizer", "/usr/local/cuda/bin");

    @Spec
    private CommandSpec spec;

    @Parameters(arity = "0..1", paramLabel = "OUT_DIR", defaultValue = "gpu-suite-results",
            description = "where results.json, results.md and the logs go (default: ${DEFAULT-VALUE})")
    private Path out;

    @Option(names = "--only", split = ",", paramLabel = "PART",
            description = "only these parts: facts, ptx, tests, large, sanitizer, hopper, train, kernels, models")
    private @Nullable Set<Part> only;

    @Option(names = "--tests", split = ",", paramLabel = "PATTERN",
            description = "of the parts tests and sanitizer only these classes, such as NormTest,Golden*")
    private @Nullable List<String> tests;

    @Option(names = "--class-seconds", paramLabel = "N", defaultValue = "90",
            description = "that a class of tests may take (default: ${DEFAULT-VALUE})")
    private int classSeconds;

    @Option(names = "--minutes", paramLabel = "N",
            description = "that all may take; what does not fit is left out, and the report says so")
    private @Nullable Double minutes;

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
        Deadline deadline = Deadline.inMinutes(minutes);
        requireTests();
        Files.createDirectories(out);
        SuiteReport report = new SuiteReport(out);
        report.fact("commit", System.getProperty("gatun.commit", "unknown"));
        report.fact("command", "gpu-suite.sh " + String.join(" ", spec.commandLine().getParseResult().originalArgs()));
        report.fact("started", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString());
        Facts facts = new Facts(log("suite"));
        report.fact("gpu", facts.gpu());
        Checks checks = new Checks(report, deadline);
        Set<Part> parts = only == null ? EnumSet.allOf(Part.class) : EnumSet.copyOf(only);
        Benchmarks benchmarks = new Benchmarks(gatun(), log("suite"), facts, report, parts, dryRun, STALL);
        try (Benchmarks.Preparation prepared = benchmarks.prepare(deadline)) {
            for (Part part : parts) {
                System.out.println("gpu-suite: " + part);
                switch (part) {
                    case FACTS -> checks.run(1, machine(facts, report));
                    case PTX -> checks.run(AT_ONCE, ptx());
                    case TESTS -> checks.run(AT_ONCE, tests());
                    case LARGE -> checks.run(1, large());
                    case SANITIZER -> checks.run(AT_ONCE, sanitized());
                    case HOPPER, TRAIN, KERNELS, MODELS -> {
                        prepared.await();
                        checks.run(1, List.of(new Check(part, Benchmarks.name(part), LONG,
                                limit -> benchmarks.run(part, limit))));
                    }
                }
            }
        }
        return end(report);
    }

    /// What failed comes last, where a terminal or a log's tail shows it.
    private int end(SuiteReport report) {
        report.write();
        report.all(Status.LEFT_OUT).forEach(o -> System.out.printf("LEFT OUT %s%n", line(o)));
        report.summary().forEach(System.out::println);
        List<Outcome> failed = report.all(Status.FAILED);
        failed.forEach(o -> System.out.printf("FAILED %s%n", line(o)));
        System.out.println("gpu-suite: " + (failed.isEmpty() ? "all well" : failed.size() + " checks failed")
                + ", results in " + out);
        return failed.isEmpty() ? 0 : 1;
    }

    private static String line(Outcome o) {
        String reason = o.reason();
        return "%s: %s: %s".formatted(o.part(), o.name(), reason.substring(0,
                Math.min(reason.length(), REASON_CHARACTERS)));
    }

    private Path log(String name) {
        return out.resolve(name + ".log");
    }

    private List<Check> machine(Facts facts, SuiteReport report) {
        String doctor = "gatun doctor finds cuda:0";
        String boundaries = "boundaries";
        return List.of(new Check(Part.FACTS, doctor, SHORT, limit -> List.of(facts.doctor(gatun(), limit, report))),
                new Check(Part.FACTS, boundaries, SHORT, limit -> List.of(dryRun
                        ? Outcome.skipped(Part.FACTS, boundaries, "needs a GPU")
                        : facts.boundaries(suite.resolve("facts").resolve(boundaries), limit, report))));
    }

    private List<Check> ptx() {
        Path log = log("suite");
        List<Check> checks = new ArrayList<>();
        for (Path program : programs()) {
            String name = program.getFileName().toString();
            checks.add(new Check(Part.PTX, name, SHORT, limit -> {
                if (dryRun) {
                    return List.of(Outcome.skipped(Part.PTX, name, "needs a GPU"));
                }
                Child alone = Child.run(log, limit, List.of(program.toString()));
                return List.of(alone.output().startsWith("skipped:")
                        ? Outcome.skipped(Part.PTX, name, alone.output().strip()) : alone.outcome(Part.PTX, name));
            }));
            for (String tool : List.of("memcheck", "racecheck")) {
                String checked = name + " under " + tool;
                checks.add(new Check(Part.PTX, checked, SHORT, limit -> List.of(sanitizer == null || dryRun
                        ? Outcome.skipped(Part.PTX, checked, dryRun ? "needs a GPU" : "no compute-sanitizer")
                        : Child.run(log, limit, under(tool, List.of(program.toString()))).outcome(Part.PTX, checked))));
            }
        }
        return checks;
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

    /// Each class in a JVM of its own, so that a fault of the device ends that class alone.
    private List<Check> tests() {
        List<String> classes = dryRun && tests == null ? TRIAL_TESTS : deviceTests();
        return classes.stream().filter(this::isWanted).map(name -> classOf(Part.TESTS, "", name, testJava())).toList();
    }

    /// A line for each class that has tests for a device: what `bundle.sh` found.
    private List<String> deviceTests() {
        try {
            return Files.readAllLines(suite.resolve("device-tests"));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /// Of nothing that runs nothing fails: a pattern that fits no class is refused.
    private void requireTests() {
        for (String pattern : tests == null ? List.<String>of() : tests) {
            if (deviceTests().stream().noneMatch(name -> fits(pattern, name))) {
                throw new ParameterException(spec.commandLine(), ("--tests has '%s', expected classes with tests for a"
                        + " device, such as NormTest or Golden*").formatted(pattern));
            }
        }
    }

    private boolean isWanted(String name) {
        return tests == null || tests.stream().anyMatch(pattern -> fits(pattern, name));
    }

    private static boolean fits(String pattern, String name) {
        return FileSystems.getDefault().getPathMatcher("glob:" + pattern).matches(Path.of(simple(name)));
    }

    private static String simple(String className) {
        return className.substring(className.lastIndexOf('.') + 1);
    }

    private Check classOf(Part part, String how, String name, List<String> java) {
        List<String> selectors = new ArrayList<>(select(List.of(name)));
        selectors.addAll(List.of("--include-tag", "device | cuda"));
        Duration limit = part == Part.TESTS ? Duration.ofSeconds(classSeconds) : LONG;
        String shown = simple(name) + how;
        return new Check(part, shown, limit, left -> new TestRun(part, java, log(part.toString())).run(shown, left,
                selectors));
    }

    private List<Check> large() {
        List<String> selectors = select(LARGE_TESTS);
        selectors.addAll(List.of("--config", "junit.jupiter.execution.parallel.enabled=true"));
        return List.of(new Check(Part.LARGE, "large sizes", LONG, limit -> new TestRun(Part.LARGE,
                testJava(dryRun ? "-Dgatun.test.limit=" + TRIAL_LIMIT : ""), log("large")).run("large sizes", limit,
                selectors)));
    }

    private List<Check> sanitized() {
        if (sanitizer == null || dryRun) {
            return List.of(new Check(Part.SANITIZER, "tests under compute-sanitizer", SHORT, limit -> List.of(
                    Outcome.skipped(Part.SANITIZER, "tests under compute-sanitizer",
                            dryRun ? "needs a GPU" : "no compute-sanitizer"))));
        }
        List<Check> checks = new ArrayList<>();
        for (String tool : List.of("memcheck", "racecheck")) {
            (tool.equals("memcheck") ? MEMCHECK_TESTS : RACECHECK_TESTS).stream().filter(this::isWanted).forEach(
                    name -> checks.add(classOf(Part.SANITIZER, " under " + tool, name, under(tool, testJava()))));
        }
        return checks;
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
        command.addAll(List.of("-Dgatun.test.device=cuda", "-XX:+UseSerialGC"));
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
