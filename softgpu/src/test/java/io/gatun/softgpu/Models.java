package io.gatun.softgpu;

import io.gatun.generate.GenerationConfig;
import io.gatun.generate.LanguageModel;
import io.gatun.generate.LanguageModel.Options;
import java.nio.file.Path;

/// The small models that these tests generate with, on the stand-ins.
enum Models {
    GPT2("gpt2/gpt2_tiny"), LLAMA("llama/llama_tiny_llama3rope");

    static final int[] PROMPT = {5, 17, 3, 99, 42};

    private final String name;

    Models(String name) {
        this.name = name;
    }

    Path directory() {
        return Path.of(System.getProperty("gatun.root"), "models/src/test/resources/golden", name, "model");
    }

    LanguageModel load(int maxBatch) {
        return load("cuda", maxBatch);
    }

    LanguageModel load(String device, int maxBatch) {
        return LanguageModel.load(directory(), Options.defaults().withDevice(device).withThreads(1)
                .withMaxBatch(maxBatch).withCacheTokens(256L * maxBatch));
    }

    static GenerationConfig greedy(int maxNewTokens) {
        return GenerationConfig.builder().maxNewTokens(maxNewTokens).ignoreEos(true).build();
    }
}
