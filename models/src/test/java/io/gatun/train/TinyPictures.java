package io.gatun.train;

import io.gatun.train.data.CounterRandom;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/// Grey pictures of 8 x 8 in MNIST's format: class 0 is bright on the left, class 1 on the right, with a little noise.
public final class TinyPictures {
    static final int SIZE = 8;

    private TinyPictures() {}

    /// Makes a folder of 24 pictures to train on and 10 to test.
    public static Path write(Path folder) throws IOException {
        Files.createDirectories(folder);
        write(folder, "train", 24, 0);
        write(folder, "t10k", 10, 1000);
        return folder;
    }

    private static void write(Path folder, String part, int count, int first) throws IOException {
        ByteArrayOutputStream images = new ByteArrayOutputStream();
        ByteArrayOutputStream labels = new ByteArrayOutputStream();
        DataOutputStream pictures = new DataOutputStream(images);
        DataOutputStream classes = new DataOutputStream(labels);
        for (int header : new int[] {0x803, count, SIZE, SIZE}) {
            pictures.writeInt(header);
        }
        classes.writeInt(0x801);
        classes.writeInt(count);
        for (int i = 0; i < count; i++) {
            int label = (int) CounterRandom.below(2, 1, first + i);
            classes.writeByte(label);
            for (int p = 0; p < SIZE * SIZE; p++) {
                boolean bright = p % SIZE < SIZE / 2 == (label == 0);
                int noise = (int) CounterRandom.below(40, 2, (first + i) * 64L + p);
                pictures.writeByte(bright ? 200 + noise : noise);
            }
        }
        Files.write(folder.resolve(part + "-images-idx3-ubyte"), images.toByteArray());
        Files.write(folder.resolve(part + "-labels-idx1-ubyte"), labels.toByteArray());
    }
}
