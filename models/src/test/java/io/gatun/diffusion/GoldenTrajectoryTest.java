package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import io.gatun.runtime.Device;
import java.io.File;
import java.util.Arrays;
import java.util.Objects;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Does every sampler visit the time steps and make the samples of diffusers, step by step? The recorded runs have 16
/// elements and the model `tanh(0.3 x) + 1e-4 t`, which sees the scaled sample; with a learned variance its outputs are
/// recorded. `make.py` beside them recorded the cases from 49 on.
@Tag("device")
class GoldenTrajectoryTest {
    private static final int SIZE = 4;

    static Stream<GoldenCase> cases() {
        File[] folders = Objects.requireNonNull(GoldenCase.resource("golden/schedulers").toFile().listFiles());
        return Arrays.stream(folders).map(File::getName).filter(name -> name.matches("\\d+_.*")).sorted()
                .map(name -> new GoldenCase("schedulers/" + name));
    }

    @ParameterizedTest
    @MethodSource("cases")
    void run_likeDiffusers(GoldenCase golden) {
        JsonNode about = GoldenCase.json(golden.directory().resolve("case.json"));
        Trajectory trajectory = SchedulerConfig.read(golden.model()).sampler().trajectory(options(about));
        float[] timesteps = golden.floats("timesteps");
        assertEquals(timesteps.length, trajectory.calls(), golden + " calls");
        for (int i = 0; i < timesteps.length; i++) {
            assertEquals(timesteps[i], trajectory.timesteps()[i], 1e-6 * Math.max(1, timesteps[0]),
                    golden + " timestep " + i);
        }
        double deviation = about.required("init_noise_sigma").asDouble();
        assertEquals(deviation, trajectory.initialDeviation(), 1e-6 * deviation, golden + " init_noise_sigma");
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2));
                io.gatun.runtime.Stream stream = device.newStream();
                HostLoop loop = new HostLoop(stream, trajectory, 1, 1, SIZE, SIZE, channels(about),
                        about.path("noise").asInt() > 0)) {
            if (about.path("noise").asInt() > 0) {
                loop.noise(golden.floats("noise"));
            }
            loop.start(golden.floats("init"), 0);
            for (int call = 0; call < trajectory.calls(); call++) {
                float t = trajectory.timesteps()[call];
                float[] input = loop.input();
                assertClose(golden + " input of call " + call, row(golden.floats("model_inputs"), call, input.length),
                        input);
                loop.step(channels(about) == 1 ? model(input, t)
                        : row(golden.floats("model_outputs"), call, 2 * input.length));
                assertClose(golden + " sample after call " + call,
                        row(golden.floats("samples"), call, input.length), loop.sample());
            }
        }
    }

    private static SamplingOptions options(JsonNode about) {
        SamplingOptions options = SamplingOptions.steps(about.required("num_inference_steps").asInt());
        if (about.has("eta")) {
            options = options.withEta(about.get("eta").asDouble());
        }
        if (about.has("mu")) {
            options = options.withShift(about.get("mu").asDouble());
        }
        return about.has("strength") ? options.withStrength(about.get("strength").asDouble()) : options;
    }

    private static int channels(JsonNode about) {
        return about.path("output_channels").asInt(1);
    }

    private static float[] model(float[] x, float t) {
        float[] y = new float[x.length];
        for (int i = 0; i < x.length; i++) {
            y[i] = (float) Math.tanh(0.3f * x[i]) + 0.0001f * t;
        }
        return y;
    }

    private static float[] row(float[] values, int row, int size) {
        return Arrays.copyOfRange(values, row * size, (row + 1) * size);
    }

    private static void assertClose(String what, float[] expected, float[] actual) {
        float largest = 1;
        for (float e : expected) {
            largest = Math.max(largest, Math.abs(e));
        }
        assertEquals(expected.length, actual.length, what);
        for (int i = 0; i < expected.length; i++) {
            float e = expected[i];
            float a = actual[i];
            float limit = 1e-5f * largest;
            assertTrue(Math.abs(e - a) <= limit,
                    () -> "%s: expected %s, actual %s, limit %s".formatted(what, e, a, limit));
        }
    }
}
