package io.gatun.train;

import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.Map;

/// Drives a task from its last checkpoint to its end: updates, log, evaluations, samples, checkpoints, and the model.
///
/// A loss that is not finite ends the run, with the last good checkpoint kept. [#stop()] ends it after the update in
/// progress, with a checkpoint.
public final class TrainingRun {
    private static final double NANOS = 1e-9;
    private static final double MIB = 1 << 20;

    /// How it ended.
    public enum End {
        FINISHED, STOPPED
    }

    /// What is told on the way.
    public interface Listener {
        /// After each update.
        ///
        /// @param figures those that were measured last
        void step(int step, int steps, Map<String, Double> figures);

        /// Something that ends no run.
        void warning(String message);
    }

    private final TrainingTask task;
    private final TrainingSettings settings;
    private final RunDirectory directory;
    private final Listener listener;
    private final Map<String, Double> latest = new LinkedHashMap<>();
    private volatile boolean stopped;
    private int step;
    private int saved = -1;
    /// Of the updates since the last line of the log, without evaluations and checkpoints.
    private double seconds;
    private int timedSteps;

    public TrainingRun(TrainingTask task, Recipe recipe, RunDirectory directory, Listener listener) {
        this.task = task;
        this.settings = recipe.settings();
        this.directory = directory;
        this.listener = listener;
    }

    /// Lets [#run()] end after the update in progress. From any thread.
    public void stop() {
        stopped = true;
    }

    public boolean isStopped() {
        return stopped;
    }

    /// Updates that were made, those before a resumption included.
    public int step() {
        return step;
    }

    /// What was measured last, by name.
    public Map<String, Double> figures() {
        return Map.copyOf(latest);
    }

    /// Once per object.
    ///
    /// @throws GatunException when an update fails, the loss is not finite, or a checkpoint cannot be written
    public End run() {
        RunCheckpoint checkpoint = directory.latest();
        if (checkpoint != null) {
            task.restore(checkpoint);
            step = checkpoint.state().step();
            saved = step;
            latest.putAll(checkpoint.state().metrics());
        }
        int steps = task.steps();
        task.memory();
        try (MetricsLog log = MetricsLog.open(directory.metrics(), step)) {
            while (step < steps && !stopped) {
                long start = System.nanoTime();
                task.step();
                step++;
                timedSteps++;
                boolean looks = stopped || step == steps || isDue(settings.saveSteps())
                        || isDue(settings.loggingSteps());
                Map<String, Double> line = new LinkedHashMap<>();
                if (looks) {
                    line.putAll(finite(task.figures()));
                } else if (isDue(settings.evalSteps()) || isDue(settings.sampleSteps())) {
                    finite(task.figures()); // waits for the updates, which are timed, before what is not
                }
                seconds += (System.nanoTime() - start) * NANOS;
                record(line, steps, log);
                if (isDue(settings.saveSteps()) || step == steps) {
                    save(log);
                }
            }
            if (saved != step) { // stopped too late for the update to be looked at
                finite(task.figures());
                save(log);
            }
        }
        if (step < steps) {
            return End.STOPPED;
        }
        directory.saveModel(task::writeModel);
        return End.FINISHED;
    }

    private boolean isDue(int every) {
        return every > 0 && step % every == 0;
    }

    private Map<String, Double> finite(Map<String, Double> figures) {
        figures.forEach((name, value) -> {
            if (name.endsWith("loss") && !Double.isFinite(value)) {
                RunCheckpoint good = directory.latest();
                throw new GatunException(GatunException.Status.INTERNAL, ("%s is %s at step %d: stopped. %s. A smaller"
                        + " learning_rate, max_grad_norm or dtype f32 may help").formatted(name, value, step,
                                good == null ? "There is no checkpoint before it"
                                        : "The last good checkpoint is " + good.directory()));
            }
        });
        return figures;
    }

    /// @param line what the update measured; empty where nobody looked
    private void record(Map<String, Double> line, int steps, MetricsLog log) {
        if (!line.isEmpty()) {
            line.put(task.unit() + "_per_second", task.unitsPerStep() * timedSteps / seconds);
            seconds = 0;
            timedSteps = 0;
        }
        if (isDue(settings.evalSteps()) || step == steps) {
            line.putAll(finite(task.evaluate()));
        }
        if (isDue(settings.sampleSteps())) {
            sample();
        }
        if (step == steps) {
            line.put("planned_memory_mib", (double) task.memory().peakBytes() / MIB);
            line.put("peak_memory_mib", (double) task.peakBytes() / MIB);
        }
        if (!line.isEmpty()) {
            log.append(step, line);
            latest.putAll(line);
        }
        listener.step(step, steps, latest);
    }

    private void sample() {
        try {
            task.sample(directory.samples(), "step-%06d".formatted(step));
        } catch (GatunException e) {
            if (e.status() == GatunException.Status.DEVICE_ERROR) {
                throw e;
            }
            listener.warning("no sample at step %d: %s".formatted(step, e.getMessage()));
        } catch (IOException e) {
            listener.warning("no sample at step %d: %s".formatted(step, IoReason.of(e)));
        }
    }

    private void save(MetricsLog log) {
        directory.save(new TrainingState(step, task.position(), settings.seed(), latest), task.state(),
                task::writeModel);
        saved = step;
        try {
            LossCurve.write(directory.lossCurve(), "loss of " + directory.root().toAbsolutePath().getFileName(),
                    log.lines());
        } catch (GatunException e) {
            listener.warning(String.valueOf(e.getMessage()));
        }
    }
}
