package io.gatun.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.generate.GenerationConfig;
import io.gatun.generate.GenerationResult;
import io.gatun.generate.LanguageModel;
import io.gatun.generate.TokenStream;
import io.gatun.io.IoReason;
import io.gatun.models.DemoModels;
import io.gatun.models.LanguageFamily;
import io.gatun.runtime.GatunException;
import io.gatun.text.Tokenizer;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `gatun generate`: text from a language model. Prints the prompt and its continuation as it comes.
@Command(name = "generate", mixinStandardHelpOptions = true, sortOptions = false,
        description = "Continues a prompt. Prints prompt and continuation, without special tokens. Without --model the"
                + " demo model shakespeare does.")
final class GenerateCommand implements Runnable {
    private static final long MAX_PROMPT_BYTES = 64L << 20;
    private static final String ADAPTER = "adapter";
    private static final String PROMPT_OPTIONS = "pass --prompt TEXT, --prompt-file FILE or --ids 1,2,3";
    private static final int MAX_NEW_TOKENS = 128;
    private static final double TEMPERATURE = 1;
    /// Where the demo model writes and nothing else is asked for: a token is a character, so there are as many as its
    /// context holds.
    private static final String DEMO_PROMPT = "ROMEO:";
    private static final int DEMO_MAX_NEW_TOKENS = 250;
    private static final double DEMO_TEMPERATURE = 0.8;

    @Mixin
    private ModelOptions options;

    @Mixin
    private QuantizationOption quantization;

    @ArgGroup(multiplicity = "0..1")
    private @Nullable Source source;

    /// Where the prompt comes from.
    private static final class Source {
        @Option(names = "--prompt", paramLabel = "TEXT", description = "the prompt")
        private @Nullable String text;

        @Option(names = "--prompt-file", paramLabel = "FILE|-",
                description = "file with the prompt in UTF-8; -: standard input")
        private @Nullable String file;

        @Option(names = "--ids", paramLabel = "1,2,3", description = "the prompt as token ids; needs no tokenizer")
        private @Nullable String ids;
    }

    @Option(names = "--max-new-tokens", paramLabel = "N",
            description = "default: " + MAX_NEW_TOKENS + "; of the demo model " + DEMO_MAX_NEW_TOKENS)
    private @Nullable Integer maxNewTokens;

    @Option(names = "--min-new-tokens", paramLabel = "N", defaultValue = "0", description = "no end token before")
    private int minNewTokens;

    @Option(names = "--greedy", description = "always the most probable token")
    private boolean greedy;

    @Option(names = "--temperature", paramLabel = "T",
            description = "0: greedy (default: " + TEMPERATURE + "; of the demo model " + DEMO_TEMPERATURE + ")")
    private @Nullable Float temperature;

    @Option(names = "--top-k", paramLabel = "K", defaultValue = "0", description = "0: off")
    private int topK;

    @Option(names = "--top-p", paramLabel = "P", defaultValue = "1", description = "1: off")
    private float topP;

    @Option(names = "--min-p", paramLabel = "P", defaultValue = "0", description = "0: off")
    private float minP;

    @Option(names = "--typical-p", paramLabel = "P", defaultValue = "1", description = "1: off")
    private float typicalP;

    @Option(names = "--repetition-penalty", paramLabel = "R", defaultValue = "1", description = "1: off")
    private float repetitionPenalty;

    @Option(names = "--presence-penalty", paramLabel = "R", defaultValue = "0", description = "0: off")
    private float presencePenalty;

    @Option(names = "--frequency-penalty", paramLabel = "R", defaultValue = "0", description = "0: off")
    private float frequencyPenalty;

    @Option(names = "--no-repeat-ngram-size", paramLabel = "N", defaultValue = "0", description = "0: off")
    private int noRepeatNgramSize;

    @Option(names = "--seed", paramLabel = "S", defaultValue = "0",
            description = "of the random numbers (default: ${DEFAULT-VALUE})")
    private long seed;

    @Option(names = "--beams", paramLabel = "N", defaultValue = "1", description = "beam search with N beams")
    private int beams;

    @Option(names = "--length-penalty", paramLabel = "A", description = "of beam search (default: 1)")
    private @Nullable Float lengthPenalty;

    @Option(names = "--stop", paramLabel = "TEXT", description = "end at this text; may be repeated")
    private List<String> stop = List.of();

    @Option(names = "--ignore-eos", description = "go on after an end token")
    private boolean ignoreEos;

    @Option(names = "--ids-only", description = "print the new ids, comma-separated, and nothing else")
    private boolean idsOnly;

    @Option(names = "--adapter", paramLabel = "DIR", description = "a LoRA adapter as PEFT writes it")
    private @Nullable Path adapter;

    GenerateCommand() {}

    @Override
    public void run() {
        boolean isDemo = DemoModels.SHAKESPEARE.equals(options.demoModel(DemoModels.SHAKESPEARE));
        GenerationConfig config = config(isDemo);
        Path directory = isDemo ? DemoModels.shakespeare() : options.model();
        String prompt = source != null ? source.file != null ? readPrompt(source.file) : source.text
                : isDemo ? DEMO_PROMPT : null;
        int[] ids = source == null || source.ids == null ? null : parseIds(source.ids);
        LanguageFamily.config(directory); // what is wrong with it comes before what is missing beside it
        if (prompt == null && ids == null) {
            throw GatunException.invalid("the prompt is missing: " + PROMPT_OPTIONS);
        }
        try (LanguageModel model = load(directory)) {
            Tokenizer tokenizer = model.tokenizer();
            if (ids == null) {
                if (tokenizer == null) {
                    throw GatunException.invalid("%s has no tokenizer.json: give the prompt as --ids", directory);
                }
                ids = tokenizer.encode(prompt);
                if (ids.length == 0) {
                    throw GatunException.invalid("%s: %s", prompt.isEmpty() ? "the prompt is empty"
                            : "the tokenizer knows nothing of the prompt", PROMPT_OPTIONS);
                }
            } else {
                prompt = tokenizer == null ? "" : tokenizer.decode(ids);
            }
            if (tokenizer == null && !idsOnly && !options.json()) {
                throw GatunException.invalid("%s has no tokenizer.json: pass --ids-only to print ids", directory);
            }
            generate(model, ids, prompt, config);
        }
    }

    private LanguageModel load(Path directory) {
        try (Progress progress = Progress.ofLoading()) {
            return LanguageModel.load(directory, LanguageModel.Options.defaults().withDevice(options.device())
                    .withDtype(options.dtype()).withThreads(options.threads()).withMaxBatch(Math.max(beams, 1))
                    .withQuantization(quantization.value())
                    .withAdapters(adapter == null ? Map.of() : Map.of(ADAPTER, adapter)).withProgress(progress::step));
        }
    }

    private void generate(LanguageModel model, int[] ids, String prompt, GenerationConfig config) {
        if (idsOnly) {
            GenerationResult result = model.generate(ids, config);
            Terminal.printLine(Arrays.stream(result.ids()).mapToObj(Integer::toString)
                    .collect(Collectors.joining(",")));
        } else if (options.json()) {
            Terminal.printLine(json(model, model.generate(ids, config), prompt));
        } else if (beams > 1) {
            Terminal.print(prompt + model.generate(ids, config).text());
            Terminal.endLine();
        } else {
            try (TokenStream tokens = model.stream(ids, config)) {
                print(prompt, tokens.iterator());
            }
            Terminal.endLine();
        }
    }

    /// The prompt comes with the first token: where that fails, nothing was printed. Where a later one does, the
    /// error begins a line.
    private static void print(String prompt, Iterator<TokenStream.Token> tokens) {
        boolean more = tokens.hasNext();
        Terminal.print(prompt);
        try {
            for (; more; more = tokens.hasNext()) {
                Terminal.print(tokens.next().text());
            }
        } catch (RuntimeException e) {
            Terminal.printLine("");
            throw e;
        }
    }

    /// What shapes a draw has no meaning where nothing is drawn.
    private void requireDraw() {
        String chooser = greedy ? "--greedy" : beams > 1 ? "--beams" : null;
        String shape = temperature != null && temperature != 0 ? "--temperature" : topK > 0 ? "--top-k"
                : topP < 1 ? "--top-p" : minP > 0 ? "--min-p" : typicalP < 1 ? "--typical-p" : null;
        if (chooser != null && shape != null) {
            throw GatunException.invalid("there are both %s and %s, expected one of them: %1$s draws no random numbers",
                    chooser, shape);
        }
        if (lengthPenalty != null && beams <= 1) {
            throw GatunException.invalid("there is --length-penalty without --beams, expected both or neither: only"
                    + " beams have scores");
        }
    }

    private GenerationConfig config(boolean isDemo) {
        requireDraw();
        int most = maxNewTokens != null ? maxNewTokens : isDemo ? DEMO_MAX_NEW_TOKENS : MAX_NEW_TOKENS;
        double chosen = temperature != null ? temperature : isDemo ? DEMO_TEMPERATURE : TEMPERATURE;
        return GenerationConfig.builder().maxNewTokens(most).minNewTokens(minNewTokens)
                .temperature(greedy || beams > 1 ? 0 : (float) chosen).topK(topK).topP(topP).minP(minP)
                .typicalP(typicalP).repetitionPenalty(repetitionPenalty).presencePenalty(presencePenalty)
                .frequencyPenalty(frequencyPenalty).noRepeatNgramSize(noRepeatNgramSize).seed(seed).numBeams(beams)
                .lengthPenalty(lengthPenalty == null ? 1 : lengthPenalty).stopStrings(stop.toArray(String[]::new))
                .ignoreEos(ignoreEos).adapter(adapter == null ? null : ADAPTER).build();
    }

    private static int[] parseIds(String text) {
        try {
            return Arrays.stream(text.split(",")).map(String::strip).mapToInt(Integer::parseInt).toArray();
        } catch (NumberFormatException e) {
            throw GatunException.invalid("--ids is '%s', expected integers separated by commas", text);
        }
    }

    /// Strict UTF-8: a damaged prompt is an error, not a prompt with replacement characters.
    private static String readPrompt(String file) {
        try {
            byte[] bytes;
            if (file.equals("-")) {
                InputStream in = System.in;
                bytes = in.readAllBytes();
            } else {
                Path path = Path.of(file);
                if (!Files.isRegularFile(path)) {
                    throw GatunException.invalid("--prompt-file %s: no such file", file);
                }
                if (Files.size(path) > MAX_PROMPT_BYTES) {
                    throw GatunException.invalid("--prompt-file %s: expected a file of at most %d MiB", file,
                            MAX_PROMPT_BYTES >> 20);
                }
                bytes = Files.readAllBytes(path);
            }
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
        } catch (CharacterCodingException e) {
            throw GatunException.invalid("--prompt-file %s is not valid UTF-8", file);
        } catch (IOException e) {
            throw GatunException.invalid("--prompt-file %s: cannot read it: %s", file, IoReason.of(e));
        }
    }

    private static String json(LanguageModel model, GenerationResult r, String prompt) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("prompt", prompt);
        fields.put("text", r.text());
        fields.put("ids", r.ids());
        fields.put("finish_reason", r.finishReason().name().toLowerCase(java.util.Locale.ROOT));
        Map<String, Object> usage = new LinkedHashMap<>();
        usage.put("prompt_tokens", r.promptTokens());
        usage.put("completion_tokens", r.ids().length);
        fields.put("usage", usage);
        Map<String, Object> timings = new LinkedHashMap<>();
        timings.put("queued", r.timings().queued().toNanos() * 1e-6);
        timings.put("prefill", r.timings().prefill().toNanos() * 1e-6);
        timings.put("decode", r.timings().decode().toNanos() * 1e-6);
        fields.put("timings_ms", timings);
        fields.put("score", r.score());
        fields.put("device", model.deviceDescription());
        if (model.upload() != null) {
            Map<String, Object> upload = new LinkedHashMap<>();
            upload.put("bytes", model.upload().bytes());
            upload.put("gb_per_s", model.upload().gigabytesPerSecond());
            fields.put("upload", upload);
        }
        try {
            return new ObjectMapper().writeValueAsString(fields);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
