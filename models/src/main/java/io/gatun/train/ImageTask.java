package io.gatun.train;

import io.gatun.models.Layers;
import io.gatun.runtime.DType;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Tensor;
import io.gatun.train.data.BatchOrder;
import io.gatun.train.data.ImageSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/// A task whose examples are pictures.
///
/// Each picture that goes into an update has a number: how many went before it. With the seed it gives all random
/// numbers that belong to the picture, so that a run which was resumed draws those of a run which was not. Held-out
/// pictures have negative numbers, always the same.
abstract class ImageTask extends TrainerTask {
    private static final int MAX_EVALUATED = 1 << 16;

    private final ImageTraining training;

    ImageTask(ImageTraining training) {
        super(training.trainer(), training.settings().exportDtype(), training.rates());
        this.training = training;
    }

    /// Uploads pictures and what goes with them.
    ///
    /// @param chosen at most the batch size, of the set
    /// @param first  number of the first of them; those of the others follow
    abstract void upload(ImageSet set, int[] chosen, long first);

    /// Writes down what is measured on held-out pictures.
    ///
    /// @param rows that were uploaded
    abstract void recordEvaluation(Layers net, int rows);

    /// What was measured: means over the pictures that were uploaded last.
    ///
    /// @param chosen of the held-out pictures
    abstract Map<String, Double> evaluated(int[] chosen);

    /// How many held-out pictures are evaluated at most; fewer are spread evenly.
    int mostEvaluated() {
        return MAX_EVALUATED;
    }

    final ImageTraining training() {
        return training;
    }

    @Override
    final int batchSize() {
        return training.settings().trainBatchSize();
    }

    /// Uploads values to the first elements of a tensor, which has room for a whole batch.
    final void uploadRows(Tensor to, float[] values, int rows) {
        to.slice(0, 0, rows).copyFrom(stream(), values);
    }

    /// Uploads seed and number of pictures, for [io.gatun.ops.Noise#normal]. [at least rows, 2] i64
    final void uploadSeeds(Tensor to, long first, int rows) {
        long[] values = new long[2 * rows];
        for (int i = 0; i < rows; i++) {
            values[2 * i] = training.settings().seed();
            values[2 * i + 1] = first + i;
        }
        to.slice(0, 0, rows).copyFrom(stream(), values);
    }

    /// A forward pass that makes samples.
    final class Drawing implements AutoCloseable {
        private final Plan plan;
        private Tensor result;

        Drawing(Function<Layers, Tensor> forward) {
            plan = Plan.of(training.device(), recorder -> {
                Layers net = new Layers(training.device(), stream(), recorder);
                result = net.keep(forward.apply(net));
            });
        }

        float[] pixels() {
            plan.run();
            return result.toFloats(stream());
        }

        @Override
        public void close() {
            plan.close();
        }
    }

    /// Allocates what samples need, and frees it.
    abstract void prepareSamples();

    @Override
    final void prepare() {
        int count = Math.min(training.data().heldOut().count(), mostEvaluated());
        evaluation(Math.min(batchSize(), count)).close();
        if (training.settings().sampleSteps() > 0) {
            prepareSamples();
        }
    }

    private Plan evaluation(int rows) {
        return Plan.of(training.device(), recorder ->
                recordEvaluation(new Layers(training.device(), stream(), recorder), rows));
    }

    /// A tensor for pictures.
    final Tensor newImages(DType dtype) {
        ImageSet set = training.data().train();
        return trainer().input(dtype, batchSize(), set.size(), set.size(), set.channels());
    }

    @Override
    final void nextBatch() {
        BatchOrder.Position position = training.order().position();
        long batch = position.epoch() * training.order().batchesPerEpoch() + position.batch();
        upload(training.data().train(), training.order().next(), batch * batchSize());
    }

    @Override
    public final String unit() {
        return "images";
    }

    @Override
    public final long unitsPerStep() {
        return (long) batchSize() * training.settings().gradientAccumulationSteps();
    }

    @Override
    public final List<String> warnings() {
        return training.data().warnings();
    }

    @Override
    public Map<String, Double> evaluate() {
        int all = training.data().heldOut().count();
        int count = Math.min(all, mostEvaluated());
        int whole = count / batchSize() * batchSize();
        Map<String, Double> sums = new LinkedHashMap<>();
        evaluate(0, whole, count, sums);
        evaluate(whole, count, count, sums);
        sums.replaceAll((name, sum) -> sum / count);
        return sums;
    }

    /// Adds what is measured on pictures `from` to `to` of `count`, which fill batches of one size.
    private void evaluate(int from, int to, int count, Map<String, Double> sums) {
        if (from == to) {
            return;
        }
        ImageSet set = training.data().heldOut();
        int rows = Math.min(batchSize(), to - from);
        try (Plan plan = evaluation(rows)) {
            for (int at = from; at < to; at += rows) {
                int[] chosen = new int[rows];
                for (int i = 0; i < rows; i++) {
                    chosen[i] = (int) ((long) (at + i) * set.count() / count);
                }
                upload(set, chosen, -count + at);
                plan.run();
                evaluated(chosen).forEach((name, mean) -> sums.merge(name, mean * rows, Double::sum));
            }
        }
    }

    @Override
    public final BatchOrder.Position position() {
        return training.order().position();
    }

    @Override
    public final void restore(RunCheckpoint checkpoint) {
        super.restore(checkpoint);
        training.order().seek(checkpoint.state().position());
    }

    @Override
    public final void close() {
        training.close();
    }
}
