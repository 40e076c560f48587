package io.gatun.train;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.StoredDType;
import io.gatun.io.TensorSource;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.TransferCounters;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.ToLongFunction;
import org.jspecify.annotations.Nullable;

/// A task whose updates are those of one [Trainer].
abstract class TrainerTask implements TrainingTask {
    private static final String WEIGHTS = "model.";
    private static final int KERNEL_RANK = 4;

    private final Trainer trainer;
    private final StoredDType exported;
    private final float[] rates;
    private int done;
    private @Nullable TrainingMemory memory;

    TrainerTask(Trainer trainer, DType exported, float[] rates) {
        this.trainer = trainer;
        this.exported = StoredDType.of(exported);
        this.rates = rates;
    }

    final Trainer trainer() {
        return trainer;
    }

    final Stream stream() {
        return trainer.stream();
    }

    /// Updates that were made.
    final int done() {
        return done;
    }

    /// A trainer with a recipe's settings.
    static Trainer newTrainer(Device device, List<Parameters.Shape> shapes, TrainingSettings settings,
            float[] rates) {
        return new Trainer(device, shapes, rule(settings.optimizer()), rates, new Trainer.Options(settings.dtype(),
                (float) settings.maxGradNorm(), settings.gradientAccumulationSteps(), (float) settings.emaDecay(),
                settings.gradientCheckpointing(), (float) settings.dropout(), settings.seed()));
    }

    static UpdateRule rule(TrainingSettings.Optimizer o) {
        return switch (o.name()) {
            case ADAMW, ADAM -> new UpdateRule.Adam((float) o.beta1(), (float) o.beta2(), (float) o.eps(),
                    (float) o.weightDecay(), o.name() == TrainingSettings.OptimizerName.ADAMW);
            case SGD -> new UpdateRule.Sgd((float) o.momentum(), o.nesterov(), (float) o.weightDecay());
            case RMSPROP -> new UpdateRule.RmsProp((float) o.alpha(), (float) o.eps(), (float) o.momentum(),
                    (float) o.weightDecay());
        };
    }

    /// Uploads the next batch.
    abstract void nextBatch();

    @Override
    public final int steps() {
        return rates.length;
    }

    @Override
    public void step() {
        do {
            nextBatch();
        } while (!trainer.step());
        done++;
    }

    @Override
    public Map<String, Double> figures() {
        Trainer.Result result = trainer.result();
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("loss", (double) result.loss());
        figures.put("grad_norm", (double) result.norm());
        figures.put("lr", (double) rates[Math.clamp(done - 1, 0, rates.length - 1)]);
        return figures;
    }

    @Override
    public final TransferCounters.Snapshot counters() {
        return stream().device().counters().snapshot();
    }

    @Override
    public final long peakBytes() {
        return stream().device().counters().peakBytes();
    }

    @Override
    public final TrainingMemory memory() {
        TrainingMemory made = memory;
        if (made == null) {
            prepare();
            Device device = stream().device();
            List<Trainer> all = trainers();
            boolean convolves = all.stream().anyMatch(t -> t.parameters().all().stream().anyMatch(p ->
                    p.master().rank() == KERNEL_RANK));
            long libraries = device.matmulWorkspaceBytes() + (convolves ? device.convolutionWorkspaceBytes() : 0);
            made = new TrainingMemory(sum(all, t -> t.parameters().count()),
                    frozenBytes() + sum(all, t -> t.parameters().valueBytes()),
                    sum(all, t -> t.parameters().gradientBytes()), sum(all, Trainer::stateBytes),
                    sum(all, Trainer::passBytes), batchSize(), peakBytes() + libraries, trainer.freeBytes());
            memory = made;
        }
        return made;
    }

    private static long sum(List<Trainer> trainers, ToLongFunction<Trainer> bytes) {
        return trainers.stream().mapToLong(bytes).sum();
    }

    /// All trainers of the task.
    List<Trainer> trainers() {
        return List.of(trainer);
    }

    /// Bytes of weights that are not trained; those in mapped files take no memory of the device.
    long frozenBytes() {
        return 0;
    }

    /// Examples of a pass.
    abstract int batchSize();

    /// Allocates what evaluations and samples need; what they need for a while alone is freed again.
    abstract void prepare();

    /// The tensors that make the training's state, by name.
    Map<String, Tensor> tensors() {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        trainer.parameters().all().forEach(p -> tensors.put(WEIGHTS + p.name(), p.master()));
        tensors.putAll(trainer.state());
        return tensors;
    }

    @Override
    public Map<String, TensorSource> state() {
        Map<String, TensorSource> sources = new LinkedHashMap<>();
        tensors().forEach((name, tensor) -> sources.put(name, TensorSource.of(tensor, stream())));
        return sources;
    }

    @Override
    public void restore(RunCheckpoint checkpoint) {
        Map<String, Tensor> tensors = tensors();
        Map<String, long[]> shapes = new LinkedHashMap<>();
        tensors.forEach((name, tensor) -> shapes.put(name, tensor.shape()));
        try (SafetensorsFile file = checkpoint.openTensors(shapes)) {
            trainer.restore(() -> tensors.forEach((name, tensor) -> {
                if (tensor.dtype() == DType.F32) {
                    tensor.copyFrom(stream(), file.floats(name));
                } else {
                    tensor.copyFrom(stream(), file.longs(name));
                }
            }));
        }
        done = checkpoint.state().step();
    }

    /// The weights that a model is written with, in `export_dtype`: the moving averages where there are any.
    final Map<String, TensorSource> weights() {
        Map<String, TensorSource> sources = new LinkedHashMap<>();
        Map<String, Tensor> averages = trainer.averages();
        trainer.parameters().all().forEach(p -> sources.put(p.name(),
                exported(averages.getOrDefault(p.name(), p.master()))));
        return sources;
    }

    /// A weight as a model is written with it.
    final TensorSource exported(Tensor weight) {
        return TensorSource.of(weight, stream()).as(exported);
    }
}
