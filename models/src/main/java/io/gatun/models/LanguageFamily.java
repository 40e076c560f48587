package io.gatun.models;

import io.gatun.models.gpt2.Gpt2;
import io.gatun.models.gpt2.Gpt2Config;
import io.gatun.models.llama.Llama;
import io.gatun.models.llama.LlamaConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/// The families of language models, by config.json's model_type.
public enum LanguageFamily {
    GPT2("gpt2", "transformer.") {
        @Override
        public CausalModel build(ConfigFile config, DType dtype, WeightLoader loader, DeviceArena arena) {
            return new Gpt2(Gpt2Config.parse(config, dtype), loader);
        }

        @Override
        public void declare(ConfigFile config, WeightLoader loader) {
            Gpt2.declare(Gpt2Config.parse(config, loader.dtype()), loader);
        }

        @Override
        long tableBytes(ConfigFile config, DType dtype) {
            return 0;
        }
    },
    LLAMA("llama", "model.") {
        @Override
        public CausalModel build(ConfigFile config, DType dtype, WeightLoader loader, DeviceArena arena) {
            return new Llama(arena, LlamaConfig.parse(config, dtype), loader);
        }

        @Override
        public void declare(ConfigFile config, WeightLoader loader) {
            Llama.declare(LlamaConfig.parse(config, loader.dtype()), loader);
        }

        @Override
        long tableBytes(ConfigFile config, DType dtype) {
            return RopeTable.bytes(LlamaConfig.parse(config, dtype).rope());
        }
    };

    private static final String TYPES = "gpt2 or llama (images come from gatun sample)";

    private final String modelType;
    private final String prefix;

    LanguageFamily(String modelType, String prefix) {
        this.modelType = modelType;
        this.prefix = prefix;
    }

    /// Reads the config.json of a directory.
    ///
    /// @throws io.gatun.runtime.GatunException when it is missing or damaged, or of no family that is known
    public static ConfigFile config(Path directory) {
        Path file = directory.resolve("config.json");
        if (!Files.exists(file) && Files.exists(directory.resolve("model_index.json"))) {
            throw GatunException.invalid("%s is a pipeline of diffusers, expected a model of type %s", directory,
                    TYPES);
        }
        if (!Files.exists(file)) {
            throw GatunException.invalid("%s: no file config.json: expected the directory of a model of type %s",
                    directory, TYPES);
        }
        ConfigFile config = ConfigFile.read(file);
        of(config);
        return config;
    }

    /// @throws io.gatun.runtime.GatunException when the config is of no family that is known
    public static LanguageFamily of(ConfigFile config) {
        String type = config.requireString("model_type");
        return List.of(values()).stream().filter(family -> family.modelType.equals(type)).findFirst()
                .orElseThrow(() -> config.wrong("model_type", TYPES));
    }

    /// What Hugging Face writes before the names of all weights but the head's.
    public String prefix() {
        return prefix;
    }

    /// Prefixes that files are found with.
    public List<String> prefixes() {
        return List.of(prefix, "");
    }

    /// A model of the loader's weights.
    ///
    /// @param arena owns tables that are not weights
    public abstract CausalModel build(ConfigFile config, DType dtype, WeightLoader loader, DeviceArena arena);

    /// Asks the loader for every weight of such a model, and for nothing else.
    public abstract void declare(ConfigFile config, WeightLoader loader);

    /// Positions that such a model can hold.
    public int contextLength(ConfigFile config) {
        return config.requireInt(this == GPT2 ? "n_positions" : "max_position_embeddings", 1, Integer.MAX_VALUE);
    }

    /// L
    public int layers(ConfigFile config) {
        return config.requireInt(this == GPT2 ? "n_layer" : "num_hidden_layers", 1, Integer.MAX_VALUE);
    }

    /// Bytes of the tables that are not weights.
    abstract long tableBytes(ConfigFile config, DType dtype);
}
