package io.gatun.generate;

import jdk.jfr.Category;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;

/// One prefill or decode step.
@Name("io.gatun.Step")
@Label("Step")
@Category("Gatun")
@StackTrace(false)
final class StepEvent extends Event {
    @Label("Prefill")
    boolean prefill;

    @Label("Sequences")
    int sequences;

    @Label("Tokens")
    int tokens;
}
