package io.gatun.train;

import io.gatun.models.ConfigFile;
import java.nio.file.Path;

/// Where a training begins.
public sealed interface ModelSource {
    /// From random weights.
    ///
    /// @param name what messages call it
    /// @param json config.json
    record Config(String name, String json) implements ModelSource {
        public ConfigFile config() {
            return ConfigFile.parse(name, json);
        }
    }

    /// From the weights of a model directory.
    record Directory(Path path) implements ModelSource {}
}
