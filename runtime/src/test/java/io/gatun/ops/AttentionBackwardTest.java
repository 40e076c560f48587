package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.Attention.Mask;
import io.gatun.ops.cases.AttentionBackwardCases;
import io.gatun.ops.cases.AttentionCases.Dims;
import io.gatun.ops.cases.AttentionCases.Part;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.runtime.DType;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class AttentionBackwardTest {
    private static final Set<Part> NOTHING = Set.of();

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void attentionBackward_oddSizes(DType dtype) {
        for (Mask mask : Mask.values()) {
            OpCheck.check(AttentionBackwardCases.afterForward(dtype, new Dims(1, 1, 1, 1, 1, 1), mask, NOTHING));
            OpCheck.check(AttentionBackwardCases.afterForward(dtype, new Dims(2, 3, 31, 3, 1, 33), mask, NOTHING));
            OpCheck.check(AttentionBackwardCases.afterForward(dtype, new Dims(1, 33, 33, 2, 2, 20), mask, NOTHING));
            OpCheck.check(AttentionBackwardCases.afterForward(dtype, new Dims(1, 5, 127, 4, 2, 16), mask, NOTHING));
            OpCheck.check(AttentionBackwardCases.afterForward(dtype, new Dims(1, 70, 65, 2, 1, 3), mask, NOTHING));
            OpCheck.check(AttentionBackwardCases.alone(dtype, new Dims(3, 17, 66, 2, 1, 64), mask, NOTHING));
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {40, 72, 96, 128, 160, 257, 512})
    void attentionBackward_headDims(int d) {
        Dims large = new Dims(1, 7, 35, 2, 1, d);
        Dims small = new Dims(1, 3, 33, 2, 1, d);
        OpCheck.check(AttentionBackwardCases.afterForward(DType.F32, large, Mask.CAUSAL, NOTHING));
        OpCheck.check(AttentionBackwardCases.afterForward(DType.BF16, small, Mask.NONE, NOTHING));
    }

    /// Several tiles of keys and of rows, the last ones in part; key lengths of all keys, none and half. Each width of
    /// Hopper's kernels.
    @ParameterizedTest
    @ValueSource(ints = {64, 96, 128})
    void attentionBackward_severalTiles(int d) {
        OpCheck.check(AttentionBackwardCases.afterForward(DType.BF16, new Dims(3, 70, 140, 2, 1, d), Mask.CAUSAL,
                EnumSet.of(Part.KEY_LENGTHS)));
    }

    /// Of each sequence and head, of a head for all sequences, and of all.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void attentionBackward_biasAndKeyLengths(DType dtype) {
        Dims dims = new Dims(3, 9, 67, 4, 2, 24);
        for (Mask mask : Mask.values()) {
            OpCheck.check(AttentionBackwardCases.afterForward(dtype, dims, mask, EnumSet.of(Part.BIAS)));
            OpCheck.check(AttentionBackwardCases.afterForward(dtype, dims, mask,
                    EnumSet.of(Part.BIAS, Part.SHARED_BIAS, Part.KEY_LENGTHS)));
            OpCheck.check(AttentionBackwardCases.afterForward(dtype, dims, mask,
                    EnumSet.of(Part.SHARED_BIAS, Part.KEY_LENGTHS)));
            OpCheck.check(AttentionBackwardCases.alone(dtype, dims, mask, EnumSet.of(Part.KEY_LENGTHS)));
        }
    }

    /// Causal with more queries than keys, a bias of -inf, no keys, no queries, no sequences: zeros, never NaN.
    @Test
    void attentionBackward_rowsWithoutKeys() {
        OpCase more = AttentionBackwardCases.afterForward(DType.F32, new Dims(1, 7, 3, 2, 1, 8), Mask.CAUSAL, NOTHING);
        OpCheck.check(more);
        assertEquals(0, OpCheck.run(more, more.values(1)).floats("dq")[0], more + " dq[0, 0, 0, 0]");
        for (Part part : new Part[] {Part.BIAS, Part.SHARED_BIAS}) {
            OpCheck.check(AttentionBackwardCases.afterForward(DType.F32, new Dims(2, 3, 5, 2, 1, 8), Mask.NONE,
                    EnumSet.of(part)).with("bias", Fill.constant(Double.NEGATIVE_INFINITY), "all -inf"));
        }
        for (Dims none : List.of(new Dims(1, 3, 0, 2, 1, 8), new Dims(1, 0, 3, 2, 1, 8), new Dims(0, 3, 3, 2, 1, 8))) {
            OpCheck.check(AttentionBackwardCases.afterForward(DType.F32, none, Mask.NONE, NOTHING));
        }
    }

    /// Scores far apart: powers of which most are zero.
    @Test
    void attentionBackward_largeScores() {
        Dims dims = new Dims(1, 5, 130, 2, 1, 16);
        OpCheck.check(AttentionBackwardCases.afterForward(DType.F32, dims, Mask.CAUSAL, NOTHING)
                .with("q", Fill.normal(5), "large q"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void attentionBackward_batchAlone(DType dtype) {
        OpCheck.rowAlone(AttentionBackwardCases.alone(dtype, new Dims(5, 9, 130, 4, 2, 40), Mask.CAUSAL,
                EnumSet.of(Part.BIAS, Part.KEY_LENGTHS)), "dq", "dk", "dv", "dbias", "dy", "y", "lse", "q", "k", "v",
                "bias", "key_lengths");
    }

    @ParameterizedTest
    @EnumSource(names = {"SHARED_BIAS", "KEY_LENGTHS"})
    void attentionBackward_thirtyRuns(Part part) {
        OpCase opCase = AttentionBackwardCases.alone(DType.BF16, new Dims(2, 33, 65, 4, 2, 16), Mask.CAUSAL,
                EnumSet.of(part));
        HostValues first = OpCheck.run(opCase, opCase.values(3));
        for (int i = 1; i < 30; i++) {
            HostValues again = OpCheck.run(opCase, opCase.values(3));
            for (Operand operand : opCase.operands()) {
                OpCheck.assertSameBits(opCase + " run " + i + ": ", operand, first, again);
            }
        }
    }

    /// A bias whose gradient nobody wants changes no bit of the others.
    @Test
    void attentionBackward_withoutBiasGradient() {
        OpCase opCase = AttentionBackwardCases.alone(DType.F32, new Dims(2, 9, 35, 2, 1, 16), Mask.CAUSAL,
                EnumSet.of(Part.SHARED_BIAS));
        HostValues with = OpCheck.run(opCase, opCase.values(3));
        HostValues without = OpCheck.run(opCase, opCase.values(3), "dbias");
        for (Operand operand : opCase.operands()) {
            if (!operand.name().equals("dbias")) {
                OpCheck.assertSameBits(opCase + " without dbias: ", operand, with, without);
            }
        }
    }

    @Test
    void attentionBackward_badArguments() {
        OpCase opCase = AttentionBackwardCases.alone(DType.F32, new Dims(2, 3, 5, 4, 2, 8), Mask.CAUSAL,
                EnumSet.of(Part.BIAS, Part.KEY_LENGTHS));
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "dv", DType.F16, new int[] {2, 5, 2, 8}, "dv");
        BadArguments.refuses(opCase, "dk", DType.F32, new int[] {2, 6, 2, 8}, "dk");
        BadArguments.refuses(opCase, "dbias", DType.F32, new int[] {1, 4, 3, 5}, "dbias");
        BadArguments.refuses(opCase, "lse", DType.F32, new int[] {2, 3, 4}, "lse");
    }
}
