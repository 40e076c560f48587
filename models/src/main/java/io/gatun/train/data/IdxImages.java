package io.gatun.train.data;

import io.gatun.runtime.GatunException;
import io.gatun.train.data.ImageSet.Part;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// The files of MNIST and of the data sets in its format.
final class IdxImages {
    private static final String TRAIN = "train";
    private static final String TEST = "t10k";

    private IdxImages() {}

    static boolean isIn(Path folder) {
        return find(folder, TRAIN, "images", 3) != null || find(folder, TEST, "images", 3) != null;
    }

    /// `train-images-idx3-ubyte`, also with a point before idx, also gzipped.
    private static @Nullable Path find(Path folder, String part, String what, int rank) {
        for (String separator : List.of("-", ".")) {
            for (String end : List.of("", ".gz")) {
                Path file = folder.resolve("%s-%s%sidx%d-ubyte%s".formatted(part, what, separator, rank, end));
                if (Files.isRegularFile(file)) {
                    return file;
                }
            }
        }
        return null;
    }

    private static Path require(Path folder, String part, String what, int rank) {
        Path file = find(folder, part, what, rank);
        if (file == null) {
            String name = "%s-%s-idx%d-ubyte".formatted(part, what, rank);
            throw GatunException.invalid("%s: no file %s or %s.gz", folder, name, name);
        }
        return file;
    }

    static ImageSet read(Path folder, Part part, int size, int channels) {
        boolean hasTest = find(folder, TEST, "images", 3) != null;
        String name = part == Part.HELD_OUT && hasTest ? TEST : TRAIN;
        Path imagesFile = require(folder, name, "images", 3);
        Path labelsFile = require(folder, name, "labels", 1);
        IdxFile pictures = IdxFile.read(imagesFile, 3);
        IdxFile labels = IdxFile.read(labelsFile, 1);
        int count = pictures.shape()[0];
        if (labels.shape()[0] != count) {
            throw GatunException.invalid("%s has %,d labels, %s has %,d pictures; expected as many", labelsFile,
                    labels.shape()[0], imagesFile, count);
        }
        int height = pictures.shape()[1];
        int width = pictures.shape()[2];
        if (height > size || width > size) {
            throw GatunException.invalid("%s holds pictures of %d x %d, which do not fit into %d x %d", imagesFile,
                    height, width, size, size);
        }
        ImageSet.checkMemory(folder, count, size, channels);
        List<byte[]> images = new ArrayList<>();
        List<Integer> classes = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            if (hasTest || ImageSet.isIn(part, i)) {
                images.add(bordered(pictures.data(), i * height * width, height, width, size, channels));
                classes.add(labels.data()[i] & 0xff);
            }
        }
        int numClasses = 1;
        for (byte label : labels.data()) {
            numClasses = Math.max(numClasses, (label & 0xff) + 1);
        }
        return new ImageSet(size, channels, images, classes.stream().mapToInt(Integer::intValue).toArray(),
                IntStream.range(0, numClasses).mapToObj(Integer::toString).toList(), List.of(), List.of());
    }

    private static byte[] bordered(byte[] data, int from, int height, int width, int size, int channels) {
        byte[] image = new byte[size * size * channels];
        int top = (size - height) / 2;
        int left = (size - width) / 2;
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                for (int c = 0; c < channels; c++) {
                    image[((top + y) * size + left + x) * channels + c] = data[from + y * width + x];
                }
            }
        }
        return image;
    }
}
