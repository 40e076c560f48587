package io.gatun.train;

import io.gatun.io.SafetensorsFile;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;

/// A checkpoint of a run: a model directory with the state of the training beside the model.
///
/// @param directory `checkpoint-<step>`
public record RunCheckpoint(Path directory, TrainingState state) {
    static final String TENSORS = "training_state.safetensors";

    /// Opens the tensors of the training's state: weights in f32, moments of the optimizer, and what else the task
    /// gave. The caller closes the file.
    ///
    /// @param shapes of all tensors that there must be
    /// @throws GatunException when the file is damaged, a tensor is missing, unknown or of another shape
    public SafetensorsFile openTensors(Map<String, long[]> shapes) {
        SafetensorsFile file = SafetensorsFile.open(directory.resolve(TENSORS));
        try {
            shapes.forEach((name, shape) -> {
                if (!Arrays.equals(file.info(name).shape(), shape)) {
                    throw GatunException.invalid("%s: tensor %s, expected the shape %s", file.path(), file.info(name),
                            Arrays.toString(shape));
                }
            });
            for (String name : file.names()) {
                if (!shapes.containsKey(name)) {
                    throw GatunException.invalid("%s: tensor %s, which this training does not have", file.path(),
                            file.info(name));
                }
            }
            return file;
        } catch (RuntimeException e) {
            file.close();
            throw e;
        }
    }
}
