package io.gatun.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.io.IoReason;
import io.gatun.io.SafetensorsWriter;
import io.gatun.models.CausalModel;
import io.gatun.models.ConfigFile;
import io.gatun.models.LanguageFamily;
import io.gatun.models.Layers;
import io.gatun.models.Layers.LowRank;
import io.gatun.models.ModelLoader;
import io.gatun.models.WeightLoader;
import io.gatun.models.lora.LoraAdapter;
import io.gatun.models.lora.LoraConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.text.SimpleTokenizer;
import io.gatun.text.Tokenizer;
import io.gatun.train.data.BatchOrder;
import io.gatun.train.data.TextCorpus;
import io.gatun.train.data.TokenFile;
import io.gatun.train.data.TokenWindows;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Language models on text: pre-training, fine-tuning of all weights, or of LoRA adapters. Windows are drawn at random
/// from all but the last tenth of the text; that is held out for evaluation.
final class LanguageTask extends TrainerTask {
    private static final double INITIALIZER_RANGE = 0.02;
    private static final int MAX_EVALUATION_WINDOWS = 512;
    private static final String HEAD = "lm_head.weight";
    private static final List<String> TOKENIZER_FILES = List.of("tokenizer.json", "tokenizer_config.json",
            "special_tokens_map.json", "generation_config.json");

    private final Setup setup;
    private final CausalModel model;
    private final Map<Tensor, LowRank> adapters;
    private final LanguageLoss loss;
    private final TokenWindows windows;
    private final TokenWindows heldOut;
    private final double bytesPerToken;
    private long batch;
    private @Nullable Plan evaluation;
    private @Nullable Tensor evaluated;

    /// What is opened before the trainer.
    ///
    /// @param config    config.json of the model
    /// @param tokenizer directory with tokenizer.json
    /// @param base      the model that adapters are trained for; null: all weights are trained
    /// @param adapter   its adapters' config; null likewise
    private record Setup(Recipe.LanguageModel recipe, Device device, String json, ConfigFile config, Path tokenizer,
            TokenFile tokens, double bytesPerToken, ModelLoader.@Nullable Result base, @Nullable LoraConfig adapter)
            implements AutoCloseable {
        int length() {
            int context = LanguageTask.contextLength(config);
            int length = recipe.blockSize() == 0 ? context : recipe.blockSize();
            if (length > context) {
                throw GatunException.invalid("block_size is %d, expected at most the model's context, %d", length,
                        context);
            }
            return length;
        }

        @Override
        public void close() {
            try (device; base; tokens) {
                // in this order
            }
        }
    }

    private LanguageTask(Setup setup, Trainer trainer, float[] rates, CausalModel model,
            Map<Tensor, LowRank> adapters) {
        super(trainer, setup.recipe.settings().exportDtype(), rates);
        this.setup = setup;
        this.model = model;
        TrainingSettings settings = setup.recipe.settings();
        this.windows = setup.tokens.trainWindows(setup.length());
        this.heldOut = setup.tokens.heldOutWindows(setup.length());
        this.bytesPerToken = setup.bytesPerToken;
        if (heldOut.count() < settings.trainBatchSize()) {
            throw GatunException.invalid("the held-out text, %s, has no batch of %d windows: make the batch smaller",
                    heldOut, settings.trainBatchSize());
        }
        this.loss = new LanguageLoss(trainer, settings.trainBatchSize(), setup.length());
        this.adapters = adapters;
        trainer.loss(this::computed);
    }

    private Tensor computed(Layers net) {
        net.adapt(adapters);
        return loss.of(net, model, (float) setup.recipe.labelSmoothing());
    }

    static LanguageTask open(Request request, Recipe.LanguageModel recipe) {
        TrainingSettings settings = recipe.settings();
        Setup setup = setup(request, recipe);
        try {
            float[] rates = settings.learningRates(settings.steps(
                    setup.tokens.trainWindows(setup.length()).count() / settings.trainBatchSize()));
            return setup.base == null ? ofAllWeights(setup, rates) : ofAdapters(setup, setup.base, setup.adapter,
                    rates);
        } catch (RuntimeException e) {
            setup.close();
            throw e;
        }
    }

    private static Setup setup(Request request, Recipe.LanguageModel recipe) {
        TextCorpus corpus = TextCorpus.open(request.data());
        Path tokenizer = tokenizer(request, recipe, corpus);
        String json;
        if (recipe.model() instanceof ModelSource.Directory directory) {
            ModelLoader.requireDirectory(directory.path());
            json = read(directory.path().resolve("config.json"));
        } else {
            json = ((ModelSource.Config) recipe.model()).json();
        }
        Device device = Device.open(request.device(), new Device.Options(request.threads()));
        try {
            return setup(request, recipe, corpus, tokenizer, json, device);
        } catch (RuntimeException e) {
            try (device) {
                throw e;
            }
        }
    }

    private static Setup setup(Request request, Recipe.LanguageModel recipe, TextCorpus corpus, Path tokenizer,
            String json, Device device) {
        try (Tokenizer opened = Tokenizer.open(tokenizer)) {
            TokenFile tokens = TokenFile.open(request.work().resolve("tokens.bin"), corpus, opened,
                    TokenFile.NO_SEPARATOR);
            try {
                String whole = completed(json, tokens.vocabSize(), recipe.settings().exportDtype());
                ConfigFile config = ConfigFile.parse("model", whole);
                if (config.requireInt("vocab_size", 1, Integer.MAX_VALUE) < tokens.vocabSize()) {
                    throw config.wrong("vocab_size", "at least %d, the tokenizer's".formatted(tokens.vocabSize()));
                }
                LoraConfig adapter = recipe.lora() == null ? null : adapterConfig(recipe.lora(), config);
                ModelLoader.Result base = adapter == null ? null : base(recipe, device);
                return new Setup(recipe, device, whole, config, tokenizer, tokens, bytesPerToken(corpus, tokens), base,
                        adapter);
            } catch (RuntimeException e) {
                try (tokens) {
                    throw e;
                }
            }
        }
    }

    private static ModelLoader.Result base(Recipe.LanguageModel recipe, Device device) {
        if (!(recipe.model() instanceof ModelSource.Directory directory)) {
            throw GatunException.invalid("lora without a trained model: expected a directory as model");
        }
        return ModelLoader.load(device, device.newStream(), directory.path(), recipe.settings().dtype(), count -> {});
    }

    private static double bytesPerToken(TextCorpus corpus, TokenFile tokens) {
        long bytes = 0;
        for (Path file : corpus.files()) {
            bytes += file.toFile().length();
        }
        return (double) bytes / tokens.size();
    }

    /// The directory of the tokenizer; one that is made of the text lies in the run's.
    private static Path tokenizer(Request request, Recipe.LanguageModel recipe, TextCorpus corpus) {
        return switch (recipe.vocabulary()) {
            case Recipe.Vocabulary.Directory given -> given.path();
            case Recipe.Vocabulary.Bytes bytes -> written(SimpleTokenizer.ofBytes(), request.work());
            case Recipe.Vocabulary.Characters characters ->
                    written(SimpleTokenizer.ofCharacters(corpus.characters()), request.work());
        };
    }

    private static Path written(SimpleTokenizer tokenizer, Path work) {
        try {
            Path directory = Files.createDirectories(work.resolve("tokenizer"));
            tokenizer.write(directory);
            return directory;
        } catch (IOException e) {
            throw GatunException.invalid("%s: cannot be written: %s", work, IoReason.of(e));
        }
    }

    private static String read(Path file) {
        try {
            return Files.readString(file);
        } catch (IOException e) {
            throw GatunException.invalid("%s: cannot be read: %s", file, IoReason.of(e));
        }
    }

    /// A config with what transformers takes where a field is absent, and with the dtype of the weights.
    private static String completed(String json, int vocabSize, DType exported) {
        try {
            ObjectNode config = (ObjectNode) new ObjectMapper().readTree(json);
            boolean gpt2 = config.path("model_type").asText().equals("gpt2");
            ObjectNode defaults = new ObjectMapper().createObjectNode();
            defaults.put("vocab_size", vocabSize);
            if (gpt2) {
                defaults.put("activation_function", "gelu_new").put("layer_norm_epsilon", 1e-5)
                        .put("tie_word_embeddings", true);
            } else {
                defaults.put("hidden_act", "silu").put("rms_norm_eps", 1e-6).put("rope_theta", 10000.0)
                        .put("tie_word_embeddings", true);
            }
            defaults.putArray("architectures").add(gpt2 ? "GPT2LMHeadModel" : "LlamaForCausalLM");
            defaults.properties().forEach(field -> {
                if (!config.hasNonNull(field.getKey())) {
                    config.set(field.getKey(), field.getValue());
                }
            });
            config.remove("dtype"); // the newer name of the next, which every transformers reads
            config.put("torch_dtype", switch (exported) {
                case BF16 -> "bfloat16";
                case F16 -> "float16";
                default -> "float32";
            });
            return config.toPrettyString() + "\n";
        } catch (JsonProcessingException e) {
            throw GatunException.invalid("config.json: %s", e.getMessage());
        }
    }

    private static int contextLength(ConfigFile config) {
        return LanguageFamily.of(config).contextLength(config);
    }

    private static LanguageTask ofAllWeights(Setup setup, float[] rates) {
        LanguageFamily family = LanguageFamily.of(setup.config);
        TrainingSettings settings = setup.recipe.settings();
        List<Parameters.Shape> shapes = Parameters.of(setup.device, family.prefix(),
                loader -> family.declare(setup.config, loader));
        if (!setup.config.getBoolean("tie_word_embeddings", true)) {
            throw setup.config.wrong("tie_word_embeddings", "true: a head of its own cannot be trained yet");
        }
        Trainer trainer = newTrainer(setup.device, shapes, settings, rates);
        try {
            trainer.set(setup.recipe.model() instanceof ModelSource.Directory directory
                    ? weightsOf(setup.device, directory.path(), family, shapes)
                    : new Initialiser(settings.seed()).language(shapes, setup.config.getNumber("initializer_range",
                            INITIALIZER_RANGE), family.layers(setup.config)));
            CausalModel model = family.build(setup.config, settings.dtype(), WeightLoader.trained(
                    trainer.parameters().weights(), trainer.arena(), trainer.stream(), settings.dtype(),
                    family.prefixes()), trainer.arena());
            return new LanguageTask(setup, trainer, rates, model, Map.of());
        } catch (RuntimeException e) {
            trainer.close();
            throw e;
        }
    }

    /// The weights of a directory in f32, under the names that are trained.
    private static Map<String, float[]> weightsOf(Device device, Path directory, LanguageFamily family,
            List<Parameters.Shape> shapes) {
        try (Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, directory, DType.F32, count -> {})) {
            Map<String, Tensor> weights = model.network().weights();
            Map<String, float[]> values = new LinkedHashMap<>();
            for (Parameters.Shape shape : shapes) {
                Tensor tensor = weights.get(shape.name());
                if (tensor == null) {
                    tensor = weights.get(shape.name().substring(family.prefix().length()));
                }
                if (tensor == null) {
                    throw GatunException.invalid("%s has no weight '%s'", directory, shape.name());
                }
                values.put(shape.name(), tensor.toFloats(stream));
            }
            requireTiedHead(directory, weights.get(HEAD), values.values(), stream);
            return values;
        }
    }

    /// A checkpoint may hold the embedding a second time, as the head.
    private static void requireTiedHead(Path directory, @Nullable Tensor head, Collection<float[]> trained,
            Stream stream) {
        if (head != null) {
            float[] own = head.toFloats(stream);
            if (trained.stream().noneMatch(values -> Arrays.equals(values, own))) {
                throw GatunException.invalid("%s has a head of its own, '%s': such a model cannot be fine-tuned yet,"
                        + " but adapters of it can ('lora')", directory, HEAD);
            }
        }
    }

    private static LoraConfig adapterConfig(LoraSettings lora, ConfigFile config) {
        boolean gpt2 = LanguageFamily.of(config) == LanguageFamily.GPT2;
        List<String> targets = !lora.targetModules().isEmpty() ? lora.targetModules()
                : gpt2 ? List.of("c_attn") : List.of("q_proj", "v_proj");
        return new LoraConfig(lora.r(), lora.loraAlpha(), targets, false, lora.rankPattern(), lora.alphaPattern(),
                lora.useRslora(), gpt2);
    }

    /// `down` begins uniform, `up` at 0, so that the model begins as it was.
    private static LanguageTask ofAdapters(Setup setup, ModelLoader.Result base, LoraConfig adapter, float[] rates) {
        TrainingSettings settings = setup.recipe.settings();
        List<LoraAdapter.Target> targets = LoraAdapter.targets(adapter, base.network().weights());
        List<Parameters.Shape> shapes = new ArrayList<>();
        for (LoraAdapter.Target target : targets) {
            long r = adapter.rankOf(target.module());
            List<String> names = LoraAdapter.tensorNames(target.module());
            shapes.add(new Parameters.Shape(names.get(0), new long[] {r, target.in()}, true));
            shapes.add(new Parameters.Shape(names.get(1), new long[] {target.out(), r}, true));
        }
        Trainer trainer = newTrainer(setup.device, shapes, settings, rates);
        try {
            Map<String, float[]> values = new Initialiser(settings.seed()).torch(shapes);
            values.replaceAll((name, value) -> name.endsWith("lora_B.weight") ? new float[value.length] : value);
            trainer.set(values);
            Map<Tensor, LowRank> adapters = new IdentityHashMap<>();
            for (LoraAdapter.Target target : targets) {
                List<String> names = LoraAdapter.tensorNames(target.module());
                adapters.put(target.weight(), new LowRank(trainer.parameters().get(names.get(0)).value(),
                        trainer.parameters().get(names.get(1)).value(), adapter.scaleOf(target.module())));
            }
            return new LanguageTask(setup, trainer, rates, base.network(), adapters);
        } catch (RuntimeException e) {
            trainer.close();
            throw e;
        }
    }

    @Override
    public String unit() {
        return "tokens";
    }

    @Override
    public long unitsPerStep() {
        TrainingSettings s = setup.recipe.settings();
        return (long) s.trainBatchSize() * s.gradientAccumulationSteps() * setup.length();
    }

    @Override
    void nextBatch() {
        TrainingSettings s = setup.recipe.settings();
        setWindows(windows.randomBatch(s.seed(), batch++, s.trainBatchSize()));
    }

    /// Uploads windows of T + 1 ids.
    private void setWindows(int[] ids) {
        int length = setup.length();
        int rows = ids.length / (length + 1);
        long[] tokens = new long[rows * length];
        long[] next = new long[rows * length];
        for (int i = 0; i < tokens.length; i++) {
            int at = i / length * (length + 1) + i % length;
            tokens[i] = ids[at];
            next[i] = ids[at + 1];
        }
        loss.setBatch(stream(), tokens, next);
    }

    /// The mean over windows of the held-out text, spread evenly where they are many. `eval_bits_per_byte` counts the
    /// bytes of the text's UTF-8.
    @Override
    public Map<String, Double> evaluate() {
        int rows = setup.recipe.settings().trainBatchSize();
        int count = Math.min(heldOut.count() / rows * rows, Math.max(rows, MAX_EVALUATION_WINDOWS / rows * rows));
        Plan plan = evaluation();
        double sum = 0;
        for (int from = 0; from < count; from += rows) {
            int[] chosen = new int[rows];
            for (int i = 0; i < rows; i++) {
                chosen[i] = (int) ((long) (from + i) * heldOut.count() / count);
            }
            setWindows(heldOut.batch(chosen));
            plan.run();
            sum += evaluated.toFloats(stream())[0];
        }
        double nats = sum / (count / rows);
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("eval_loss", nats);
        figures.put("eval_perplexity", Math.exp(nats));
        figures.put("eval_bits_per_byte", nats / Math.log(2) / bytesPerToken);
        return figures;
    }

    private Plan evaluation() {
        Plan made = evaluation;
        if (made == null) {
            evaluated = trainer().input(DType.F32, 1);
            Tensor to = evaluated;
            made = Plan.of(setup.device, recorder -> {
                Layers net = new Layers(setup.device, stream(), recorder);
                net.adapt(adapters);
                net.copyInto(to, loss.of(net, model, 0));
            });
            evaluation = made;
        }
        return made;
    }

    @Override
    public BatchOrder.Position position() {
        return new BatchOrder.Position(0, batch);
    }

    @Override
    public void restore(RunCheckpoint checkpoint) {
        super.restore(checkpoint);
        batch = checkpoint.state().position().batch();
    }

    @Override
    public void writeModel(Path directory) throws IOException {
        LoraConfig adapter = setup.adapter;
        if (adapter != null) {
            ModelSource.Directory base = (ModelSource.Directory) setup.recipe.model();
            Files.writeString(directory.resolve("adapter_config.json"), adapter.toJson(base.path().toString()));
            SafetensorsWriter.write(directory.resolve("adapter_model.safetensors"), weights(), Map.of("format", "pt"));
            return;
        }
        Files.writeString(directory.resolve("config.json"), setup.json);
        SafetensorsWriter.write(directory.resolve("model.safetensors"), weights(), Map.of("format", "pt"));
        for (String name : TOKENIZER_FILES) {
            if (Files.isRegularFile(setup.tokenizer.resolve(name))) {
                Files.copy(setup.tokenizer.resolve(name), directory.resolve(name));
            }
        }
    }

    @Override
    int batchSize() {
        return setup.recipe.settings().trainBatchSize();
    }

    @Override
    void prepare() {
        evaluation();
    }

    @Override
    long frozenBytes() {
        ModelLoader.Result base = setup.base;
        return base == null ? 0 : base.arena().bytes();
    }

    @Override
    public void close() {
        Plan made = evaluation;
        Trainer trainer = trainer();
        try (setup; trainer; made) {
            evaluation = null;
        }
    }
}
