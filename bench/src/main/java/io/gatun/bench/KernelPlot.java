package io.gatun.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.io.IoReason;
import io.gatun.plot.ChartFile;
import io.gatun.runtime.GatunException;
import java.awt.Color;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalDouble;
import org.knowm.xchart.CategoryChart;
import org.knowm.xchart.CategoryChartBuilder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.style.Styler.ChartTheme;
import org.knowm.xchart.style.Styler.LegendPosition;
import org.knowm.xchart.style.markers.SeriesMarkers;

/// How near the machine's limits are the kernels of a result, and the peer's beside them? A roofline of those that
/// compute, and bars for all: the least time that a shape must take, by what it moves or what it computes, over the
/// time that it took.
final class KernelPlot {
    private static final int BARS_WIDTH = 1600;
    private static final int BARS_HEIGHT = 900;
    private static final int LABEL_CHARACTERS = 34;
    private static final Color INVISIBLE = new Color(0, 0, 0, 0);

    private final double bytesPerSecond;
    private final Map<String, Double> flopsPerSecond = new LinkedHashMap<>();
    private final List<Shape> shapes = new ArrayList<>();

    /// @param bytes moved
    /// @param flops 0 where bytes alone matter
    private record Shape(String name, String dtype, double bytes, double flops, Map<String, Double> micros) {}

    private KernelPlot(JsonNode result) {
        bytesPerSecond = memoryRate(result, "copy").orElseGet(() -> memoryRate(result, "read").orElse(Double.NaN));
        result.path("product rates").forEach(row -> flopsPerSecond.put(row.required("measure").asText().split(", ")[1],
                row.required("median").asDouble() * 1e12));
        for (JsonNode row : result.required("kernels")) {
            double micros = row.required("us").asDouble();
            double gflops = row.required("gflop_per_s").asDouble();
            Shape shape = new Shape(name(row), row.required("dtype").asText(),
                    row.required("gb_per_s").asDouble() * micros * 1e3,
                    Double.isFinite(gflops) ? gflops * micros * 1e3 : 0, new LinkedHashMap<>());
            shape.micros.put("Gatun", micros);
            shapes.add(shape);
        }
        for (JsonNode row : result.path("kernels against the peer")) {
            shapes.stream().filter(shape -> shape.name.equals(name(row))).forEach(shape -> shape.micros.put(
                    row.required("peer").asText(), row.required("peer_us").asDouble()));
        }
    }

    /// The fastest, of a GPU by copies, of a CPU by reads.
    private static OptionalDouble memoryRate(JsonNode result, String how) {
        return result.path("memory").valueStream().filter(row -> row.required("measure").asText().startsWith(how))
                .mapToDouble(row -> row.required("median").asDouble() * 1e9).max();
    }

    private static String name(JsonNode row) {
        return "%s %s %s".formatted(row.required("op").asText(), row.required("dtype").asText(),
                row.required("sizes").asText());
    }

    /// Writes FILE.roofline.png and FILE.shapes.png beside a result of `gatun bench` or of the GPU suite, for the first
    /// benchmark of kernels that it holds.
    static void draw(Path file) {
        JsonNode result;
        try {
            result = new ObjectMapper().readTree(file.toFile());
        } catch (IOException e) {
            throw GatunException.invalid("--plot %s: %s", file, IoReason.of(e));
        }
        JsonNode kernels = result.has("kernels") && result.get("kernels").isArray() ? result
                : result.valueStream().filter(part -> part.path("kernels").isArray()).findFirst()
                        .orElseThrow(() -> GatunException.invalid("--plot %s: no benchmark of kernels in it", file));
        KernelPlot plot = new KernelPlot(kernels);
        ChartFile.write(file.resolveSibling(file.getFileName() + ".roofline.png"), plot.roofline());
        ChartFile.write(file.resolveSibling(file.getFileName() + ".shapes.png"), plot.bars());
    }

    private XYChart roofline() {
        XYChart chart = ChartFile.empty("Kernels under the roofline", "operations per byte", "TFLOP/s");
        chart.getStyler().setXAxisLogarithmic(true).setYAxisLogarithmic(true)
                .setLegendPosition(LegendPosition.InsideSE);
        List<Shape> computing = shapes.stream().filter(shape -> shape.flops > 0).toList();
        double low = computing.stream().mapToDouble(shape -> shape.flops / shape.bytes).min().orElse(1) / 2;
        double high = computing.stream().mapToDouble(shape -> shape.flops / shape.bytes).max().orElse(1) * 2;
        flopsPerSecond.forEach((dtype, rate) -> {
            if (computing.stream().anyMatch(shape -> shape.dtype.equals(dtype))) {
                double ridge = Math.clamp(rate / bytesPerSecond, low, high);
                double[] at = {low, ridge, high};
                chart.addSeries("limit, " + dtype, at, new double[] {reach(low, rate), reach(ridge, rate),
                    reach(high, rate)}).setMarker(SeriesMarkers.NONE);
            }
        });
        for (String who : computing.stream().flatMap(shape -> shape.micros.keySet().stream()).distinct().toList()) {
            List<Shape> done = computing.stream().filter(shape -> shape.micros.containsKey(who)).toList();
            chart.addSeries(who, done.stream().mapToDouble(shape -> shape.flops / shape.bytes).toArray(),
                    done.stream().mapToDouble(shape -> shape.flops / shape.micros.get(who) * 1e-6).toArray())
                    .setLineColor(INVISIBLE);
        }
        return chart;
    }

    /// TFLOP/s.
    private double reach(double flopsPerByte, double rate) {
        return Math.min(flopsPerByte * bytesPerSecond, rate) * 1e-12;
    }

    private CategoryChart bars() {
        CategoryChart chart = new CategoryChartBuilder().width(BARS_WIDTH).height(BARS_HEIGHT)
                .theme(ChartTheme.Matlab).title("Share of the limit by shape").yAxisTitle("least time / time").build();
        chart.getStyler().setXAxisLabelRotation(60).setLegendPosition(LegendPosition.OutsideE);
        List<String> labels = new ArrayList<>();
        for (int i = 0; i < shapes.size(); i++) {
            String name = shapes.get(i).name;
            labels.add((i + 1) + " " + name.substring(0, Math.min(name.length(), LABEL_CHARACTERS)));
        }
        for (String who : shapes.stream().flatMap(shape -> shape.micros.keySet().stream()).distinct().toList()) {
            chart.addSeries(who, labels, shapes.stream().map(shape -> shape.micros.containsKey(who)
                    ? leastMicros(shape) / shape.micros.get(who) : 0.0).toList());
        }
        return chart;
    }

    private double leastMicros(Shape shape) {
        double seconds = shape.bytes / bytesPerSecond;
        double rate = flopsPerSecond.getOrDefault(shape.dtype, Double.NaN);
        return 1e6 * (shape.flops > 0 && rate > 0 ? Math.max(seconds, shape.flops / rate) : seconds);
    }
}
