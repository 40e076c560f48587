package io.gatun.cli;

import io.gatun.models.DemoModels;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/// Options of every command that loads a model.
final class ModelOptions {
    @Option(names = "--model", paramLabel = "DIR",
            description = "Hugging Face model directory, or the name of a demo model")
    private @Nullable Path model;

    @Option(names = "--device", paramLabel = "NAME", defaultValue = "auto",
            description = "auto, cpu, cuda or cuda:N (default: ${DEFAULT-VALUE})")
    private String device;

    @Option(names = "--dtype", paramLabel = "TYPE", description = "f32, bf16 or f16 (default: the checkpoint's)")
    private @Nullable String dtype;

    @Option(names = "--threads", paramLabel = "N", defaultValue = "0", description = "CPU threads (default: all cores)")
    private int threads;

    @Option(names = "--json", description = "print the result as JSON")
    private boolean json;

    ModelOptions() {}

    /// The directory that is named.
    Path model() {
        if (model == null) {
            throw GatunException.invalid("--model is missing: pass a Hugging Face model directory%s", demoModels());
        }
        return directory("--model", model);
    }

    /// The demo model that is named, or, where none is, the one that stands in; null: it is a directory.
    @Nullable String demoModel(String otherwise) {
        return model == null ? otherwise : isDemoModel(model) ? model.toString() : null;
    }

    /// A directory, or that of the demo model of this name.
    static Path directory(String option, Path named) {
        if (isDemoModel(named)) {
            return DemoModels.directory(named.toString());
        }
        if (!Files.isDirectory(named)) {
            throw GatunException.invalid("%s: %s: expected a Hugging Face model directory with config.json and"
                    + " model.safetensors%s", option, Files.exists(named) ? named + " is a file, not a directory"
                            : "no directory " + named, demoModels());
        }
        boolean hasConfig = Files.exists(named.resolve("config.json"))
                || Files.exists(named.resolve("model_index.json"));
        if (!hasConfig && Files.exists(named.resolve("adapter_config.json"))) {
            throw GatunException.invalid("%s: %s holds a LoRA adapter, not a model: gatun generate takes it as"
                    + " --adapter DIR beside the model that it was trained on", option, named);
        }
        if (!hasConfig) {
            throw GatunException.invalid("%s: %s holds neither model_index.json nor config.json: expected a Hugging"
                    + " Face model directory%s", option, named, demoModels());
        }
        return named;
    }

    /// A directory of that name comes first.
    private static boolean isDemoModel(Path named) {
        return !Files.isDirectory(named) && DemoModels.names().contains(named.toString());
    }

    private static String demoModels() {
        List<String> names = DemoModels.names();
        return names.isEmpty() ? "" : ", or the name of a demo model: " + String.join(", ", names);
    }

    String device() {
        return device;
    }

    @Nullable DType dtype() {
        if (dtype == null) {
            return null;
        }
        return switch (dtype.toLowerCase(Locale.ROOT)) {
            case "f32", "float32" -> DType.F32;
            case "bf16", "bfloat16" -> DType.BF16;
            case "f16", "float16" -> DType.F16;
            default -> throw GatunException.invalid("--dtype is %s, expected f32, bf16 or f16", dtype);
        };
    }

    int threads() {
        if (threads < 0) {
            throw GatunException.invalid("--threads is %d, expected 0 (all cores) or more", threads);
        }
        return threads;
    }

    boolean json() {
        return json;
    }
}
