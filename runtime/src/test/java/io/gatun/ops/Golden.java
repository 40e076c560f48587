package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.io.SafetensorsFile;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/// One golden case: tensors that torch wrote, on the device, and its tolerance.
final class Golden implements AutoCloseable {
    private final String name;
    private final SafetensorsFile file;
    private final double hint;
    private final Device device = TestDevice.open(2);
    private final Stream stream = device.newStream();
    private final DeviceArena arena = device.newArena("golden");

    /// @param name such as `ops/rope`
    Golden(String name) {
        Path folder = Path.of(System.getProperty("gatun.root"), "runtime/src/test/resources/golden", name);
        this.name = name;
        this.file = SafetensorsFile.open(folder.resolve("io.safetensors"));
        try {
            Matcher hintInJson = Pattern.compile("\"fp32_hint\":\\s*([-+.e0-9]+)")
                    .matcher(Files.readString(folder.resolve("case.json")));
            assertTrue(hintInJson.find(), name + ": case.json has no fp32_hint");
            this.hint = Double.parseDouble(hintInJson.group(1));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    Stream stream() {
        return stream;
    }

    SafetensorsFile file() {
        return file;
    }

    boolean has(String tensor) {
        return file.names().contains(tensor);
    }

    Tensor floats(String tensor) {
        Tensor t = arena.allocate(DType.F32, file.info(tensor).shape());
        t.copyFrom(stream, file.floats(tensor));
        return t;
    }

    /// Null where the case has no such tensor.
    @Nullable
    Tensor optional(String tensor) {
        return has(tensor) ? floats(tensor) : null;
    }

    Tensor ints(long[] values, long... shape) {
        Tensor t = arena.allocate(DType.I32, shape);
        t.copyFrom(stream, values);
        return t;
    }

    /// Memory for a result like that of the case.
    Tensor like(String tensor) {
        return arena.allocate(DType.F32, file.info(tensor).shape());
    }

    /// Memory for `n` floats.
    Tensor memory(long n) {
        return arena.allocate(DType.F32, n);
    }

    /// A workspace.
    Tensor bytes(long n) {
        return arena.allocate(DType.U8, n);
    }

    /// `max |actual - expected| / max(1, max |expected|)` within the case's hint; infinities in the same places.
    void check(String tensor, Tensor actual) {
        float[] expected = file.floats(tensor);
        float[] found = actual.toFloats(stream);
        assertEquals(expected.length, found.length, name + " " + tensor);
        double size = 1;
        for (float e : expected) {
            size = Float.isFinite(e) ? Math.max(size, Math.abs(e)) : size;
        }
        for (int i = 0; i < expected.length; i++) {
            boolean same = expected[i] == found[i] || Math.abs(expected[i] - found[i]) / size <= hint;
            assertTrue(same, "%s %s on cpu: [%d] of %s expected %s, actual %s, limit %.3g".formatted(name, tensor, i,
                    actual, expected[i], found[i], hint * size));
        }
    }

    @Override
    public void close() {
        arena.close();
        stream.close();
        device.close();
        file.close();
    }
}
