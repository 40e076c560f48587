package io.gatun.generate;

import io.gatun.generate.LanguageModel.Options;
import io.gatun.models.TestDevice;
import java.nio.file.Path;

/// Models as most tests want them: on one thread, because they are too small for more.
final class Small {
    private Small() {}

    static LanguageModel load(Path directory) {
        return load(directory, 4);
    }

    static LanguageModel load(Path directory, int maxBatch) {
        return LanguageModel.load(directory,
                Options.defaults().withDevice(TestDevice.NAME).withThreads(1).withMaxBatch(maxBatch));
    }
}
