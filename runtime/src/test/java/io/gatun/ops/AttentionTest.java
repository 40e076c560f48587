package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.Attention.Mask;
import io.gatun.ops.cases.AttentionCases;
import io.gatun.ops.cases.AttentionCases.Dims;
import io.gatun.ops.cases.AttentionCases.Part;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import java.util.EnumSet;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class AttentionTest {
    private static final Set<Part> LSE = EnumSet.of(Part.LSE);

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void attention_oddSizes(DType dtype) {
        for (Mask mask : Mask.values()) {
            OpCheck.check(AttentionCases.dense(dtype, new Dims(1, 1, 1, 1, 1, 1), mask, LSE));
            OpCheck.check(AttentionCases.dense(dtype, new Dims(2, 3, 31, 3, 1, 33), mask, LSE));
            OpCheck.check(AttentionCases.dense(dtype, new Dims(1, 33, 33, 2, 2, 20), mask, Set.of()));
            OpCheck.check(AttentionCases.dense(dtype, new Dims(1, 5, 127, 4, 2, 16), mask, LSE));
            OpCheck.check(AttentionCases.dense(dtype, new Dims(1, 65, 64, 2, 1, 3), mask, LSE));
            OpCheck.check(AttentionCases.dense(dtype, new Dims(1, 2, 257, 8, 2, 64), mask, LSE));
            OpCheck.check(AttentionCases.dense(dtype, new Dims(1, 1, 1000, 2, 1, 8), mask, LSE));
            OpCheck.check(AttentionCases.dense(dtype, new Dims(0, 3, 3, 2, 1, 8), mask, LSE));
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 40, 64, 72, 80, 88, 96, 128, 160, 256, 511, 512})
    void attention_headDims(int d) {
        OpCheck.check(AttentionCases.dense(DType.F32, new Dims(1, 7, 70, 2, 1, d), Mask.CAUSAL, LSE));
        OpCheck.check(AttentionCases.dense(DType.BF16, new Dims(1, 3, 33, 2, 1, d), Mask.NONE, LSE));
    }

    /// More than one tile of queries and several of keys, for each width that a kernel has.
    @ParameterizedTest
    @ValueSource(ints = {64, 96, 128, 256})
    void attention_severalTiles(int d) {
        OpCheck.check(AttentionCases.dense(DType.BF16, new Dims(1, 140, 270, 4, 2, d), Mask.CAUSAL, LSE));
        OpCheck.check(AttentionCases.dense(DType.F16, new Dims(2, 5, 300, 4, 1, d), Mask.NONE,
                EnumSet.of(Part.LSE, Part.KEY_LENGTHS)));
    }

    /// More heads than a GPU has multiprocessors, all with the same rows: whichever block takes a head, and after which
    /// other one, it has the same bits.
    @Test
    void attention_headsAlike() {
        int t = 5;
        int heads = 136;
        int d = 64;
        Fill alike = (random, i) -> Math.sin(1 + i % d + d * (i / d / heads));
        OpCase many = AttentionCases.dense(DType.BF16, new Dims(1, t, t, heads, heads, d), Mask.CAUSAL, Set.of())
                .with("q", alike, "").with("k", alike, "").with("v", alike, "");
        float[] actual = OpCheck.run(many, many.values(1)).floats("y");
        for (int i = 0; i < actual.length; i++) {
            int first = i / d / heads * heads * d + i % d;
            assertEquals(actual[first], actual[i], "%s: y[0, %d, %d, %d]".formatted(many, i / d / heads, i / d % heads,
                    i % d));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void attention_biasAndKeyLengths(DType dtype) {
        Dims dims = new Dims(3, 9, 67, 4, 2, 24);
        for (Mask mask : Mask.values()) {
            OpCheck.check(AttentionCases.dense(dtype, dims, mask, EnumSet.of(Part.LSE, Part.BIAS)));
            OpCheck.check(AttentionCases.dense(dtype, dims, mask, EnumSet.of(Part.SHARED_BIAS)));
            OpCheck.check(AttentionCases.dense(dtype, dims, mask, EnumSet.of(Part.LSE, Part.KEY_LENGTHS)));
            OpCheck.check(AttentionCases.dense(dtype, dims, mask,
                    EnumSet.of(Part.LSE, Part.SHARED_BIAS, Part.KEY_LENGTHS)));
        }
    }

    /// Causal with more queries than keys, and a bias of -inf: zeros and lse = -inf, never NaN.
    @Test
    void attention_rowsWithoutKeys() {
        OpCase more = AttentionCases.dense(DType.F32, new Dims(1, 7, 3, 2, 1, 8), Mask.CAUSAL, LSE);
        OpCheck.check(more);
        HostValues out = OpCheck.run(more, more.values(1));
        assertEquals(0, out.floats("y")[0], more + " y[0, 0, 0, 0]");
        assertEquals(Float.NEGATIVE_INFINITY, out.floats("lse")[0], more + " lse[0, 0, 0]");
        OpCheck.check(AttentionCases.dense(DType.F32, new Dims(2, 3, 5, 2, 1, 8), Mask.NONE,
                EnumSet.of(Part.LSE, Part.BIAS)).with("bias", Fill.constant(Double.NEGATIVE_INFINITY), "all -inf"));
        OpCheck.check(AttentionCases.dense(DType.F32, new Dims(1, 3, 0, 2, 1, 8), Mask.NONE, LSE));
    }

    /// "cat sat mat": E = 0.1 .. 1.2 row by row, `softmax(E E^T / sqrt(4)) E`, numbers by numpy in double.
    @Test
    void attention_catSatMat() {
        OpCase words = AttentionCases.dense(DType.F32, new Dims(1, 3, 3, 1, 1, 4), Mask.NONE, Set.of());
        for (String name : new String[] {"q", "k", "v"}) {
            words = words.with(name, (random, i) -> (i + 1) / 10.0, "");
        }
        double[] expected = {
            0.55298083, 0.65298083, 0.75298083, 0.85298083,
            0.63276253, 0.73276253, 0.83276253, 0.93276253,
            0.70113314, 0.80113314, 0.90113314, 1.00113314};
        float[] actual = OpCheck.run(words, words.values(1)).floats("y");
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], actual[i], 1e-6, words + " y[0, %d, 0, %d]".formatted(i / 4, i % 4));
        }
    }

    /// Scores far apart and scores that overflow exp without the running maximum.
    @Test
    void attention_largeScores() {
        Dims dims = new Dims(1, 5, 130, 2, 1, 16);
        OpCheck.check(AttentionCases.dense(DType.F32, dims, Mask.CAUSAL, LSE).with("q", Fill.normal(40), "large q"));
    }

    @Test
    void attention_nanStaysInItsQuery() {
        OpCheck.check(AttentionCases.dense(DType.F32, new Dims(1, 5, 33, 2, 1, 16), Mask.NONE, LSE)
                .with("q", Fill.normal(1).with(40, 10000, Double.NaN), "a NaN"));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16"})
    void attention_batchAlone(DType dtype) {
        OpCheck.rowAlone(AttentionCases.dense(dtype, new Dims(5, 9, 130, 4, 2, 40), Mask.CAUSAL,
                EnumSet.of(Part.LSE, Part.BIAS, Part.KEY_LENGTHS)), "y", "q", "k", "v", "lse", "bias", "key_lengths");
    }

    /// The last T query rows of a causal case are the same rows when only they are asked for.
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 17, 64})
    void attention_queryRowDoesNotDependOnTheOthers(int t) {
        int s = 150;
        int row = 4 * 40;
        Fill sameFromTheEnd = (random, i) -> Math.sin(1 + i);
        OpCase all = AttentionCases.dense(DType.F32, new Dims(1, s, s, 4, 2, 40), Mask.CAUSAL, Set.of())
                .with("q", sameFromTheEnd, "");
        OpCase last = AttentionCases.dense(DType.F32, new Dims(1, t, s, 4, 2, 40), Mask.CAUSAL, Set.of())
                .with("q", (random, i) -> Math.sin(1 + i + (s - t) * row), "");
        float[] expected = OpCheck.run(all, all.values(3)).floats("y");
        float[] actual = OpCheck.run(last, last.values(3)).floats("y");
        for (int i = 0; i < actual.length; i++) {
            assertEquals(expected[(s - t) * row + i], actual[i], "%s on cpu: y[0, %d, %d, %d]".formatted(last, i / row,
                    i / 40 % 4, i % 40));
        }
    }

    @Test
    void attention_badArguments() {
        OpCase opCase = AttentionCases.dense(DType.F32, new Dims(2, 3, 5, 4, 2, 8), Mask.CAUSAL,
                EnumSet.of(Part.LSE, Part.BIAS, Part.KEY_LENGTHS));
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "k", DType.F32, new int[] {2, 5, 3, 8}, null);
        BadArguments.refuses(opCase, "v", DType.F16, new int[] {2, 5, 2, 8}, "v");
        BadArguments.refuses(opCase, "v", DType.F32, new int[] {2, 6, 2, 8}, "v");
        BadArguments.refuses(opCase, "bias", DType.F32, new int[] {2, 3, 3, 5}, "bias");
        BadArguments.refuses(opCase, "key_lengths", DType.I32, new int[] {3}, "key_lengths");
    }

    @Test
    void attention_headDimTooLarge() {
        OpCase opCase = AttentionCases.dense(DType.F32, new Dims(1, 1, 1, 1, 1, 513), Mask.NONE, Set.of());
        BadArguments.refuses(opCase, "y", DType.F32, new int[] {1, 1, 1, 513}, "q");
    }
}
