package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Is what was measured written, read again, and drawn?
class MetricsLogTest {
    @TempDir
    private Path folder;

    @Test
    void append_writesALineAtOnce() throws IOException {
        Path file = folder.resolve("metrics.jsonl");
        try (MetricsLog log = MetricsLog.open(file, 0)) {
            log.append(10, Map.of("loss", 1.5));
            assertEquals("{\"step\":10,\"loss\":1.5}\n", Files.readString(file));
            log.append(20, Map.of("loss", Double.NaN));
            assertEquals("{\"step\":10,\"loss\":1.5}\n{\"step\":20,\"loss\":null}\n", Files.readString(file));
        }
    }

    @Test
    void open_dropsLaterAndDamagedLines() throws IOException {
        Path file = folder.resolve("metrics.jsonl");
        try (MetricsLog log = MetricsLog.open(file, 0)) {
            for (int step = 1; step <= 4; step++) {
                log.append(step, Map.of("loss", 0.5 * step));
            }
        }
        Files.writeString(file, Files.readString(file) + "{\"step\":2, \"lo");
        try (MetricsLog log = MetricsLog.open(file, 2)) {
            assertEquals(List.of(new MetricsLog.Line(1, Map.of("loss", 0.5)),
                    new MetricsLog.Line(2, Map.of("loss", 1.0))), log.lines());
            log.append(3, Map.of("loss", 9.0));
        }
        assertEquals("{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":1.0}\n{\"step\":3,\"loss\":9.0}\n",
                Files.readString(file));
    }

    @Test
    void lossCurve_isDrawn() throws IOException {
        List<MetricsLog.Line> lines = new ArrayList<>();
        for (int step = 1; step <= 2500; step++) {
            lines.add(new MetricsLog.Line(step, step % 500 == 0 ? Map.of("loss", 1.0 / step, "eval_loss", 2.0 / step)
                    : Map.of("loss", step == 7 ? Double.NaN : 1.0 / step, "lr", 1e-3)));
        }
        Path file = folder.resolve("loss.png");
        LossCurve.write(file, "loss", lines);
        BufferedImage curve = ImageIO.read(file.toFile());
        assertEquals(900, curve.getWidth());
        Files.delete(file);
        LossCurve.write(file, "loss", List.of(new MetricsLog.Line(1, Map.of("lr", 1.0))));
        assertFalse(Files.exists(file), "nothing to draw");
    }

    @Test
    void sampleGrid_mapsTheRange() throws IOException {
        Path file = folder.resolve("grid.png");
        SampleGrid.write(file, new float[] {-1, 1, 0, 9, Float.NaN, -9}, 3, 2, 1, -1, 1);
        BufferedImage grid = ImageIO.read(file.toFile());
        assertEquals(0x000000, grid.getRGB(0, 0) & 0xffffff);
        assertEquals(0xffffff, grid.getRGB(0, 1) & 0xffffff);
        assertEquals(0x808080, grid.getRGB(3, 0) & 0xffffff);
        SampleGrid.write(file, new float[] {1, 0, 0.2f}, 1, 1, 1, 0, 1);
        assertEquals(0xff0033, ImageIO.read(file.toFile()).getRGB(0, 0) & 0xffffff);
        String message = assertThrows(GatunException.class, () -> SampleGrid.write(file, new float[4], 1, 1, 2, 0, 1))
                .getMessage();
        assertTrue(message.contains("4 values for 1 pictures of 1 x 2"), message);
    }
}
