package io.gatun.train;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.runtime.TransferCounters;
import io.gatun.train.data.BatchOrder;
import io.gatun.train.data.BatchOrder.Order;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// A training without kernels: three weights that depend on every batch before, in their order.
public class FakeTask implements TrainingTask {
    private final Recipe recipe;
    private final BatchOrder order;
    private final float[] weights = {1, 2, 3};
    public int evaluations;
    public int samples;
    public long freeBytes = 1 << 30;

    public FakeTask(Recipe recipe) {
        this.recipe = recipe;
        this.order = new BatchOrder(20, recipe.settings().trainBatchSize(), Order.SHUFFLED, recipe.settings().seed());
    }

    public float[] weights() {
        return weights.clone();
    }

    @Override
    public int steps() {
        return recipe.settings().steps(order.batchesPerEpoch());
    }

    @Override
    public String unit() {
        return "images";
    }

    @Override
    public long unitsPerStep() {
        return recipe.settings().trainBatchSize();
    }

    @Override
    public List<String> warnings() {
        return List.of("1 of 21 pictures skipped");
    }

    @Override
    public void restore(RunCheckpoint checkpoint) {
        order.seek(checkpoint.state().position());
        try (SafetensorsFile file = checkpoint.openTensors(Map.of("weights", new long[] {3}))) {
            System.arraycopy(file.floats("weights"), 0, weights, 0, weights.length);
        }
    }

    @Override
    public void step() {
        for (int example : order.next()) {
            weights[example % 3] = weights[example % 3] * 0.75f + example;
        }
    }

    @Override
    public Map<String, Double> figures() {
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("loss", (double) weights[0]);
        figures.put("grad_norm", 0.5);
        return figures;
    }

    @Override
    public Map<String, Double> evaluate() {
        evaluations++;
        return Map.of("eval_loss", (double) weights[1]);
    }

    @Override
    public void sample(Path folder, String name) throws IOException {
        samples++;
        Files.writeString(folder.resolve(name + ".txt"), "sample");
    }

    @Override
    public BatchOrder.Position position() {
        return order.position();
    }

    @Override
    public Map<String, TensorSource> state() {
        return Map.of("weights", TensorSource.of(weights, weights.length));
    }

    @Override
    public TransferCounters.Snapshot counters() {
        return new TransferCounters.Snapshot(0, 0, 0, 0, 0, 0);
    }

    @Override
    public TrainingMemory memory() {
        return new TrainingMemory(3, 3 << 20, 4 << 20, 5 << 20, 6 << 20, 2, 20 << 20, freeBytes);
    }

    @Override
    public long peakBytes() {
        return 19 << 20;
    }

    @Override
    public void writeModel(Path directory) throws IOException {
        Files.writeString(directory.resolve("config.json"), "{}");
    }

    @Override
    public void close() {}
}
