package io.gatun.ops.cases;

import io.gatun.ops.cases.Operand.Strides;

/// How the operands of a case lie in memory.
public enum Layout {
    /// As an arena gives it: contiguous and aligned.
    CONTIGUOUS,
    /// Contiguous, beginning one element after an aligned address.
    UNALIGNED,
    /// As scattered and unaligned as the op allows.
    STRIDED;

    private static final int ROW_GAP = 3;
    private static final int ELEMENT_GAP = 2;

    /// Elements from an aligned address to the first one.
    int offset() {
        return switch (this) {
            case CONTIGUOUS -> 0;
            case UNALIGNED -> 1;
            case STRIDED -> 5;
        };
    }

    /// In elements.
    long[] strides(Operand operand) {
        int[] shape = operand.shape();
        Strides allowed = this == STRIDED ? operand.strides() : Strides.CONTIGUOUS;
        long[] stride = new long[shape.length];
        int last = shape.length - 1;
        switch (allowed) {
            case CONTIGUOUS, ROWS -> {
                long step = 1;
                for (int i = last; i >= 0; i--) {
                    stride[i] = step;
                    step = step * shape[i] + (i == last && allowed == Strides.ROWS ? ROW_GAP : 0);
                }
            }
            case OUTER -> {
                stride[last] = 1;
                long step = shape[last] + ROW_GAP;
                for (int i = 0; i < last; i++) {
                    stride[i] = step;
                    step *= Math.max(1, shape[i]);
                }
            }
            case ANY -> {
                long step = ELEMENT_GAP;
                for (int i = 0; i <= last; i++) {
                    stride[i] = step;
                    step *= Math.max(1, shape[i]);
                }
            }
        }
        return stride;
    }
}
