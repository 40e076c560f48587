package io.gatun.train;

import io.gatun.io.TensorSource;
import io.gatun.runtime.TransferCounters;
import io.gatun.train.data.BatchOrder;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/// One kind of training, as [TrainingRun] drives it: data, model, updates. For one thread.
///
/// What [#step()] does depends on the seed, the state and the position alone, so that a run that was stopped and
/// resumed ends with the same bits; [#evaluate()] and [#sample] change none of them.
public interface TrainingTask extends AutoCloseable {
    /// Makes a task.
    interface Factory {
        /// @throws io.gatun.runtime.GatunException when data or model cannot be used
        TrainingTask open(Request request);
    }

    /// @param recipe  what to train
    /// @param data    file or folder
    /// @param work    directory of the run, for what is made of the data
    /// @param device  `auto`, `cpu`, `cuda` or `cuda:N`
    /// @param threads of the CPU; 0: all cores
    record Request(Recipe recipe, Path data, Path work, String device, int threads) {}

    /// Updates of the whole run.
    int steps();

    /// What an update goes through: `tokens` or `images`.
    String unit();

    /// How many of them.
    long unitsPerStep();

    /// What the user should know of the data, such as pictures that were skipped; one line each.
    default List<String> warnings() {
        return List.of();
    }

    /// Takes over the state of a checkpoint.
    ///
    /// @throws io.gatun.runtime.GatunException when it does not fit
    void restore(RunCheckpoint checkpoint);

    /// Makes one update. Need not wait for the device.
    void step();

    /// What the last update measured, `loss` first, then `grad_norm`, `lr` and what else there is. Waits for it.
    Map<String, Double> figures();

    /// Figures of the held-out data, such as `eval_loss`.
    Map<String, Double> evaluate();

    /// Writes something that the model makes.
    ///
    /// @param folder that exists
    /// @param name   of the file, without its suffix
    default void sample(Path folder, String name) throws IOException {}

    /// Of the batch that comes next.
    BatchOrder.Position position();

    /// All tensors that [#restore] needs, by name.
    Map<String, TensorSource> state();

    /// What was moved, allocated and launched on the device so far.
    TransferCounters.Snapshot counters();

    /// What the run will need of the device's memory. To be asked before the first step; from then on the answer stays
    /// the same. What evaluations and samples need is allocated once, so that a device is too small now or never.
    ///
    /// @throws io.gatun.runtime.OutOfDeviceMemoryException when it is
    TrainingMemory memory();

    /// The most bytes of the device's memory that were in use at once so far.
    long peakBytes();

    /// Writes the model as a Hugging Face directory.
    void writeModel(Path directory) throws IOException;

    @Override
    void close();
}
