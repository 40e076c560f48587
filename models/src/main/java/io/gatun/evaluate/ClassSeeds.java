package io.gatun.evaluate;

import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.SampleConfig;
import io.gatun.runtime.GatunException;
import java.util.Arrays;

/// Pictures of chosen classes from a model that takes none: it draws until a classifier has seen enough of each. As an
/// image depends on its seed alone, their seeds are all that is needed to draw them again.
///
/// @param seeds of a picture of each class that was asked for, in that order
/// @param drawn how many pictures it took
public record ClassSeeds(long[] seeds, int drawn) {
    private static final double CONFIDENT = 0.9;
    private static final int MOST_PER_PICTURE = 100;

    /// Tries the seeds from `first` on.
    ///
    /// @param asked the classes, of which the classifier must be sure at 0.9 or more
    /// @throws GatunException when the classifier does not know a class, or 100 pictures for each that was asked for
    ///     are not enough
    public static ClassSeeds find(ImageModel model, ImageJudge judge, int[] asked, long first) {
        for (int wanted : asked) {
            if (wanted < 0 || wanted >= judge.classes()) {
                throw GatunException.invalid("class is %d, expected 0 to %d", wanted, judge.classes() - 1);
            }
        }
        long[] seeds = new long[asked.length];
        boolean[] isFound = new boolean[asked.length];
        int found = 0;
        int drawn = 0;
        while (found < asked.length && drawn < MOST_PER_PICTURE * asked.length) {
            int[] labels = sure(model, judge, first + drawn);
            for (int i = 0; i < labels.length && found < asked.length; i++, drawn++) {
                for (int at = 0; at < asked.length; at++) {
                    if (!isFound[at] && asked[at] == labels[i]) {
                        seeds[at] = first + drawn;
                        isFound[at] = true;
                        found++;
                        break;
                    }
                }
            }
        }
        for (int at = 0; at < asked.length; at++) {
            if (!isFound[at]) {
                throw new GatunException(GatunException.Status.INTERNAL, ("of %d pictures too few show class %d as the"
                        + " classifier sees it: another seed or a better model is needed").formatted(drawn, asked[at]));
            }
        }
        return new ClassSeeds(seeds, drawn);
    }

    /// What a batch of pictures shows; -1 where the classifier is not sure.
    private static int[] sure(ImageModel model, ImageJudge judge, long first) {
        Images images = model.sample(SampleConfig.builder().count(ImageJudge.BATCH).seed(first).build());
        int size = judge.size() * judge.size() * judge.channels();
        float[] pixels = new float[images.count() * size];
        for (int i = 0; i < images.count(); i++) {
            judge.convert(images.rgb(), images.height(), images.width(), i, pixels, i * size);
        }
        ImageJudge.Verdict verdict = judge.judge(pixels);
        int[] labels = verdict.labels().clone();
        Arrays.setAll(labels, i -> verdict.confidences()[i] >= CONFIDENT ? verdict.labels()[i] : -1);
        return labels;
    }
}
