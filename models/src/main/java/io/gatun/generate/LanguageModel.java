package io.gatun.generate;

import io.gatun.models.CausalModel;
import io.gatun.models.ConfigFile;
import io.gatun.models.KvCache;
import io.gatun.models.ModelConfig;
import io.gatun.models.ModelLoader;
import io.gatun.models.Quantization;
import io.gatun.models.lora.AdaptedModel;
import io.gatun.models.lora.LoraAdapter;
import io.gatun.ops.Attention;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.TransferCounters;
import io.gatun.runtime.Upload;
import io.gatun.text.ChatTemplate;
import io.gatun.text.Tokenizer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.function.Consumer;
import java.util.function.IntConsumer;
import org.jspecify.annotations.Nullable;

/// A language model, loaded from a Hugging Face directory and ready to generate.
///
/// ```java
/// try (LanguageModel model = LanguageModel.load(Path.of("models/tinystories"))) {
///     System.out.println(model.generate("Once upon a time", GenerationConfig.greedy()).text());
/// }
/// ```
///
/// Thread safe: any number of threads may call one model; requests wait in a bounded queue and are carried out one
/// after the other by the model's engine thread. `close()` may come from any thread at any time: a running request ends
/// early, waiting ones fail, and the memory is freed when the engine has stopped using it.
public final class LanguageModel implements AutoCloseable {
    private static final int QUEUE_CAPACITY = 256;
    private static final long MAX_CACHE_TOKENS = 1L << 30;

    private final Engine<Loaded> engine;
    private final Loaded loaded;
    private volatile boolean closed;

    /// How to load.
    ///
    /// @param device    `auto`, `cpu`, `cuda`, `cuda:N`
    /// @param dtype     to compute in; null: as the checkpoint is stored
    /// @param threads   CPU threads; 0: all cores
    /// @param maxBatch  sequences that run together at most
    /// @param cacheTokens positions that the key/value cache can hold over all sequences; 0: as many as `maxBatch`
    ///                  whole contexts need, within a quarter of the free memory
    /// @param quantization what the matrices become when they are loaded
    /// @param adapters  LoRA adapters by the names that requests select them with ([GenerationConfig#adapter]): PEFT
    ///                  directories
    /// @param progress  told the number of weights loaded so far, on another thread
    public record Options(String device, @Nullable DType dtype, int threads, int maxBatch, long cacheTokens,
            Quantization quantization, Map<String, Path> adapters, IntConsumer progress) {
        public Options {
            adapters = Collections.unmodifiableMap(new LinkedHashMap<>(adapters));
            if (maxBatch < 1 || maxBatch > 1024) {
                throw GatunException.invalid("max batch is %d, expected 1 to 1024", maxBatch);
            }
            if (cacheTokens < 0 || cacheTokens > MAX_CACHE_TOKENS) {
                throw GatunException.invalid("cache tokens is %d, expected 0 (automatic) to %d", cacheTokens,
                        MAX_CACHE_TOKENS);
            }
        }

        public static Options defaults() {
            return new Options("auto", null, 0, 16, 0, Quantization.NONE, Map.of(), count -> {});
        }

        public Options withDevice(String value) {
            return new Options(value, dtype, threads, maxBatch, cacheTokens, quantization, adapters, progress);
        }

        public Options withDtype(@Nullable DType value) {
            return new Options(device, value, threads, maxBatch, cacheTokens, quantization, adapters, progress);
        }

        public Options withThreads(int value) {
            return new Options(device, dtype, value, maxBatch, cacheTokens, quantization, adapters, progress);
        }

        public Options withMaxBatch(int value) {
            return new Options(device, dtype, threads, value, cacheTokens, quantization, adapters, progress);
        }

        public Options withCacheTokens(long value) {
            return new Options(device, dtype, threads, maxBatch, value, quantization, adapters, progress);
        }

        public Options withQuantization(Quantization value) {
            return new Options(device, dtype, threads, maxBatch, cacheTokens, value, adapters, progress);
        }

        public Options withAdapters(Map<String, Path> value) {
            return new Options(device, dtype, threads, maxBatch, cacheTokens, quantization, value, progress);
        }

        public Options withProgress(IntConsumer value) {
            return new Options(device, dtype, threads, maxBatch, cacheTokens, quantization, adapters, value);
        }
    }

    /// Everything that the engine thread made and will free.
    private record Loaded(Device device, Stream stream, ModelLoader.Result model, CausalModel network,
            @Nullable AdaptedModel adapted, KvCache cache, DecodeState state,
            Set<Integer> eosIds, @Nullable Tokenizer tokenizer, Path directory) implements AutoCloseable {
        @Override
        public void close() {
            try (device; model; cache; state) {
                if (tokenizer != null) {
                    tokenizer.close();
                }
            }
        }
    }

    private LanguageModel(Engine<Loaded> engine) {
        this.engine = engine;
        this.loaded = engine.awaitLoaded();
    }

    /// Loads on the best device, in the checkpoint's dtype.
    ///
    /// @throws GatunException when the directory, its configuration or its weights are not usable; says what and why
    public static LanguageModel load(Path directory) {
        return load(directory, Options.defaults());
    }

    /// As [#load(Path)].
    public static LanguageModel load(Path directory, Options options) {
        return new LanguageModel(new Engine<>("gatun-engine", QUEUE_CAPACITY, () -> open(directory, options),
                LanguageModel::runner));
    }

    private static Loaded open(Path directory, Options options) {
        LoadEvent event = new LoadEvent();
        event.begin();
        event.directory = directory.toString();
        List<AutoCloseable> opened = new ArrayList<>();
        try {
            ModelLoader.requireDirectory(directory);
            Set<Integer> eosIds = eosIds(directory);
            Tokenizer tokenizer = Files.exists(directory.resolve("tokenizer.json")) ? Tokenizer.open(directory,
                    eosIds.stream().mapToInt(Integer::intValue).filter(id -> id >= 0).toArray()) : null;
            if (tokenizer != null) {
                opened.addFirst(tokenizer);
            }
            Device device = Device.open(options.device(), new Device.Options(options.threads()));
            opened.addFirst(device);
            Stream stream = device.newStream();
            ModelLoader.Result model = ModelLoader.load(device, stream, directory, options.dtype(),
                    options.quantization(), options.progress());
            opened.addFirst(model);
            ModelConfig config = model.network().config();
            AdaptedModel adapted = options.adapters().isEmpty() ? null : adapted(model, stream, options.adapters());
            CausalModel network = adapted == null ? model.network() : adapted;
            MemoryPlan plan = MemoryPlan.make(device, stream, network, model.weightBytes(), options.maxBatch(),
                    options.cacheTokens());
            KvCache cache = new KvCache(device, config, plan.pages());
            opened.addFirst(cache);
            DecodeState state = new DecodeState(device, stream, network, cache, options.maxBatch());
            event.weightBytes = model.weightBytes();
            Upload.Result upload = model.upload();
            if (upload != null) {
                event.uploadBytes = upload.bytes();
                event.uploadGigabytesPerSecond = upload.gigabytesPerSecond();
                System.getLogger("io.gatun.generate").log(System.Logger.Level.DEBUG,
                        "%s: %,d bytes of weights to %s at %.2f GB/s".formatted(directory, upload.bytes(), device,
                                upload.gigabytesPerSecond()));
            }
            event.commit();
            return new Loaded(device, stream, model, network, adapted, cache, state, eosIds, tokenizer, directory);
        } catch (RuntimeException e) {
            for (AutoCloseable resource : opened) {
                try {
                    resource.close();
                } catch (Exception suppressed) {
                    e.addSuppressed(suppressed);
                }
            }
            throw e;
        }
    }

    private static AdaptedModel adapted(ModelLoader.Result model, Stream stream, Map<String, Path> directories) {
        Map<String, LoraAdapter> adapters = new LinkedHashMap<>();
        directories.forEach((name, directory) -> adapters.put(name, LoraAdapter.read(directory)));
        return new AdaptedModel(model.network(), model.arena(), stream, adapters);
    }

    /// End tokens: generation_config.json's, else config.json's.
    private static Set<Integer> eosIds(Path directory) {
        ConfigFile generation = ConfigFile.readIfPresent(directory.resolve("generation_config.json"));
        List<Integer> ids = generation == null ? List.of() : generation.getInts("eos_token_id");
        if (ids.isEmpty()) {
            ids = ConfigFile.read(directory.resolve("config.json")).getInts("eos_token_id");
        }
        return new HashSet<>(ids);
    }

    private static Consumer<Request> runner(Loaded loaded) {
        CausalModel network = loaded.network;
        AdaptedModel adapted = loaded.adapted;
        GenerationLoop loop = new GenerationLoop(network, loaded.cache, loaded.state, loaded.eosIds,
                new Diagnosis(loaded.device, loaded.stream, network));
        return request -> {
            if (adapted != null) {
                adapted.select(loaded.stream, request.config.adapter());
            }
            request.outcome.complete(loop.run(request));
        };
    }

    public ModelConfig config() {
        return loaded.model.network().config();
    }

    /// What the device moved, allocated and launched so far for this model.
    public TransferCounters.Snapshot counters() {
        return loaded.device.counters().snapshot();
    }

    /// What was carried to the device when the model was loaded, and how fast; null where the device reads the mapped
    /// file.
    public Upload.@Nullable Result upload() {
        return loaded.model.upload();
    }

    /// One line about the device.
    public String deviceDescription() {
        return loaded.device.description();
    }

    /// The model's tokenizer; null where the directory has no tokenizer.json.
    public @Nullable Tokenizer tokenizer() {
        return loaded.tokenizer;
    }

    /// The model's chat template; null where the directory has none.
    public @Nullable ChatTemplate chatTemplate() {
        return ChatTemplate.find(loaded.directory).orElse(null);
    }

    /// Requests that wait or run.
    public int pendingRequests() {
        return engine.pending();
    }

    /// Generates a continuation of a text.
    ///
    /// @throws GatunException when the prompt does not fit, the model fails, or it is closed meanwhile
    public GenerationResult generate(String prompt, GenerationConfig config) {
        return generate(encode(prompt), config);
    }

    /// Generates a continuation of token ids; needs no tokenizer.
    public GenerationResult generate(int[] prompt, GenerationConfig config) {
        return generateAll(List.of(prompt), config).getFirst();
    }

    /// Generates continuations of several prompts, of any lengths, in one batch. Each gets the ids that it would get
    /// alone with the same seed; a prompt that comes a second time gets other random draws than the first. With
    /// `numReturnSequences` > 1, so many results per prompt.
    public List<GenerationResult> generateAll(List<int[]> prompts, GenerationConfig config) {
        List<TextSink> sinks = prompts.stream().map(prompt -> newSink(prompt, config)).toList();
        Request request = newRequest(prompts, sinks, config);
        CompletableFuture<List<GenerationResult>> results = results(request, sinks);
        engine.submit(request);
        return await(request, results);
    }

    /// Starts to generate and hands out tokens as they come.
    public TokenStream stream(String prompt, GenerationConfig config) {
        return stream(encode(prompt), config);
    }

    /// As [#stream(String, GenerationConfig)], from token ids.
    public TokenStream stream(int[] prompt, GenerationConfig config) {
        if (config.numBeams() > 1) {
            throw GatunException.invalid("beams is %d, expected 1 to stream: a beam's text changes until the end",
                    config.numBeams());
        }
        TextSink sink = newSink(prompt, config);
        Request request = newRequest(List.of(prompt), List.of(sink), config);
        CompletableFuture<List<GenerationResult>> results = results(request, List.of(sink));
        TokenStream stream = new TokenStream(sink, request, results, () -> await(request, results).getFirst());
        engine.submit(request);
        return stream;
    }

    private TextSink newSink(int[] prompt, GenerationConfig config) {
        if (loaded.tokenizer == null && !config.stopStrings().isEmpty()) {
            throw GatunException.invalid("stop strings need a tokenizer.json in %s", loaded.directory);
        }
        return new TextSink(loaded.tokenizer, prompt, config.stopStrings());
    }

    private int[] encode(String text) {
        Tokenizer tokenizer = loaded.tokenizer;
        if (tokenizer == null) {
            throw GatunException.invalid("%s has no tokenizer.json: give token ids instead of text", loaded.directory);
        }
        requireOpen();
        return tokenizer.encode(text);
    }

    private Request newRequest(List<int[]> prompts, List<TextSink> sinks, GenerationConfig config) {
        requireOpen();
        if (prompts.isEmpty()) {
            throw GatunException.invalid("no prompts, expected at least one");
        }
        requireAdapter(config.adapter());
        ModelConfig c = config();
        for (int[] prompt : prompts) {
            checkPrompt(prompt, c);
        }
        checkIds("bad-words", config.badWords(), c);
        if (config.forcedEos() >= c.vocabSize()) {
            throw GatunException.invalid("forced end token is %d, expected 0 to %d", config.forcedEos(),
                    c.vocabSize() - 1);
        }
        return new Request(prompts.stream().map(int[]::clone).toList(), sinks, config);
    }

    private void requireAdapter(@Nullable String name) {
        List<String> names = loaded.adapted == null ? List.of() : loaded.adapted.names();
        if (name != null && !names.contains(name)) {
            throw GatunException.invalid("adapter is '%s', expected one that the model was loaded with: %s", name,
                    names);
        }
    }

    private static void checkPrompt(int[] prompt, ModelConfig c) {
        if (prompt.length == 0) {
            throw GatunException.invalid("the prompt has no tokens, expected at least one (a start token will do)");
        }
        if (prompt.length > c.contextLength()) {
            throw GatunException.invalid("the prompt has %d tokens, the model's context is %d: shorten the prompt, or"
                    + " choose a model with a longer context", prompt.length, c.contextLength());
        }
        checkIds("prompt", List.of(prompt), c);
    }

    private static void checkIds(String what, List<int[]> lists, ModelConfig c) {
        for (int[] ids : lists) {
            for (int id : ids) {
                if (id < 0 || id >= c.vocabSize()) {
                    throw GatunException.invalid("%s: id %d, expected 0 to %d (vocab_size %d)", what, id,
                            c.vocabSize() - 1, c.vocabSize());
                }
            }
        }
    }

    private void requireOpen() {
        if (closed) {
            throw new IllegalStateException("the model is closed");
        }
    }

    private static List<GenerationResult> await(Request request, CompletableFuture<List<GenerationResult>> results) {
        try {
            return results.get();
        } catch (InterruptedException e) {
            request.cancel();
            Thread.currentThread().interrupt();
            throw new GatunException(GatunException.Status.CANCELLED, "interrupted while generating", e);
        } catch (ExecutionException e) {
            if (e.getCause() instanceof RuntimeException failure) {
                failure.addSuppressed(new Throwable("the caller that waited"));
                throw failure;
            }
            throw new GatunException(GatunException.Status.INTERNAL, String.valueOf(e.getCause().getMessage()),
                    e.getCause());
        }
    }

    /// What will come of a request. To be called before it is queued: then the engine thread puts the results together,
    /// which cannot close the tokenizer meanwhile.
    private CompletableFuture<List<GenerationResult>> results(Request request, List<TextSink> sinks) {
        return request.outcome.thenApply(outcome -> {
            List<GenerationResult> results = new ArrayList<>();
            for (int i = 0; i < outcome.sequences().size(); i++) {
                Request.Finished s = outcome.sequences().get(i);
                TextSink sink = request.config.numBeams() > 1 ? beamText(request, i, s.ids()) : sinks.get(i);
                sink.finish();
                results.add(new GenerationResult(sink.text(), s.ids(), s.reason(), s.promptTokens(), s.score(),
                        s.logprobs(), outcome.timings()));
            }
            return results;
        });
    }

    /// A beam's ids are known only at the end.
    private TextSink beamText(Request request, int index, int[] ids) {
        int[] prompt = request.prompts.get(index / request.config.numReturnSequences());
        TextSink sink = newSink(prompt, request.config);
        for (int id : ids) {
            sink.accept(id, null);
        }
        return sink;
    }

    /// Ends a running request, fails the waiting ones and frees everything. Twice is fine.
    @Override
    public void close() {
        closed = true;
        engine.close();
    }
}
