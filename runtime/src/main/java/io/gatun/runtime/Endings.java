package io.gatun.runtime;

import org.jspecify.annotations.Nullable;

/// Ends several things, each whatever becomes of the others.
final class Endings {
    private @Nullable RuntimeException first;

    /// Does all of these, then throws the first failure, the others suppressed.
    static void all(Runnable... endings) {
        Endings all = new Endings();
        for (Runnable ending : endings) {
            all.attempt(ending);
        }
        all.rethrow();
    }

    void attempt(Runnable ending) {
        try {
            ending.run();
        } catch (RuntimeException e) {
            if (first == null) {
                first = e;
            } else if (first != e) {
                first.addSuppressed(e);
            }
        }
    }

    void rethrow() {
        if (first != null) {
            throw first;
        }
    }
}
