package io.gatun.train.data;

import io.gatun.runtime.GatunException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/// Square pictures of one size in memory, with their classes where there are any.
///
/// May be shared between threads.
public final class ImageSet {
    /// No class is known.
    public static final int NO_LABEL = -1;
    /// Where the data have no evaluation part of their own, it is every tenth picture.
    static final int HELD_OUT_SHARE = 10;

    /// Which part of the data.
    public enum Part {
        TRAIN, HELD_OUT
    }

    /// A picture that could not be read.
    public record Skipped(Path file, String reason) {}

    private final int size;
    private final int channels;
    private final List<byte[]> images;
    private final int[] labels;
    private final List<String> classes;
    private final List<Skipped> skipped;
    private final List<Path> emptyFolders;

    /// @param emptyFolders of classes
    ImageSet(int size, int channels, List<byte[]> images, int[] labels, List<String> classes, List<Skipped> skipped,
            List<Path> emptyFolders) {
        this.size = size;
        this.channels = channels;
        this.images = List.copyOf(images);
        this.labels = labels.clone();
        this.classes = List.copyOf(classes);
        this.skipped = List.copyOf(skipped);
        this.emptyFolders = List.copyOf(emptyFolders);
    }

    /// Opens a folder: MNIST's files (`train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-...`, also `.gz`), or
    /// PNG and JPEG pictures, whose classes are the folders that they are in. The evaluation part is `t10k-...`, or the
    /// folders `train` and `test` beside each other, else every tenth picture.
    ///
    /// Pictures are resized to `size` at the shorter side and cut to the middle square; those of idx files, which are
    /// drawn at a fixed size, get a border of zeros instead.
    ///
    /// @param channels 1 (grey) or 3
    /// @throws GatunException when there are no pictures, or they do not fit into memory
    public static ImageSet open(Path folder, Part part, int size, int channels) {
        if (!Files.isDirectory(folder)) {
            throw GatunException.invalid("%s: %s; expected one with pictures or with idx files", folder,
                    Files.exists(folder) ? "a file, not a folder" : "no such folder");
        }
        if (size < 1 || channels != 1 && channels != 3) {
            throw GatunException.invalid("pictures of size %d with %d channels, expected 1 or 3 channels", size,
                    channels);
        }
        return IdxImages.isIn(folder) ? IdxImages.read(folder, part, size, channels)
                : ImageFolder.read(folder, part, size, channels);
    }

    public int count() {
        return images.size();
    }

    /// Height and width.
    public int size() {
        return size;
    }

    /// C
    public int channels() {
        return channels;
    }

    /// Names of the classes; empty where none are known.
    public List<String> classes() {
        return classes;
    }

    /// The class of a picture, or [#NO_LABEL].
    public int label(int index) {
        return labels[index];
    }

    /// What could not be read.
    public List<Skipped> skipped() {
        return skipped;
    }

    /// A line about what was skipped, and one about folders without pictures, which count as classes all the same.
    public List<String> warnings() {
        List<String> warnings = new ArrayList<>();
        if (!skipped.isEmpty()) {
            warnings.add("%d of %d pictures skipped; the first is %s: %s".formatted(skipped.size(),
                    skipped.size() + count(), skipped.getFirst().file(), skipped.getFirst().reason()));
        }
        if (!emptyFolders.isEmpty()) {
            warnings.add("%d of %d folders of classes hold no pictures; the first is %s".formatted(emptyFolders.size(),
                    classes.size(), emptyFolders.getFirst()));
        }
        return warnings;
    }

    /// Bytes of a picture, [size, size, C].
    public byte[] pixels(int index) {
        return images.get(index).clone();
    }

    /// Pictures as numbers: 0 becomes `low`, 255 `high`.
    ///
    /// @param indices see [BatchOrder#next]
    /// @return [B, size, size, C]
    public float[] batch(int[] indices, float low, float high) {
        float[] table = new float[256];
        for (int v = 0; v < table.length; v++) {
            table[v] = low + (high - low) * (v / 255f);
        }
        int length = size * size * channels;
        float[] values = new float[indices.length * length];
        for (int b = 0; b < indices.length; b++) {
            byte[] image = images.get(indices[b]);
            for (int i = 0; i < length; i++) {
                values[b * length + i] = table[image[i] & 0xff];
            }
        }
        return values;
    }

    /// Classes of pictures.
    ///
    /// @return [B]
    public int[] batchLabels(int[] indices) {
        int[] chosen = new int[indices.length];
        for (int b = 0; b < indices.length; b++) {
            chosen[b] = labels[indices[b]];
        }
        return chosen;
    }

    /// Whether picture number `index` of data without an evaluation part is in `part`.
    static boolean isIn(Part part, int index) {
        return (index % HELD_OUT_SHARE == HELD_OUT_SHARE - 1) == (part == Part.HELD_OUT);
    }

    /// Refuses what would not fit into the heap.
    static void checkMemory(Path folder, long numImages, int size, int channels) {
        long bytes = numImages * size * size * channels;
        long heap = Runtime.getRuntime().maxMemory();
        if (bytes > heap / 2) {
            throw GatunException.invalid("%s: %,d pictures of %d x %d x %d need %,d MB,"
                    + " which is over half of the heap of"
                    + " %,d MB: make them smaller or start with JAVA_TOOL_OPTIONS=-Xmx%dg", folder, numImages, size,
                    size, channels, bytes >> 20, heap >> 20, (2 * bytes >> 30) + 1);
        }
    }
}
