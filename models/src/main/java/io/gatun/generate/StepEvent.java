package io.gatun.generate;

import jdk.jfr.Category;
import jdk.jfr.Event;
import jdk.jfr.EventType;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;
import org.jspecify.annotations.Nullable;

/// One prefill or decode step.
@Name("io.gatun.Step")
@Label("Step")
@Category("Gatun")
@StackTrace(false)
final class StepEvent extends Event {
    private static final EventType TYPE = EventType.getEventType(StepEvent.class);

    @Label("Prefill")
    boolean prefill;

    @Label("Sequences")
    int sequences;

    @Label("Tokens")
    int tokens;

    /// A begun event, or null where nobody listens: a step makes no garbage then.
    static @Nullable StepEvent begin(boolean prefill, int sequences, int tokens) {
        if (!TYPE.isEnabled()) {
            return null;
        }
        StepEvent event = new StepEvent();
        event.prefill = prefill;
        event.sequences = sequences;
        event.tokens = tokens;
        event.begin();
        return event;
    }

    static void commit(@Nullable StepEvent event) {
        if (event != null) {
            event.commit();
        }
    }
}
