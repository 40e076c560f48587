package io.gatun.train;

import io.gatun.diffusion.SampleConfig;
import io.gatun.diffusion.SchedulerConfig;
import io.gatun.models.ConfigFile;
import io.gatun.runtime.DType;
import io.gatun.train.LearningRates.Schedule;
import io.gatun.train.Recipe.GanLoss;
import io.gatun.train.Recipe.PredictionType;
import io.gatun.train.Recipe.Reconstruction;
import io.gatun.train.Recipe.Vocabulary;
import io.gatun.train.TrainingSettings.LrScheduler;
import io.gatun.train.TrainingSettings.Optimizer;
import io.gatun.train.TrainingSettings.OptimizerName;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/// Makes a [Recipe] of its JSON.
final class RecipeReader {
    private static final double ANY = Double.MAX_VALUE;
    private static final double REQUIRED = Double.NaN;
    private static final double EDM_P_MEAN = -1.2; // Karras et al. 2022, as the next
    private static final double EDM_P_STD = 1.2;

    private static final List<String> COMMON = List.of("task", "model", "seed", "max_steps", "num_train_epochs",
            "train_batch_size", "gradient_accumulation_steps", "optimizer", "lr_scheduler", "max_grad_norm",
            "ema_decay", "dtype", "export_dtype", "dropout", "gradient_checkpointing", "logging_steps", "eval_steps",
            "save_steps", "sample_steps", "save_total_limit");
    private static final String[] OPTIMIZER = {"name", "learning_rate", "betas", "eps", "weight_decay", "momentum",
        "nesterov", "alpha"};
    private static final String[] LORA = {"r", "lora_alpha", "target_modules", "lora_dropout", "use_rslora",
        "rank_pattern", "alpha_pattern"};

    /// What is trained, and the fields that only this task has.
    private enum Task {
        LANGUAGE_MODEL("tokenizer", "block_size", "lora", "label_smoothing_factor"),
        DIFFUSION("scheduler", "prediction_type", "snr_gamma", "p_mean", "p_std", "class_dropout_prob",
                "num_inference_steps", "guidance_scale"),
        VAE("reconstruction", "beta", "export_encoder"),
        VQ_VAE("reconstruction", "commitment_cost"),
        GAN("discriminator", "discriminator_optimizer", "loss", "n_critic", "clip_value", "lambda_gp",
                "export_discriminator"),
        CLASSIFIER("label_smoothing_factor");

        private final List<String> fields;

        Task(String... fields) {
            List<String> all = new ArrayList<>(COMMON);
            all.addAll(List.of(fields));
            this.fields = List.copyOf(all);
        }
    }

    /// Values of `dtype` and `export_dtype`.
    private enum Precision {
        F32(DType.F32), BF16(DType.BF16), F16(DType.F16);

        private final DType dtype;

        Precision(DType dtype) {
            this.dtype = dtype;
        }
    }

    private RecipeReader() {}

    static Recipe read(Path file, String json) {
        RecipeText text = RecipeText.of(file, json);
        ConfigFile config = ConfigFile.parse(file.toString(), json);
        List<String> everything = new ArrayList<>(COMMON);
        for (Task task : Task.values()) {
            everything.addAll(task.fields);
        }
        Task task = new StrictFields(config, "", everything).oneOf("task", Task.class, null);
        requireOwn(config, task);
        StrictFields fields = new StrictFields(config, "", task.fields);
        TrainingSettings settings = settings(fields);
        return switch (task) {
            case LANGUAGE_MODEL -> languageModel(fields, text, settings);
            case DIFFUSION -> diffusion(fields, text, settings);
            case VAE -> new Recipe.Vae(text, settings, model(fields),
                    fields.oneOf("reconstruction", Reconstruction.class, Reconstruction.BCE),
                    fields.number("beta", 0, ANY, 1), fields.flag("export_encoder", true));
            case VQ_VAE -> new Recipe.VqVae(text, settings, model(fields),
                    fields.oneOf("reconstruction", Reconstruction.class, Reconstruction.MSE),
                    fields.number("commitment_cost", 0, ANY, 0.25));
            case GAN -> gan(fields, text, settings);
            case CLASSIFIER -> new Recipe.Classifier(text, settings, model(fields),
                    fields.share("label_smoothing_factor", 0));
        };
    }

    /// Refuses a field of another task.
    private static void requireOwn(ConfigFile config, Task task) {
        for (String field : config.fields()) {
            if (!task.fields.contains(field)) {
                throw config.wrong(field, "no such field: it belongs to " + Stream.of(Task.values())
                        .filter(other -> other.fields.contains(field))
                        .map(other -> other.name().toLowerCase(Locale.ROOT)).collect(Collectors.joining(" and ")));
            }
        }
    }

    private static TrainingSettings settings(StrictFields fields) {
        boolean hasSteps = fields.has("max_steps");
        if (hasSteps == fields.has("num_train_epochs")) {
            throw fields.wrong("max_steps", hasSteps ? "only one of max_steps and num_train_epochs"
                    : "a number of steps here, or of epochs as num_train_epochs");
        }
        StrictFields scheduler = fields.inner("lr_scheduler", "name", "warmup_steps", "min_lr");
        Optimizer optimizer = optimizer(fields.inner("optimizer", OPTIMIZER));
        Schedule schedule = scheduler.oneOf("name", Schedule.class, Schedule.CONSTANT);
        if (schedule != Schedule.COSINE) {
            scheduler.without("min_lr", "it belongs to cosine");
        }
        return new TrainingSettings(fields.integer("seed", 0, 0), fields.integer("max_steps", 1, 0),
                fields.integer("num_train_epochs", 1, 0), fields.integer("train_batch_size", 1, 8),
                fields.integer("gradient_accumulation_steps", 1, 1), optimizer,
                new LrScheduler(schedule, scheduler.integer("warmup_steps", 0, 0),
                        scheduler.number("min_lr", 0, optimizer.learningRate(), 0)),
                fields.number("max_grad_norm", 0, ANY, 0), fields.share("ema_decay", 0),
                fields.oneOf("dtype", Precision.class, Precision.F32).dtype,
                fields.oneOf("export_dtype", Precision.class, Precision.F32).dtype, fields.share("dropout", 0),
                fields.flag("gradient_checkpointing", false), fields.integer("logging_steps", 1, 10),
                fields.integer("eval_steps", 0, 0), fields.integer("save_steps", 0, 0),
                fields.integer("sample_steps", 0, 0), fields.integer("save_total_limit", 1, 2));
    }

    private static Optimizer optimizer(StrictFields fields) {
        OptimizerName name = fields.oneOf("name", OptimizerName.class, OptimizerName.ADAMW);
        boolean adam = name == OptimizerName.ADAMW || name == OptimizerName.ADAM;
        if (adam) {
            fields.without("momentum", "it belongs to sgd and rmsprop; betas are those of Adam");
        } else {
            fields.without("betas", "they belong to adamw and adam");
        }
        if (name != OptimizerName.SGD) {
            fields.without("nesterov", "it belongs to sgd");
        } else {
            fields.without("eps", "it belongs to adamw, adam and rmsprop");
        }
        if (name != OptimizerName.RMSPROP) {
            fields.without("alpha", "it belongs to rmsprop");
        }
        List<Double> betas = fields.numbers("betas");
        if (fields.has("betas") && (betas.size() != 2 || betas.stream().anyMatch(b -> b < 0 || b >= 1))) {
            throw fields.wrong("betas", "two numbers of at least 0 and below 1");
        }
        double momentum = fields.share("momentum", 0);
        if (fields.flag("nesterov", false) && momentum == 0) {
            throw fields.wrong("nesterov", "momentum with it");
        }
        return new Optimizer(name, fields.number("learning_rate", 0, ANY, REQUIRED),
                adam ? betas.isEmpty() ? 0.9 : betas.getFirst() : 0,
                adam ? betas.isEmpty() ? 0.999 : betas.getLast() : 0,
                name == OptimizerName.SGD ? 0 : fields.number("eps", 0, ANY, 1e-8),
                fields.number("weight_decay", 0, ANY, name == OptimizerName.ADAMW ? 0.01 : 0), momentum,
                fields.flag("nesterov", false), name == OptimizerName.RMSPROP ? fields.share("alpha", 0.99) : 0);
    }

    /// `model`: an object, or a directory beside the recipe.
    private static ModelSource model(StrictFields fields) {
        ConfigFile config = fields.config();
        if (!config.has("model") || config.isObject("model")) {
            ModelSource.Config source = source(fields, "model");
            if (source == null) {
                throw fields.wrong("model", "the config of a model, or a model directory");
            }
            return source;
        }
        return new ModelSource.Directory(directory(fields, "model", "config.json", "model_index.json"));
    }

    private static ModelSource.@Nullable Config source(StrictFields fields, String field) {
        ConfigFile inner = fields.config().object(field);
        return inner == null ? null : new ModelSource.Config("%s: '%s'".formatted(inner.file(), field), inner.json());
    }

    /// A directory named by the field, which holds one of the files.
    private static Path directory(StrictFields fields, String field, String... files) {
        Path named = Path.of(fields.config().requireString(field));
        Path path = fields.config().file().toAbsolutePath().resolveSibling(named).normalize();
        for (String file : files) {
            if (Files.isRegularFile(path.resolve(file))) {
                return path;
            }
        }
        throw fields.wrong(field, "a directory with %s; there is none at %s".formatted(String.join(" or ", files),
                path));
    }

    private static Recipe languageModel(StrictFields fields, RecipeText text, TrainingSettings settings) {
        ModelSource model = model(fields);
        LoraSettings lora = fields.has("lora") ? lora(fields.inner("lora", LORA)) : null;
        if (lora != null && !(model instanceof ModelSource.Directory)) {
            throw fields.wrong("model", "the directory of the model that lora adapts");
        }
        String tokenizer = fields.string("tokenizer");
        Vocabulary vocabulary = switch (tokenizer) {
            case "characters" -> new Vocabulary.Characters();
            case "bytes" -> new Vocabulary.Bytes();
            case null -> switch (model) {
                case ModelSource.Directory(Path path) -> new Vocabulary.Directory(path);
                case ModelSource.Config config -> throw fields.wrong("tokenizer",
                        "characters, bytes, or a directory with tokenizer.json");
            };
            default -> new Vocabulary.Directory(directory(fields, "tokenizer", "tokenizer.json"));
        };
        return new Recipe.LanguageModel(text, settings, model, vocabulary, fields.integer("block_size", 1, 0), lora,
                fields.share("label_smoothing_factor", 0));
    }

    private static LoraSettings lora(StrictFields fields) {
        if (fields.number("lora_dropout", 0, 1, 0) != 0) {
            throw fields.wrong("lora_dropout", "0, the only value that is supported");
        }
        int r = fields.integer("r", 1, 8);
        return new LoraSettings(r, fields.number("lora_alpha", 0, ANY, 8), fields.strings("target_modules"),
                fields.flag("use_rslora", false),
                fields.map("rank_pattern", (config, key) -> config.requireInt(key, 1, 1 << 20)),
                fields.map("alpha_pattern", ConfigFile::requirePositive));
    }

    private static Recipe diffusion(StrictFields fields, RecipeText text, TrainingSettings settings) {
        ModelSource.Config given = source(fields, "scheduler");
        ModelSource.Config scheduler = given != null ? given
                : new ModelSource.Config(text.file() + ": 'scheduler'", "{\"_class_name\": \"DDPMScheduler\"}");
        boolean edm = SchedulerConfig.isEdm(scheduler.config());
        if (edm) {
            fields.without("snr_gamma", "EDMEulerScheduler has weights of its own");
        } else {
            fields.without("p_mean", "it belongs to EDMEulerScheduler");
            fields.without("p_std", "it belongs to EDMEulerScheduler");
        }
        return new Recipe.Diffusion(text, settings, model(fields), scheduler,
                fields.oneOf("prediction_type", PredictionType.class, PredictionType.EPSILON),
                fields.number("snr_gamma", 0, ANY, 0), edm ? fields.number("p_mean", -ANY, ANY, EDM_P_MEAN) : 0,
                edm ? fields.number("p_std", 0, ANY, EDM_P_STD) : 0, fields.share("class_dropout_prob", 0),
                fields.integer("num_inference_steps", 1, 50), fields.number("guidance_scale", 1,
                        SampleConfig.MAX_GUIDANCE, 1));
    }

    private static Recipe gan(StrictFields fields, RecipeText text, TrainingSettings settings) {
        GanLoss loss = fields.oneOf("loss", GanLoss.class, GanLoss.BCE);
        if (loss != GanLoss.WGAN) {
            fields.without("clip_value", "it belongs to wgan");
        }
        if (loss != GanLoss.WGAN_GP) {
            fields.without("lambda_gp", "it belongs to wgan_gp");
        }
        boolean critic = loss == GanLoss.WGAN || loss == GanLoss.WGAN_GP;
        Optimizer optimizer = fields.has("discriminator_optimizer")
                ? optimizer(fields.inner("discriminator_optimizer", OPTIMIZER)) : settings.optimizer();
        return new Recipe.Gan(text, settings, model(fields), source(fields, "discriminator"), optimizer, loss,
                fields.integer("n_critic", 1, critic ? 5 : 1),
                loss == GanLoss.WGAN ? fields.number("clip_value", Double.MIN_VALUE, ANY, 0.01) : 0,
                loss == GanLoss.WGAN_GP ? fields.number("lambda_gp", 0, ANY, 10) : 0,
                fields.flag("export_discriminator", true));
    }
}
