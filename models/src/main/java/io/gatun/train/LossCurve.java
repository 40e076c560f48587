package io.gatun.train;

import io.gatun.plot.ChartFile;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.style.markers.SeriesMarkers;

/// The losses of a run as a picture: every metric whose name ends in `loss`, and the evaluations'.
public final class LossCurve {
    private static final int MAX_POINTS = 1000; // more than pixels are averaged

    private LossCurve() {}

    /// Writes a PNG; nothing where nothing was measured.
    ///
    /// @throws GatunException when it cannot be drawn or written
    public static void write(Path file, String title, List<MetricsLog.Line> lines) {
        XYChart chart = ChartFile.empty(title, "step", "loss");
        boolean drawn = false;
        for (String name : names(lines)) {
            drawn |= add(chart, name, lines);
        }
        if (drawn) {
            ChartFile.write(file, chart);
        }
    }

    private static List<String> names(List<MetricsLog.Line> lines) {
        return lines.stream().flatMap(line -> line.values().keySet().stream()).filter(name -> name.endsWith("loss"))
                .distinct().toList();
    }

    private static boolean add(XYChart chart, String name, List<MetricsLog.Line> lines) {
        List<double[]> points = new ArrayList<>();
        for (MetricsLog.Line line : lines) {
            double value = line.values().getOrDefault(name, Double.NaN);
            if (Double.isFinite(value)) {
                points.add(new double[] {line.step(), value});
            }
        }
        if (points.isEmpty()) {
            return false;
        }
        int each = (points.size() + MAX_POINTS - 1) / MAX_POINTS;
        int count = (points.size() + each - 1) / each;
        double[] steps = new double[count];
        double[] values = new double[count];
        for (int i = 0; i < count; i++) {
            List<double[]> group = points.subList(i * each, Math.min((i + 1) * each, points.size()));
            steps[i] = group.stream().mapToDouble(point -> point[0]).average().orElseThrow();
            values[i] = group.stream().mapToDouble(point -> point[1]).average().orElseThrow();
        }
        var series = chart.addSeries(name, steps, values);
        if (count > 1) {
            series.setMarker(SeriesMarkers.NONE);
        }
        return true;
    }
}
