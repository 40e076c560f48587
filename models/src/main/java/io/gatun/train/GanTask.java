package io.gatun.train;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.io.Checkpoint;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.ModelLoader;
import io.gatun.models.gan.Dcgan;
import io.gatun.models.gan.DcganConfig;
import io.gatun.models.gan.LatentDecoder;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Tensor;
import io.gatun.train.data.BatchOrder;
import io.gatun.train.data.CounterRandom;
import io.gatun.train.data.ImageSet;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// GANs on pictures: a [Dcgan] against its mirror image, see [GanGame]. A step is `n_critic` updates of the
/// discriminator, each on pictures and noise of its own, and one of the generator on the noise of the last of them.
///
/// Each real picture has a number, how many went before it, which with the seed gives the noise of the generated
/// picture beside it. Held-out pictures and samples have negative numbers.
final class GanTask extends TrainerTask {
    private static final List<String> MODEL_FIELDS = List.of("model_type", "architectures", "latent_size",
            "num_class_embeds", "channels", "image_channels", "image_size", "batch_norm_eps", "discriminator");
    private static final int NUM_SAMPLES = 64;
    private static final int MAX_EVALUATION_BATCHES = 16;
    private static final int DEFAULT_GROUPS = 4;

    private final Setup setup;
    private final GanGame game;
    private final float[] discriminatorRates;
    private final BatchOrder order;
    /// The same batches once more, for the classes of those that are past.
    private final BatchOrder replay;
    private int pass;
    private @Nullable Evaluation evaluation;

    /// What is opened before the trainers.
    private record Setup(Recipe.Gan recipe, Device device, GanGame.Design design, ImageSet train, ImageSet heldOut)
            implements AutoCloseable {
        TrainingSettings settings() {
            return recipe.settings();
        }

        @Override
        public void close() {
            device.close();
        }
    }

    /// Plans that change nothing of the training, and what they write.
    ///
    /// @param images the samples, f32 [NUM_SAMPLES, H, W, C]
    /// @param said   of real and of generated pictures, f32 [2, B, 1], or [2, B, K] with classes
    private record Evaluation(Plan draw, Tensor images, Plan judge, Tensor said)
            implements AutoCloseable {
        @Override
        public void close() {
            try (draw) {
                judge.close();
            }
        }
    }

    private GanTask(Setup setup, GanGame game, float[] rates, float[] discriminatorRates) {
        super(game.generator(), setup.settings().exportDtype(), rates);
        this.setup = setup;
        this.game = game;
        this.discriminatorRates = discriminatorRates;
        this.order = order(setup);
        this.replay = order(setup);
    }

    static GanTask open(Request request, Recipe.Gan recipe) {
        TrainingSettings s = recipe.settings();
        if (s.dropout() != 0) {
            throw GatunException.invalid("dropout is %s, expected 0: a DCGAN has none", s.dropout());
        }
        if (s.gradientCheckpointing()) {
            throw GatunException.invalid("gradient_checkpointing is true, expected false: a DCGAN has no blocks");
        }
        GanGame.Design design = design(recipe);
        DcganConfig config = design.generator();
        ImageSet train = ImageSet.open(request.data(), ImageSet.Part.TRAIN, config.imageSize(), config.imageChannels());
        ImageSet heldOut = ImageSet.open(request.data(), ImageSet.Part.HELD_OUT, config.imageSize(),
                config.imageChannels());
        if (config.numClasses() > 0) {
            new ImageData(train, heldOut).requireClasses(config.numClasses(), "num_class_embeds");
        }
        Setup setup = new Setup(recipe, Device.open(request.device(), new Device.Options(request.threads())), design,
                train, heldOut);
        try {
            return begin(setup);
        } catch (RuntimeException e) {
            setup.close();
            throw e;
        }
    }

    private static GanTask begin(Setup setup) {
        TrainingSettings s = setup.settings();
        Recipe.Gan recipe = setup.recipe;
        int steps = s.steps(order(setup).batchesPerEpoch() / recipe.nCritic());
        float[] rates = s.learningRates(steps);
        TrainingSettings.LrScheduler schedule = s.lrScheduler();
        double rate = recipe.discriminatorOptimizer().learningRate();
        float[] discriminatorRates = LearningRates.table(schedule.name(), rate,
                Math.multiplyExact(schedule.warmupSteps(), recipe.nCritic()), Math.min(schedule.minLr(), rate),
                Math.multiplyExact(steps, recipe.nCritic()));
        UpdateRule rule = rule(recipe.discriminatorOptimizer());
        GanGame game = new GanGame(setup.device, setup.design, s.trainBatchSize(), true,
                new GanGame.Player(rule(s.optimizer()), rates, options(s, s.emaDecay())),
                new GanGame.Player(recipe.clipValue() == 0 ? rule : new UpdateRule.Clipped(rule,
                        (float) recipe.clipValue()), discriminatorRates, options(s, 0)));
        try {
            setWeights(setup, game);
            return new GanTask(setup, game, rates, discriminatorRates);
        } catch (RuntimeException e) {
            game.close();
            throw e;
        }
    }

    private static BatchOrder order(Setup setup) {
        TrainingSettings s = setup.settings();
        return new BatchOrder(setup.train.count(), s.trainBatchSize(), BatchOrder.Order.SHUFFLED, s.seed());
    }

    private static Trainer.Options options(TrainingSettings s, double emaDecay) {
        return new Trainer.Options(s.dtype(), (float) s.maxGradNorm(), s.gradientAccumulationSteps(), (float) emaDecay,
                s.gradientCheckpointing(), (float) s.dropout(), s.seed());
    }

    private static GanGame.Design design(Recipe.Gan recipe) {
        ConfigFile json = switch (recipe.model()) {
            case ModelSource.Config config -> config.config();
            case ModelSource.Directory(Path path) -> {
                ModelLoader.requireDirectory(path);
                yield ConfigFile.read(path.resolve("config.json"));
            }
        };
        StrictFields fields = new StrictFields(json, "", MODEL_FIELDS);
        if (fields.has("model_type") && !DcganConfig.MODEL_TYPE.equals(fields.string("model_type"))) {
            throw fields.wrong("model_type", DcganConfig.MODEL_TYPE);
        }
        DcganConfig generator = DcganConfig.parse(json);
        ModelSource.Config given = recipe.discriminator();
        StrictFields mirror = new StrictFields(given == null ? json.objectOrEmpty("discriminator") : given.config(),
                "", List.of("channels", "num_groups"));
        DcganConfig discriminator = generator;
        if (mirror.has("channels")) {
            List<Integer> channels = mirror.config().getInts("channels");
            if (channels.size() != generator.channels().size() || channels.stream().anyMatch(c -> c < 1)) {
                throw mirror.wrong("channels", generator.channels().size() + " positive integers, as many as the"
                        + " generator has");
            }
            discriminator = new DcganConfig(generator.latentSize(), generator.numClasses(), channels,
                    generator.imageChannels(), generator.batchNormEps());
        }
        boolean penalised = recipe.loss() == Recipe.GanLoss.WGAN_GP;
        int groups = mirror.integer("num_groups", 0, penalised ? dividing(discriminator.channels()) : 0);
        if (groups == 0 && penalised) {
            throw mirror.wrong("num_groups", "1 or more: a gradient penalty is of each picture by itself, which batch"
                    + " norms mix");
        }
        for (int c : discriminator.channels()) {
            if (groups != 0 && c % groups != 0) {
                throw mirror.wrong("num_groups", "a divisor of the channels %s".formatted(discriminator.channels()));
            }
        }
        return new GanGame.Design(generator, discriminator, groups, recipe.loss(), (float) recipe.lambdaGp());
    }

    /// The most groups, up to the default, that divide all channels.
    private static int dividing(List<Integer> channels) {
        int groups = DEFAULT_GROUPS;
        while (groups > 1) {
            int n = groups;
            if (channels.stream().allMatch(c -> c % n == 0)) {
                break;
            }
            groups--;
        }
        return groups;
    }

    /// Those of a model directory, else random ones; a directory may be without a discriminator.
    private static void setWeights(Setup setup, GanGame game) {
        Initialiser initialiser = new Initialiser(setup.settings().seed());
        Map<Trainer, RunningStatistics> players = new LinkedHashMap<>();
        players.put(game.generator(), game.generatorStatistics());
        players.put(game.discriminator(), game.discriminatorStatistics());
        players.forEach((trainer, statistics) -> trainer.set(initialiser.dcgan(trainer.parameters().all().stream()
                .map(p -> new Parameters.Shape(p.name(), p.master().shape(), p.decays())).toList())));
        if (!(setup.recipe.model() instanceof ModelSource.Directory(Path path))) {
            return;
        }
        try (Checkpoint checkpoint = Checkpoint.open(path, "model")) {
            players.forEach((trainer, statistics) -> {
                Map<String, Tensor> wanted = new LinkedHashMap<>();
                trainer.parameters().all().forEach(p -> wanted.put(p.name(), p.master()));
                wanted.putAll(statistics.byName());
                boolean isKnown = wanted.keySet().stream().anyMatch(checkpoint.names()::contains);
                if (trainer == game.discriminator() && !isKnown) {
                    return;
                }
                wanted.forEach((name, tensor) -> {
                    float[] values = checkpoint.floats(stored(checkpoint, name));
                    if (values.length != tensor.elements()) {
                        throw GatunException.invalid("%s: '%s' has %d values, its config.json says %s", path, name,
                                values.length, tensor);
                    }
                    tensor.copyFrom(trainer.stream(), values);
                });
                trainer.refresh();
            });
        }
    }

    /// The name that a weight has in a file.
    private static String stored(Checkpoint checkpoint, String name) {
        if (name.startsWith(GanGame.GENERATOR)) {
            String plain = name.substring(GanGame.GENERATOR.length());
            for (String prefix : Dcgan.FAMILY.prefixes()) {
                if (checkpoint.names().contains(prefix + plain)) {
                    return prefix + plain;
                }
            }
        }
        return name;
    }

    @Override
    public String unit() {
        return "images";
    }

    @Override
    public long unitsPerStep() {
        TrainingSettings s = setup.settings();
        return (long) batchSize() * s.gradientAccumulationSteps() * setup.recipe.nCritic();
    }

    @Override
    public List<String> warnings() {
        return setup.train.warnings();
    }

    /// Before the first pass of the generator, the discriminator's updates; then each pass has the noise that the
    /// discriminator's last update had in the pass of that number.
    @Override
    void nextBatch() {
        int passes = setup.settings().gradientAccumulationSteps();
        if (pass == 0) {
            for (int update = 0; update < setup.recipe.nCritic(); update++) {
                do {
                    nextDiscriminatorBatch();
                } while (!game.discriminator().step());
            }
        }
        if (passes > 1) {
            setNoise(batches() - passes + pass);
        }
        pass = (pass + 1) % passes;
    }

    private void nextDiscriminatorBatch() {
        long first = batches() * batchSize();
        setNoise(batches());
        game.setReal(setup.train.batch(order.next(), -1, 1));
        if (setup.design.lambda() != 0) {
            long seed = CounterRandom.bits(setup.settings().seed(), -1);
            float[] shares = new float[batchSize()];
            for (int i = 0; i < shares.length; i++) {
                shares[i] = CounterRandom.uniform(seed, first + i);
            }
            game.setMix(shares);
        }
    }

    /// Of the generated pictures beside those of a batch, and the classes of both.
    ///
    /// @param batch how many went before it
    private void setNoise(long batch) {
        game.setSeeds(seeds(batch * batchSize(), batchSize()));
        if (hasClasses()) {
            replay.seek(new BatchOrder.Position(batch / replay.batchesPerEpoch(), batch % replay.batchesPerEpoch()));
            game.setClasses(setup.train.batchLabels(replay.next()));
        }
    }

    private boolean hasClasses() {
        return setup.design.generator().numClasses() > 0;
    }

    @Override
    List<Trainer> trainers() {
        return List.of(game.generator(), game.discriminator());
    }

    @Override
    void prepare() {
        evaluation();
    }

    @Override
    int batchSize() {
        return setup.settings().trainBatchSize();
    }

    /// Batches so far.
    private long batches() {
        BatchOrder.Position position = order.position();
        return position.epoch() * order.batchesPerEpoch() + position.batch();
    }

    /// Of pictures' noise, [count, 2].
    private long[] seeds(long first, int count) {
        long[] seeds = new long[2 * count];
        for (int i = 0; i < count; i++) {
            seeds[2 * i] = setup.settings().seed();
            seeds[2 * i + 1] = first + i;
        }
        return seeds;
    }

    /// `loss`, `grad_norm` and `lr` are the generator's.
    @Override
    public Map<String, Double> figures() {
        Map<String, Double> figures = super.figures();
        Trainer.Result result = game.discriminator().result();
        figures.put("discriminator_loss", (double) result.loss());
        figures.put("discriminator_grad_norm", (double) result.norm());
        int updates = done() * setup.recipe.nCritic();
        figures.put("discriminator_lr", (double) discriminatorRates[Math.clamp(updates - 1, 0,
                discriminatorRates.length - 1)]);
        if (setup.design.lambda() != 0) {
            figures.put("gradient_penalty", (double) game.gradientPenalty());
        }
        return figures;
    }

    /// What the discriminator says of held-out pictures and of generated ones on average, a logit or a critic's value.
    @Override
    public Map<String, Double> evaluate() {
        Evaluation e = evaluation();
        int b = batchSize();
        int count = Math.clamp(setup.heldOut.count() / b, 1, MAX_EVALUATION_BATCHES);
        double[] sums = new double[2];
        for (int batch = 0; batch < count; batch++) {
            int[] chosen = new int[b];
            for (int i = 0; i < b; i++) {
                chosen[i] = (batch * b + i) % setup.heldOut.count();
            }
            game.setReal(setup.heldOut.batch(chosen, -1, 1));
            game.setSeeds(seeds(-(long) (batch + 1) * b, b));
            int[] classes = hasClasses() ? setup.heldOut.batchLabels(chosen) : new int[b];
            if (hasClasses()) {
                game.setClasses(classes);
            }
            e.judge.run();
            float[] said = e.said.toFloats(stream());                                           // [2, B, 1 or K]
            int width = said.length / (2 * b);
            for (int i = 0; i < 2 * b; i++) {
                sums[i / b] += said[i * width + classes[i % b]];
            }
        }
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("eval_discriminator_real", sums[0] / (count * b));
        figures.put("eval_discriminator_fake", sums[1] / (count * b));
        return figures;
    }

    @Override
    public void sample(Path folder, String name) throws IOException {
        Evaluation e = evaluation();
        e.draw.run();
        int size = setup.design.generator().imageSize();
        SampleGrid.write(folder.resolve(name + ".png"), e.images.toFloats(stream()), NUM_SAMPLES, size, size, -1, 1);
    }

    private Evaluation evaluation() {
        Evaluation made = evaluation;
        if (made == null) {
            made = newEvaluation();
            evaluation = made;
        }
        return made;
    }

    private Evaluation newEvaluation() {
        DcganConfig config = setup.design.generator();
        Map<String, Tensor> averages = trainer().averages();
        DType dtype = averages.isEmpty() ? setup.settings().dtype() : DType.F32;
        Dcgan drawn = averages.isEmpty() ? game.g() : game.generator(game.generatorStatistics().with(averages), dtype);
        Tensor keys = trainer().input(DType.I64, NUM_SAMPLES, 2);
        keys.copyFrom(stream(), seeds(-NUM_SAMPLES, NUM_SAMPLES));
        Tensor images = trainer().input(DType.F32, NUM_SAMPLES, config.imageSize(), config.imageSize(),
                config.imageChannels());
        Tensor said = trainer().input(DType.F32, 2, batchSize(), Math.max(1, config.numClasses()));
        Tensor classes = hasClasses() ? trainer().input(DType.F32, NUM_SAMPLES, 1, 1, config.numClasses()) : null;
        if (classes != null) {
            int[] inTurn = IntStream.range(0, NUM_SAMPLES).map(i -> i % setup.train.classes().size()).toArray();
            classes.copyFrom(stream(), LatentDecoder.oneHot(inTurn, config.numClasses()));
        }
        Plan draw = Plan.of(setup.device, recorder -> {
            Layers net = new Layers(setup.device, stream(), recorder);
            long inputs = config.latentSize() + config.numClasses();
            Tensor z = net.allocate(dtype, NUM_SAMPLES, 1, 1, inputs);
            Tensor noise = z.slice(3, 0, config.latentSize());
            net.op(stream -> Noise.normal(stream, noise, keys, 0), noise, keys);
            if (classes != null) {
                net.castInto(z.slice(3, config.latentSize(), inputs), classes);
            }
            net.castInto(images, drawn.forward(net, z.reshape(NUM_SAMPLES, inputs)));
        });
        try {
            Plan judge = Plan.of(setup.device, recorder -> game.judge(new TapedLayers(setup.device, stream(), recorder,
                    game.discriminator().parameters()), said));
            return new Evaluation(draw, images, judge, said);
        } catch (RuntimeException e) {
            draw.close();
            throw e;
        }
    }

    @Override
    public BatchOrder.Position position() {
        return order.position();
    }

    @Override
    Map<String, Tensor> tensors() {
        Map<String, Tensor> tensors = super.tensors();
        Trainer d = game.discriminator();
        d.parameters().all().forEach(p -> tensors.put("model." + p.name(), p.master()));
        d.state().forEach((name, tensor) -> tensors.put(GanGame.DISCRIMINATOR + name, tensor));
        game.generatorStatistics().byName().forEach((name, tensor) -> tensors.put("model." + name, tensor));
        game.discriminatorStatistics().byName().forEach((name, tensor) -> tensors.put("model." + name, tensor));
        return tensors;
    }

    @Override
    public void restore(RunCheckpoint checkpoint) {
        game.discriminator().restore(() -> super.restore(checkpoint));
        order.seek(checkpoint.state().position());
        pass = 0;
    }

    /// A directory that `gatun sample` opens: the generator, and what belongs to the discriminator under its prefix.
    @Override
    public void writeModel(Path directory) throws IOException {
        Files.writeString(directory.resolve("config.json"), configJson());
        TrainingSettings s = setup.settings();
        long passes = (long) done() * s.gradientAccumulationSteps();
        Map<String, TensorSource> tensors = weights();
        tensors.putAll(game.generatorStatistics().sources(passes));
        if (setup.recipe.exportDiscriminator()) {
            game.discriminator().parameters().all().forEach(p -> tensors.put(p.name(), exported(p.master())));
            tensors.putAll(game.discriminatorStatistics().sources(passes * (2L * setup.recipe.nCritic() + 1)));
        }
        SafetensorsWriter.write(directory.resolve("model.safetensors"), tensors, Map.of("format", "pt"));
    }

    private String configJson() {
        DcganConfig config = setup.design.generator();
        ObjectNode json = new ObjectMapper().createObjectNode();
        json.put("model_type", DcganConfig.MODEL_TYPE).put("latent_size", config.latentSize());
        if (hasClasses()) {
            json.put("num_class_embeds", config.numClasses());
        }
        config.channels().forEach(json.putArray("channels")::add);
        json.put("image_channels", config.imageChannels()).put("image_size", config.imageSize())
                .put("batch_norm_eps", Double.parseDouble(Float.toString(config.batchNormEps())));
        if (!setup.recipe.exportDiscriminator()) {
            return json.toPrettyString() + "\n";
        }
        ObjectNode mirror = json.putObject("discriminator");
        setup.design.discriminator().channels().forEach(mirror.putArray("channels")::add);
        mirror.put("num_groups", setup.design.groups());
        return json.toPrettyString() + "\n";
    }

    @Override
    public void close() {
        Evaluation made = evaluation;
        try (setup; game; made) {
            evaluation = null;
        }
    }
}
