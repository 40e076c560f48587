package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.LanguageModel.Options;
import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.GatunException.Status;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Does a stream give the tokens as they come, in all the same as the result, and end when told to?
@Tag("device")
class StreamingTest {
    private static final int[] PROMPT = GoldenCase.LLAMA.prompts()[0];

    private static GenerationConfig.Builder settings() {
        return GenerationConfig.builder().maxNewTokens(200).ignoreEos(true);
    }

    private static LanguageModel load(Path directory) {
        return Small.load(directory, 2);
    }

    private static LanguageModel loadLlama() {
        return load(GoldenCase.LLAMA.model());
    }

    /// Random ids of a byte vocabulary are full of halves of characters.
    @ParameterizedTest
    @ValueSource(strings = {"bytelevel", "bytefallback", "metaspace", "suffix"})
    void stream_textsAddUp(String tokenizer, @TempDir Path directory) throws IOException {
        TwoLetterTokenizer.install(GoldenCase.LLAMA, directory,
                Files.readString(GoldenCase.resource("text/" + tokenizer + "/tokenizer.json")));
        try (LanguageModel model = load(directory)) {
            for (GenerationConfig config : List.of(settings().build(), settings().temperature(1.2f).seed(3).build(),
                    settings().temperature(1.2f).seed(4).logprobs(1).stopStrings("\uFFFD\uFFFDq", "never").build())) {
                GenerationResult expected = model.generate(PROMPT, config);
                StringBuilder text = new StringBuilder();
                List<Integer> ids = new ArrayList<>();
                try (TokenStream stream = model.stream(PROMPT, config)) {
                    for (TokenStream.Token token : stream) {
                        text.append(token.text());
                        if (token.id() >= 0) {
                            ids.add(token.id());
                            assertEquals(config.logprobs() >= 0, token.logprob() != null);
                        }
                    }
                    GenerationResult result = stream.result();
                    assertEquals(expected.text(), result.text());
                    assertEquals(expected.text(), text.toString());
                    assertArrayEquals(expected.ids(), result.ids());
                    assertArrayEquals(expected.ids(), ids.stream().mapToInt(Integer::intValue).toArray());
                    assertEquals(expected.finishReason(), result.finishReason());
                }
                int[] all = IntStream.concat(IntStream.of(PROMPT), IntStream.of(expected.ids())).toArray();
                assertTrue(model.tokenizer().decode(all).endsWith(expected.text()));
            }
        }
    }

    @Test
    void stream_iteratorEnds() {
        try (LanguageModel model = loadLlama();
                TokenStream stream = model.stream(PROMPT, settings().maxNewTokens(2).build())) {
            Iterator<TokenStream.Token> tokens = stream.iterator();
            assertTrue(tokens.hasNext());
            assertTrue(tokens.hasNext());
            tokens.next();
            tokens.next();
            assertFalse(tokens.hasNext());
            assertFalse(tokens.hasNext());
            assertThrows(NoSuchElementException.class, tokens::next);
        }
    }

    @Test
    void cancel_keepsWhatIsThere() {
        int[] free;
        try (LanguageModel model = loadLlama()) {
            free = model.generate(PROMPT, settings().build()).ids();
            TokenStream stream = model.stream(PROMPT, settings().build());
            List<Integer> ids = new ArrayList<>();
            for (TokenStream.Token token : stream) {
                ids.add(token.id());
                if (ids.size() == 3) {
                    stream.cancel();
                    stream.cancel();
                }
            }
            GenerationResult result = stream.result();
            // On a slow day the engine may be through before it sees the cancellation.
            if (result.ids().length < 200) {
                assertEquals(FinishReason.CANCELLED, result.finishReason());
            }
            assertTrue(result.ids().length >= 3);
            assertArrayEquals(java.util.Arrays.copyOf(free, result.ids().length), result.ids());
            assertEquals(ids, IntStream.of(result.ids()).boxed().toList());
            assertArrayEquals(free, model.generate(PROMPT, settings().build()).ids());
        }
    }

    /// Nobody takes the tokens of a closed stream; the next request does not wait for the rest of them.
    @Test
    void close_cancels() {
        try (LanguageModel model = loadLlama()) {
            TokenStream stream = model.stream(PROMPT, settings().build());
            stream.close();
            stream.close();
            GenerationResult result = stream.result();
            assertTrue(result.finishReason() == FinishReason.CANCELLED || result.ids().length == 200);
            assertEquals(1, model.generate(PROMPT, settings().maxNewTokens(1).build()).ids().length);
        }
    }

    /// A deadline that has passed already ends the request before its first token, one in the past of a queue as well.
    @Test
    void deadline_passed() {
        try (LanguageModel model = loadLlama()) {
            GenerationResult result = model.generate(PROMPT, settings().deadline(Duration.ZERO).build());
            assertEquals(FinishReason.DEADLINE, result.finishReason());
            assertEquals(0, result.ids().length);
            assertEquals("", result.text());
            GenerationResult beams = model.generate(PROMPT, settings().numBeams(2).deadline(Duration.ZERO).build());
            assertEquals(FinishReason.DEADLINE, beams.finishReason());
            GenerationResult unhurried = model.generate(PROMPT,
                    settings().maxNewTokens(2).deadline(Duration.ofDays(1)).build());
            assertEquals(FinishReason.LENGTH, unhurried.finishReason());
        }
    }

    @Test
    void generate_interruptedCaller() {
        try (LanguageModel model = loadLlama()) {
            Thread.currentThread().interrupt();
            GatunException e = assertThrows(GatunException.class, () -> model.generate(PROMPT, settings().build()));
            assertEquals(Status.CANCELLED, e.status());
            assertTrue(Thread.interrupted(), "the interrupt is passed on");
            TokenStream stream = model.stream(PROMPT, settings().build());
            Thread.currentThread().interrupt();
            GatunException other = assertThrows(GatunException.class, () -> stream.forEach(token -> {}));
            assertEquals(Status.CANCELLED, other.status());
            assertTrue(Thread.interrupted(), "the interrupt is passed on");
            assertEquals(1, model.generate(PROMPT, settings().maxNewTokens(1).build()).ids().length);
        }
    }

    @Test
    void load_interruptedCaller() {
        // A load that was over before the caller looked would not be interrupted.
        Options unhurried = Options.defaults().withDevice(TestDevice.NAME).withProgress(count -> {
            if (count == 1) {
                LockSupport.parkNanos(Duration.ofMillis(200).toNanos());
            }
        });
        Thread.currentThread().interrupt();
        GatunException e = assertThrows(GatunException.class,
                () -> LanguageModel.load(GoldenCase.LLAMA.model(), unhurried));
        assertEquals(Status.CANCELLED, e.status());
        assertTrue(Thread.interrupted(), "the interrupt is passed on");
    }
}
