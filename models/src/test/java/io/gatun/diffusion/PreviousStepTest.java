package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.diffusion.SamplingOptions.PreviousStep;
import io.gatun.ops.Diffusion;
import io.gatun.ops.Diffusion.Field;
import org.junit.jupiter.api.Test;

/// Which step does DDIM go to? The sample's coefficient is `sqrt(a' / a)`, a' of the step that follows.
class PreviousStepTest {
    private static final int STEPS = 10;

    private static Trajectory trajectory(String spacing, PreviousStep previous) {
        return SchedulerConfig.parse("""
                {"_class_name": "DDIMScheduler", "clip_sample": false, "timestep_spacing": "%s"}""".formatted(spacing))
                .sampler().trajectory(SamplingOptions.steps(STEPS).withPrevious(previous));
    }

    private static float[] table(Trajectory trajectory) {
        return trajectory.table(call -> 1, call -> 0);
    }

    /// a' of a call, of its coefficients and its a.
    private static double next(Trajectory trajectory, int call) {
        double ofSample = table(trajectory)[call * Diffusion.FIELDS + Field.UPDATE];
        return ofSample * ofSample * trajectory.alphaCumprod(call);
    }

    /// 999, 888, ... 0: the formula goes 100 back, the table to the step that is visited next; both end at an image.
    @Test
    void ddim_linspace() {
        Trajectory table = trajectory("linspace", PreviousStep.TABLE);
        Trajectory formula = trajectory("linspace", PreviousStep.FORMULA);
        NoiseSchedule schedule = NoiseSchedule.linear(1000, 1e-4, 0.02);
        assertArrayEquals(table.timesteps(), formula.timesteps());
        for (int i = 0; i < STEPS - 1; i++) {
            int t = (int) table.timesteps()[i];
            int visited = (int) table.timesteps()[i + 1];
            assertEquals(111, t - visited);
            assertEquals(schedule.alphasCumprod()[visited], next(table, i), 1e-5 * next(table, i), "table, call " + i);
            assertEquals(schedule.alphasCumprod()[t - 100], next(formula, i), 1e-5 * next(formula, i),
                    "formula, call " + i);
        }
        assertEquals(1, next(table, STEPS - 1), 1e-5);
        assertEquals(1, next(formula, STEPS - 1), 1e-5);
    }

    /// 900, 800, ... 0: there the two are one.
    @Test
    void ddim_leading() {
        assertArrayEquals(table(trajectory("leading", PreviousStep.FORMULA)),
                table(trajectory("leading", PreviousStep.TABLE)));
    }
}
