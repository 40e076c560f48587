package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.LanguageModel.Options;
import io.gatun.models.Forward;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Does each setting of a generation do what it says, and does the result say how it ended?
@Tag("device")
class SettingsTest {
    private static final int STEPS = 24;
    private static final int[] PROMPT = GoldenCase.GPT2.prompts()[0];
    /// Ids that the model chooses greedily.
    private static final int[] FREE = GoldenCase.GPT2.ids("greedy_tokens")[0];

    @TempDir
    private static Path directory;

    private static LanguageModel model;

    @BeforeAll
    static void load() {
        model = LanguageModel.load(TwoLetterTokenizer.install(GoldenCase.GPT2, directory),
                Options.defaults().withDevice(TestDevice.NAME).withThreads(2).withMaxBatch(4));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    private static GenerationConfig.Builder settings() {
        return GenerationConfig.builder().maxNewTokens(STEPS).ignoreEos(true);
    }

    private static GenerationResult generate(GenerationConfig.Builder settings) {
        return model.generate(PROMPT, settings.build());
    }

    @Test
    void maxNewTokens_ends() {
        GenerationResult result = generate(settings().maxNewTokens(7));
        assertArrayEquals(Arrays.copyOf(FREE, 7), result.ids());
        assertEquals(TwoLetterTokenizer.text(Arrays.copyOf(FREE, 7)), result.text());
        assertEquals(FinishReason.LENGTH, result.finishReason());
        assertEquals(PROMPT.length, result.promptTokens());
        assertEquals(0, result.score());
        assertEquals(List.of(), result.logprobs());
        assertEquals(6, result.timings().steps());
        assertTrue(result.timings().tokensPerSecond() > 0);
        assertTrue(result.timings().prefill().isPositive());
    }

    /// Half of one token and half of the next; every place in the text where it could end.
    @Test
    void stopStrings_acrossTokens() {
        String free = TwoLetterTokenizer.text(FREE);
        for (int at = 0; at + 3 <= free.length(); at++) {
            String stop = free.substring(at, at + 3);
            int first = free.indexOf(stop);
            GenerationResult result = generate(settings().stopStrings("zz", stop));
            assertEquals(free.substring(0, first), result.text(), "stop " + stop);
            assertEquals(FinishReason.STOP, result.finishReason());
            assertArrayEquals(Arrays.copyOf(FREE, (first + 3 + 1) / 2), result.ids(), "stop " + stop);
        }
    }

    /// A stop string that begins and does not come is text like any other.
    @Test
    void stopStrings_notCompleted() {
        String free = TwoLetterTokenizer.text(FREE);
        GenerationResult result = generate(settings().stopStrings(free.substring(free.length() - 1) + "z", "zz"));
        assertEquals(free, result.text());
        assertEquals(FinishReason.LENGTH, result.finishReason());
    }

    /// Every sequence of a batch ends at its own place.
    @Test
    void stopStrings_inBatch() {
        List<int[]> prompts = List.of(PROMPT, GoldenCase.GPT2.prompts()[1], new int[] {3});
        String stop = TwoLetterTokenizer.text(FREE[4]);
        List<GenerationResult> together = model.generateAll(prompts, settings().stopStrings(stop).build());
        for (int i = 0; i < prompts.size(); i++) {
            GenerationResult alone = model.generate(prompts.get(i), settings().stopStrings(stop).build());
            assertArrayEquals(alone.ids(), together.get(i).ids());
            assertEquals(alone.text(), together.get(i).text());
            assertEquals(alone.finishReason(), together.get(i).finishReason());
        }
        assertEquals(FinishReason.STOP, together.getFirst().finishReason());
    }

    @Test
    void eosIds_list() {
        int firstOf = Math.min(firstAt(FREE[5]), firstAt(FREE[9]));
        GenerationResult result = generate(settings().ignoreEos(false).eosIds(List.of(FREE[9], 400, FREE[5])));
        assertArrayEquals(Arrays.copyOf(FREE, firstOf + 1), result.ids());
        assertEquals(FinishReason.STOP, result.finishReason());
        GenerationResult ignored = generate(settings().eosIds(List.of(FREE[9], FREE[5])));
        assertArrayEquals(FREE, ignored.ids());
    }

    private static int firstAt(int id) {
        return IntStream.range(0, FREE.length).filter(i -> FREE[i] == id).findFirst().orElseThrow();
    }

    /// generation_config.json may hold a list, and is asked before config.json.
    @Test
    void eosIds_ofTheModel(@TempDir Path other) {
        ModelDirectory gpt2 = ModelDirectory.of(GoldenCase.GPT2);
        gpt2.config().put("eos_token_id", FREE[1]);
        gpt2.write(other);
        GenerationConfig config = GenerationConfig.builder().maxNewTokens(STEPS).build();
        try (LanguageModel own = Small.load(other)) {
            assertArrayEquals(Arrays.copyOf(FREE, firstAt(FREE[1]) + 1), own.generate(PROMPT, config).ids());
        }
        ModelDirectory.writeText(other.resolve("generation_config.json"), "{\"eos_token_id\": [300, " + FREE[8] + "]}");
        try (LanguageModel own = Small.load(other)) {
            assertArrayEquals(Arrays.copyOf(FREE, firstAt(FREE[8]) + 1), own.generate(PROMPT, config).ids());
        }
    }

    @Test
    void minNewTokens_forbidsEnd() {
        int eos = FREE[0];
        assertArrayEquals(new int[] {eos}, generate(settings().ignoreEos(false).eosIds(List.of(eos))).ids());
        GenerationResult result = generate(settings().ignoreEos(false).eosIds(List.of(eos)).minNewTokens(10));
        assertTrue(result.ids().length >= 10);
        assertFalse(IntStream.of(result.ids()).limit(10).anyMatch(id -> id == eos));
    }

    @Test
    void forcedEos_isLast() {
        GenerationResult result = generate(settings().maxNewTokens(5).forcedEos(77));
        assertArrayEquals(new int[] {FREE[0], FREE[1], FREE[2], FREE[3], 77}, result.ids());
        assertEquals(FinishReason.STOP, generate(settings().maxNewTokens(5).ignoreEos(false).eosIds(List.of(77))
                .forcedEos(77)).finishReason());
    }

    @Test
    void badWords_areNotGenerated() {
        int[] pair = {FREE[2], FREE[3]};
        GenerationResult result = generate(settings().badWords(List.of(new int[] {FREE[0]}, pair)));
        assertFalse(IntStream.of(result.ids()).anyMatch(id -> id == FREE[0]));
        GenerationResult other = generate(settings().badWords(List.of(pair)));
        assertArrayEquals(Arrays.copyOf(FREE, 3), Arrays.copyOf(other.ids(), 3));
        assertFalse(other.ids()[3] == FREE[3]);
    }

    @Test
    void noRepeatNgramSize_holds() {
        Set<String> seen = new HashSet<>();
        int[] ids = generate(settings().noRepeatNgramSize(2).maxNewTokens(47)).ids();
        int[] all = IntStream.concat(IntStream.of(PROMPT), IntStream.of(ids)).toArray();
        assertEquals(47, ids.length);
        for (int i = PROMPT.length - 1; i + 1 < all.length; i++) {
            assertTrue(seen.add(all[i] + "," + all[i + 1]), "at " + i);
        }
    }

    /// Against log-softmax of the model's own logits, also where a penalty changes the choice.
    @Test
    void logprobs_ofTheModel() {
        for (float penalty : new float[] {1, 1.5f}) {
            GenerationResult result = generate(settings().logprobs(3).repetitionPenalty(penalty));
            int[] all = IntStream.concat(IntStream.of(PROMPT), IntStream.of(result.ids())).toArray();
            float[] logits = Forward.logits(GoldenCase.GPT2.model(), all);
            int v = logits.length / all.length;
            assertEquals(STEPS, result.logprobs().size());
            for (int i = 0; i < STEPS; i++) {
                int at = (PROMPT.length - 1 + i) * v;
                double[] expected = LogitsProcessors.logSoftmax(Arrays.copyOfRange(logits, at, at + v));
                TokenLogprob actual = result.logprobs().get(i);
                assertEquals(result.ids()[i], actual.id());
                assertEquals(expected[actual.id()], actual.logprob(), GoldenCase.GPT2.tolerance());
                assertEquals(3, actual.top().size());
                for (TokenLogprob.Alternative alternative : actual.top()) {
                    assertEquals(expected[alternative.id()], alternative.logprob(), GoldenCase.GPT2.tolerance());
                }
                assertTrue(penalty != 1 || actual.top().getFirst().id() == actual.id());
            }
        }
        assertEquals(0, generate(settings().logprobs(0)).logprobs().getFirst().top().size());
    }

    /// top-k 1 is greedy whatever the temperature; so is a very small temperature.
    @Test
    void sampling_degenerate() {
        assertArrayEquals(FREE, generate(settings().temperature(2).topK(1).seed(3)).ids());
        assertArrayEquals(FREE, generate(settings().temperature(1e-4f).seed(3)).ids());
        assertArrayEquals(FREE, generate(settings().temperature(1.5f).topP(1e-6f).seed(3)).ids());
        assertArrayEquals(FREE, generate(settings().temperature(1.5f).minP(1).seed(3)).ids());
    }

    /// Every word is bad: an error that says so, and the next request works.
    @Test
    void badWords_all() {
        List<int[]> all = IntStream.range(0, model.config().vocabSize()).mapToObj(id -> new int[] {id}).toList();
        GatunException e = assertThrows(GatunException.class, () -> generate(settings().badWords(all)));
        assertTrue(e.getMessage().contains("generation failed"), e.getMessage());
        assertArrayEquals(FREE, generate(settings()).ids());
    }

    @Test
    void generate_refuses() {
        assertInvalid("no prompts", () -> model.generateAll(List.of(), settings().build()));
        assertInvalid("the prompt has no tokens", () -> model.generate(new int[0], settings().build()));
        assertInvalid("the prompt has 65 tokens", () -> model.generate(new int[65], settings().build()));
        assertInvalid("bad-words: id 257", () -> generate(settings().badWords(List.of(new int[] {257}))));
        assertInvalid("forced end token is 257", () -> generate(settings().forcedEos(257)));
        assertInvalid("expected 1 to stream", () -> model.stream(PROMPT, settings().numBeams(2).build()));
    }

    private static void assertInvalid(String part, org.junit.jupiter.api.function.Executable call) {
        GatunException e = assertThrows(GatunException.class, call);
        assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        assertTrue(e.getMessage().contains(part), e.getMessage());
    }
}
