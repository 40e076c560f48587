package io.gatun.demomodels;

import io.gatun.models.DemoModelSource;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.NoSuchFileException;

/// The models in this artifact.
public final class BundledModels implements DemoModelSource {
    private static final String FOLDER = "/META-INF/gatun/demo-models/";

    /// For the service loader.
    public BundledModels() {}

    @Override
    public InputStream open(String name) throws IOException {
        InputStream in = BundledModels.class.getResourceAsStream(FOLDER + name);
        if (in == null) {
            throw new NoSuchFileException(FOLDER + name);
        }
        return in;
    }
}
