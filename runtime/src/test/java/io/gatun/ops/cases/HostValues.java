package io.gatun.ops.cases;

import java.util.LinkedHashMap;
import java.util.Map;

/// The elements of a case's operands on the host, row-major: `float[]` for float operands (each value is one of the
/// operand's dtype), `long[]` for integer operands.
public final class HostValues {
    private final Map<String, Object> arrays = new LinkedHashMap<>();

    void put(String name, Object array) {
        arrays.put(name, array);
    }

    public boolean has(String name) {
        return arrays.containsKey(name);
    }

    public float[] floats(String name) {
        return (float[]) arrays.get(name);
    }

    public long[] longs(String name) {
        return (long[]) arrays.get(name);
    }

    public int size(String name) {
        return arrays.get(name) instanceof float[] floats ? floats.length : longs(name).length;
    }

    /// One element, of whichever kind.
    public double at(String name, int index) {
        return arrays.get(name) instanceof float[] floats ? floats[index] : longs(name)[index];
    }

    /// One element's bits: equal bits are equal results.
    public long bits(String name, int index) {
        return arrays.get(name) instanceof float[] floats ? Float.floatToRawIntBits(floats[index])
                : longs(name)[index];
    }
}
