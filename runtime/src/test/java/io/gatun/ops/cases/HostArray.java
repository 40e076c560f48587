package io.gatun.ops.cases;

import io.gatun.runtime.DType;

/// The elements of one operand on the host, row-major: `float[]` for a float operand (each value is one of the
/// operand's dtype), `long[]` for an integer operand.
public final class HostArray {
    private final float[] floats;
    private final long[] longs;
    private final boolean isFloat;

    private HostArray(float[] floats, long[] longs, boolean isFloat) {
        this.floats = floats;
        this.longs = longs;
        this.isFloat = isFloat;
    }

    /// Whether elements of a dtype are kept as floats.
    public static boolean areFloats(DType dtype) {
        return dtype.isFloat() || dtype == DType.F8_E4M3;
    }

    static HostArray of(float[] floats) {
        return new HostArray(floats, new long[0], true);
    }

    static HostArray of(long[] longs) {
        return new HostArray(new float[0], longs, false);
    }

    public float[] floats() {
        return floats;
    }

    public long[] longs() {
        return longs;
    }

    public int size() {
        return isFloat ? floats.length : longs.length;
    }

    /// One element, of whichever kind.
    public double at(int index) {
        return isFloat ? floats[index] : longs[index];
    }

    /// One element's bits: equal bits are equal results.
    public long bits(int index) {
        return isFloat ? Float.floatToRawIntBits(floats[index]) : longs[index];
    }

    /// The elements at some indices.
    HostArray gather(int[] at) {
        if (isFloat) {
            float[] some = new float[at.length];
            for (int i = 0; i < at.length; i++) {
                some[i] = floats[at[i]];
            }
            return of(some);
        }
        long[] some = new long[at.length];
        for (int i = 0; i < at.length; i++) {
            some[i] = longs[at[i]];
        }
        return of(some);
    }
}
