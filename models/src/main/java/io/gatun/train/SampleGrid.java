package io.gatun.train;

import io.gatun.diffusion.Images;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;

/// Pictures that a model made, side by side in a PNG.
public final class SampleGrid {
    private SampleGrid() {}

    /// @param values [count, height, width, C] with C = 1 (grey) or 3; `low` is black, `high` is white
    /// @throws GatunException when the file cannot be written
    public static void write(Path file, float[] values, int count, int height, int width, float low, float high) {
        int channels = values.length / (count * height * width);
        if (channels != 1 && channels != 3 || values.length != count * height * width * channels) {
            throw GatunException.invalid("%d values for %d pictures of %d x %d with 1 or 3 channels", values.length,
                    count, height, width);
        }
        byte[] rgb = new byte[count * height * width * 3];
        for (int i = 0; i < rgb.length; i++) {
            float value = values[channels == 3 ? i : i / 3];
            rgb[i] = (byte) Math.clamp(Math.round((value - low) / (high - low) * 255), 0, 255);
        }
        new Images(rgb, count, height, width, new long[count], 1, null, List.of(), null,
                new Images.Timings(Duration.ZERO, Duration.ZERO, Duration.ZERO)).writePng(file);
    }
}
