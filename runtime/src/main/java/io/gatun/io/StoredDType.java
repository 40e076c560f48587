package io.gatun.io;

import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import org.jspecify.annotations.Nullable;

/// Element types that a safetensors file can hold, under the names the format gives them. All can be listed; which of
/// them can be computed with is [#dtype()].
public enum StoredDType {
    BOOL(8), F4(4), F6_E2M3(6), F6_E3M2(6), U8(8), I8(8), F8_E5M2(8), F8_E4M3(8), F8_E8M0(8), F8_E4M3FNUZ(8),
    F8_E5M2FNUZ(8), I16(16), U16(16), F16(16), BF16(16), I32(32), U32(32), F32(32), C64(64), F64(64), I64(64), U64(64);

    private static final ByteOrder ORDER = ByteOrder.LITTLE_ENDIAN;
    private static final ValueLayout.OfShort SHORT = ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ORDER);
    private static final ValueLayout.OfInt INT = ValueLayout.JAVA_INT_UNALIGNED.withOrder(ORDER);
    private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ORDER);

    private final int bits;

    StoredDType(int bits) {
        this.bits = bits;
    }

    /// Bits of one element; the 4-bit and 6-bit types are packed.
    public int bits() {
        return bits;
    }

    /// The type of a tensor with the same bits; null where there is none.
    public @Nullable DType dtype() {
        return switch (this) {
            case F32 -> DType.F32;
            case BF16 -> DType.BF16;
            case F16 -> DType.F16;
            case I32 -> DType.I32;
            case I64 -> DType.I64;
            case U8 -> DType.U8;
            default -> null;
        };
    }

    /// What a tensor of this dtype is written as.
    public static StoredDType of(DType dtype) {
        return valueOf(dtype.name());
    }

    /// Whether weights of this type only mean something together with scales that another tensor holds.
    boolean isQuantised() {
        return bits < 8 || name().startsWith("F8") || this == I8 || this == U8;
    }

    /// Element `i` as f32, rounded to nearest where it does not fit.
    float floatAt(MemorySegment data, long i) {
        return switch (this) {
            case F32 -> Float.intBitsToFloat(data.get(INT, 4 * i));
            case BF16 -> Float.intBitsToFloat(data.get(SHORT, 2 * i) << 16);
            case F16 -> Float.float16ToFloat(data.get(SHORT, 2 * i));
            case F64 -> (float) Double.longBitsToDouble(data.get(LONG, 8 * i));
            default -> longAt(data, i);
        };
    }

    /// F32 values in this type, BF16 or F16, rounded to nearest even.
    MemorySegment rounded(MemorySegment values) {
        int elements = (int) (values.byteSize() / Float.BYTES);
        MemorySegment bytes = MemorySegment.ofArray(new byte[elements * Short.BYTES]);
        for (int i = 0; i < elements; i++) {
            float value = F32.floatAt(values, i);
            bytes.set(SHORT, (long) Short.BYTES * i, switch (this) {
                case BF16 -> bfloat16(value);
                case F16 -> Float.floatToFloat16(value);
                default -> throw GatunException.invalid("%s to round to, expected BF16 or F16", this);
            });
        }
        return bytes;
    }

    private static short bfloat16(float value) {
        int bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            return (short) (bits >>> 16 | 0x40); // stays one, whatever its lower bits
        }
        return (short) (bits + 0x7fff + (bits >>> 16 & 1) >>> 16);
    }

    /// Element `i` of an integer or BOOL tensor; true is 1.
    long longAt(MemorySegment data, long i) {
        return switch (this) {
            case I64 -> data.get(LONG, 8 * i);
            case I32 -> data.get(INT, 4 * i);
            case U8 -> Byte.toUnsignedLong(data.get(ValueLayout.JAVA_BYTE, i));
            case BOOL -> data.get(ValueLayout.JAVA_BYTE, i) == 0 ? 0 : 1;
            default -> throw GatunException.invalid("%s read as integers, expected I64, I32, U8 or BOOL", this);
        };
    }

    /// Whether [#floatAt] can read it.
    boolean readsAsFloat() {
        return this == F32 || this == BF16 || this == F16 || this == F64 || readsAsLong();
    }

    /// Whether [#longAt] can read it.
    boolean readsAsLong() {
        return this == I64 || this == I32 || this == U8 || this == BOOL;
    }
}
