package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.lang.foreign.MemorySegment;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.stream.Stream.Builder;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Does every op of the ABI survive NULL, and say which operand it missed?
@Tag("device")
class NullArgumentsTest {
    /// All ops: what takes a stream first.
    static java.util.stream.Stream<String> ops() {
        Builder<String> names = java.util.stream.Stream.builder();
        for (Method m : Gatun.class.getDeclaredMethods()) {
            if (m.getName().startsWith("gt_") && m.getReturnType() == int.class && m.getParameterCount() > 1
                    && !m.getName().equals("gt_abi_sizes")) {
                names.add(m.getName().substring("gt_".length()));
            }
        }
        return names.build().sorted();
    }

    @ParameterizedTest
    @MethodSource("ops")
    void nullOperands(String op) {
        try (Device device = TestDevice.open(2); Stream stream = device.newStream()) {
            GatunException e = assertThrows(GatunException.class, () -> stream.check(call(op, stream.descriptor())));
            assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status(), op);
            assertTrue(e.getMessage().matches(op + ": \\w+ is NULL, .*"), e.getMessage());
        }
    }

    @ParameterizedTest
    @MethodSource("ops")
    void nullStream(String op) {
        try (Device device = TestDevice.open(2); Stream stream = device.newStream()) {
            GatunException e = assertThrows(GatunException.class, () -> stream.check(call(op, MemorySegment.NULL)));
            assertEquals(op + ": stream is NULL", e.getMessage());
        }
    }

    /// With NULL for every pointer but the stream and 0 for every number.
    private static int call(String op, MemorySegment stream) {
        Method method = Arrays.stream(Gatun.class.getDeclaredMethods())
                .filter(m -> m.getName().equals("gt_" + op) && m.getReturnType() == int.class).findFirst()
                .orElseThrow();
        Object[] arguments = Arrays.stream(method.getParameterTypes()).map(NullArgumentsTest::nothing).toArray();
        arguments[0] = stream;
        try {
            return (int) method.invoke(null, arguments);
        } catch (ReflectiveOperationException e) {
            throw new AssertionError(op + ": the binding cannot be called", e);
        }
    }

    private static Object nothing(Class<?> type) {
        if (type == MemorySegment.class) {
            return MemorySegment.NULL;
        }
        return type == int.class ? (Object) 0 : type == long.class ? (Object) 0L : type == float.class ? (Object) 0f
                : (Object) 0.0;
    }
}
