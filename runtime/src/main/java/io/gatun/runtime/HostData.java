package io.gatun.runtime;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;

/// Host arrays as the bytes of a dtype, and back.
final class HostData {
    private static final ValueLayout.OfFloat F32 = ValueLayout.JAVA_FLOAT_UNALIGNED;
    private static final ValueLayout.OfShort I16 = ValueLayout.JAVA_SHORT_UNALIGNED;
    private static final ValueLayout.OfInt I32 = ValueLayout.JAVA_INT_UNALIGNED;
    private static final ValueLayout.OfLong I64 = ValueLayout.JAVA_LONG_UNALIGNED;

    private HostData() {}

    static MemorySegment encode(DType dtype, float[] values) {
        if (dtype == DType.F32) {
            return MemorySegment.ofArray(values);
        }
        short[] bits = new short[values.length];
        for (int i = 0; i < values.length; i++) {
            bits[i] = switch (dtype) {
                case BF16 -> floatToBf16(values[i]);
                case F16 -> Float.floatToFloat16(values[i]);
                default -> throw GatunException.invalid("floats for a tensor of %s, expected f32, bf16 or f16", dtype);
            };
        }
        return MemorySegment.ofArray(bits);
    }

    static MemorySegment encode(DType dtype, long[] values) {
        if (dtype == DType.I64) {
            return MemorySegment.ofArray(values);
        }
        if (dtype != DType.I32) {
            throw GatunException.invalid("integers for a tensor of %s, expected i32 or i64", dtype);
        }
        int[] ints = new int[values.length];
        for (int i = 0; i < values.length; i++) {
            ints[i] = Math.toIntExact(values[i]);
        }
        return MemorySegment.ofArray(ints);
    }

    static MemorySegment encode(DType dtype, int[] values) {
        return dtype == DType.I32 ? MemorySegment.ofArray(values)
                : encode(dtype, Arrays.stream(values).asLongStream().toArray());
    }

    static float[] decodeFloats(DType dtype, MemorySegment bytes) {
        if (dtype == DType.F32) {
            return bytes.toArray(F32);
        }
        float[] values = new float[Math.toIntExact(bytes.byteSize() / dtype.bytes())];
        for (int i = 0; i < values.length; i++) {
            values[i] = switch (dtype) {
                case BF16 -> Float.intBitsToFloat(bytes.get(I16, 2L * i) << 16);
                case F16 -> Float.float16ToFloat(bytes.get(I16, 2L * i));
                default -> throw GatunException.invalid("tensor of %s read as floats", dtype);
            };
        }
        return values;
    }

    static long[] decodeLongs(DType dtype, MemorySegment bytes) {
        long[] values = new long[Math.toIntExact(bytes.byteSize() / dtype.bytes())];
        for (int i = 0; i < values.length; i++) {
            values[i] = switch (dtype) {
                case I32 -> bytes.get(I32, 4L * i);
                case I64 -> bytes.get(I64, 8L * i);
                case U8 -> Byte.toUnsignedLong(bytes.get(ValueLayout.JAVA_BYTE, i));
                default -> throw GatunException.invalid("tensor of %s read as integers", dtype);
            };
        }
        return values;
    }

    /// Round to nearest even; a NaN stays a quiet NaN.
    static short floatToBf16(float value) {
        int bits = Float.floatToRawIntBits(value);
        if ((bits & 0x7fffffff) > 0x7f800000) {
            return (short) (bits >>> 16 | 0x40);
        }
        return (short) (bits + 0x7fff + (bits >>> 16 & 1) >>> 16);
    }
}
