package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.diffusion.SamplingOptions.PreviousStep;
import io.gatun.ops.Diffusion;
import io.gatun.ops.Diffusion.Field;
import io.gatun.runtime.GatunException;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Where the samplers of diffusers differ from what one expects: spacings, defaults, ends.
class SamplersTest {
    private static final String SD =
            "\"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\"";

    private static Trajectory trajectory(String className, String fields, int steps) {
        return sampler(className, fields).trajectory(steps);
    }

    private static Sampler sampler(String className, String fields) {
        String more = fields.isEmpty() ? "" : ", " + fields;
        return SchedulerConfig.parse("{\"_class_name\": \"%sScheduler\"%s}".formatted(className, more)).sampler();
    }

    static List<String> classes() {
        return Samplers.names();
    }

    /// The first, second, last but one and last time step.
    @ParameterizedTest
    @CsvSource({"leading, 0, 50, 980, 960, 20, 0", "leading, 1, 50, 981, 961, 21, 1",
        "trailing, 1, 50, 999, 979, 39, 19", "linspace, 1, 50, 999, 979, 20, 0", "leading, 0, 30, 957, 924, 33, 0",
        "trailing, 0, 30, 999, 966, 66, 32",
        "linspace, 0, 30, 999, 965, 34, 0", "trailing, 0, 61, 999, 983, 32, 15"})
    void timesteps_ofSpacings(String spacing, int offset, int steps, int first, int second, int lastButOne, int last) {
        float[] t = trajectory("DDIM", "\"timestep_spacing\": \"%s\", \"steps_offset\": %d".formatted(spacing, offset),
                steps).timesteps();
        assertEquals(steps, t.length);
        assertArrayEquals(new float[] {first, second, lastButOne, last},
                new float[] {t[0], t[1], t[steps - 2], t[steps - 1]});
    }

    /// Python and NumPy round halves to even: 999 / 2 is 499.5.
    @Test
    void timesteps_halvesAreRoundedToEven() {
        float[] t = trajectory("DDIM", "\"timestep_spacing\": \"linspace\"", 3).timesteps();
        assertArrayEquals(new float[] {999, 500, 0}, t);
        // 1000 - 62.5 i, then one less
        t = trajectory("DDIM", "\"timestep_spacing\": \"trailing\"", 16).timesteps();
        assertArrayEquals(new float[] {999, 937, 874, 811}, Arrays.copyOf(t, 4));
    }

    /// The second time step of Stable Diffusion's PNDM comes twice.
    @Test
    void pndm_hasOneCallMore() {
        float[] t = trajectory("PNDM", SD + ", \"skip_prk_steps\": true, \"steps_offset\": 1", 50).timesteps();
        assertEquals(51, t.length);
        assertArrayEquals(new float[] {981, 961, 961, 941}, Arrays.copyOf(t, 4));
        assertEquals(1, t[50]);
        assertEquals(1, trajectory("PNDM", "\"skip_prk_steps\": true", 1).calls());
        assertEquals(12 + 47, trajectory("PNDM", SD, 50).calls());
    }

    @Test
    void euler_sigmas() {
        Trajectory linspace = trajectory("EulerDiscrete", SD, 30);
        assertEquals(14.6146469, linspace.sigma(0), 1e-6);
        assertEquals(14.6146469, linspace.initialDeviation(), 1e-6);
        assertEquals(0.183456972, linspace.sigma(28), 1e-7);
        assertEquals(0.0291675329, linspace.sigma(29), 1e-8);
        assertEquals(0, linspace.sigma(30));
        // where the first step is not the noisiest, signal and noise together have the deviation sqrt(sigma^2 + 1)
        String leads = ", \"timestep_spacing\": \"leading\", \"steps_offset\": 1";
        Trajectory leading = trajectory("EulerDiscrete", SD + leads, 30);
        assertEquals(11.476850, leading.sigma(0), 1e-5);
        assertEquals(11.520334, leading.initialDeviation(), 1e-5);
    }

    @Test
    void karras_sigmasAndTimesteps() {
        Trajectory karras = trajectory("EulerDiscrete", SD + ", \"use_karras_sigmas\": true", 20);
        assertEquals(11.7253724, karras.sigma(1), 1e-6);
        assertEquals(0.0484819, karras.sigma(18), 1e-7);
        assertArrayEquals(new float[] {999, 961.7328f, 921.0420f}, Arrays.copyOf(karras.timesteps(), 3), 1e-3f);
    }

    @Test
    void dpmSolver_leavesOutTheLastTimestep() {
        float[] t = trajectory("DPMSolverMultistep", SD, 20).timesteps();
        assertArrayEquals(new float[] {999, 949, 899, 849}, Arrays.copyOf(t, 4));
        assertArrayEquals(new float[] {100, 50}, Arrays.copyOfRange(t, 18, 20));
    }

    @Test
    void flowMatch_shifts() {
        float[] t = trajectory("FlowMatchEulerDiscrete", "\"shift\": 3.0", 28).timesteps();
        assertArrayEquals(new float[] {1000, 987.3806f, 974.1077f}, Arrays.copyOf(t, 3), 1e-3f);
        assertArrayEquals(new float[] {110.9057f, 8.92857f}, Arrays.copyOfRange(t, 26, 28), 1e-3f);
        Sampler dynamic = sampler("FlowMatchEulerDiscrete", "\"use_dynamic_shifting\": true");
        GatunException e = assertThrows(GatunException.class, () -> dynamic.trajectory(4));
        assertTrue(e.getMessage().contains("mu"), e.getMessage());
    }

    /// From sigma_max down to sigma_min, told as ln(sigma) / 4; an ordinary network cannot be sampled so, nor one of
    /// EDM otherwise.
    @Test
    void edm_sigmasAndPartners() {
        Trajectory edm = trajectory("EDMEuler", "", 18);
        assertEquals(80, edm.sigma(0), 1e-5);
        assertEquals(0.002, edm.sigma(17), 1e-9);
        assertEquals(0, edm.sigma(18));
        assertEquals(Math.log(80) / 4, edm.timesteps()[0], 1e-7);
        assertEquals(1 / Math.hypot(80, 0.5), edm.inputScale(0), 1e-9);
        for (String fields : List.of("\"sigma_min\": 81", "\"sigma_data\": 0", "\"rho\": -1",
                "\"prediction_type\": \"sample\"", "\"sigma_schedule\": \"linear\"")) {
            assertThrows(GatunException.class, () -> sampler("EDMEuler", fields), fields);
        }
        SchedulerConfig ordinary = SchedulerConfig.parse("{\"_class_name\": \"DDPMScheduler\"}");
        SchedulerConfig preconditioned = SchedulerConfig.parse("{\"_class_name\": \"EDMEulerScheduler\"}");
        assertTrue(preconditioned.withClass("edm-euler").isEdm());
        assertThrows(GatunException.class, () -> ordinary.withClass("edm-euler"));
        assertThrows(GatunException.class, () -> preconditioned.withClass("ddim"));
        assertThrows(GatunException.class, preconditioned::noise);
    }

    /// What a class does where the file does not say.
    @Test
    void defaults_differBetweenClasses() {
        for (String clipped : List.of("DDPM", "DDIM")) {
            assertEquals(1, clip(trajectory(clipped, "", 5)), clipped + " clips");
            assertEquals(900, trajectory(clipped, "\"clip_sample\": false", 10).timesteps()[0], clipped + " leads");
        }
        for (String free : List.of("EulerDiscrete", "PNDM", "HeunDiscrete", "LCM", "DPMSolverMultistep")) {
            assertEquals(Float.POSITIVE_INFINITY, clip(trajectory(free, "", 5)), free + " does not clip");
        }
        for (String even : List.of("EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "UniPCMultistep",
                "DEISMultistep", "HeunDiscrete", "KDPM2Discrete", "LMSDiscrete")) {
            assertEquals(999, trajectory(even, "", 5).timesteps()[0], even + " begins at the last training step");
        }
        // betas 1e-4 to 0.02, but 0.00085 to 0.012
        assertEquals(4.03583e-5, trajectory("EulerDiscrete", "", 5).alphaCumprod(0), 1e-9);
        assertEquals(trajectory("EulerDiscrete", "\"beta_start\": 0.00085, \"beta_end\": 0.012", 5).sigma(0),
                trajectory("HeunDiscrete", "", 5).sigma(0));
        // the end: all signal, but PNDM stays at the first training step
        assertEquals(0, trajectory("DDIM", "", 5).sigma(5));
        assertEquals(0.0100005, trajectory("PNDM", "\"skip_prk_steps\": true", 5).sigma(6), 1e-6);
    }

    private static float clip(Trajectory trajectory) {
        return trajectory.table(call -> 1, call -> 0)[Field.CLIP];
    }

    /// DDPM draws no noise at step 0; the ancestral samplers none where no noise is left; DDIM without eta never.
    @Test
    void noise_isDrawnWhereItIsWanted() {
        assertEquals("1110", draws(trajectory("DDPM", "", 4)));
        assertEquals("1110", draws(trajectory("EulerAncestralDiscrete", SD, 4)));
        assertEquals("0000", draws(trajectory("DDIM", "", 4)));
        assertEquals("1110", draws(sampler("DDIM", "").trajectory(SamplingOptions.steps(4).withEta(1))));
        assertEquals("1110", draws(trajectory("LCM", "", 4)));
        assertEquals("0101010", draws(trajectory("KDPM2AncestralDiscrete", SD, 4)));
    }

    private static String draws(Trajectory trajectory) {
        StringBuilder draws = new StringBuilder();
        for (int i = 0; i < trajectory.calls(); i++) {
            draws.append(trajectory.drawsNoise(i) ? 1 : 0);
        }
        return draws.toString();
    }

    /// With 7 steps DDIM of diffusers steps by 142 where the loop goes on in other strides; by the table it does not.
    @Test
    void ddim_previousStepByFormulaOrTable() {
        Sampler ddim = sampler("DDIM", "\"timestep_spacing\": \"linspace\"");
        float[] formula = ddim.trajectory(7).table(call -> 1, call -> 0);
        float[] table = ddim.trajectory(SamplingOptions.steps(7).withPrevious(PreviousStep.TABLE))
                .table(call -> 1, call -> 0);
        NoiseSchedule schedule = NoiseSchedule.linear(1000);
        int denoised = Field.UPDATE + 2; // of x', the coefficient of the denoised sample
        assertEquals(Math.sqrt(schedule.alphasCumprod()[999 - 142]), formula[denoised], 1e-7);
        assertEquals(Math.sqrt(schedule.alphasCumprod()[832]), table[denoised], 1e-7);
        assertNotEquals(formula[denoised], table[denoised]);
        // where the strides agree, so do both
        Sampler leading = sampler("DDIM", "");
        assertArrayEquals(leading.trajectory(10).table(call -> 1, call -> 0), leading
                .trajectory(SamplingOptions.steps(10).withPrevious(PreviousStep.TABLE)).table(call -> 1, call -> 0));
    }

    /// A loop's numbers are numbers for all samplers, also for a single step and for as many as there are.
    @ParameterizedTest
    @MethodSource("classes")
    void table_isFinite(String name) {
        for (int steps : new int[] {1, 2, 3, 17, 50}) {
            Sampler sampler = SchedulerConfig.parse("{\"_class_name\": \"%s\", \"skip_prk_steps\": true, %s}"
                    .formatted(name, SD)).sampler();
            Trajectory trajectory = sampler.trajectory(steps);
            float[] table = trajectory.table(call -> 1, call -> 0);
            for (int i = 0; i < table.length; i++) {
                int field = i % Diffusion.FIELDS;
                assertTrue(Float.isFinite(table[i]) || field == Field.CLIP || field == Field.MIN_LOG
                        || field == Field.MAX_LOG, "%s, %d steps: field %d of call %d is %s".formatted(name, steps,
                                field, i / Diffusion.FIELDS, table[i]));
            }
            assertTrue(trajectory.slots() <= Diffusion.SLOTS);
        }
    }

    /// As many calls as image-to-image leaves, and the time steps of the whole loop's end.
    @ParameterizedTest
    @MethodSource("classes")
    void strength_leavesOutTheBeginning(String name) {
        Sampler sampler = SchedulerConfig.parse("{\"_class_name\": \"%s\", \"skip_prk_steps\": true, %s}"
                .formatted(name, SD)).sampler();
        float[] whole = sampler.trajectory(10).timesteps();
        float[] half = sampler.trajectory(SamplingOptions.steps(10).withStrength(0.55)).timesteps();
        assertArrayEquals(Arrays.copyOfRange(whole, whole.length - half.length, whole.length), half, name);
        assertEquals(whole.length - 5 * (whole.length > 15 ? 2 : 1), half.length, name);
    }

    @ParameterizedTest
    @ValueSource(strings = {"\"beta_schedule\": \"cubic\"", "\"prediction_type\": \"flow_prediction\"",
        "\"timestep_spacing\": \"even\"", "\"use_karras_sigmas\": true, \"use_beta_sigmas\": true",
        "\"final_sigmas_type\": \"none\"", "\"beta_start\": \"small\"", "\"beta_end\": NaN"})
    void config_unknownValues(String fields) {
        GatunException e = assertThrows(GatunException.class, () -> sampler("EulerDiscrete", fields).trajectory(3));
        int end = fields.lastIndexOf("\":");
        String field = fields.substring(fields.lastIndexOf('"', end - 1) + 1, end);
        assertTrue(e.getMessage().matches("scheduler_config.json: field '%s' is .*, expected .*".formatted(field)),
                e.getMessage());
    }

    /// Python writes infinities; unknown fields mean nothing.
    @Test
    void config_asPythonWritesIt() {
        assertEquals(5, trajectory("DPMSolverMultistep", "\"lambda_min_clipped\": -Infinity, \"no_such_field\": {}", 5)
                .calls());
    }

    @Test
    void betaDistribution_quantiles() {
        // scipy.stats.beta.ppf(p, 0.6, 0.6)
        assertEquals(0.5, BetaDistribution.quantile(0.5, 0.6, 0.6), 1e-12);
        assertEquals(0, BetaDistribution.quantile(0, 0.6, 0.6));
        assertEquals(1, BetaDistribution.quantile(1, 0.6, 0.6));
        for (double p : new double[] {0.001, 0.1, 0.3, 0.77, 0.999}) {
            double x = BetaDistribution.quantile(p, 0.6, 0.6);
            assertEquals(p, BetaDistribution.cumulative(x, 0.6, 0.6), 1e-12);
            assertEquals(1 - x, BetaDistribution.quantile(1 - p, 0.6, 0.6), 1e-9);
        }
        assertEquals(0.36, BetaDistribution.cumulative(0.6, 2, 1), 1e-12);
    }
}
