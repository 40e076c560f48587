package io.gatun.cli;

import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;

/// A progress bar on standard error, where that is a terminal; it appears only when the work takes a while.
final class Progress implements AutoCloseable {
    private static final long PATIENCE_NANOS = 500_000_000;

    private final String task;
    private final String unit;
    private final boolean enabled = Boolean.getBoolean("gatun.progress");
    private final long start = System.nanoTime();
    private @Nullable ProgressBar bar;

    /// @param unit what is counted
    Progress(String task, String unit) {
        this.task = task;
        this.unit = unit;
    }

    /// Of loading weights.
    static Progress ofLoading() {
        return new Progress("loading", "tensors");
    }

    void step(int done) {
        step(done, -1, "");
    }

    /// @param all  how many there will be; -1: not known
    /// @param more what else is worth knowing
    synchronized void step(int done, int all, String more) {
        if (!enabled || System.nanoTime() - start < PATIENCE_NANOS) {
            return;
        }
        ProgressBar shown = bar;
        if (shown == null) {
            shown = new ProgressBarBuilder().setTaskName(task).setInitialMax(all).setUnit(" " + unit, 1)
                    .showSpeed().setStyle(ProgressBarStyle.ASCII).build();
            bar = shown;
        }
        shown.stepTo(done);
        shown.setExtraMessage(more);
    }

    @Override
    public synchronized void close() {
        if (bar != null) {
            bar.close();
            bar = null;
        }
    }
}
