package io.gatun.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.diffusion.SamplingOptions;
import io.gatun.diffusion.SchedulerConfig;
import io.gatun.diffusion.Trajectory;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `gatun schedule`: what a sampler does, as a table, as a picture, or on recorded model outputs.
@Command(name = "schedule", mixinStandardHelpOptions = true, sortOptions = false,
        description = {"Prints the time steps, sigmas and alphas (alphas_cumprod) of a scheduler_config.json.",
            "--replay reads init (scaled by init_noise_sigma), model_outputs [calls, ...] and, if there is any, noise,"
                + " and writes samples [calls, ...] and timesteps."})
final class ScheduleCommand implements Runnable {
    @Option(names = "--config", required = true, paramLabel = "FILE",
            description = "scheduler_config.json, or the folder that holds it")
    private Path config;

    @Option(names = "--steps", required = true, paramLabel = "N", description = "steps from noise to image")
    private int steps;

    @Option(names = "--scheduler", paramLabel = "NAME",
            description = "another sampler with the same fields: a class of diffusers, or euler, dpm++, ...")
    private @Nullable String scheduler;

    @Option(names = "--eta", paramLabel = "E", defaultValue = "0", description = "noise of DDIM, 0 to 1 (default: 0)")
    private double eta;

    @Option(names = "--strength", paramLabel = "X", defaultValue = "1",
            description = "share of the steps that image-to-image does (default: 1)")
    private double strength;

    @Option(names = "--shift", paramLabel = "MU", description = "mu of a flow with use_dynamic_shifting")
    private @Nullable Double shift;

    @Option(names = "--plot", paramLabel = "FILE.png", description = "draws the schedule")
    private @Nullable Path plot;

    @Option(names = "--replay", paramLabel = "FILE", description = "safetensors with recorded model outputs")
    private @Nullable Path replay;

    @Option(names = "--out", paramLabel = "FILE", description = "safetensors that --replay writes")
    private @Nullable Path out;

    @Option(names = "--seed", paramLabel = "S", defaultValue = "0",
            description = "of the noise that --replay has no record of (default: 0)")
    private long seed;

    @Option(names = "--device", paramLabel = "NAME", defaultValue = "auto",
            description = "where --replay runs: auto, cpu, cuda or cuda:N (default: auto)")
    private String device;

    @Option(names = "--json", description = "print the table as JSON")
    private boolean json;

    ScheduleCommand() {}

    @Override
    public void run() {
        Path recorded = replay;
        Path target = out;
        if ((recorded == null) != (target == null)) {
            throw GatunException.invalid("--replay and --out belong together: %s is missing",
                    recorded == null ? "--replay" : "--out");
        }
        SchedulerConfig parsed = SchedulerConfig.read(config);
        if (scheduler != null) {
            parsed = parsed.withClass(scheduler);
        }
        SamplingOptions options = SamplingOptions.steps(steps).withEta(eta).withStrength(strength);
        Trajectory trajectory = parsed.sampler().trajectory(shift == null ? options : options.withShift(shift));
        if (recorded != null && target != null) {
            try (Device opened = Device.open(device)) {
                Replay.run(opened, trajectory, recorded, target, seed);
            }
        }
        if (plot != null) {
            SchedulePlot.write(plot, "%s, %d steps".formatted(parsed.className(), steps), trajectory);
        }
        System.out.print(json ? asJson(parsed.className(), trajectory) : asTable(parsed.className(), trajectory));
    }

    private String asTable(String name, Trajectory trajectory) {
        var table = new StringBuilder("%s: %d steps, %d calls, init_noise_sigma %s%n".formatted(name, steps,
                trajectory.calls(), number((float) trajectory.initialDeviation())));
        table.append("%5s  %12s  %14s  %14s%n".formatted("call", "timestep", "sigma", "alpha_cumprod"));
        for (int i = 0; i < trajectory.calls(); i++) {
            table.append("%5d  %12s  %14s  %14s%n".formatted(i, number(trajectory.timesteps()[i]),
                    number((float) trajectory.sigma(i)), number((float) trajectory.alphaCumprod(i))));
        }
        int end = trajectory.calls();
        return table.append("%5s  %12s  %14s  %14s%n".formatted("end", "", number((float) trajectory.sigma(end)),
                number((float) trajectory.alphaCumprod(end)))).toString();
    }

    /// As short as it can be without losing bits; whole numbers without a point.
    private static String number(float value) {
        return value == (int) value ? Integer.toString((int) value) : Float.toString(value);
    }

    private String asJson(String name, Trajectory trajectory) {
        int calls = trajectory.calls();
        float[] sigmas = new float[calls + 1];
        float[] alphas = new float[calls + 1];
        for (int i = 0; i <= calls; i++) {
            sigmas[i] = (float) trajectory.sigma(i);
            alphas[i] = (float) trajectory.alphaCumprod(i);
        }
        Map<String, Object> result = new LinkedHashMap<>();
        result.put("scheduler", name);
        result.put("steps", steps);
        result.put("calls", calls);
        result.put("init_noise_sigma", (float) trajectory.initialDeviation());
        result.put("timesteps", trajectory.timesteps());
        result.put("sigmas", sigmas);
        result.put("alphas_cumprod", alphas);
        try {
            return new ObjectMapper().writeValueAsString(result) + System.lineSeparator();
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
