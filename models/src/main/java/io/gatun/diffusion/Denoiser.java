package io.gatun.diffusion;

import io.gatun.runtime.Plan;
import io.gatun.runtime.Tensor;

/// A model that a loop can run: it writes down the ops of one call.
@FunctionalInterface
public interface Denoiser {
    /// What a call reads. All of it lives on the device and changes from call to call.
    ///
    /// @param sample    [N, H, W, C] in the model's dtype, already scaled; with guidance N = 2 B, unconditional first
    /// @param timesteps [calls] f32: what the model is told in each call
    /// @param counter   [1] i32: which of them is now
    record Inputs(Tensor sample, Tensor timesteps, Tensor counter) {}

    /// Writes the ops of a call down; as [Plan] says, it may be called twice and must do the same both times.
    ///
    /// @return the model's output [N, H, W, C or more channels], a temporary of the plan or a tensor of the caller's
    Tensor record(Plan.Recorder plan, Inputs inputs);
}
