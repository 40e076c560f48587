package io.gatun.io;

import java.util.Arrays;

/// What a safetensors header says about one tensor. Shapes are arrays: compare them with
/// [Arrays#equals(long[], long[])].
///
/// @param name  data from a stranger: never a path
/// @param dtype as stored
/// @param shape outermost dimension first; empty for a scalar
/// @param begin first byte, counted from the first byte after the header
/// @param end   the byte after the last
public record TensorInfo(String name, StoredDType dtype, long[] shape, long begin, long end) {
    public TensorInfo {
        shape = shape.clone();
    }

    @Override
    public long[] shape() {
        return shape.clone();
    }

    public long bytes() {
        return end - begin;
    }

    public long elements() {
        return elements(shape);
    }

    /// The product of the dimensions; [ArithmeticException] when it does not fit 63 bits.
    static long elements(long[] shape) {
        long n = 1;
        for (long d : shape) {
            n = Math.multiplyExact(n, d);
        }
        return n;
    }

    /// `'wte.weight' F32[50257, 768]`
    @Override
    public String toString() {
        return quote(name) + " " + dtype + Arrays.toString(shape);
    }

    /// A name from a file as one short line for a message: it may be long or hold control characters.
    static String quote(String name) {
        final int longest = 120;
        String line = name.replaceAll("\\p{Cntrl}", "?");
        return "'" + (line.length() <= longest ? line : line.substring(0, longest) + "...") + "'";
    }
}
