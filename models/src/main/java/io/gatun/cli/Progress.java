package io.gatun.cli;

import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;

/// A progress bar on standard error, where that is a terminal; it appears only when the work takes a while.
final class Progress implements AutoCloseable {
    private static final long PATIENCE_NANOS = 500_000_000;

    private final String task;
    private final boolean enabled = Boolean.getBoolean("gatun.progress");
    private final long start = System.nanoTime();
    private @Nullable ProgressBar bar;

    Progress(String task) {
        this.task = task;
    }

    synchronized void step(int done) {
        if (!enabled || System.nanoTime() - start < PATIENCE_NANOS) {
            return;
        }
        ProgressBar shown = bar;
        if (shown == null) {
            shown = new ProgressBarBuilder().setTaskName(task).setInitialMax(-1).setUnit(" tensors", 1)
                    .setStyle(ProgressBarStyle.ASCII).build();
            bar = shown;
        }
        shown.stepTo(done);
    }

    @Override
    public synchronized void close() {
        if (bar != null) {
            bar.close();
            bar = null;
        }
    }
}
