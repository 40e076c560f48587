package io.gatun.ops;

import io.gatun.ops.Rope.Pairing;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.RopeCases;
import io.gatun.runtime.DType;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class RopeTest {
    @Test
    void table_oddSizes() {
        for (int half : new int[] {1, 3, 31, 33, 64, 127}) {
            OpCheck.check(RopeCases.table(5, half, 0, 1));
            OpCheck.check(RopeCases.table(3, half, 1000, 0.7f));
        }
        OpCheck.check(RopeCases.table(257, 64, 0, 1));
    }

    /// Angles of many turns.
    @Test
    void table_longContext() {
        OpCheck.check(RopeCases.table(33, 64, 131_000, 1));
        OpCheck.check(RopeCases.table(33, 64, 10_000_000, 1));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void rope_oddSizes(DType dtype) {
        for (Pairing pairing : Pairing.values()) {
            for (int d : new int[] {2, 4, 6, 33, 64, 80, 128, 257}) {
                int r = d / 2 * 2;
                OpCheck.check(RopeCases.rope(dtype, 3, d, r, pairing, 9, 0, 8, 3, 3, 1));
                OpCheck.check(RopeCases.rope(dtype, 1, d + 3, r, pairing, 9, 5));
            }
            OpCheck.check(RopeCases.rope(dtype, 2, 8, 8, pairing, 9));
            OpCheck.check(RopeCases.rope(dtype, 7, 64, 64, pairing, 300, IntStream.range(0, 257).toArray()));
        }
    }

    @ParameterizedTest
    @EnumSource(Pairing.class)
    void rope_positionOutsideTheTable(Pairing pairing) {
        OpCheck.check(RopeCases.rope(DType.F32, 3, 40, 32, pairing, 9, 2, -1, 9, Integer.MAX_VALUE, Integer.MIN_VALUE));
    }

    @ParameterizedTest
    @EnumSource(Pairing.class)
    void rope_specialValues(Pairing pairing) {
        OpCheck.check(RopeCases.rope(DType.F32, 3, 33, 32, pairing, 9, 2, 4).with("x", Fill.normal(1).withSpecials(),
                "specials"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void ropeBackward_oddSizes(DType dtype) {
        for (Pairing pairing : Pairing.values()) {
            for (int d : new int[] {2, 6, 33, 64, 80}) {
                int r = d / 2 * 2;
                OpCheck.check(RopeCases.ropeBackward(dtype, 3, d, r, pairing, 9, 0, 8, 3, 3, 1));
                OpCheck.check(RopeCases.ropeBackward(dtype, 1, d + 3, r, pairing, 9, 5));
            }
            OpCheck.check(RopeCases.ropeBackward(dtype, 2, 8, 8, pairing, 9));
        }
    }

    @ParameterizedTest
    @EnumSource(Pairing.class)
    void ropeBackward_positionOutsideTheTable(Pairing pairing) {
        OpCheck.check(RopeCases.ropeBackward(DType.F32, 3, 40, 32, pairing, 9, 2, -1, 9, Integer.MAX_VALUE,
                Integer.MIN_VALUE));
    }

    @Test
    void ropeBackward_badArguments() {
        OpCase opCase = RopeCases.ropeBackward(DType.BF16, 3, 8, 8, Pairing.HALF, 9, 0, 1);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "table", DType.F32, new int[] {9, 2, 5}, "table");
        BadArguments.refuses(opCase, "dx", DType.BF16, new int[] {2, 3, 7}, "dx");
    }

    @Test
    void rope_rowAlone() {
        OpCheck.rowAlone(RopeCases.rope(DType.F32, 3, 66, 64, Pairing.HALF, 9, 0, 8, 3, 3, 1), "y", "x", "positions");
    }

    @Test
    void table_badArguments() {
        OpCase opCase = RopeCases.table(3, 4, 0, 1);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "table", DType.F32, new int[] {3, 3, 4}, "table");
    }

    @Test
    void rope_badArguments() {
        OpCase opCase = RopeCases.rope(DType.BF16, 3, 8, 8, Pairing.HALF, 9, 0, 1);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "table", DType.F32, new int[] {9, 2, 5}, "table");
        BadArguments.refuses(opCase, "positions", DType.I32, new int[] {3}, "positions");
    }
}
