package io.gatun.diffusion;

import io.gatun.models.ConfigFile;
import io.gatun.runtime.GatunException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// A `scheduler_config.json` as diffusers writes it: a class name and its fields. What is missing has a default, which
/// differs from class to class, so each sampler names its own. Unknown fields are ignored, unknown values are errors.
public final class SchedulerConfig {
    static final double EDM_SIGMA_MIN = 0.002;
    static final double EDM_SIGMA_MAX = 80;
    private static final double EDM_SIGMA_DATA = 0.5;
    private static final String FILE = "scheduler_config.json";
    private static final String EDM = "EDMEulerScheduler";

    private final ConfigFile file;
    private final String className;

    private SchedulerConfig(ConfigFile file, String className) {
        this.file = file;
        this.className = className;
    }

    /// Reads a file, or the `scheduler_config.json` of a directory.
    ///
    /// @throws GatunException when it is missing, is not JSON or names no class
    public static SchedulerConfig read(Path path) {
        Path named = Files.isDirectory(path) ? path.resolve(FILE) : path;
        if (!Files.isRegularFile(named)) {
            throw GatunException.invalid("no file %s: expected a scheduler_config.json, or the folder that holds it",
                    named);
        }
        ConfigFile file = ConfigFile.read(named);
        return new SchedulerConfig(file, file.requireString("_class_name"));
    }

    /// As [#read], of JSON text.
    public static SchedulerConfig parse(String json) {
        ConfigFile file = ConfigFile.parse(FILE, json);
        return new SchedulerConfig(file, file.requireString("_class_name"));
    }

    /// What a network is trained with: fields that are absent get DDPM's defaults, or EDM's, so that whatever samples
    /// later adds and removes the noise that the network has seen.
    ///
    /// @param predictionType as diffusers spells it
    /// @throws GatunException when the file says something else, or no sampler understands it
    public static SchedulerConfig ofTraining(ConfigFile file, String predictionType) {
        ConfigFile all = file.withDefaults(Map.of("prediction_type", predictionType)).withDefaults(
                isEdm(file) ? Map.of("sigma_min", EDM_SIGMA_MIN, "sigma_max",
                        EDM_SIGMA_MAX, "sigma_data", EDM_SIGMA_DATA)
                : Map.of("_class_name", "DDPMScheduler", "num_train_timesteps", 1000, "beta_start", 1e-4,
                        "beta_end", 0.02, "beta_schedule", "linear"));
        if (!all.requireString("prediction_type").equals(predictionType)) {
            throw all.wrong("prediction_type", predictionType + ", which the recipe's prediction_type says");
        }
        SchedulerConfig config = new SchedulerConfig(all, all.requireString("_class_name"));
        config.sampler();
        return config;
    }

    /// The file as JSON text.
    public String json() {
        return file.json();
    }

    /// The same fields for another sampler; what they leave out has that one's defaults.
    ///
    /// @param name a class name of diffusers, with or without `Scheduler` at its end, or a short one such as `ddim`
    /// @throws GatunException when one of the two is EDM's: they tell a network other things, and scale it otherwise
    public SchedulerConfig withClass(String name) {
        SchedulerConfig other = new SchedulerConfig(file, Samplers.classOf(name));
        if (other.isEdm() != isEdm()) {
            throw GatunException.invalid("%s: a network of %s cannot be sampled with %s, expected %s", file.file(),
                    className, other.className, isEdm() ? EDM : "a scheduler of another kind than EDM's");
        }
        return other;
    }

    /// The same with `clip_sample` off, whatever the file says: latents are not limited to [-1, 1].
    SchedulerConfig withoutClipping() {
        return new SchedulerConfig(file.with("clip_sample", false), className);
    }

    /// The noise that a network of this scheduler is trained with.
    ///
    /// @throws GatunException when it is none of diffusion
    public NoiseSchedule noise() {
        if (className.startsWith("FlowMatch") || isEdm()) {
            throw wrong("_class_name", "a scheduler of diffusion, such as DDPMScheduler");
        }
        return NoiseSchedule.of(this, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR);
    }

    /// Whether the network has EDM's preconditioning instead of a schedule of steps: [#sigmaData] for [#noise].
    public boolean isEdm() {
        return Samplers.classOf(className).equals(EDM);
    }

    /// As [#isEdm()], of a file that may name no class.
    public static boolean isEdm(ConfigFile file) {
        return file.has("_class_name") && Samplers.classOf(file.requireString("_class_name")).equals(EDM);
    }

    /// The deviation of the data, as EDM's preconditioning has it.
    public double sigmaData() {
        return positive("sigma_data", EDM_SIGMA_DATA);
    }

    /// A class name of diffusers, such as `DDIMScheduler`.
    public String className() {
        return className;
    }

    /// The sampler that this describes.
    ///
    /// @throws GatunException when the class is unknown or a field has a value that is
    public Sampler sampler() {
        return Samplers.of(this);
    }

    GatunException unknownClass(List<String> known) {
        return GatunException.invalid("%s: scheduler '%s' is unknown, expected one of %s", file.file(), className,
                String.join(", ", known));
    }

    boolean has(String field) {
        return file.has(field);
    }

    boolean flag(String field, boolean otherwise) {
        return file.getBoolean(field, otherwise);
    }

    int integer(String field, int min, int max, int otherwise) {
        return file.getInt(field, min, max, otherwise);
    }

    double number(String field, double otherwise) {
        return file.getNumber(field, otherwise);
    }

    double numberOrInfinity(String field, double otherwise) {
        return file.getNumberOrInfinity(field, otherwise);
    }

    /// A number that must be above zero.
    double positive(String field, double otherwise) {
        return file.has(field) ? file.requirePositive(field) : otherwise;
    }

    @Nullable Double optionalNumber(String field) {
        return file.has(field) ? file.requireNumber(field) : null;
    }

    List<Double> numbers(String field) {
        return file.getNumbers(field);
    }

    List<Integer> integers(String field) {
        return file.getInts(field);
    }

    /// One of an enum's values, spelt in lower case in the file.
    <E extends Enum<E>> E choice(String field, E otherwise) {
        return choice(field, otherwise, EnumSet.allOf(otherwise.getDeclaringClass()));
    }

    /// As [#choice(String, Enum)], where only some are allowed.
    <E extends Enum<E>> E choice(String field, E otherwise, Set<E> allowed) {
        String value = file.getString(field);
        if (value == null) {
            return otherwise;
        }
        for (E each : allowed) {
            if (spelling(each).equals(value)) {
                return each;
            }
        }
        throw wrong(field, "one of " + String.join(", ", allowed.stream().map(SchedulerConfig::spelling).toList()));
    }

    GatunException wrong(String field, String expected) {
        return file.wrong(field, expected);
    }

    /// `V_PREDICTION` is `v_prediction` in the file; an enum with other spellings has a `toString` of its own.
    private static String spelling(Enum<?> value) {
        return value.toString().toLowerCase(Locale.ROOT);
    }
}
