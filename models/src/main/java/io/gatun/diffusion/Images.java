package io.gatun.diffusion;

import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.List;
import javax.imageio.ImageIO;
import org.jspecify.annotations.Nullable;

/// Pictures that were drawn, and what is needed to draw them again.
///
/// @param rgb     [count, height, width, 3], 0 to 255
/// @param seeds   of each image
/// @param calls   calls of the network; 1 where there is no loop
/// @param scheduler class of the sampler; null where there is none
/// @param failed  the images that hold NaN, and where it came from first; empty where all are well
/// @param raw     the numbers behind the pictures, where they were asked for
/// @param timings how long it took
public record Images(byte[] rgb, int count, int height, int width, long[] seeds, int calls,
        @Nullable String scheduler, List<Failure> failed, @Nullable Raw raw, Timings timings) {
    private static final int GAP = 2; // pixels between the pictures of a grid
    private static final int WHITE = 0xffffff;

    /// An image whose numbers are not numbers.
    ///
    /// @param index  from 0
    /// @param module the first part of the model whose result is not finite
    public record Failure(int index, String module) {}

    /// The numbers behind the pictures.
    ///
    /// @param latents      the last sample, before any decoder; its shape [count, C, H, W]. Of a generator the numbers
    ///                     that it drew from, [count, Z]
    /// @param image        [count, C, height, width], 0 to 1
    /// @param channels     C of `image`
    public record Raw(float[] latents, long[] latentsShape, float[] image, int channels) {}

    /// @param encoding text and pictures into what the loop needs
    /// @param denoising the loop
    /// @param decoding latents into pixels
    public record Timings(Duration encoding, Duration denoising, Duration decoding) {}

    Images withLatents(float[] latents, long... shape) {
        Raw numbers = raw == null ? null : new Raw(latents, shape, raw.image, raw.channels);
        return new Images(rgb, count, height, width, seeds, calls, scheduler, failed, numbers, timings);
    }

    /// One picture.
    public BufferedImage get(int index) {
        if (index < 0 || index >= count) {
            throw GatunException.invalid("image %d, expected 0 to %d", index, count - 1);
        }
        BufferedImage picture = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
        draw(picture, index, 0, 0);
        return picture;
    }

    /// All pictures side by side, about as many rows as columns.
    public BufferedImage grid() {
        return grid((int) Math.ceil(Math.sqrt(count)));
    }

    /// All pictures, so many side by side.
    public BufferedImage grid(int columns) {
        int rows = (count + columns - 1) / columns;
        BufferedImage picture = new BufferedImage(columns * (width + GAP) - GAP, rows * (height + GAP) - GAP,
                BufferedImage.TYPE_INT_RGB);
        for (int y = 0; count > 1 && y < picture.getHeight(); y++) {
            for (int x = 0; x < picture.getWidth(); x++) {
                picture.setRGB(x, y, WHITE);
            }
        }
        for (int i = 0; i < count; i++) {
            draw(picture, i, i / columns * (height + GAP), i % columns * (width + GAP));
        }
        return picture;
    }

    private void draw(BufferedImage picture, int index, int top, int left) {
        int at = index * height * width * 3;
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++, at += 3) {
                picture.setRGB(left + x, top + y,
                        (rgb[at] & 0xff) << 16 | (rgb[at + 1] & 0xff) << 8 | rgb[at + 2] & 0xff);
            }
        }
    }

    /// Writes [#grid] as PNG, whole or not at all. Where the path cannot be written, the picture goes beside it, into
    /// the current folder or into that for temporary files, so that it is not lost, and the exception says where.
    ///
    /// @throws GatunException when the path could not be written; names where the picture is
    public void writePng(Path file) {
        writePng(file, grid());
    }

    /// As [#writePng(Path)], of one of the grids.
    public static void writePng(Path file, BufferedImage grid) {
        try {
            write(file, grid);
        } catch (IOException e) {
            for (Path folder : new Path[] {file.toAbsolutePath().getParent(), Path.of("").toAbsolutePath(),
                Path.of(System.getProperty("java.io.tmpdir"))}) {
                try {
                    Path beside = Files.createTempFile(folder, "gatun-", ".png");
                    write(beside, grid);
                    throw new GatunException(GatunException.Status.INTERNAL,
                            "cannot write %s: %s; the picture is in %s".formatted(file, IoReason.of(e), beside), e);
                } catch (IOException also) {
                    e.addSuppressed(also);
                }
            }
            throw new GatunException(GatunException.Status.INTERNAL, "cannot write %s: %s, nor any other file"
                    .formatted(file, IoReason.of(e)), e);
        }
    }

    private static void write(Path file, BufferedImage grid) throws IOException {
        ByteArrayOutputStream png = new ByteArrayOutputStream();
        if (!ImageIO.write(grid, "png", png)) {
            throw new IOException("this Java has no PNG writer");
        }
        if (Files.isDirectory(file)) {
            throw new IOException("it is a folder");
        }
        String name = "." + file.getFileName() + "." + ProcessHandle.current().pid();
        Path part = file.toAbsolutePath().resolveSibling(name);
        try {
            Files.write(part, png.toByteArray());
            Files.move(part, file, StandardCopyOption.REPLACE_EXISTING);
        } finally {
            Files.deleteIfExists(part);
        }
    }
}
