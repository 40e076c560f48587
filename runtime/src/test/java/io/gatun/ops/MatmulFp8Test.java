package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.Fp8Cases;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Does [io.gatun.runtime.Device#matmulFp8] give the product, whichever of our kernel and the vendor's library does the
/// work?
@Tag("device")
class MatmulFp8Test {
    /// The library's where there is one: 16-byte rows; few rows and many, of any number.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void matmulFp8_wholeRows(DType yType) {
        for (int n : new int[] {1, 16, 17, 65}) {
            OpCheck.check(Fp8Cases.matmul(yType, null, n, 48, 32));
            OpCheck.check(Fp8Cases.matmul(yType, yType, n, 16, 8));
            OpCheck.check(Fp8Cases.matmul(yType, DType.F32, n, 256, 16));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void matmulFp8_oddSizes(DType yType) {
        for (int size : new int[] {1, 3, 31, 33, 127}) {
            OpCheck.check(Fp8Cases.matmul(yType, null, 3, size, 33));
            OpCheck.check(Fp8Cases.matmul(yType, yType, 17, 33, size));
            OpCheck.check(Fp8Cases.matmul(yType, DType.F32, size, 32, 7));
        }
    }

    /// A sum of no terms is the bias; no rows and no columns are no work.
    @Test
    void matmulFp8_emptyDimensions() {
        OpCheck.check(Fp8Cases.matmul(DType.BF16, DType.BF16, 3, 0, 16));
        OpCheck.check(Fp8Cases.matmul(DType.BF16, DType.BF16, 0, 16, 16));
        OpCheck.check(Fp8Cases.matmul(DType.BF16, DType.BF16, 3, 16, 0));
    }

    @ParameterizedTest
    @ValueSource(ints = {48, 33})
    void matmulFp8_rowHasTheSameBitsForAnyN(int c) {
        int f = 32;
        Fill sameRows = (random, i) -> 100 * Math.sin(i % c);
        HostValues one = run(1, c, f, sameRows);
        for (int n : new int[] {2, 9, 64, 130}) {
            HostValues all = run(n, c, f, sameRows);
            for (int i = 0; i < n * f; i++) {
                assertEquals(one.floats("y")[i % f], all.floats("y")[i],
                        "matmulFp8 on %s, N=%d C=%d: y[%d, %d], expected as with N = 1".formatted(TestDevice.name(), n,
                                c, i / f, i % f));
            }
        }
    }

    private static HostValues run(int n, int c, int f, Fill rows) {
        OpCase opCase = Fp8Cases.matmul(DType.F32, null, n, c, f).with("x", rows, "").with("x_scale",
                (random, i) -> 0.01, "");
        return OpCheck.run(opCase, opCase.values(1));
    }

    /// In the words of the kernel that takes what no library does.
    @Test
    void matmulFp8_badArguments() {
        for (int c : new int[] {5, 32}) {
            OpCase m = Fp8Cases.matmul(DType.BF16, DType.BF16, 3, c, 16);
            OpCase opCase = new OpCase("linear_fp8", m.dtype(), m.sizes(), m.operands(), m.aliases(), m.call(),
                    m.workspace(), m.reference(), m.accuracy(), m.flops());
            BadArguments.check(opCase);
            BadArguments.refuses(opCase, "x", DType.BF16, new int[] {3, c}, "x");
            BadArguments.refuses(opCase, "weight", DType.F8_E4M3, new int[] {16, c + 16}, "weight");
            BadArguments.refuses(opCase, "weight", DType.BF16, new int[] {16, c}, "weight");
            BadArguments.refuses(opCase, "x_scale", DType.F32, new int[] {4}, "x_scale");
            BadArguments.refuses(opCase, "weight_scale", DType.F32, new int[] {15}, "weight_scale");
            BadArguments.refuses(opCase, "bias", DType.F16, new int[] {16}, "bias");
        }
    }
}
