package io.gatun.diffusion;

import io.gatun.runtime.GatunException;
import java.util.OptionalDouble;

/// What a user chooses for a loop beside the sampler itself.
///
/// @param steps    steps from pure noise to an image; some samplers call the model twice in a step
/// @param strength of image-to-image: the share of the steps that is done, from 0 (none; refused) to 1 (all)
/// @param eta      DDIM's noise, 0: none, 1: as much as DDPM
/// @param previous how DDIM finds the time step that follows
/// @param shift    the mu of a flow's dynamic shifting; empty: not given
public record SamplingOptions(int steps, double strength, double eta, PreviousStep previous, OptionalDouble shift) {
    private static final int MAX_STEPS = 10_000;

    /// How the time step that follows t is found.
    public enum PreviousStep {
        /// `t - T / steps`, rounded down, as diffusers' DDIM does: not what the loop visits where T is no multiple of
        /// steps.
        FORMULA,
        /// The one that the loop visits next.
        TABLE
    }

    public SamplingOptions {
        if (steps < 1 || steps > MAX_STEPS) {
            throw GatunException.invalid("steps is %d, expected 1 to %d", steps, MAX_STEPS);
        }
        if (!(strength > 0 && strength <= 1)) {
            throw GatunException.invalid("strength is %s, expected a number above 0, at most 1", strength);
        }
        if (!(eta >= 0 && eta <= 1)) {
            throw GatunException.invalid("eta is %s, expected 0 to 1", eta);
        }
    }

    /// All of `steps` steps, without noise where the sampler leaves a choice.
    public static SamplingOptions steps(int steps) {
        return new SamplingOptions(steps, 1, 0, PreviousStep.FORMULA, OptionalDouble.empty());
    }

    public SamplingOptions withStrength(double value) {
        return new SamplingOptions(steps, value, eta, previous, shift);
    }

    public SamplingOptions withEta(double value) {
        return new SamplingOptions(steps, strength, value, previous, shift);
    }

    public SamplingOptions withPrevious(PreviousStep value) {
        return new SamplingOptions(steps, strength, eta, value, shift);
    }

    public SamplingOptions withShift(double mu) {
        return new SamplingOptions(steps, strength, eta, previous, OptionalDouble.of(mu));
    }

    /// Steps that are left out at the beginning.
    int firstStep() {
        int done = Math.min((int) (steps * strength), steps);
        if (done == 0) {
            throw GatunException.invalid("strength %s of %d steps is no step at all, expected at least %s", strength,
                    steps, 1.0 / steps);
        }
        return steps - done;
    }

    /// For samplers that visit training steps.
    void requireAtMost(int trainSteps) {
        if (steps > trainSteps) {
            throw GatunException.invalid("steps is %d, expected at most the model's %d training steps", steps,
                    trainSteps);
        }
    }
}
