package io.gatun.evaluate;

import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.SampleConfig;
import io.gatun.runtime.GatunException;
import io.gatun.train.data.ImageSet;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.BiConsumer;

/// How good the pictures are that a model draws, as a classifier sees them.
public final class ImageEvaluation {
    private static final double CONFIDENT = 0.9;

    private ImageEvaluation() {}

    /// How well the classifier itself does on pictures whose classes are known: `loss`, in nats, and `accuracy`.
    public static Map<String, Double> ofClassifier(ImageJudge judge, ImageSet data) {
        double loss = 0;
        int right = 0;
        for (int from = 0; from < data.count(); from += ImageJudge.BATCH) {
            int[] chosen = range(from, Math.min(ImageJudge.BATCH, data.count() - from));
            ImageJudge.Verdict verdict = judge.judge(data.batch(chosen, 0, 1));
            for (int i = 0; i < chosen.length; i++) {
                int label = data.label(chosen[i]);
                if (label < 0 || label >= judge.classes()) {
                    throw GatunException.invalid("picture %d has no class from 0 to %d", chosen[i],
                            judge.classes() - 1);
                }
                loss += verdict.losses()[i * judge.classes() + label];
                right += verdict.labels()[i] == label ? 1 : 0;
            }
        }
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("loss", loss / data.count());
        figures.put("accuracy", (double) right / data.count());
        return figures;
    }

    /// Draws pictures and judges them.
    ///
    /// - `label_agreement`: share of pictures that show the class that was asked for; where the model takes classes
    /// - `confidence`: mean probability of the class that a picture shows
    /// - `confident_share`: share of pictures where it is 0.9 or more
    /// - `classes_present`: of how many classes there are pictures
    /// - `class_perplexity`: e to the entropy of the classes: their number where there are as many pictures of each
    /// - `frechet_distance`: of the features of the pictures from those of the data ([FeatureStatistics])
    ///
    /// @param settings of the drawing, without count, classes and seeds
    /// @param seed     of the first picture; the others follow
    /// @param data     in the classifier's size
    /// @param progress told how many pictures were drawn, of how many
    public static Map<String, Double> ofModel(ImageModel model, ImageJudge judge, ImageSet data, int count,
            SampleConfig.Builder settings, long seed, BiConsumer<Integer, Integer> progress) {
        FeatureStatistics real = new FeatureStatistics(judge.featureSize());
        for (int from = 0; from < data.count(); from += ImageJudge.BATCH) {
            int[] chosen = range(from, Math.min(ImageJudge.BATCH, data.count() - from));
            real.add(judge.judge(data.batch(chosen, 0, 1)).features());
        }
        FeatureStatistics drawn = new FeatureStatistics(judge.featureSize());
        Tally tally = new Tally(judge.classes());
        boolean isConditional = model.classes() > 0;
        for (int from = 0; from < count; from += ImageJudge.BATCH) {
            int n = Math.min(ImageJudge.BATCH, count - from);
            int[] asked = range(from, n);
            Arrays.setAll(asked, i -> asked[i] % judge.classes());
            settings.count(n).seeds(seeds(seed + from, n));
            Images images = model.sample((isConditional ? settings.classes(asked) : settings).build());
            float[] pixels = new float[n * judge.size() * judge.size() * judge.channels()];
            for (int i = 0; i < n; i++) {
                judge.convert(images.rgb(), images.height(), images.width(), i, pixels, i * (pixels.length / n));
            }
            ImageJudge.Verdict verdict = judge.judge(pixels);
            drawn.add(verdict.features());
            tally.add(verdict, asked);
            progress.accept(from + n, count);
        }
        Map<String, Double> figures = tally.figures(isConditional);
        figures.put("frechet_distance", drawn.frechetDistance(real));
        return figures;
    }

    private static int[] range(int from, int count) {
        int[] indices = new int[count];
        Arrays.setAll(indices, i -> from + i);
        return indices;
    }

    private static long[] seeds(long first, int count) {
        long[] seeds = new long[count];
        Arrays.setAll(seeds, i -> first + i);
        return seeds;
    }

    /// Counts verdicts.
    private static final class Tally {
        private final int[] perClass;
        private int count;
        private int agreeing;
        private int confident;
        private double confidence;

        Tally(int classes) {
            this.perClass = new int[classes];
        }

        void add(ImageJudge.Verdict verdict, int[] asked) {
            for (int i = 0; i < asked.length; i++) {
                count++;
                if (verdict.labels()[i] >= 0) {
                    perClass[verdict.labels()[i]]++;
                    confidence += verdict.confidences()[i];
                    agreeing += verdict.labels()[i] == asked[i] ? 1 : 0;
                    confident += verdict.confidences()[i] >= CONFIDENT ? 1 : 0;
                }
            }
        }

        Map<String, Double> figures(boolean isConditional) {
            Map<String, Double> figures = new LinkedHashMap<>();
            if (isConditional) {
                figures.put("label_agreement", (double) agreeing / count);
            }
            double entropy = 0;
            int present = 0;
            for (int n : perClass) {
                present += n > 0 ? 1 : 0;
                entropy -= n == 0 ? 0 : (double) n / count * Math.log((double) n / count);
            }
            figures.put("confidence", confidence / count);
            figures.put("confident_share", (double) confident / count);
            figures.put("classes_present", (double) present);
            figures.put("class_perplexity", Math.exp(entropy));
            return figures;
        }
    }
}
