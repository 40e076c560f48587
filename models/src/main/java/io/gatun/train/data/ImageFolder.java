package io.gatun.train.data;

import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import io.gatun.train.data.ImageSet.Part;
import io.gatun.train.data.ImageSet.Skipped;
import java.awt.color.ColorSpace;
import java.awt.image.BufferedImage;
import java.awt.image.IndexColorModel;
import java.awt.image.Raster;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import javax.imageio.ImageReader;
import javax.imageio.stream.ImageInputStream;
import org.jspecify.annotations.Nullable;

/// A folder of PNG and JPEG pictures. Its folders are the classes, in the order of their names; pictures that lie in it
/// directly have none. Transparency is dropped.
final class ImageFolder {
    private static final List<String> SUFFIXES = List.of(".png", ".jpg", ".jpeg");
    private static final long MAX_PIXELS = 100_000_000; // of a picture: more is a decompression bomb

    /// Weights of red, green and blue in grey, in thousandths: ITU-R BT.601, as Pillow's mode L.
    private static final int RED = 299;
    private static final int GREEN = 587;
    private static final int BLUE = 114;

    /// @param label index of the class, or [ImageSet#NO_LABEL]
    private record Entry(Path file, int label) {}

    /// @param pixels [size, size, C]; null where the picture could not be read
    /// @param problem why not
    private record Loaded(byte @Nullable [] pixels, String problem) {}

    private ImageFolder() {}

    static ImageSet read(Path folder, Part part, int size, int channels) {
        boolean divided = Files.isDirectory(folder.resolve("train")) && Files.isDirectory(folder.resolve("test"));
        Path root = divided ? folder.resolve(part == Part.TRAIN ? "train" : "test") : folder;
        List<String> classes = classes(root);
        List<Entry> all = entries(root, classes);
        List<Entry> entries = divided ? all
                : IntStream.range(0, all.size()).filter(i -> ImageSet.isIn(part, i)).mapToObj(all::get).toList();
        ImageSet.checkMemory(root, entries.size(), size, channels);
        List<Loaded> loaded = entries.parallelStream().map(entry -> load(entry.file, size, channels)).toList();
        List<byte[]> images = new ArrayList<>();
        List<Integer> labels = new ArrayList<>();
        List<Skipped> skipped = new ArrayList<>();
        for (int i = 0; i < loaded.size(); i++) {
            byte[] pixels = loaded.get(i).pixels;
            if (pixels == null) {
                skipped.add(new Skipped(entries.get(i).file, loaded.get(i).problem));
            } else {
                images.add(pixels);
                labels.add(entries.get(i).label);
            }
        }
        if (entries.isEmpty() && !all.isEmpty()) {
            throw GatunException.invalid("%s: %d pictures, expected at least %d: every tenth is held out", root,
                    all.size(),
                    ImageSet.HELD_OUT_SHARE);
        }
        if (images.isEmpty()) {
            throw skipped.isEmpty() ? GatunException.invalid("%s: no PNG or JPEG pictures", root)
                    : GatunException.invalid("%s: none of %d pictures can be read%s; %s: %s", root, skipped.size(),
                            divided || part == Part.TRAIN ? "" : ", which is every tenth, held out",
                            skipped.getFirst().file(), skipped.getFirst().reason());
        }
        Set<Integer> seen = all.stream().map(Entry::label).collect(Collectors.toSet());
        List<Path> empty = IntStream.range(0, classes.size()).filter(label -> !seen.contains(label))
                .mapToObj(label -> root.resolve(classes.get(label))).toList();
        return new ImageSet(size, channels, images, labels.stream().mapToInt(Integer::intValue).toArray(), classes,
                skipped, empty);
    }

    private static List<String> classes(Path root) {
        try (Stream<Path> inside = Files.list(root)) {
            return inside.filter(Files::isDirectory).map(folder -> folder.getFileName().toString())
                    .filter(name -> !name.startsWith(".")).sorted().toList();
        } catch (IOException e) {
            throw unreadable(root, e);
        }
    }

    private static List<Entry> entries(Path root, List<String> classes) {
        List<Entry> entries = new ArrayList<>();
        addPictures(root, 1, ImageSet.NO_LABEL, entries);
        for (int label = 0; label < classes.size(); label++) {
            addPictures(root.resolve(classes.get(label)), Integer.MAX_VALUE, label, entries);
        }
        return entries;
    }

    private static void addPictures(Path folder, int depth, int label, List<Entry> entries) {
        try (Stream<Path> files = Files.walk(folder, depth)) {
            files.filter(Files::isRegularFile).filter(ImageFolder::isPicture).sorted()
                    .forEach(file -> entries.add(new Entry(file, label)));
        } catch (IOException e) {
            throw unreadable(folder, e);
        }
    }

    private static boolean isPicture(Path file) {
        String name = file.getFileName().toString().toLowerCase(Locale.ROOT);
        return !name.startsWith(".") && SUFFIXES.stream().anyMatch(name::endsWith);
    }

    private static GatunException unreadable(Path folder, IOException e) {
        return new GatunException(GatunException.Status.INVALID_ARGUMENT, folder + ": cannot be read: "
                + IoReason.of(e), e);
    }

    /// Damaged pictures make Java's readers throw many kinds of exceptions.
    private static Loaded load(Path file, int size, int channels) {
        try (ImageInputStream in = ImageIO.createImageInputStream(file.toFile())) {
            Iterator<ImageReader> readers = ImageIO.getImageReaders(in);
            if (!readers.hasNext()) {
                return new Loaded(null, "not a PNG or JPEG picture");
            }
            ImageReader reader = readers.next();
            try {
                reader.setInput(in, true, true);
                long pixels = (long) reader.getWidth(0) * reader.getHeight(0);
                if (pixels > MAX_PIXELS) {
                    return new Loaded(null, "%,d pixels, expected at most %,d".formatted(pixels, MAX_PIXELS));
                }
                BufferedImage picture = reader.read(0);
                return new Loaded(Resampling.square(bytes(picture, channels), picture.getHeight(), picture.getWidth(),
                        channels, size), "");
            } finally {
                reader.dispose();
            }
        } catch (IOException | RuntimeException e) {
            return new Loaded(null, e instanceof IOException io ? IoReason.of(io)
                    : e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage());
        }
    }

    /// [height, width, channels]
    private static byte[] bytes(BufferedImage picture, int channels) {
        int height = picture.getHeight();
        int width = picture.getWidth();
        Raster raster = picture.getRaster();
        // getRGB would take the grey values for linear light and make them brighter
        boolean grey = picture.getColorModel().getColorSpace().getType() == ColorSpace.TYPE_GRAY
                && !(picture.getColorModel() instanceof IndexColorModel);
        int shift = grey ? picture.getColorModel().getComponentSize(0) - 8 : 0;
        byte[] bytes = new byte[height * width * channels];
        int at = 0;
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                int red;
                int green;
                int blue;
                if (grey) {
                    int sample = raster.getSample(x, y, 0);
                    red = shift >= 0 ? sample >> shift : sample * 255 / ((1 << 8 + shift) - 1);
                    green = red;
                    blue = red;
                } else {
                    int rgb = picture.getRGB(x, y);
                    red = rgb >> 16 & 0xff;
                    green = rgb >> 8 & 0xff;
                    blue = rgb & 0xff;
                }
                if (channels == 1) {
                    bytes[at++] = (byte) ((RED * red + GREEN * green + BLUE * blue + 500) / 1000);
                } else {
                    bytes[at++] = (byte) red;
                    bytes[at++] = (byte) green;
                    bytes[at++] = (byte) blue;
                }
            }
        }
        return bytes;
    }
}
