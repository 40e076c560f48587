package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import io.gatun.ops.Noise;
import io.gatun.ops.Noise.BetaSchedule;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

@Tag("device")
class NoiseScheduleTest {
    private static final GoldenCase TABLES = new GoldenCase("schedulers/tables");

    /// A rescaled beta is 1 minus a ratio in f32, and PyTorch's square roots below it are not all rounded correctly.
    private static final double OF_RESCALED_BETAS = 0x1p-22;

    /// Against the recorded tables of diffusers: betas within 1e-6, products within 2e-6, relatively. The same on the
    /// host and on the device, where library functions may round differently once in a while.
    @ParameterizedTest
    @CsvSource({"linear, LINEAR, 1e-4, 0.02, linear, false",
        "scaled_linear_sd, SCALED_LINEAR, 0.00085, 0.012, scaled_linear, false",
        "squaredcos_cap_v2, COSINE, 1e-4, 0.02, squaredcos_cap_v2, false",
        "scaled_linear_sd_zsnr, SCALED_LINEAR, 0.00085, 0.012, scaled_linear, true",
        "sigmoid, SIGMOID, 1e-4, 0.02, sigmoid, false"})
    void tables_likeDiffusers(String golden, BetaSchedule kind, double from, double to, String name, boolean zeroSnr) {
        NoiseSchedule schedule = NoiseSchedule.of(SchedulerConfig.parse("""
                {"_class_name": "DDPMScheduler", "beta_schedule": "%s", "beta_start": %s, "beta_end": %s,
                 "rescale_betas_zero_snr": %s}""".formatted(name, from, to, zeroSnr)), 0, 1, NoiseSchedule.Kind.LINEAR);
        assertClose(golden + " betas", TABLES.floats("betas." + golden), schedule.betas(), 1e-6,
                zeroSnr ? OF_RESCALED_BETAS : 0);
        assertClose(golden + " products", TABLES.floats("alphas_cumprod." + golden), schedule.alphasCumprod(), 2e-6, 0);
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2));
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("tables")) {
            Tensor betas = arena.allocate(DType.F32, schedule.steps());
            Tensor products = arena.allocate(DType.F32, schedule.steps());
            Noise.schedule(stream, betas, products, kind, from, to, zeroSnr);
            assertClose(golden + " betas on the device", schedule.betas(), betas.toFloats(stream), 1e-6, 0);
            assertClose(golden + " products on the device", schedule.alphasCumprod(), products.toFloats(stream), 2e-6,
                    0);
        }
    }

    /// 1000 / T times 1e-4 to 0.02: with 1000 steps the usual schedule, with 200 five times the betas and as little
    /// signal left at the end.
    @Test
    void linear_scalesWithTheNumberOfSteps() {
        assertArrayEquals(NoiseSchedule.linear(1000, 1e-4, 0.02).betas(), NoiseSchedule.linear(1000).betas());
        NoiseSchedule short200 = NoiseSchedule.linear(200);
        assertEquals(5e-4f, short200.betas()[0]);
        assertEquals(0.1f, short200.betas()[199], 1e-8f);
        double expected = 1;
        for (int t = 0; t < 200; t++) {
            expected *= 1 - (5e-4 + (0.1 - 5e-4) * t / 199);
        }
        assertEquals(expected, short200.alphasCumprod()[199], 1e-5 * expected);
        assertEquals(4e-5, short200.alphasCumprod()[199], 2e-5);
    }

    @Test
    void trainedBetas_areTakenAsTheyAre() {
        NoiseSchedule schedule = NoiseSchedule.of(SchedulerConfig.parse("""
                {"_class_name": "DDPMScheduler", "trained_betas": [0.5, 0.25, 0.125]}"""), 0, 1,
                NoiseSchedule.Kind.LINEAR);
        assertArrayEquals(new float[] {0.5f, 0.375f, 0.328125f}, schedule.alphasCumprod());
    }

    /// One step, or betas of 0: no factor makes the last product 0 and keeps the first.
    @Test
    void zeroSnr_productsThatDoNotFall() {
        for (String betas : new String[] {"\"num_train_timesteps\": 1", "\"beta_start\": 0, \"beta_end\": 0"}) {
            SchedulerConfig config = SchedulerConfig.parse("""
                    {"_class_name": "DDPMScheduler", "rescale_betas_zero_snr": true, %s}""".formatted(betas));
            GatunException e = assertThrows(GatunException.class,
                    () -> NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR));
            assertTrue(e.getMessage().contains("expected to fall"), e.getMessage());
        }
    }

    private static void assertClose(String what, float[] expected, float[] actual, double relative, double absolute) {
        assertEquals(expected.length, actual.length, what);
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], actual[i], relative * Math.abs(expected[i]) + absolute, what + " [" + i + "]");
        }
    }
}
