package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ImagesTest {
    @TempDir
    private Path directory;

    /// Three pictures of 2 x 1 pixels.
    private static Images three() {
        byte[] rgb = new byte[3 * 2 * 3];
        for (int i = 0; i < rgb.length; i++) {
            rgb[i] = (byte) (10 * i);
        }
        return new Images(rgb, 3, 1, 2, new long[3], 1, null, List.of(), null,
                new Images.Timings(Duration.ZERO, Duration.ZERO, Duration.ZERO));
    }

    @Test
    void grid_isTwoByTwoForThree() {
        BufferedImage grid = three().grid();
        assertArrayEquals(new int[] {6, 4}, new int[] {grid.getWidth(), grid.getHeight()});
        assertEquals(0x000a14, grid.getRGB(0, 0) & 0xffffff);
        assertEquals(0x5a646e, grid.getRGB(5, 0) & 0xffffff);
        assertEquals(0x78828c, grid.getRGB(0, 3) & 0xffffff);
        assertEquals(0xffffff, grid.getRGB(5, 3) & 0xffffff, "no fourth");
        assertThrows(GatunException.class, () -> three().get(3));
    }

    @Test
    void writePng_replacesAndLeavesNothingElse() throws IOException {
        Path file = directory.resolve("x.png");
        Files.writeString(file, "old");
        three().writePng(file);
        assertEquals(6, ImageIO.read(file.toFile()).getWidth());
        try (Stream<Path> files = Files.list(directory)) {
            assertEquals(List.of(file), files.toList());
        }
    }

    @Test
    void writePng_pictureIsNotLost() throws IOException {
        Path taken = directory.resolve("x.png");
        Files.createDirectories(taken.resolve("not empty"));
        GatunException e = assertThrows(GatunException.class, () -> three().writePng(taken));
        assertTrue(e.getMessage().contains("it is a folder; the picture is in "), e.getMessage());
        Path place = Path.of(e.getMessage().replaceAll(".*the picture is in ", ""));
        assertEquals(directory, place.getParent());
        assertEquals(6, ImageIO.read(place.toFile()).getWidth());
    }
}
