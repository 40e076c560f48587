package io.gatun.ops.cases;

import io.gatun.runtime.DType;

/// Where does a reference round? Nowhere: then it is the oracle, in double. Or after every operation in f32 and again
/// where a value is stored: then it is the obvious same-dtype computation that sets the tolerance. One formula serves
/// both, because an f64 operation on f32 operands, rounded to f32, is the f32 operation.
public enum Rounding {
    EXACT, AS_DTYPE;

    /// The result of an arithmetic operation or of a library function in f32.
    public double f32(double value) {
        return this == EXACT ? value : (float) value;
    }

    /// A value that is written to memory as a dtype.
    public double store(DType dtype, double value) {
        return this == EXACT ? value : nearest(dtype, value);
    }

    /// The value of a float dtype nearest to a double, ties to even; like a kernel, by way of f32.
    public static double nearest(DType dtype, double value) {
        float f = (float) value;
        return switch (dtype) {
            case F32 -> f;
            case BF16 -> nearestBf16(f);
            case F16 -> Float.float16ToFloat(Float.floatToFloat16(f));
            case F8_E4M3 -> nearestE4m3(f);
            default -> throw new IllegalArgumentException(dtype + " is no float");
        };
    }

    private static double nearestE4m3(double value) {
        double magnitude = Math.min(Math.abs(value), 448);
        double unit = Math.scalb(1.0, Math.max(Math.getExponent(magnitude), -6) - 3);
        return Math.copySign(Math.rint(magnitude / unit) * unit, value);
    }

    private static float nearestBf16(float f) {
        if (!Float.isFinite(f)) {
            return f;
        }
        int bits = Float.floatToRawIntBits(f);
        int low = bits & 0xffff;
        int truncated = bits >>> 16;
        boolean up = low > 0x8000 || low == 0x8000 && (truncated & 1) == 1;
        return Float.intBitsToFloat(truncated + (up ? 1 : 0) << 16);
    }
}
