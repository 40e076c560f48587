package io.gatun.train.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.runtime.GatunException;
import io.gatun.train.data.ImageSet.Part;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.zip.GZIPOutputStream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Are pictures read as they are, from idx files and from folders, and is what is damaged named?
class ImageSetTest {
    @TempDir
    private Path folder;

    private static byte[] idx(int magic, int[] shape, int bytes) {
        ByteBuffer buffer = ByteBuffer.allocate(4 + 4 * shape.length + bytes).putInt(magic);
        for (int size : shape) {
            buffer.putInt(size);
        }
        for (int i = 0; i < bytes; i++) {
            buffer.put((byte) (i + 1));
        }
        return buffer.array();
    }

    private static byte[] gzip(byte[] content) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (GZIPOutputStream gzip = new GZIPOutputStream(out)) {
            gzip.write(content);
        }
        return out.toByteArray();
    }

    private void mnist(int count) throws IOException {
        Files.write(folder.resolve("train-images-idx3-ubyte"), idx(0x803, new int[] {count, 2, 3}, count * 6));
        Files.write(folder.resolve("train-labels-idx1-ubyte"), idx(0x801, new int[] {count}, count));
    }

    private void fails(String... parts) {
        String message = assertThrows(GatunException.class, () -> ImageSet.open(folder, Part.TRAIN, 4, 1))
                .getMessage();
        for (String part : parts) {
            assertTrue(message.contains(part), () -> "no '" + part + "' in: " + message);
        }
    }

    private Path picture(String name, int type, int height, int width, int... rgb) throws IOException {
        BufferedImage image = new BufferedImage(width, height, type);
        for (int i = 0; i < height * width; i++) {
            if (type == BufferedImage.TYPE_BYTE_GRAY) {
                image.getRaster().setSample(i % width, i / width, 0, rgb[i % rgb.length] & 0xff);
            } else {
                image.setRGB(i % width, i / width, rgb[i % rgb.length]);
            }
        }
        Path file = folder.resolve(name);
        Files.createDirectories(file.getParent());
        assertTrue(ImageIO.write(image, name.substring(name.lastIndexOf('.') + 1), file.toFile()));
        return file;
    }

    @Test
    void open_readsIdxFilesWithABorder() throws IOException {
        mnist(2);
        Files.write(folder.resolve("t10k-images-idx3-ubyte.gz"), gzip(idx(0x803, new int[] {1, 2, 3}, 6)));
        Files.write(folder.resolve("t10k-labels-idx1-ubyte.gz"), gzip(idx(0x801, new int[] {1}, 1)));
        ImageSet train = ImageSet.open(folder, Part.TRAIN, 4, 1);
        assertEquals(2, train.count());
        assertArrayEquals(new int[] {1, 2}, train.batchLabels(new int[] {0, 1}));
        assertEquals(List.of("0", "1", "2"), train.classes());
        assertArrayEquals(new byte[] {0, 0, 0, 0, 7, 8, 9, 0, 10, 11, 12, 0, 0, 0, 0, 0}, train.pixels(1));
        ImageSet heldOut = ImageSet.open(folder, Part.HELD_OUT, 4, 3);
        assertEquals(1, heldOut.count());
        assertArrayEquals(new byte[] {1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 0, 0}, Arrays.copyOfRange(heldOut.pixels(0), 12,
                24));
        assertEquals(List.of(), train.warnings());
    }

    @Test
    void open_holdsOutATenthWhereThereIsNoTestPart() throws IOException {
        mnist(20);
        assertEquals(18, ImageSet.open(folder, Part.TRAIN, 4, 1).count());
        ImageSet heldOut = ImageSet.open(folder, Part.HELD_OUT, 4, 1);
        assertArrayEquals(new int[] {10, 20}, heldOut.batchLabels(new int[] {0, 1}));
    }

    @Test
    void batch_mapsBytesToTheRange() throws IOException {
        picture("a.png", BufferedImage.TYPE_BYTE_GRAY, 1, 1, 255);
        picture("b.png", BufferedImage.TYPE_BYTE_GRAY, 1, 1, 51);
        ImageSet set = ImageSet.open(folder, Part.TRAIN, 1, 1);
        assertArrayEquals(new float[] {-0.6f, 1, -0.6f}, set.batch(new int[] {1, 0, 1}, -1, 1), 1e-6f);
        assertArrayEquals(new float[] {1, 0.2f}, set.batch(new int[] {0, 1}, 0, 1), 1e-6f);
    }

    @Test
    void open_refusesDamagedIdxFiles() throws IOException {
        Path images = folder.resolve("train-images-idx3-ubyte");
        Path labels = folder.resolve("train-labels-idx1-ubyte");
        Files.write(images, idx(0x803, new int[] {2, 2, 3}, 12));
        fails("no file train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz");
        Files.write(labels, idx(0x801, new int[] {3}, 3));
        fails("has 3 labels", "has 2 pictures");
        Files.write(labels, idx(0x801, new int[] {2}, 2));
        Files.write(images, idx(0x803, new int[] {2, 2, 3}, 11));
        fails("train-images-idx3-ubyte", "only 11 values, fewer than the 12 values");
        Files.write(images, idx(0x803, new int[] {2, 2, 3}, 13));
        fails("more bytes than the 12 values");
        Files.write(images, idx(0x803, new int[] {2_000_000_000, 2, 3}, 12));
        fails("dimension 1 is 2", "below 2^31");
        Files.write(images, idx(0x803, new int[] {-1, 2, 3}, 12));
        fails("dimension 0 is -1");
        Files.write(images, idx(0x803, new int[] {600_000_000, 1, 3}, 12));
        fails("only 12 values, fewer than the 1,800,000,000 values"); // without allocating them
        Files.write(images, idx(0xd03, new int[] {2, 2, 3}, 48));
        fails("begins with 0x00000d03, expected 0x00000803");
        Files.write(images, new byte[] {0, 0, 8});
        fails("ends too early");
        Files.write(images, Arrays.copyOf(gzip(idx(0x803, new int[] {2, 2, 3}, 12)), 20));
        fails("ends too early");
        Files.write(images, idx(0x803, new int[] {1, 5, 5}, 25));
        Files.write(labels, idx(0x801, new int[] {1}, 1));
        fails("5 x 5, which do not fit into 4 x 4");
    }

    @Test
    void open_readsClassesFromFolders() throws IOException {
        picture("train/dog/1.png", BufferedImage.TYPE_INT_RGB, 2, 2, 0xff0000);
        picture("train/cat/x/1.jpg", BufferedImage.TYPE_INT_RGB, 2, 2, 0xffffff);
        picture("test/cat/1.PNG", BufferedImage.TYPE_INT_ARGB, 2, 2, 0x80123456);
        picture("train/dog/2.png", BufferedImage.TYPE_BYTE_INDEXED, 2, 2, 0x0000ff);
        Files.writeString(folder.resolve("train/dog/readme.txt"), "no picture");
        ImageSet train = ImageSet.open(folder, Part.TRAIN, 2, 3);
        assertEquals(List.of("cat", "dog"), train.classes());
        assertArrayEquals(new int[] {0, 1, 1}, train.batchLabels(new int[] {0, 1, 2}));
        assertArrayEquals(new byte[] {-1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0}, train.pixels(1));
        assertArrayEquals(new byte[] {0, 0, -1}, Arrays.copyOf(train.pixels(2), 3));
        ImageSet test = ImageSet.open(folder, Part.HELD_OUT, 2, 3);
        assertEquals(1, test.count());
        assertArrayEquals(new byte[] {0x12, 0x34, 0x56}, Arrays.copyOf(test.pixels(0), 3), "transparency is dropped");
    }

    @Test
    void open_readsPlainFoldersWithoutClasses() throws IOException {
        for (int i = 0; i < 11; i++) {
            picture("%02d.png".formatted(i), BufferedImage.TYPE_BYTE_GRAY, 1, 1, 10 * i);
        }
        ImageSet train = ImageSet.open(folder, Part.TRAIN, 1, 1);
        assertEquals(10, train.count());
        assertEquals(List.of(), train.classes());
        assertEquals(ImageSet.NO_LABEL, train.label(0));
        assertArrayEquals(new byte[] {100}, train.pixels(9));
        assertArrayEquals(new byte[] {90}, ImageSet.open(folder, Part.HELD_OUT, 1, 1).pixels(0));
    }

    @Test
    void open_skipsDamagedPicturesByName() throws IOException {
        Path good = picture("a/1.png", BufferedImage.TYPE_INT_RGB, 9, 9, 0x112233, 0x445566, 0);
        byte[] bytes = Files.readAllBytes(good);
        Files.write(folder.resolve("a/2.png"), Arrays.copyOf(bytes, bytes.length / 2));
        Files.writeString(folder.resolve("a/3.jpg"), "no picture at all");
        Files.write(folder.resolve("a/4.png"), new byte[0]);
        byte[] huge = bytes.clone();
        ByteBuffer.wrap(huge).putInt(16, 100_000).putInt(20, 100_000);
        Files.write(folder.resolve("a/5.png"), huge);
        picture("a/6.png", BufferedImage.TYPE_INT_RGB, 4, 4, 0x778899);
        ImageSet set = ImageSet.open(folder, Part.TRAIN, 4, 3);
        assertEquals(2, set.count());
        assertEquals(4, set.skipped().size(), set.skipped()::toString);
        assertEquals("5.png", set.skipped().getLast().file().getFileName().toString());
        assertTrue(set.skipped().getLast().reason().contains("100"), set.skipped()::toString);
        String warning = set.warnings().getFirst();
        assertEquals(1, set.warnings().size(), warning);
        assertTrue(warning.startsWith("4 of 6 pictures skipped; the first is ") && warning.contains("2.png"), warning);
        assertEquals(0x77, set.pixels(1)[0]);
    }

    @Test
    void open_warnsOfFoldersWithoutPictures() throws IOException {
        for (int i = 0; i < 11; i++) {
            picture("b/%02d.png".formatted(i), BufferedImage.TYPE_BYTE_GRAY, 1, 1, i);
        }
        Files.createDirectories(folder.resolve("a"));
        Files.createDirectories(folder.resolve("notes/old"));
        Files.writeString(folder.resolve("notes/old/1.txt"), "no picture");
        for (Part part : Part.values()) {
            ImageSet set = ImageSet.open(folder, part, 1, 1);
            assertEquals(List.of("a", "b", "notes"), set.classes());
            assertEquals(List.of("2 of 3 folders of classes hold no pictures; the first is " + folder.resolve("a")),
                    set.warnings());
        }
    }

    @Test
    void open_saysWhatIsMissing() throws IOException {
        fails("no PNG or JPEG pictures");
        Files.writeString(folder.resolve("1.png"), "none");
        fails("none of 1 pictures can be read", "1.png");
        for (int i = 2; i <= 10; i++) {
            Files.writeString(folder.resolve(i + ".png"), "none");
        }
        String heldOut = assertThrows(GatunException.class, () -> ImageSet.open(folder, Part.HELD_OUT, 4, 1))
                .getMessage();
        assertTrue(heldOut.contains("none of 1 pictures can be read, which is every tenth, held out"), heldOut);
        String message = assertThrows(GatunException.class, () -> ImageSet.open(folder.resolve("x"), Part.TRAIN, 4, 1))
                .getMessage();
        assertTrue(message.contains("x: no such folder"), message);
    }

    /// Grey as Pillow's: by weights, and grey files as they are.
    @Test
    void open_greyIsNotBrightened() throws IOException {
        picture("1.png", BufferedImage.TYPE_BYTE_GRAY, 1, 1, 100);
        picture("2.png", BufferedImage.TYPE_INT_RGB, 1, 1, 0xff0000);
        picture("3.png", BufferedImage.TYPE_INT_RGB, 1, 1, 0x646464);
        BufferedImage deep = new BufferedImage(1, 1, BufferedImage.TYPE_USHORT_GRAY);
        deep.getRaster().setSample(0, 0, 0, 0x1234);
        ImageIO.write(deep, "png", folder.resolve("4.png").toFile());
        BufferedImage bits = new BufferedImage(1, 1, BufferedImage.TYPE_BYTE_BINARY);
        bits.getRaster().setSample(0, 0, 0, 1);
        ImageIO.write(bits, "png", folder.resolve("5.png").toFile());
        ImageSet set = ImageSet.open(folder, Part.TRAIN, 1, 1);
        int[] values = new int[set.count()];
        for (int i = 0; i < values.length; i++) {
            values[i] = set.pixels(i)[0] & 0xff;
        }
        assertArrayEquals(new int[] {100, 76, 100, 0x12, 255}, values);
    }

    @Test
    void square_averagesAndCuts() {
        byte[] ramp = {0, 10, 20, 30, 40, 50, 60, 70, 0, 10, 20, 30, 40, 50, 60, 70};
        // 2 x 8 to 2 x 2: the middle, columns 3 and 4
        assertArrayEquals(new byte[] {30, 40, 30, 40}, Resampling.square(ramp, 2, 8, 1, 2));
        // a row of 4, of which Pillow makes 7 25 45 63: its second
        assertArrayEquals(new byte[] {25}, Resampling.square(ramp, 2, 8, 1, 1));
        assertArrayEquals(new byte[] {5, 5, 5, 5}, Resampling.square(new byte[] {5}, 1, 1, 1, 2));
        assertArrayEquals(new byte[] {1, 2, 3}, Resampling.square(new byte[] {1, 2, 3}, 1, 1, 3, 1));
    }

    /// The values that Pillow gives for `resize(..., BILINEAR)`, rows of the middle, but for its rounding in between.
    @Test
    void square_isPillows() {
        byte[] pixels = new byte[35];
        for (int i = 0; i < pixels.length; i++) {
            pixels[i] = (byte) (7 * i);
        }
        assertNear(new int[] {21, 32, 43, 76, 87, 98, 140, 151, 162}, Resampling.square(pixels, 7, 5, 1, 3), 0);
        byte[] larger = Resampling.square(pixels, 7, 5, 1, 9);
        assertNear(new int[] {13, 15, 19, 23, 27, 31, 35, 39, 41}, larger, 0);
        assertNear(new int[] {176, 178, 182, 186, 190, 194, 198, 202, 204}, larger, 72);
    }

    private static void assertNear(int[] expected, byte[] actual, int from) {
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], actual[from + i] & 0xff, 1, "[" + (from + i) + "]");
        }
    }

    @Test
    void open_mnist() {
        Path mnist = Path.of(System.getProperty("gatun.assets"), "mnist");
        assumeTrue(Files.exists(mnist), "no " + mnist);
        ImageSet test = ImageSet.open(mnist, Part.HELD_OUT, 32, 1);
        assertEquals(10_000, test.count());
        assertEquals(10, test.classes().size());
        assertArrayEquals(new int[] {7, 2, 1, 0, 4}, test.batchLabels(new int[] {0, 1, 2, 3, 4}));
        double sum = 0;
        for (int i = 0; i < test.count(); i++) {
            for (byte b : test.pixels(i)) {
                sum += b & 0xff;
            }
        }
        assertEquals(0.1325, sum / 255 / (10_000 * 784), 1e-4); // the known mean of the test set
    }
}
