package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.LanguageModel.Options;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.GatunException.Status;
import io.gatun.runtime.Leaks;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Does a model that many threads use, and one that is closed at any moment, give right results, clear errors and all
/// its memory back?
@Tag("device")
class LifetimeTest {
    private static final int[] PROMPT = GoldenCase.LLAMA.prompts()[0];

    private static LanguageModel load(GoldenCase golden, int threads) {
        return LanguageModel.load(golden.model(),
                Options.defaults().withDevice(TestDevice.NAME).withThreads(threads).withMaxBatch(2));
    }

    private static GenerationConfig.Builder settings(int maxNewTokens) {
        return GenerationConfig.builder().maxNewTokens(maxNewTokens).ignoreEos(true);
    }

    @Test
    void close_twiceAndUseAfter(@TempDir Path directory) {
        TwoLetterTokenizer.install(GoldenCase.LLAMA, directory);
        LanguageModel model = Small.load(directory);
        TokenStream stream = model.stream(PROMPT, settings(2).build());
        assertEquals(2, stream.result().ids().length);
        model.close();
        model.close();
        assertThrows(IllegalStateException.class, () -> model.generate(PROMPT, settings(2).build()));
        assertThrows(IllegalStateException.class, () -> model.generate("ab", settings(2).build()));
        assertThrows(IllegalStateException.class, () -> model.stream(PROMPT, settings(2).build()));
        assertThrows(IllegalStateException.class, () -> model.tokenizer().encode("ab"));
        assertEquals(2, stream.result().ids().length, "a result outlives its model");
        assertEquals(0, model.counters().allocatedBytes());
        assertEquals(0, model.pendingRequests());
        assertEquals("llama", model.config().family());
    }

    /// From another thread, while a step runs: the request ends with what it has, text included.
    @Test
    void close_whileGenerating(@TempDir Path directory) {
        TwoLetterTokenizer.install(GoldenCase.LLAMA, directory);
        for (int round = 1; round < 25; round++) {
            LanguageModel model = LanguageModel.load(directory,
                    Options.defaults().withDevice(TestDevice.NAME).withThreads(1 + round % 2));
            TokenStream stream = model.stream(PROMPT, settings(230).build());
            Iterator<TokenStream.Token> tokens = stream.iterator();
            for (int i = 0; i < round; i++) {
                tokens.next();
            }
            model.close();
            GenerationResult result = stream.result();
            assertTrue(result.ids().length >= round);
            assertEquals(result.ids().length == 230 ? FinishReason.LENGTH : FinishReason.CANCELLED,
                    result.finishReason());
            assertEquals(TwoLetterTokenizer.text(result.ids()), result.text());
            assertEquals(0, model.counters().allocatedBytes());
        }
    }

    @Test
    void close_whileSearchingBeams(@TempDir Path directory) throws Exception {
        TwoLetterTokenizer.install(GoldenCase.LLAMA, directory);
        try (ExecutorService callers = Executors.newFixedThreadPool(1)) {
            for (int round = 0; round < 10; round++) {
                LanguageModel model = Small.load(directory);
                Future<GenerationResult> search = callers.submit(
                        () -> model.generate(PROMPT, settings(150).numBeams(3).build()));
                while (model.pendingRequests() == 0 && !search.isDone()) {
                    Thread.onSpinWait();
                }
                model.close();
                try {
                    GenerationResult result = search.get();
                    assertEquals(TwoLetterTokenizer.text(result.ids()), result.text());
                } catch (ExecutionException e) { // closed before the engine took it up
                    GatunException failure = assertInstanceOf(GatunException.class, e.getCause());
                    assertEquals(Status.CANCELLED, failure.status());
                }
            }
        }
    }

    /// More requests than the queue holds; then a close, which the waiting ones hear of.
    @Test
    void submit_queueIsFull() {
        LanguageModel model = load(GoldenCase.LLAMA, 1);
        List<TokenStream> streams = new ArrayList<>();
        streams.add(model.stream(PROMPT, settings(230).build()));
        streams.getFirst().iterator().next(); // it runs, so the queue is empty
        GatunException full = assertThrows(GatunException.class, () -> {
            for (int i = 0; i < 5000; i++) {
                streams.add(model.stream(PROMPT, settings(230).build()));
            }
        });
        assertEquals("the queue of 256 requests is full: try again later", full.getMessage());
        assertTrue(model.pendingRequests() >= 255);
        model.close();
        Status last = assertThrows(GatunException.class, () -> streams.getLast().result()).status();
        assertEquals(Status.CANCELLED, last);
        assertTrue(streams.getFirst().result().ids().length <= 230);
    }

    /// 64 threads, each with a setting of its own, get what one thread gets.
    @Test
    void generate_64Threads() throws Exception {
        List<GenerationConfig> configs = IntStream.range(0, 8)
                .mapToObj(i -> settings(6 + i).temperature(i % 2).seed(i).topK(50 * (i % 3)).build()).toList();
        try (LanguageModel model = load(GoldenCase.LLAMA, 1);
                ExecutorService callers = Executors.newFixedThreadPool(64)) {
            List<int[]> expected = configs.stream().map(c -> model.generate(PROMPT, c).ids()).toList();
            List<Callable<int[]>> calls = IntStream.range(0, 192)
                    .<Callable<int[]>>mapToObj(i -> () -> model.generate(PROMPT, configs.get(i % 8)).ids()).toList();
            List<Future<int[]>> results = callers.invokeAll(calls);
            for (int i = 0; i < results.size(); i++) {
                assertArrayEquals(expected.get(i % 8), results.get(i).get(), "call " + i);
            }
        }
    }

    /// Nothing grows: no arena, no mapping, no thread, no resident memory. A leak of the weights alone would be 210 MB.
    @Test
    void loadAndClose_manyTimes() throws IOException {
        List<String> open = openObjects();
        for (int i = 0; i < 60; i++) {
            cycle(i);
        }
        int threads = nativeThreads();
        long before = residentKilobytes();
        for (int i = 0; i < 240; i++) {
            cycle(i);
        }
        long grown = residentKilobytes() - before;
        assertEquals(open, openObjects());
        assertTrue(nativeThreads() <= threads + 4, "threads: %d, then %d".formatted(threads, nativeThreads()));
        assertTrue(grown < 80_000, grown + " kB more after 240 models");
        try (var maps = Files.lines(Path.of("/proc/self/maps"))) {
            assertEquals(0, maps.filter(line -> line.contains("llama_tiny") || line.contains("gpt2_tiny")).count());
        }
    }

    private static void cycle(int i) {
        GoldenCase golden = i % 2 == 0 ? GoldenCase.GPT2 : GoldenCase.LLAMA;
        try (LanguageModel model = load(golden, 1 + i % 2)) {
            model.generate(new int[] {1, 2, 3}, settings(2).build());
        }
    }

    /// A load that fails half way gives back what it had.
    @Test
    void load_failureFreesAll(@TempDir Path directory) {
        List<String> open = openObjects();
        ModelDirectory.of(GoldenCase.GPT2).without("transformer.ln_f.weight").write(directory);
        for (int i = 0; i < 3; i++) {
            assertThrows(GatunException.class, () -> LanguageModel.load(directory));
        }
        ModelDirectory.of(GoldenCase.GPT2).write(directory);
        ModelDirectory.writeText(directory.resolve("generation_config.json"), "[]");
        assertThrows(GatunException.class, () -> LanguageModel.load(directory));
        assertThrows(GatunException.class, () -> LanguageModel.load(GoldenCase.GPT2.model(),
                Options.defaults().withCacheTokens(1L << 30)));
        assertEquals(open, openObjects());
    }

    private static List<String> openObjects() {
        return Leaks.report().lines().sorted().toList();
    }

    private static int nativeThreads() {
        return Integer.parseInt(status("Threads:"));
    }

    private static long residentKilobytes() {
        System.gc();
        return Long.parseLong(status("VmRSS:"));
    }

    private static String status(String key) {
        try (var lines = Files.lines(Path.of("/proc/self/status"))) {
            return lines.filter(line -> line.startsWith(key)).findFirst().orElseThrow().replaceAll("\\D", "");
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }
}
