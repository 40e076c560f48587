package io.gatun.train;

import io.gatun.diffusion.Denoiser;
import io.gatun.diffusion.Guidance;
import io.gatun.diffusion.SamplingLoop;
import io.gatun.diffusion.SamplingOptions;
import io.gatun.diffusion.SchedulerConfig;
import io.gatun.diffusion.Trajectory;
import io.gatun.io.SafetensorsWriter;
import io.gatun.models.ConfigFile;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Tensor;
import io.gatun.train.DiffusionLoss.NoiseSource;
import io.gatun.train.data.CounterRandom;
import io.gatun.train.data.ImageSet;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Consumer;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;

/// A diffusion U-Net on pixels: [DiffusionLoss], or with EDM's scheduler [EdmLoss]. A network with `num_class_embeds`
/// is told classes; the last of them means none, as [ImageNetwork#nullClass] has it.
final class DiffusionTask extends ImageTask {
    private static final String CLASS = "UNet2DModel";
    private static final List<String> FIELDS = List.of("_diffusers_version", "act_fn", "add_attention",
            "attention_head_dim", "attn_norm_num_groups", "block_out_channels", "center_input_sample",
            "class_embed_type", "down_block_types", "downsample_padding", "downsample_type", "dropout",
            "flip_sin_to_cos", "freq_shift", "in_channels", "layers_per_block", "mid_block_scale_factor",
            "mid_block_type", "norm_eps", "norm_num_groups", "num_class_embeds", "num_train_timesteps", "out_channels",
            "resnet_time_scale_shift", "sample_size", "time_embedding_dim", "time_embedding_type", "up_block_types",
            "upsample_type");
    private static final List<String> SCHEDULER_FIELDS = List.of("_diffusers_version", "algorithm_type", "beta_end",
            "beta_schedule", "beta_start", "clip_sample", "clip_sample_range", "dynamic_thresholding_ratio",
            "euler_at_final", "final_sigmas_type", "interpolation_type", "lower_order_final", "num_train_timesteps",
            "prediction_type", "rescale_betas_zero_snr", "sample_max_value", "set_alpha_to_one", "skip_prk_steps",
            "solver_order", "solver_type", "steps_offset", "thresholding", "timestep_spacing", "timestep_type",
            "trained_betas", "use_exponential_sigmas", "use_beta_sigmas", "use_karras_sigmas", "variance_type");
    private static final List<String> EDM_FIELDS = List.of("_diffusers_version", "final_sigmas_type",
            "num_train_timesteps", "prediction_type", "rho", "sigma_data", "sigma_max", "sigma_min", "sigma_schedule");
    private static final int MAX_EVALUATED = 1024;
    private static final int SAMPLES = 16;
    /// What tells random numbers of one picture from each other.
    private static final long TIME = 1;
    private static final long CLASS_DROPOUT = 2;
    private static final long ANGLE = 3;

    private final Recipe.Diffusion recipe;
    private final ConfigFile config;
    private final SchedulerConfig scheduler;
    private final ImageNetwork judged;
    private final Objective objective;
    private final Tensor found;

    /// What the recipe says, checked.
    ///
    /// @param directory whose weights training goes on from; null: none
    private record Setup(Recipe.Diffusion recipe, ConfigFile config, SchedulerConfig scheduler,
            @Nullable Path directory) {}

    /// A loss of pictures with noise, and how a batch gets there.
    ///
    /// @param seeds of the noise
    private record Objective(Forward forward, Tensor seeds, Upload upload) {
        interface Forward {
            Tensor of(Layers net, ImageNetwork network, int rows);
        }

        interface Upload {
            /// @param numbers of the pictures, by which noise levels are drawn
            void batch(float[] pixels, long[] numbers, int @Nullable [] classes);
        }
    }

    private DiffusionTask(ImageTraining training, Setup setup) {
        super(training);
        this.recipe = setup.recipe;
        this.config = setup.config;
        this.scheduler = setup.scheduler;
        ImageNetwork network = ImageNetworkLoader.create(config, training.trained());
        this.judged = ImageNetworkLoader.create(config, training.evaluated());
        this.objective = scheduler.isEdm() ? ofSigmas() : ofSteps();
        this.found = trainer().input(DType.F32, 1);
        trainer().loss(net -> objective.forward.of(net, network, batchSize()));
    }

    /// Noise of a training step, each as likely.
    private Objective ofSteps() {
        ImageSet set = training().data().train();
        int steps = scheduler.noise().steps();
        DiffusionLoss loss = new DiffusionLoss(trainer(), scheduler.noise(), recipe.predictionType(), recipe.snrGamma(),
                NoiseSource.DRAWN, batchSize(), set.size(), set.channels(), judged.numClasses() > 0);
        return new Objective(loss::of, loss.seeds(), (pixels, numbers, classes) -> loss.setBatch(stream(), pixels,
                LongStream.of(numbers).mapToInt(n -> (int) CounterRandom.below(steps, random(TIME), n)).toArray(),
                classes));
    }

    /// Noise whose deviation is log-normal.
    private Objective ofSigmas() {
        ImageSet set = training().data().train();
        EdmLoss loss = new EdmLoss(trainer(), scheduler.sigmaData(), recipe.predictionType(), NoiseSource.DRAWN,
                batchSize(), set.size(), set.channels(), judged.numClasses() > 0);
        return new Objective(loss::of, loss.seeds(), (pixels, numbers, classes) -> loss.setBatch(stream(), pixels,
                LongStream.of(numbers).mapToDouble(n -> Math.exp(recipe.pMean() + recipe.pStd() * normal(n))).toArray(),
                classes));
    }

    /// Box and Muller 1958.
    private double normal(long n) {
        return Math.sqrt(-2 * Math.log(1 - uniform(random(TIME), n))) * Math.cos(2 * Math.PI
                * uniform(random(ANGLE), n));
    }

    static DiffusionTask open(Request request, Recipe.Diffusion recipe) {
        Setup setup = setup(recipe);
        ConfigFile config = setup.config;
        ImageNetwork network = shapes(config);
        List<Integer> size = network.sampleSize();
        if (size.isEmpty() || !size.getFirst().equals(size.getLast())) {
            throw config.wrong("sample_size", "the height of square pictures");
        }
        if (network.inChannels() != network.outChannels()) {
            throw config.wrong("out_channels", "in_channels, %d".formatted(network.inChannels()));
        }
        ImageData data = ImageData.open(request.data(), size.getFirst(), network.inChannels());
        checkClasses(recipe, config, network, data);
        ImageTraining.Networks networks = new ImageTraining.Networks(loader ->
                ImageNetworkLoader.create(config, loader), setup.directory, Initialiser::torch);
        return ImageTraining.open(request, data, networks, training -> new DiffusionTask(training, setup));
    }

    private static Setup setup(Recipe.Diffusion recipe) {
        ModelSource model = recipe.model() instanceof ModelSource.Directory(Path path)
                && Files.isDirectory(path.resolve("unet")) ? new ModelSource.Directory(path.resolve("unet"))
                : recipe.model();
        ConfigFile config = ImageTraining.config(model, Map.entry("_class_name", CLASS), FIELDS);
        if (config.getNumber("dropout", 0) != 0) {
            throw config.wrong("dropout", "0");
        }
        ConfigFile noise = recipe.scheduler().config();
        ImageTraining.strict(noise, Map.entry("_class_name", ""),
                SchedulerConfig.isEdm(noise) ? EDM_FIELDS : SCHEDULER_FIELDS);
        return new Setup(recipe, config, SchedulerConfig.ofTraining(noise,
                recipe.predictionType().name().toLowerCase(Locale.ROOT)), ImageTraining.directory(model));
    }

    /// The network without memory.
    private static ImageNetwork shapes(ConfigFile config) {
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device)) {
            return ImageNetworkLoader.create(config, WeightLoader.shapes(shapes, DType.F32));
        }
    }

    private static void checkClasses(Recipe.Diffusion recipe, ConfigFile config, ImageNetwork network, ImageData data) {
        if (network.classLabels() == ImageNetwork.Labels.IDS) {
            data.requireClasses(network.numClasses(), "num_class_embeds");
        } else if (network.classLabels() != ImageNetwork.Labels.NONE) {
            throw config.wrong("class_embed_type", "none: classes are rows of a table, num_class_embeds");
        }
        int classes = data.train().classes().size();
        if (recipe.classDropoutProb() > 0 && network.numClasses() != classes + 1) {
            throw config.wrong("num_class_embeds", "%d, the data's classes and one that means none, for"
                    .formatted(classes + 1) + " class_dropout_prob");
        }
        if (recipe.guidanceScale() > 1 && recipe.classDropoutProb() == 0) {
            throw GatunException.invalid("guidance_scale is %s without class_dropout_prob: there is nothing to guide"
                    + " by", recipe.guidanceScale());
        }
    }

    @Override
    int mostEvaluated() {
        return MAX_EVALUATED;
    }

    @Override
    void upload(ImageSet set, int[] chosen, long first) {
        int[] classes = set.batchLabels(chosen);
        for (int i = 0; i < chosen.length; i++) {
            if (first >= 0 && uniform(random(CLASS_DROPOUT), first + i) < recipe.classDropoutProb()) {
                classes[i] = judged.nullClass();
            }
        }
        objective.upload.batch(set.batch(chosen, -1, 1), LongStream.range(first, first + chosen.length).toArray(),
                judged.numClasses() > 0 ? classes : null);
        uploadSeeds(objective.seeds, first, chosen.length);
    }

    /// The seed of one kind of random numbers.
    private long random(long kind) {
        return CounterRandom.bits(training().settings().seed(), -kind);
    }

    private static double uniform(long seed, long n) {
        return (CounterRandom.bits(seed, n) >>> 11) * 0x1p-53;
    }

    @Override
    void recordEvaluation(Layers net, int rows) {
        net.copyInto(found, objective.forward.of(net, judged, rows));
    }

    @Override
    Map<String, Double> evaluated(int[] chosen) {
        return Map.of("eval_loss", (double) found.toFloats(stream())[0]);
    }

    /// Pictures of the same noise each time, of the classes in turn.
    @Override
    public void sample(Path folder, String name) {
        int size = training().data().train().size();
        withLoop(loop -> {
            loop.start(LongStream.range(0, SAMPLES).toArray());
            loop.run();
            SampleGrid.write(folder.resolve(name + ".png"), loop.sample().toFloats(stream()), SAMPLES, size, size, -1,
                    1);
        });
    }

    @Override
    void prepareSamples() {
        withLoop(loop -> {});
    }

    private void withLoop(Consumer<SamplingLoop> use) {
        ImageSet set = training().data().train();
        int size = set.size();
        boolean isGuided = recipe.guidanceScale() > 1;
        SamplingLoop.Settings settings = SamplingLoop.Settings.of(SAMPLES, size, size, set.channels(),
                training().evaluatedDtype()).withGuidance(isGuided ? Guidance.of(recipe.guidanceScale()) : null);
        try (DeviceArena arena = training().device().newArena("samples")) {
            Tensor classes = judged.numClasses() == 0 ? null : arena.allocate(DType.I32, (isGuided ? 2 : 1) * SAMPLES);
            if (classes != null) {
                classes.copyFrom(stream(), classes(isGuided));
            }
            Trajectory trajectory = scheduler.sampler().trajectory(SamplingOptions.steps(recipe.numInferenceSteps()));
            try (SamplingLoop loop = SamplingLoop.of(stream(), trajectory, settings,
                    (plan, in) -> denoised(plan, in, classes))) {
                use.accept(loop);
            }
        }
    }

    private Tensor denoised(Plan.Recorder plan, Denoiser.Inputs in, @Nullable Tensor classes) {
        Tensor output = plan.allocate(in.sample().dtype(), in.sample().shape());
        judged.forward(new Layers(training().device(), stream(), plan), output, new ImageNetwork.Inputs(in.sample(),
                in.timesteps(), in.counter(), null, classes, null, null, null));
        return output;
    }

    /// Of samples; with guidance the first half of the rows has none.
    private int[] classes(boolean isGuided) {
        int[] ids = new int[(isGuided ? 2 : 1) * SAMPLES];
        int unguided = ids.length - SAMPLES;
        for (int i = 0; i < ids.length; i++) {
            ids[i] = i < unguided ? judged.nullClass() : i % training().data().train().classes().size();
        }
        return ids;
    }

    /// A pipeline as diffusers has it. It leaves fields that begin with `_` alone; our pipelines take them as defaults.
    @Override
    public void writeModel(Path directory) throws IOException {
        String pipeline = scheduler.className().startsWith("DDIM") ? "DDIMPipeline" : "DDPMPipeline";
        Files.writeString(directory.resolve("model_index.json"), """
                {
                  "_class_name": "%s",
                  "_guidance_scale": %s,
                  "_num_inference_steps": %d,
                  "scheduler": ["diffusers", "%s"],
                  "unet": ["diffusers", "%s"]
                }
                """.formatted(pipeline, recipe.guidanceScale(), recipe.numInferenceSteps(),
                        scheduler.className(), CLASS));
        Path unet = Files.createDirectory(directory.resolve("unet"));
        Files.writeString(unet.resolve("config.json"), config.json() + "\n");
        SafetensorsWriter.write(unet.resolve("diffusion_pytorch_model.safetensors"), weights(), Map.of("format", "pt"));
        Path folder = Files.createDirectory(directory.resolve("scheduler"));
        Files.writeString(folder.resolve("scheduler_config.json"), scheduler.json() + "\n");
    }
}
