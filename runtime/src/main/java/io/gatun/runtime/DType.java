package io.gatun.runtime;

import io.gatun.bindings.gatun.Gatun;

/// Element types of tensors. Arithmetic on the 16-bit floats accumulates in f32.
public enum DType {
    F32(4, "f32"),
    BF16(2, "bf16"),
    F16(2, "f16"),
    /// 4 bits of exponent, 3 of mantissa, up to 448: an operand of [io.gatun.ops.Fp8], whose scales stand beside it.
    F8_E4M3(1, "f8_e4m3"),
    I32(4, "i32"),
    I64(8, "i64"),
    U8(1, "u8");

    private final int bytes;
    private final String label;

    DType(int bytes, String label) {
        this.bytes = bytes;
        this.label = label;
    }

    /// The `gt_dtype`. Asked for late, because it loads libgatun: naming a dtype must not.
    int code() {
        return switch (this) {
            case F32 -> Gatun.GT_F32();
            case BF16 -> Gatun.GT_BF16();
            case F16 -> Gatun.GT_F16();
            case F8_E4M3 -> Gatun.GT_F8_E4M3();
            case I32 -> Gatun.GT_I32();
            case I64 -> Gatun.GT_I64();
            case U8 -> Gatun.GT_U8();
        };
    }

    /// Bytes of one element.
    public int bytes() {
        return bytes;
    }

    /// Whether networks compute in it: f32, bf16 or f16. Not f8_e4m3, whose numbers mean nothing without their scales.
    public boolean isFloat() {
        return this == F32 || this == BF16 || this == F16;
    }

    /// `f32`, `bf16`, ...: the spelling of the command line and of messages.
    @Override
    public String toString() {
        return label;
    }
}
