package io.gatun.diffusion;

import io.gatun.diffusion.ImageModel.Kind;

/// Draws images on one stream.
interface Pipeline extends AutoCloseable {
    Kind kind();

    /// Classes that can be asked for; 0 where it takes none.
    int classes();

    /// Denoising steps where none are asked for; 0: it draws in one pass.
    int defaultSteps();

    /// Guidance where none is asked for; 1: none.
    double defaultGuidance();

    /// @throws io.gatun.runtime.GatunException when the settings do not suit the model; says what is expected
    Images sample(SampleConfig config);

    /// What [#sample] would need. Loads nothing where the networks have shapes alone.
    MemoryEstimate memory(SampleConfig config);

    @Override
    void close();
}
