package io.gatun.models;

import java.io.IOException;
import java.io.InputStream;

/// Where [DemoModels] finds its files: a service that the artifact `gatun-demo-models` provides.
public interface DemoModelSource {
    /// Opens a file.
    ///
    /// @param name `index`, which has a line for each of the others: SHA-256, bytes, `<model>/<file>`; or one of these
    InputStream open(String name) throws IOException;
}
