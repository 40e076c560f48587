package io.gatun.ops.cases;

import java.util.LinkedHashMap;
import java.util.Map;

/// The elements of a case's operands on the host, by name.
public final class HostValues {
    private final Map<String, HostArray> arrays = new LinkedHashMap<>();

    void put(String name, HostArray array) {
        arrays.put(name, array);
    }

    public boolean has(String name) {
        return arrays.containsKey(name);
    }

    public HostArray array(String name) {
        return arrays.get(name);
    }

    public float[] floats(String name) {
        return arrays.get(name).floats();
    }

    public long[] longs(String name) {
        return arrays.get(name).longs();
    }
}
