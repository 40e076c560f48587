package io.gatun.cli;

import io.gatun.diffusion.Trajectory;
import io.gatun.plot.ChartFile;
import java.nio.file.Path;
import org.knowm.xchart.XYChart;

/// A schedule as a picture: what the model is told, and how noisy the sample is, before each call.
final class SchedulePlot {
    private SchedulePlot() {}

    /// Writes a PNG.
    static void write(Path file, String title, Trajectory trajectory) {
        ChartFile.write(file, chart(title, trajectory));
    }

    /// Each curve as a share of its largest value, which the legend names.
    private static XYChart chart(String title, Trajectory trajectory) {
        XYChart chart = ChartFile.empty(title, "call of the model", "share of the largest value");
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
