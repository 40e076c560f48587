package io.gatun.diffusion;

/// How a loop goes from noise to an image. A sampler does its arithmetic once, in double on the host: it lists the
/// calls of the model and what each makes of the sample. [SamplingLoop] runs that on a device.
public interface Sampler {
    /// The calls of one loop.
    ///
    /// @throws io.gatun.runtime.GatunException when the options do not suit the sampler
    Trajectory trajectory(SamplingOptions options);

    /// All steps of a loop.
    default Trajectory trajectory(int steps) {
        return trajectory(SamplingOptions.steps(steps));
    }
}
