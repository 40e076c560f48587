package io.gatun.train;

import io.gatun.io.TensorSource;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Consumer;

/// The running statistics of a network's batch norms, f32: they are in its checkpoint beside the parameters, and change
/// with each forward pass of a training, not by gradients.
final class RunningStatistics {
    private static final String MEAN = ".running_mean";

    private final Map<String, Tensor> byName = new LinkedHashMap<>();
    private final Stream stream;

    /// Means of 0 and variances of 1, in the trainer's memory.
    ///
    /// @param prefix stands before every name
    /// @param model  builds the model with the loader it is given
    RunningStatistics(Device device, Trainer trainer, String prefix, Consumer<WeightLoader> model) {
        this.stream = trainer.stream();
        try (Shapes memoryless = new Shapes(device)) {
            WeightLoader loader = WeightLoader.shapes(memoryless, DType.F32);
            model.accept(loader);
            loader.loaded().forEach((name, shape) -> {
                if (Parameters.isStatistic(name)) {
                    Tensor tensor = trainer.arena().allocate(DType.F32, shape.shape());
                    Elementwise.fill(stream, tensor, name.endsWith(MEAN) ? 0 : 1);
                    byName.put(prefix + name, tensor);
                }
            });
        }
    }

    Map<String, Tensor> byName() {
        return byName;
    }

    /// Those and a model's weights.
    Map<String, Tensor> with(Map<String, Tensor> weights) {
        Map<String, Tensor> all = new LinkedHashMap<>(weights);
        all.putAll(byName);
        return all;
    }

    /// As a checkpoint of torch holds them.
    ///
    /// @param batches `num_batches_tracked`
    Map<String, TensorSource> sources(long batches) {
        Map<String, TensorSource> sources = new LinkedHashMap<>();
        byName.forEach((name, tensor) -> {
            sources.put(name, TensorSource.of(tensor, stream));
            if (name.endsWith(MEAN)) {
                String norm = name.substring(0, name.length() - MEAN.length());
                sources.put(norm + ".num_batches_tracked", TensorSource.of(new long[] {batches}));
            }
        });
        return sources;
    }
}
