/// Devices, streams, arenas, tensors, ops and checkpoint files. Nothing above this module knows FFM.
@org.jspecify.annotations.NullMarked
module io.gatun.runtime {
    requires static org.jspecify;
    requires io.gatun.bindings;
    requires com.fasterxml.jackson.core;
    requires jdk.jfr;

    exports io.gatun.io;
    exports io.gatun.ops;
    exports io.gatun.runtime;
}
