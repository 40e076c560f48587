package io.gatun.generate;

import jdk.jfr.Category;
import jdk.jfr.DataAmount;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;

/// The loading of a model.
@Name("io.gatun.ModelLoad")
@Label("Model Load")
@Category("Gatun")
final class LoadEvent extends Event {
    @Label("Directory")
    String directory = "";

    @Label("Weights")
    @DataAmount
    long weightBytes;

    @Label("Uploaded bytes")
    @DataAmount
    long uploadBytes;

    @Label("Upload rate in GB/s")
    double uploadGigabytesPerSecond;
}
