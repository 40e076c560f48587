package io.gatun.runtime;

import java.lang.System.Logger.Level;
import java.lang.ref.Cleaner;
import java.util.Locale;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/// Finds arenas, workspaces and models that were never closed: `-Dgatun.leaks=off|simple|trace`.
///
/// `simple` (the default) counts and warns when the garbage collector finds one that is still open; `trace` also keeps
/// the stack of its creation and names that in the warning. The memory itself is not freed by the collector: that
/// would hide the defect.
public final class Leaks {
    private static final System.Logger LOG = System.getLogger("io.gatun.leaks");

    /// What is recorded per object.
    public enum Detail { OFF, SIMPLE, TRACE }

    private static final Detail LEVEL = parse(System.getProperty("gatun.leaks", "simple"));
    private static final Cleaner CLEANER = Cleaner.create();
    private static final Set<Tracked> OPEN = ConcurrentHashMap.newKeySet();

    private Leaks() {}

    private static Detail parse(String value) {
        try {
            return Detail.valueOf(value.toUpperCase(Locale.ROOT));
        } catch (IllegalArgumentException e) {
            LOG.log(Level.WARNING, "-Dgatun.leaks={0}: expected off, simple or trace; taking simple", value);
            return Detail.SIMPLE;
        }
    }

    /// One object that must be closed. Holds no reference to it, so that the collector can find it.
    static final class Tracked implements Runnable {
        private final String name;
        private final @Nullable Throwable site;
        private volatile long bytes;

        private Tracked(String name) {
            this.name = name;
            this.site = LEVEL == Detail.TRACE ? new Throwable("created here") : null;
        }

        void bytes(long now) {
            bytes = now;
        }

        void closed() {
            OPEN.remove(this);
        }

        @Override
        public void run() {
            if (OPEN.contains(this)) {
                LOG.log(Level.WARNING, "never closed: " + describe(), site);
                OPEN.remove(this); // after the warning: who sees an empty report has seen all warnings
            }
        }

        private String describe() {
            return name + " with " + bytes + " bytes" + (site == null ? " (-Dgatun.leaks=trace shows where)" : "");
        }
    }

    /// A record that is reported nowhere, for objects that own nothing.
    static Tracked untracked() {
        return new Tracked("");
    }

    static Tracked track(Object owner, String name) {
        Tracked tracked = new Tracked(name);
        if (LEVEL != Detail.OFF) {
            OPEN.add(tracked);
            CLEANER.register(owner, tracked);
        }
        return tracked;
    }

    /// A line for each object that is open now, with the creating stack at level `trace`. Empty when all is closed.
    public static String report() {
        StringBuilder text = new StringBuilder();
        for (Tracked tracked : OPEN) {
            text.append("open: ").append(tracked.describe()).append('\n');
            Throwable site = tracked.site;
            if (site != null) {
                for (StackTraceElement frame : site.getStackTrace()) {
                    text.append("    at ").append(frame).append('\n');
                }
            }
        }
        return text.toString();
    }
}
