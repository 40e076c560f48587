package io.gatun.bench;

import io.gatun.bench.host.DecodeStepBenchmark;
import io.gatun.bench.host.OpCallBenchmark;
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
import org.openjdk.jmh.runner.options.Options;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;

/// What does the Java side cost? Short JMH runs, one JVM per benchmark, and the differences that answer the question.
final class HostBench {
    private static final int WARM_UPS = 4;
    private static final int ITERATIONS = 10;
    private static final TimeValue ITERATION = TimeValue.milliseconds(300);

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
        rows.add(Report.measure("TensorView.slice: garbage of a view", "bytes", once(all.get("TensorView.slice").garbage)));
        Measured few = all.get("DecodeStep.generate " + DecodeStepBenchmark.FEW);
        Measured many = all.get("DecodeStep.generate " + DecodeStepBenchmark.MANY);
        int steps = DecodeStepBenchmark.MANY - DecodeStepBenchmark.FEW;
        rows.add(Report.measure("DecodeStep: a step of a tiny model", "ns", difference(many, few, steps)));
        rows.add(Report.measure("DecodeStep: garbage of a step", "bytes", once((many.garbage - few.garbage) / steps)));
        return rows;
    }

    private static Map<String, Measured> measure() {
        Options options = new OptionsBuilder().include(OpCallBenchmark.class.getName())
                .include(TensorViewBenchmark.class.getName()).include(DecodeStepBenchmark.class.getName()).forks(1)
                .warmupIterations(WARM_UPS).warmupTime(ITERATION).measurementIterations(ITERATIONS)
                .measurementTime(ITERATION).addProfiler(GCProfiler.class).verbosity(VerboseMode.SILENT)
                .shouldFailOnError(true).build();
        Map<String, Measured> all = new LinkedHashMap<>();
        try {
            for (RunResult result : new Runner(options).run()) {
                all.put(nameOf(result), measured(result));
            }
        } catch (RunnerException e) {
            throw new IllegalStateException("JMH: " + e.getMessage(), e);
        }
        return all;
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
