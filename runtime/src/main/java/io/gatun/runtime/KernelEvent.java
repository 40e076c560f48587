package io.gatun.runtime;

import jdk.jfr.Category;
import jdk.jfr.Enabled;
import jdk.jfr.Event;
import jdk.jfr.EventType;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;

/// One op, from its call to its return (on the CPU: its whole run). Off unless asked for.
@Name("io.gatun.Kernel")
@Label("Kernel")
@Category("Gatun")
@Enabled(false)
@StackTrace(false)
final class KernelEvent extends Event {
    private static final EventType TYPE = EventType.getEventType(KernelEvent.class);

    @Label("Op")
    String op = "";

    static boolean enabled() {
        return TYPE.isEnabled();
    }

    static KernelEvent begin(String op) {
        KernelEvent event = new KernelEvent();
        event.op = op;
        event.begin();
        return event;
    }
}
