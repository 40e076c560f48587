package io.gatun.ops;

import io.gatun.runtime.Stream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// How many bytes of workspace an op wants: the call of its query function.
@FunctionalInterface
interface WorkspaceQuery {
    /// Calls the function with the place for its answer and returns its status.
    int call(MemorySegment bytes);

    /// @param op the function's name without `gt_`
    static long bytes(Stream stream, String op, WorkspaceQuery query) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment bytes = arena.allocate(ValueLayout.JAVA_LONG);
            stream.enter(op);
            try {
                stream.checkQuery(query.call(bytes));
            } finally {
                stream.exit();
            }
            return bytes.get(ValueLayout.JAVA_LONG, 0);
        }
    }
}
