package io.gatun.runtime;

import io.gatun.bindings.gatun.Gatun;

/// Element types of tensors. Arithmetic on the 16-bit floats accumulates in f32.
public enum DType {
    F32(Gatun.GT_F32(), 4, "f32"),
    BF16(Gatun.GT_BF16(), 2, "bf16"),
    F16(Gatun.GT_F16(), 2, "f16"),
    I32(Gatun.GT_I32(), 4, "i32"),
    I64(Gatun.GT_I64(), 8, "i64"),
    U8(Gatun.GT_U8(), 1, "u8");

    private final int code;
    private final int bytes;
    private final String label;

    DType(int code, int bytes, String label) {
        this.code = code;
        this.bytes = bytes;
        this.label = label;
    }

    int code() {
        return code;
    }

    /// Bytes of one element.
    public int bytes() {
        return bytes;
    }

    public boolean isFloat() {
        return this == F32 || this == BF16 || this == F16;
    }

    /// `f32`, `bf16`, ...: the spelling of the command line and of messages.
    @Override
    public String toString() {
        return label;
    }
}
