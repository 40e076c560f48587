package io.gatun.train;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ConfigFile;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.train.data.BatchOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiFunction;
import java.util.function.Consumer;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/// Device, trainer and data of a task on pictures.
///
/// @param order of the pictures to train on
/// @param rates learning rate of each step
record ImageTraining(Device device, Trainer trainer, TrainingSettings settings, ImageData data, BatchOrder order,
        float[] rates) implements AutoCloseable {

    /// The networks of a task.
    ///
    /// @param declare   asks a loader for all weights, as making the networks does
    /// @param directory whose weights training goes on from; null: from random ones
    /// @param initial   those
    record Networks(Consumer<WeightLoader> declare, @Nullable Path directory,
            BiFunction<Initialiser, List<Parameters.Shape>, Map<String, float[]>> initial) {}

    /// Opens a task.
    ///
    /// @param make the task of the opened training, which the task closes
    static <T> T open(TrainingTask.Request request, ImageData data, Networks networks,
            Function<ImageTraining, T> make) {
        TrainingSettings settings = request.recipe().settings();
        if (settings.dropout() != 0 || settings.gradientCheckpointing()) {
            throw GatunException.invalid("dropout is %s and gradient_checkpointing %s, expected 0 and false: networks"
                    + " of pictures have neither", settings.dropout(), settings.gradientCheckpointing());
        }
        BatchOrder order = new BatchOrder(data.train().count(), settings.trainBatchSize(), BatchOrder.Order.SHUFFLED,
                settings.seed());
        float[] rates = settings.learningRates(settings.steps(order.batchesPerEpoch()));
        Device device = Device.open(request.device(), new Device.Options(request.threads()));
        try {
            List<Parameters.Shape> shapes = Parameters.of(device, "", networks.declare);
            Map<String, float[]> values = networks.directory == null
                    ? networks.initial.apply(new Initialiser(settings.seed()), shapes)
                    : weightsOf(device, networks.directory, networks.declare, shapes);
            Trainer trainer = TrainerTask.newTrainer(device, shapes, settings, rates);
            try {
                trainer.set(values);
                return make.apply(new ImageTraining(device, trainer, settings, data, order, rates));
            } catch (RuntimeException e) {
                try (trainer) {
                    throw e;
                }
            }
        } catch (RuntimeException e) {
            try (device) {
                throw e;
            }
        }
    }

    private static Map<String, float[]> weightsOf(Device device, Path directory, Consumer<WeightLoader> declare,
            List<Parameters.Shape> shapes) {
        ComponentLoader.Family<Map<String, Tensor>> family = (config, loader) -> {
            declare.accept(loader);
            return loader.loaded();
        };
        try (Stream stream = device.newStream(); Component<Map<String, Tensor>> loaded = ComponentLoader.load(device,
                stream, directory, DType.F32, family, count -> {})) {
            Map<String, float[]> values = new LinkedHashMap<>();
            for (Parameters.Shape shape : shapes) {
                Tensor tensor = loaded.network().get(shape.name());
                if (tensor == null) {
                    throw GatunException.invalid("%s has no weight '%s': save it anew with a recent diffusers",
                            directory, shape.name());
                }
                values.put(shape.name(), tensor.toFloats(stream));
            }
            return values;
        }
    }

    /// The config of a model: the recipe's own, or that of a directory.
    ///
    /// @param type   the field that says what it is, and what it must say
    /// @param fields that the recipe's own may have beside it; others are refused
    static ConfigFile config(ModelSource source, Map.Entry<String, String> type, List<String> fields) {
        ConfigFile config = switch (source) {
            case ModelSource.Config(String name, String json) -> strict(ConfigFile.parse(name, json), type, fields);
            case ModelSource.Directory directory -> ConfigFile.read(directory.path().resolve("config.json"));
        };
        ConfigFile typed = config.withDefaults(Map.of(type.getKey(), type.getValue()));
        if (!typed.requireString(type.getKey()).equals(type.getValue())) {
            throw typed.wrong(type.getKey(), type.getValue());
        }
        return typed;
    }

    /// A config all of whose fields are known.
    static ConfigFile strict(ConfigFile config, Map.Entry<String, String> type, List<String> fields) {
        List<String> known = new ArrayList<>(fields);
        known.add(type.getKey());
        new StrictFields(config, "", known);
        return config;
    }

    /// The directory of a model; null where it has none yet.
    static @Nullable Path directory(ModelSource source) {
        return source instanceof ModelSource.Directory(Path path) ? path : null;
    }

    /// For the networks that are trained.
    WeightLoader trained() {
        return WeightLoader.trained(trainer.parameters().weights(), trainer.arena(), trainer.stream(),
                settings.dtype(), List.of(""));
    }

    /// For the networks that are evaluated and draw: of the averages where there are any, as in the model that is
    /// written.
    WeightLoader evaluated() {
        Map<String, Tensor> averages = trainer.averages();
        return averages.isEmpty() ? trained() : WeightLoader.trained(averages, trainer.arena(), trainer.stream(),
                evaluatedDtype(), List.of(""));
    }

    /// What those compute in.
    DType evaluatedDtype() {
        return trainer.averages().isEmpty() ? settings.dtype() : DType.F32;
    }

    @Override
    public void close() {
        try (device; trainer) {
            // the trainer, then the device
        }
    }
}
