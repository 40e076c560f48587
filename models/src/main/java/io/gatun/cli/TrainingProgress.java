package io.gatun.cli;

import io.gatun.train.TrainingRun;
import java.util.Locale;
import java.util.Map;

/// A bar with loss, rate and time left, where standard error is a terminal.
final class TrainingProgress implements TrainingRun.Listener, AutoCloseable {
    private final Progress progress = new Progress("training", "steps");
    private final String unit;

    /// @param unit `tokens` or `images`
    TrainingProgress(String unit) {
        this.unit = unit;
    }

    @Override
    public void step(int step, int steps, Map<String, Double> figures) {
        progress.step(step, steps, describe(figures));
    }

    /// `loss 1.4321, eval_loss 1.5012, 12,345 tokens/s`
    String describe(Map<String, Double> figures) {
        StringBuilder text = new StringBuilder();
        figures.forEach((name, value) -> {
            if (name.endsWith("loss")) {
                text.append(String.format(Locale.ROOT, "%s %.4f, ", name, value));
            }
        });
        Double rate = figures.get(unit + "_per_second");
        return rate == null ? text.toString() : text.append(String.format(Locale.ROOT, "%,.0f %s/s", rate, unit))
                .toString();
    }

    @Override
    public void warning(String message) {
        System.err.println("gatun: warning: " + message.replaceAll("\\s*[\\r\\n]+\\s*", " "));
    }

    @Override
    public void close() {
        progress.close();
    }
}
