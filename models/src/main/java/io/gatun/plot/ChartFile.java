package io.gatun.plot;

import io.gatun.io.AtomicFile;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.function.Supplier;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.BitmapEncoder.BitmapFormat;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.internal.chartpart.Chart;
import org.knowm.xchart.style.Styler.ChartTheme;

/// Charts as PNG files, all of one look.
public final class ChartFile {
    private static final int WIDTH = 900;
    private static final int HEIGHT = 600;

    private ChartFile() {}

    /// Loads what draws. Java refuses to load its fonts once it is ending, when an interrupted run draws what it has.
    public static void prepare() {
        try {
            png(empty("", "", ""));
        } catch (GatunException e) {
            // said when there is something to draw
        }
    }

    /// A chart without curves.
    ///
    /// @throws GatunException when Java finds no fonts
    public static XYChart empty(String title, String xAxis, String yAxis) {
        return withFonts(() -> new XYChartBuilder().width(WIDTH).height(HEIGHT).theme(ChartTheme.Matlab).title(title)
                .xAxisTitle(xAxis).yAxisTitle(yAxis).build());
    }

    /// Writes a chart, whole or not at all.
    ///
    /// @throws GatunException when it cannot be drawn, because Java finds no fonts, or not be written
    public static void write(Path file, Chart<?, ?> chart) {
        AtomicFile.replace(file, png(chart));
    }

    private static byte[] png(Chart<?, ?> chart) {
        return withFonts(() -> {
            try {
                return BitmapEncoder.getBitmapBytes(chart, BitmapFormat.PNG);
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        });
    }

    /// Java's fonts throw an InternalError or a plain RuntimeException where there are none.
    private static <T> T withFonts(Supplier<T> drawing) {
        try {
            return drawing.get();
        } catch (RuntimeException | InternalError e) {
            throw new GatunException(GatunException.Status.INTERNAL, "cannot draw: %s. Install fontconfig and a font"
                    .formatted(e.getMessage()), e);
        }
    }
}
