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
        if (dtype == DType.F8_E4M3) {
            byte[] codes = new byte[values.length];
            for (int i = 0; i < values.length; i++) {
                codes[i] = floatToE4m3(values[i]);
            }
            return MemorySegment.ofArray(codes);
        }
        short[] bits = new short[values.length];
        for (int i = 0; i < values.length; i++) {
            bits[i] = switch (dtype) {
                case BF16 -> floatToBf16(values[i]);
                case F16 -> Float.floatToFloat16(values[i]);
                default -> throw GatunException.invalid("floats for a tensor of %s, expected f32, bf16, f16 or"
                        + " f8_e4m3", dtype);
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
                case F8_E4M3 -> e4m3ToFloat(bytes.get(ValueLayout.JAVA_BYTE, i));
                default -> throw GatunException.invalid("tensor of %s read as floats, expected f32, bf16,"
                        + " f16 or f8_e4m3", dtype);
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
                default -> throw GatunException.invalid("tensor of %s read as integers, expected i32, i64 or"
                        + " u8", dtype);
            };
        }
        return values;
    }

    /// Round to nearest even, at most 448; a NaN becomes one.
    static byte floatToE4m3(float value) {
        int sign = Float.floatToRawIntBits(value) >>> 24 & 0x80;
        float magnitude = Math.min(Math.abs(value), 448);
        if (Float.isNaN(magnitude)) {
            return (byte) (sign | 0x7f);
        }
        float unit = Math.scalb(1f, Math.max(Math.getExponent(magnitude), -6) - 3);
        int units = (int) Math.rint(magnitude / unit); // 0 to 16, from 8 on with the leading bit
        return (byte) (sign | (Math.getExponent(unit) + 9) * 8 + units);
    }

    static float e4m3ToFloat(byte code) {
        int exponent = code >> 3 & 15;
        int mantissa = code & 7;
        float magnitude = (code & 0x7f) == 0x7f ? Float.NaN
                : Math.scalb(exponent == 0 ? mantissa : 8f + mantissa, Math.max(exponent, 1) - 10);
        return code < 0 ? -magnitude : magnitude;
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
