package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.Placement;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Is each operand's dtype and shape checked, with an exception that names op and operand instead of a crash?
final class BadArguments {
    private BadArguments() {}

    /// Each operand in turn comes with a dtype no op takes and with one dimension too many.
    ///
    /// @param free operands that may have any shape and dtype
    static void check(OpCase opCase, String... free) {
        for (Operand operand : opCase.operands()) {
            if (!Set.of(free).contains(operand.name())) {
                refuses(opCase, operand.name(), operand.dtype() == DType.U8 ? DType.F32 : DType.U8, operand.shape(),
                        operand.name());
                int[] higher = new int[operand.shape().length + 1];
                higher[0] = 2;
                System.arraycopy(operand.shape(), 0, higher, 1, operand.shape().length);
                refuses(opCase, operand.name(), operand.dtype(), higher, null);
            }
        }
    }

    /// With one operand replaced, the op is refused in words that name `blamed`, an operand or a scalar, or any operand
    /// where that is null: when two shapes disagree, either may be meant.
    static void refuses(OpCase opCase, String operand, DType dtype, int[] shape, @Nullable String blamed) {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("BadArguments")) {
            Map<String, Tensor> tensors = new HashMap<>(new Placement(opCase, arena, stream, 1).tensors());
            tensors.put(operand, arena.allocate(dtype, Arrays.stream(shape).asLongStream().toArray()));
            String what = "%s with %s = %s".formatted(opCase, operand, tensors.get(operand));
            GatunException e = assertThrows(GatunException.class, () -> opCase.run(stream, tensors), what);
            assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status(), what);
            assertTrue(e.getMessage().startsWith(opCase.op() + ": "), what + ": " + e.getMessage());
            boolean named = opCase.operands().stream().map(o -> blamed == null ? o.name() : blamed)
                    .anyMatch(name -> e.getMessage().matches("(?s).*\\b" + name + "\\b.*"));
            assertTrue(named, what + ": " + e.getMessage());
        }
    }
}
