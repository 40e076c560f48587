package io.gatun.diffusion;

import io.gatun.models.ConfigFile;
import io.gatun.runtime.GatunException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// The folders of a diffusers pipeline, by its model_index.json: each component has a folder of its name, or, where
/// there is only one network, its files lie beside model_index.json itself.
final class PipelineFiles {
    private final Path directory;
    private final ConfigFile index;

    private PipelineFiles(Path directory, ConfigFile index) {
        this.directory = directory;
        this.index = index;
    }

    /// Null where the directory has no model_index.json.
    static @Nullable PipelineFiles find(Path directory) {
        ConfigFile index = ConfigFile.readIfPresent(directory.resolve("model_index.json"));
        return index == null ? null : new PipelineFiles(directory, index);
    }

    /// `StableDiffusionPipeline`
    String className() {
        return index.requireString("_class_name");
    }

    ConfigFile index() {
        return index;
    }

    /// Whether the index names a component that is not null.
    boolean has(String component) {
        List<String> entry = entry(component);
        return entry != null;
    }

    /// The class that the index gives a component.
    String classOf(String component) {
        List<String> entry = entry(component);
        if (entry == null) {
            throw GatunException.invalid("%s: component '%s' is missing, a %s needs it", index.file(), component,
                    className());
        }
        return entry.get(1);
    }

    private @Nullable List<String> entry(String component) {
        if (!index.has(component)) {
            return null;
        }
        List<String> entry = index.getStringsOrNulls(component);
        if (entry.size() != 2) {
            throw index.wrong(component, "a list of library and class");
        }
        return entry.get(1) == null ? null : entry;
    }

    /// The folder of a component.
    ///
    /// @throws GatunException when the index does not name it or there is no such folder
    Path folder(String component) {
        String className = classOf(component);
        Path folder = directory.resolve(component);
        if (Files.isDirectory(folder)) {
            return folder;
        }
        String file = component.equals("scheduler") ? "scheduler_config.json" : "config.json";
        if (Files.exists(directory.resolve(file))) {
            return directory;
        }
        throw GatunException.invalid("%s names the component '%s' (%s), but there is no folder %s: copy or download it"
                + " as well", index.file(), component, className, folder);
    }
}
