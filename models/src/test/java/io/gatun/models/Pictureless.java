package io.gatun.models;

import org.junit.jupiter.api.Assumptions;

/// The Java of the bundle for GPU hosts has no module for pictures, which would be a third of the archive.
public final class Pictureless {
    private Pictureless() {}

    /// Skips a test that reads or writes pictures where this Java cannot.
    public static void skip() {
        Assumptions.assumeTrue(ModuleLayer.boot().findModule("java.desktop").isPresent(),
                "skipped: this Java has no java.desktop");
    }
}
