package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.Sampling.Fault;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.Philox;
import io.gatun.ops.cases.SamplingCases;
import io.gatun.ops.cases.SamplingCases.Params;
import io.gatun.runtime.DType;
import java.util.Arrays;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class SamplingTest {
    private static final double INF = Double.POSITIVE_INFINITY;
    /// Every setting alone, then together.
    private static final Params[] SETTINGS = {Params.PLAIN, Params.GREEDY, Params.temperature(0.7),
        Params.temperature(1.9), Params.topK(1), Params.topK(5), Params.topK(100_000), Params.topP(0.5),
        Params.topP(0.95), Params.topP(0), Params.minP(0.1), Params.repetition(1.3), Params.repetition(0.8),
        new Params(1, 0, 1, 0, 1, 0.6, 0), new Params(1, 0, 1, 0, 1, 0, 0.3),
        new Params(0.8, 20, 0.85, 0.02, 1.2, 0.4, 0.2), new Params(0, 20, 0.85, 0.02, 1.2, 0.4, 0.2)};

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void argmax_oddSizes(DType dtype) {
        for (int v : new int[] {1, 3, 31, 33, 127, 257, 1000, 50257}) {
            OpCheck.check(SamplingCases.argmax(dtype, 3, v));
        }
        OpCheck.check(SamplingCases.argmax(dtype, 0, 5));
        OpCheck.rowAlone(SamplingCases.argmax(dtype, 9, 257), "ids", "logits");
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void argmax_tiesGoToTheLowestId(DType dtype) {
        OpCheck.check(SamplingCases.argmax(dtype, 5, 257).with("logits", Fill.integers(-3, 3), "ties"));
        OpCheck.check(SamplingCases.argmax(dtype, 2, 33).with("logits", Fill.constant(-INF), "all -inf"));
        OpCheck.check(SamplingCases.argmax(dtype, 3, 33).with("logits", Fill.normal(1).with(40, 1000, Double.NaN),
                "a NaN"));
        OpCheck.check(SamplingCases.argmax(dtype, 3, 33).with("logits", Fill.normal(1).with(40, 1000, INF), "an inf"));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 3, 31, 33, 127, 257, 1000, 5003})
    void processLogits_everySetting(int v) {
        OpCheck.check(SamplingCases.processLogits(v, 40, SETTINGS));
    }

    /// More ids than are penalised in one window, and than a thread's share.
    @Test
    void processLogits_largeVocabulary() {
        OpCheck.check(SamplingCases.processLogits(50257, 300, SETTINGS[15], SETTINGS[8], SETTINGS[5]));
    }

    /// Where the cut falls among equals, the lowest ids stay.
    @Test
    void processLogits_tiesKeepTheLowestIds() {
        OpCase opCase = SamplingCases.processLogits(257, 3, Params.topK(1), Params.topK(50), Params.topK(200),
                Params.topP(0.4), Params.topP(0.9), Params.minP(0.3));
        OpCheck.check(opCase.with("logits", Fill.constant(1.5), "equal"));
        OpCheck.check(opCase.with("logits", Fill.integers(0, 3), "ties"));
    }

    @Test
    void processLogits_removedLogitsStayRemoved() {
        OpCheck.check(SamplingCases.processLogits(127, 9, SETTINGS).with("logits",
                Fill.normal(3).with(0, 3, -INF), "some -inf"));
    }

    @Test
    void processLogits_repeatedIdsCountOnce() {
        OpCheck.check(SamplingCases.processLogits(33, 40, SETTINGS).with("tokens", Fill.integers(0, 3), "repeated"));
    }

    @Test
    void processLogits_idleRowsAreUntouched() {
        OpCheck.check(SamplingCases.processLogits(33, 8, SETTINGS).with("lengths", Fill.values(-4, 0, 4), "idle"));
    }

    @Test
    void processLogits_rowAlone() {
        OpCheck.rowAlone(SamplingCases.processLogits(1000, 40, SETTINGS), "logits", "tokens", "lengths",
                "prompt_lengths", "params");
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 3, 31, 33, 127, 257, 1000, 5003})
    void sample_everySetting(int v) {
        OpCheck.check(SamplingCases.sample(v, 40, 1234, SETTINGS));
        OpCheck.check(SamplingCases.sample(v, 3, -1, Params.PLAIN));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 33, 257, 5003})
    void choose_everySetting(int v) {
        OpCase opCase = SamplingCases.choose(v, 40, 1234, SETTINGS);
        OpCheck.check(opCase);
        OpCheck.check(opCase.with("lengths", Fill.values(-4, 0, 20, 40), "idle and full"));
    }

    /// A few rows, each of which has several blocks on CUDA, greedy ones among them.
    @ParameterizedTest
    @ValueSource(ints = {1, 257, 1000, 5003})
    void choose_greedyRowsOfSeveralBlocks(int v) {
        Params penalised = new Params(0, 0, 1, 0, 1.2, 0.4, 0.25);
        OpCase opCase = SamplingCases.choose(v, 40, 1, Params.GREEDY, Params.PLAIN, Params.GREEDY, penalised,
                Params.GREEDY, Params.GREEDY, Params.GREEDY);
        OpCheck.check(opCase);
        OpCheck.check(opCase.with("logits", Fill.integers(-3, 3), "ties"));
        Fill faulty = (random, i) -> switch (i / v) {
            case 0 -> i % v == v - 1 ? Double.NaN : 1;
            case 2 -> -INF;
            case 4 -> i % v == v - 1 ? INF : -INF;
            default -> -(i % v);
        };
        OpCheck.check(opCase.with("logits", faulty, "faulty").with("lengths", Fill.values(20, 20, 20, 20, 39, 40, -4),
                ""));
    }

    @Test
    void sample_greedyTiesGoToTheLowestId() {
        OpCheck.check(SamplingCases.sample(257, 9, 1, Params.GREEDY, Params.GREEDY, Params.GREEDY).with("logits",
                Fill.integers(-3, 3), "ties"));
    }

    /// Only ids that are left can be drawn.
    @Test
    void sample_removedLogits() {
        OpCheck.check(SamplingCases.sample(257, 9, 3, SETTINGS).with("logits", Fill.normal(1).with(0, 2, -INF),
                "every other"));
        OpCase last = SamplingCases.sample(257, 9, 3, SETTINGS).with("logits",
                (random, i) -> i % 257 == 256 ? 0 : -INF, "the last alone");
        OpCheck.check(last);
    }

    @Test
    void sample_faults() {
        Fill faulty = (random, i) -> switch (i / 33) {
            case 0 -> i == 20 ? Double.NaN : 1;
            case 1 -> -INF;
            default -> i % 33;
        };
        OpCase opCase = SamplingCases.sample(33, 8, 1, Params.PLAIN, Params.GREEDY, Params.GREEDY, Params.PLAIN)
                .with("logits", faulty, "faulty").with("lengths", Fill.values(4, 4, 8, 7), "");
        OpCheck.check(opCase);
        HostValues out = OpCheck.run(opCase, opCase.values(1));
        Fault[] expected = {Fault.NAN, Fault.NO_TOKEN, Fault.FULL};
        for (int b = 0; b < expected.length; b++) {
            assertEquals(expected[b], Fault.of((int) out.longs("record")[b]), opCase + " record[" + b + "]");
        }
        assertArrayEquals(new long[] {-4, -4, -8, 8}, out.longs("lengths"), opCase + " lengths");
        assertArrayEquals(new long[] {-1, -1, -1}, Arrays.copyOf(out.longs("ids"), 3), opCase + " ids");
    }

    @Test
    void sample_idleRowsAreUntouched() {
        OpCase opCase = SamplingCases.sample(33, 8, 1, SETTINGS);
        OpCheck.check(opCase.with("lengths", Fill.values(-4, 0, 4), "idle"));
        OpCheck.check(opCase.with("positions", Fill.values(-1, 0, 4), "idle"));
    }

    /// A draw depends on seed, sequence and step, not on the batch it is made in.
    @Test
    void sample_anyBatchSplit() {
        OpCase opCase = SamplingCases.sample(1000, 40, 77, SETTINGS);
        OpCheck.rowAlone(opCase, opCase.operands().stream().map(Operand::name).toArray(String[]::new));
    }

    @Test
    void sample_keyedBySeedSequenceAndStep() {
        OpCase opCase = SamplingCases.sample(5003, 40, 77, Params.PLAIN, Params.PLAIN).with("logits", Fill.constant(0),
                "flat");
        long[] first = OpCheck.run(opCase, opCase.values(1)).longs("ids");
        OpCase nextStep = opCase.with("lengths", Fill.constant(21), "");
        OpCase otherSeed = opCase.with("seeds", Fill.values(78, 0, 78, 1), "");
        OpCase sameRows = opCase.with("seeds", Fill.values(77, 0, 77, 0), "");
        assertTrue(first[0] != first[1], "sequences 0 and 1 draw " + first[0]);
        assertTrue(OpCheck.run(nextStep, nextStep.values(1)).longs("ids")[0] != first[0], "the next step draws alike");
        assertTrue(OpCheck.run(otherSeed, otherSeed.values(1)).longs("ids")[0] != first[0], "seed 78 draws alike");
        long[] same = OpCheck.run(sameRows, sameRows.values(1)).longs("ids");
        assertEquals(first[0], same[0], "same key");
        assertEquals(first[0], same[1], "same key in another row");
        // step = length - prompt length = 20 - 13: flat logits make the id visible in the uniform
        assertEquals((long) Math.ceil(Philox.uniform(77, 0, 20 - 13, 0) * 5003) - 1, first[0], "id of the uniform");
    }

    /// 4096 sequences draw one id each; the chance of a chi-square above 24.3 with 7 degrees of freedom is 0.001.
    @Test
    void sample_frequenciesFollowTheProbabilities() {
        int draws = 4096;
        int v = 8;
        Params[] params = IntStream.range(0, draws).mapToObj(i -> Params.PLAIN).toArray(Params[]::new);
        OpCase opCase = SamplingCases.sample(v, 4, 2024, params).with("logits", (random, i) -> i % v * 0.4, "ramp");
        long[] ids = OpCheck.run(opCase, opCase.values(1)).longs("ids");
        double total = IntStream.range(0, v).mapToDouble(i -> Math.exp(i * 0.4)).sum();
        double chiSquare = 0;
        for (int i = 0; i < v; i++) {
            int id = i;
            double expected = draws * Math.exp(i * 0.4) / total;
            double found = Arrays.stream(ids).filter(x -> x == id).count();
            chiSquare += (found - expected) * (found - expected) / expected;
        }
        assertTrue(chiSquare < 24.3, "chi-square " + chiSquare);
    }

    /// The vectors that the authors publish with their implementation.
    @Test
    void philox_knownAnswers() {
        assertArrayEquals(new int[] {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                Philox.words(new int[4], new int[2]));
        assertArrayEquals(new int[] {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                Philox.words(new int[] {-1, -1, -1, -1}, new int[] {-1, -1}));
        assertArrayEquals(new int[] {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
                Philox.words(new int[] {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                        new int[] {0xa4093822, 0x299f31d0}));
    }

    @Test
    void argmax_badArguments() {
        OpCase opCase = SamplingCases.argmax(DType.BF16, 3, 5);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "ids", DType.I64, new int[] {3}, "ids");
        BadArguments.refuses(opCase, "logits", DType.BF16, new int[] {3, 0}, "logits");
    }

    @Test
    void processLogits_badArguments() {
        OpCase opCase = SamplingCases.processLogits(5, 8, Params.PLAIN, Params.GREEDY);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "params", DType.F32, new int[] {2, 7}, "params");
        BadArguments.refuses(opCase, "logits", DType.BF16, new int[] {2, 5}, "logits");
    }

    @Test
    void sample_badArguments() {
        OpCase opCase = SamplingCases.sample(5, 8, 1, Params.PLAIN, Params.GREEDY);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "seeds", DType.I64, new int[] {2}, "seeds");
        BadArguments.refuses(opCase, "record", DType.I32, new int[] {3}, "record");
    }
}
