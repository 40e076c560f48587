package io.gatun.bench;

import io.gatun.bench.host.DecodeStepBenchmark;
import io.gatun.bench.host.GraphStepBenchmark;
import io.gatun.bench.host.OpCallBenchmark;
import io.gatun.bench.host.PromptBenchmark;
import io.gatun.bench.host.StepBenchmark;
import io.gatun.bench.host.TensorViewBenchmark;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;

/// What does the Java side cost? Short JMH runs, one JVM per benchmark, and the differences that answer the question.
final class HostBench {
    private static final int WARM_UPS = 4;
    private static final int ITERATIONS = 10;
    private static final TimeValue ITERATION = TimeValue.milliseconds(300);
    private static final String CUDA_PATH = "gatun.cuda.path";

    /// Values of one benchmark: nanoseconds of each iteration, and bytes of garbage per call.
    private record Measured(double[] nanos, double garbage) {
        Spread spread() {
            return Spread.of(nanos);
        }
    }

    private HostBench() {}

    static List<Map<String, Object>> run() {
        Map<String, Measured> all = measure();
        List<Map<String, Object>> rows = new ArrayList<>();
        all.forEach((name, measured) -> rows.add(Report.measure(name, "ns", measured.spread())));
        for (String op : List.of("scale", "layerNorm")) {
            Measured whole = all.get("OpCall." + op + "Op");
            rows.add(Report.measure("OpCall." + op + ": Java around the native function", "ns",
                    difference(whole, all.get("OpCall." + op + "Downcall"), 1)));
            rows.add(Report.measure("OpCall." + op + ": op minus an empty downcall", "ns",
                    difference(whole, all.get("OpCall.nothingDowncall"), 1)));
            rows.add(Report.measure("OpCall." + op + ": garbage of a call", "bytes", once(whole.garbage)));
        }
        rows.add(Report.measure("TensorView.slice: garbage of a view", "bytes",
                once(all.get("TensorView.slice").garbage)));
        addStep(rows, all, "DecodeStep", "a step of a tiny model");
        addStep(rows, all, "GraphStep", "a step on a GPU without its kernels");
        return rows;
    }

    private static void addStep(List<Map<String, Object>> rows, Map<String, Measured> all, String benchmark,
            String what) {
        Measured few = all.get(benchmark + ".generate " + StepBenchmark.FEW);
        Measured many = all.get(benchmark + ".generate " + StepBenchmark.MANY);
        int steps = StepBenchmark.MANY - StepBenchmark.FEW;
        rows.add(Report.measure(benchmark + ": " + what, "ns", difference(many, few, steps)));
        rows.add(Report.measure(benchmark + ": garbage of a step", "bytes",
                once((many.garbage - few.garbage) / steps)));
    }

    private static Map<String, Measured> measure() {
        Map<String, Measured> all = new LinkedHashMap<>();
        run(all, List.of(), OpCallBenchmark.class, TensorViewBenchmark.class, DecodeStepBenchmark.class);
        // a folder that was named already is used as it is
        run(all, System.getProperty(CUDA_PATH) != null ? List.of() : List.of("-D" + CUDA_PATH + "=softgpu"),
                GraphStepBenchmark.class, PromptBenchmark.class);
        return all;
    }

    /// @param jvmArgs for the JVMs of these benchmarks, beside those of this one
    private static void run(Map<String, Measured> all, List<String> jvmArgs, Class<?>... benchmarks) {
        ChainedOptionsBuilder options = new OptionsBuilder().forks(1).jvmArgsAppend(jvmArgs.toArray(String[]::new))
                .warmupIterations(WARM_UPS).warmupTime(ITERATION).measurementIterations(ITERATIONS)
                .measurementTime(ITERATION).addProfiler(GCProfiler.class).verbosity(VerboseMode.SILENT)
                .shouldFailOnError(true);
        for (Class<?> benchmark : benchmarks) {
            options.include(benchmark.getName());
        }
        try {
            for (RunResult result : new Runner(options.build()).run()) {
                all.put(nameOf(result), measured(result));
            }
        } catch (RunnerException e) {
            throw new IllegalStateException("JMH: " + e.getMessage(), e);
        }
    }

    /// `OpCall.scaleOp`, `DecodeStep.generate 32`
    private static String nameOf(RunResult result) {
        String[] parts = result.getParams().getBenchmark().split("\\.");
        StringBuilder name = new StringBuilder(parts[parts.length - 2].replace("Benchmark", ""));
        name.append('.').append(parts[parts.length - 1]);
        result.getParams().getParamsKeys().forEach(key -> name.append(' ').append(result.getParams().getParam(key)));
        return name.toString();
    }

    private static Measured measured(RunResult result) {
        var statistics = result.getPrimaryResult().getStatistics();
        List<Double> nanos = new ArrayList<>();
        statistics.getRawData().forEachRemaining(
                entry -> nanos.addAll(Collections.nCopies(Math.toIntExact(entry.getValue()), entry.getKey())));
        double garbage = result.getSecondaryResults().get("gc.alloc.rate.norm").getScore();
        return new Measured(nanos.stream().mapToDouble(Double::doubleValue).toArray(), garbage);
    }

    private static Spread difference(Measured a, Measured b, int parts) {
        Spread x = a.spread();
        Spread y = b.spread();
        return new Spread((x.median() - y.median()) / parts, (x.low() - y.high()) / parts,
                (x.high() - y.low()) / parts);
    }

    private static Spread once(double value) {
        return new Spread(value, value, value);
    }
}
