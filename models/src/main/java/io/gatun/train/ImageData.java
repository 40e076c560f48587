package io.gatun.train;

import io.gatun.runtime.GatunException;
import io.gatun.train.data.ImageSet;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/// The pictures of a folder: those to train on, and those held out.
record ImageData(ImageSet train, ImageSet heldOut) {
    /// @param size     height and width
    /// @param channels 1 (grey) or 3
    static ImageData open(Path folder, int size, int channels) {
        return new ImageData(ImageSet.open(folder, ImageSet.Part.TRAIN, size, channels),
                ImageSet.open(folder, ImageSet.Part.HELD_OUT, size, channels));
    }

    /// What could not be read, and where nothing is.
    List<String> warnings() {
        return Stream.of(train, heldOut).flatMap(set -> set.warnings().stream()).distinct().toList();
    }

    /// @throws GatunException when there are other than so many classes, or a picture has none
    void requireClasses(int most, String field) {
        int classes = train.classes().size();
        if (classes == 0 || classes > most) {
            throw GatunException.invalid("the data have %d classes, expected 1 to %d (%s): a folder for each, or idx"
                    + " files with labels", classes, most, field);
        }
        if (heldOut.classes().size() > classes
                || !train.classes().subList(0, heldOut.classes().size()).equals(heldOut.classes())) {
            throw GatunException.invalid("the held-out pictures have the classes %s, those to train on %s: expected the"
                    + " same", heldOut.classes(), train.classes());
        }
        if (Stream.of(train, heldOut).anyMatch(set -> IntStream.range(0, set.count())
                .anyMatch(i -> set.label(i) == ImageSet.NO_LABEL))) {
            throw GatunException.invalid("some pictures lie beside the folders of the classes, expected all of them"
                    + " inside");
        }
    }
}
