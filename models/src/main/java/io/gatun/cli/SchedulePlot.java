package io.gatun.cli;

import io.gatun.diffusion.Trajectory;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.BitmapEncoder.BitmapFormat;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.style.Styler.ChartTheme;

/// A schedule as a picture: what the model is told, and how noisy the sample is, before each call.
final class SchedulePlot {
    private static final int WIDTH = 900;
    private static final int HEIGHT = 600;

    private SchedulePlot() {}

    /// Writes a PNG.
    static void write(Path file, String title, Trajectory trajectory) {
        byte[] png;
        try {
            png = BitmapEncoder.getBitmapBytes(chart(title, trajectory), BitmapFormat.PNG);
        } catch (IOException | InternalError e) { // Java's fonts throw an InternalError where there are none
            throw new GatunException(GatunException.Status.INTERNAL, "cannot draw: %s. Install fontconfig and a font"
                    .formatted(e.getMessage()), e);
        }
        try {
            Files.write(file, png);
        } catch (IOException e) {
            throw GatunException.invalid("cannot write %s: %s", file, e);
        }
    }

    /// Each curve as a share of its largest value, which the legend names.
    private static XYChart chart(String title, Trajectory trajectory) {
        XYChart chart = new XYChartBuilder().width(WIDTH).height(HEIGHT).theme(ChartTheme.Matlab).title(title)
                .xAxisTitle("call of the model").yAxisTitle("share of the largest value").build();
        int calls = trajectory.calls();
        double[] timesteps = new double[calls];
        double[] sigmas = new double[calls];
        double[] alphas = new double[calls];
        double[] index = new double[calls];
        for (int i = 0; i < calls; i++) {
            index[i] = i;
            timesteps[i] = trajectory.timesteps()[i];
            sigmas[i] = trajectory.sigma(i);
            alphas[i] = trajectory.alphaCumprod(i);
        }
        add(chart, "timestep", index, timesteps);
        add(chart, "sigma", index, sigmas);
        add(chart, "alpha_cumprod", index, alphas);
        return chart;
    }

    private static void add(XYChart chart, String name, double[] index, double[] values) {
        double largest = 0;
        for (double value : values) {
            largest = Double.isFinite(value) ? Math.max(largest, value) : largest;
        }
        double[] shares = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            shares[i] = largest > 0 ? Math.min(values[i] / largest, 1) : 0;
        }
        chart.addSeries("%s (at most %s)".formatted(name, (float) largest), index, shares);
    }
}
