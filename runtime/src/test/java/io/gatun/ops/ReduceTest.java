package io.gatun.ops;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.ReduceCases;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class ReduceTest {
    /// B, S, C: odd, empty, of several chunks of rows, of several tiles of columns.
    private static final int[][] SIZES = {{1, 1, 1}, {1, 3, 31}, {2, 31, 33}, {1, 65, 127}, {3, 129, 5}, {1, 257, 257},
        {1, 0, 3}, {2, 4, 0}, {0, 4, 3}, {1, 6, 1030}, {1, 1000, 3}};

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void sumRows_oddSizes(DType dtype) {
        for (int[] size : SIZES) {
            OpCheck.check(ReduceCases.sumRows(dtype, DType.F32, size[0], size[1], size[2], false));
            OpCheck.check(ReduceCases.sumRows(dtype, dtype, size[0], size[1], size[2], true));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void sumRows_specialValues(DType dtype) {
        for (String operand : new String[] {"a", "b"}) {
            OpCheck.check(ReduceCases.sumRows(dtype, DType.F32, 2, 7, 33, true).with(operand,
                    Fill.normal(1).withSpecials(), "specials in " + operand));
        }
    }

    @Test
    void sumRows_sameBitsThirtyTimes() {
        OpCase opCase = ReduceCases.sumRows(DType.BF16, DType.F32, 1, 257, 257, false);
        HostValues in = opCase.values(3);
        HostValues first = OpCheck.run(opCase, in);
        for (int i = 1; i < 30; i++) {
            OpCheck.assertSameBits("run " + i + ": ", opCase.operands().getFirst(), first, OpCheck.run(opCase, in));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void sum_oddSizes(DType dtype) {
        for (int n : new int[] {0, 1, 3, 31, 33, 127, 257, 1000, 4097, 40003}) {
            OpCheck.check(ReduceCases.sum(dtype, n));
        }
        OpCheck.check(ReduceCases.sum(dtype, 257).with("x", Fill.normal(1).withSpecials(), "specials"));
    }

    @Test
    void sum_badArguments() {
        BadArguments.check(ReduceCases.sum(DType.BF16, 5), "x");
        BadArguments.check(ReduceCases.sumRows(DType.BF16, DType.F32, 2, 3, 5, true));
    }
}
