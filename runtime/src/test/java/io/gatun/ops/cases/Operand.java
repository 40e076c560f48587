package io.gatun.ops.cases;

import io.gatun.runtime.DType;
import java.util.Arrays;

/// One tensor of a case.
///
/// @param touched elements that the op must read or write, for the bytes moved; less than all of a gathered table
public record Operand(String name, Role role, DType dtype, int[] shape, Strides strides, Fill fill, long touched) {
    public enum Role { IN, OUT, IN_OUT }

    /// Which memory layouts the op takes for this operand.
    public enum Strides {
        CONTIGUOUS,
        /// Last dimension contiguous, the others collapse to one row stride.
        ROWS,
        /// Last dimension contiguous, the others anyhow.
        OUTER,
        ANY
    }

    public int elements() {
        return Arrays.stream(shape).reduce(1, Math::multiplyExact);
    }

    public boolean isWritten() {
        return role != Role.IN;
    }

    public boolean isRead() {
        return role != Role.OUT;
    }

    /// `[1, 30]` for a row-major index.
    public String indexOf(int element) {
        int[] at = new int[shape.length];
        for (int i = shape.length - 1; i >= 0; i--) {
            at[i] = element % shape[i];
            element /= shape[i];
        }
        return name + Arrays.toString(at);
    }

    long[] longShape() {
        return Arrays.stream(shape).asLongStream().toArray();
    }

    Operand filledWith(Fill newFill) {
        return new Operand(name, role, dtype, shape, strides, newFill, touched);
    }
}
