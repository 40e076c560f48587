package io.gatun.runtime;

import org.jspecify.annotations.Nullable;

/// The environment variable by which libgatun decides whether kernels of a graph start before the one in front of them
/// has ended. libgatun reads it once, and knows `off` from everything else.
final class ProgrammaticLaunch {
    static final String VARIABLE = "GATUN_PROGRAMMATIC_LAUNCH";

    private ProgrammaticLaunch() {}

    /// @param value of the variable; null: it is not set
    /// @throws GatunException for a value that is neither `on` nor `off`
    static void check(@Nullable String value) {
        if (value != null && !value.equals("on") && !value.equals("off")) {
            throw GatunException.invalid("the environment variable %s is '%s', expected on or off, or no such variable",
                    VARIABLE, value);
        }
    }
}
