package io.gatun.ops;

import io.gatun.ops.Rope.Pairing;
import io.gatun.ops.cases.DecodeCases;
import io.gatun.ops.cases.DecodeCases.Heads;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.PagedCases.Batch;
import io.gatun.ops.cases.PagedCases.Sequence;
import io.gatun.runtime.DType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class DecodeAttentionTest {
    private static final Heads GROUPED = Heads.of(4, 2, 40);

    /// The first token, the ends of pages, an idle sequence, more than one split.
    private static final Batch MIXED = Batch.of(Sequence.of(0, 1), Sequence.of(127, 1), new Sequence(5, 1, true),
            Sequence.of(64, 1), Sequence.of(600, 1));
    private static final int ANGLES = 601;

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void decode_mixedBatch(DType dtype) {
        OpCheck.check(DecodeCases.decode(dtype, MIXED, GROUPED, ANGLES));
        OpCheck.check(DecodeCases.decode(dtype, MIXED, GROUPED.rotated(24, Pairing.HALF), ANGLES));
        OpCheck.check(DecodeCases.decode(dtype, MIXED, GROUPED.rotated(40, Pairing.INTERLEAVED), ANGLES));
        OpCheck.check(DecodeCases.decode(dtype, Batch.of(Sequence.of(0, 1)), Heads.of(1, 1, 1), 1));
    }

    @ParameterizedTest
    @ValueSource(ints = {33, 64, 80, 128, 160, 256})
    void decode_headDims(int d) {
        Batch batch = Batch.of(Sequence.of(70, 1), Sequence.of(63, 1));
        OpCheck.check(DecodeCases.decode(DType.F32, batch, Heads.of(2, 1, d), 1));
        OpCheck.check(DecodeCases.decode(DType.BF16, batch, Heads.of(2, 1, d).rotated(d / 2 * 2, Pairing.HALF), 71));
    }

    /// y, lse, pages and counters, bit by bit; the last row's position is beyond the rope table.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void decode_equalsOpsInTurn(DType dtype) {
        for (Heads heads : new Heads[] {GROUPED, GROUPED.rotated(24, Pairing.HALF),
            Heads.of(3, 1, 64).rotated(64, Pairing.HALF), Heads.of(17, 1, 18).rotated(6, Pairing.INTERLEAVED)}) {
            OpCase fused = DecodeCases.decode(dtype, MIXED, heads, ANGLES - 1);
            HostValues in = fused.values(3);
            HostValues expected = OpCheck.run(DecodeCases.inTurn(dtype, MIXED, heads, ANGLES - 1), in);
            HostValues actual = OpCheck.run(fused, in);
            for (Operand operand : fused.operands()) {
                if (operand.isWritten()) {
                    OpCheck.assertSameBits(fused + ": ", operand, expected, actual);
                }
            }
        }
    }

    @Test
    void decode_rowAlone() {
        Batch batch = Batch.of(Sequence.of(200, 1), Sequence.of(63, 1), Sequence.of(5, 1));
        OpCheck.rowAlone(DecodeCases.decode(DType.BF16, batch, GROUPED.rotated(40, Pairing.HALF), 201), "y", "lse",
                "counters", "q", "k", "v", "page_table", "positions");
    }

    @Test
    void decode_badArguments() {
        OpCase opCase = DecodeCases.decode(DType.F32, MIXED, GROUPED.rotated(24, Pairing.HALF), ANGLES);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "v_pages", DType.F32, new int[] {1, 2, 64, 40}, "v_pages");
        BadArguments.refuses(opCase, "counters", DType.I32, new int[] {5, 4}, "counters");
        BadArguments.refuses(opCase, "page_table", DType.I32, new int[] {4, 10}, "page_table");
        BadArguments.refuses(opCase, "rope_table", DType.F32, new int[] {ANGLES, 2, 21}, "rope_table");
    }
}
