package io.gatun.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.MemoryEstimate;
import io.gatun.diffusion.SampleConfig;
import io.gatun.evaluate.ClassSeeds;
import io.gatun.evaluate.ImageJudge;
import io.gatun.io.IoReason;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.DemoModels;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.OutOfDeviceMemoryException;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.IntStream;
import javax.imageio.ImageIO;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `gatun sample`: pictures from a diffusion model, a VAE or a GAN, as one PNG.
@Command(name = "sample", mixinStandardHelpOptions = true, sortOptions = false,
        description = "Draws images and writes them as one PNG, in rows. Without --model a demo model draws"
                + " digits, of the classes in turn or of --class.")
final class SampleCommand implements Runnable {
    private static final double DEFAULT_STRENGTH = 0.8;
    private static final String DEMO_OUT = "digits.png";
    private static final int DEMO_COUNT = 10;
    private static final int DIGITS = 10;

    @Mixin
    private ModelOptions options;

    @Option(names = "--out", paramLabel = "FILE.png",
            description = "the picture (default of the demo models: " + DEMO_OUT + ")")
    private @Nullable Path out;

    @Option(names = "--kind", paramLabel = "KIND",
            description = "diffusion, vae or gan: what the model must be; without --model which demo model draws"
                    + " (default: diffusion)")
    private ImageModel.@Nullable Kind kind;

    @Option(names = "--count", paramLabel = "N",
            description = "images (default: one per prompt or class; " + DEMO_COUNT + " of a demo model)")
    private @Nullable Integer count;

    @Option(names = "--steps", paramLabel = "N", description = "denoising steps (default: the pipeline's)")
    private @Nullable Integer steps;

    @Option(names = "--scheduler", paramLabel = "NAME",
            description = "ddpm, ddim, euler, euler-ancestral, dpm++, pndm, heun, kdpm2, kdpm2-ancestral, lms, unipc,"
                    + " deis, lcm, flow-euler, flow-heun, edm-euler or a class name (default: the model's)")
    private @Nullable String scheduler;

    @Option(names = "--eta", paramLabel = "E", defaultValue = "0", description = "noise of ddim, 0 to 1 (default: 0)")
    private double eta;

    @Option(names = "--shift", paramLabel = "MU", description = "of a flow with use_dynamic_shifting")
    private @Nullable Double shift;

    @Option(names = "--seed", paramLabel = "S", defaultValue = "0",
            description = "of the first image; the next has S + 1 (default: ${DEFAULT-VALUE})")
    private long seed;

    @Option(names = "--class", paramLabel = "N", split = ",",
            description = "class id, one for all images or one for each (a guided U-Net takes the number after the last"
                    + " for none); the demo VAE, which takes none, draws until the demo classifier has seen enough of"
                    + " it")
    private List<Integer> classes = List.of();

    @Option(names = "--prompt", paramLabel = "TEXT", description = "what to draw; may be repeated, one image each")
    private List<String> prompts = List.of();

    @Option(names = "--negative", paramLabel = "TEXT", description = "what not to draw; one, or one per prompt")
    private List<String> negative = List.of();

    @Option(names = "--guidance", paramLabel = "G",
            description = "classifier-free guidance, 0 to 100, 1: none (default: the pipeline's)")
    private @Nullable Double guidance;

    @Option(names = "--guidance-rescale", paramLabel = "R", defaultValue = "0", description = "0 to 1 (default: 0)")
    private double guidanceRescale;

    @Option(names = "--height", paramLabel = "PIXELS", defaultValue = "0", description = "default: the model's")
    private int height;

    @Option(names = "--width", paramLabel = "PIXELS", defaultValue = "0", description = "default: the model's")
    private int width;

    @Option(names = "--image", paramLabel = "FILE", description = "picture to start from")
    private @Nullable Path image;

    @Option(names = "--mask", paramLabel = "FILE", description = "white where --image is drawn anew")
    private @Nullable Path mask;

    @Option(names = "--strength", paramLabel = "X",
            description = "how much of --image is given up, above 0, at most 1 (default: " + DEFAULT_STRENGTH + ")")
    private @Nullable Double strength;

    @Option(names = "--latents", paramLabel = "FILE.safetensors",
            description = "read the start ('latents' or 'init') and each call's 'noise' instead of drawing them by"
                    + " seed")
    private @Nullable Path latents;

    @Option(names = "--raw", paramLabel = "FILE.safetensors",
            description = "also write 'latents' (the last sample) and 'image' [N, C, H, W] in 0 to 1")
    private @Nullable Path raw;

    SampleCommand() {}

    /// What is to be done.
    ///
    /// @param isDemo  whether the directory is that of a demo model
    /// @param chooses whether the model does not take the classes, so that its pictures must be chosen
    /// @param classes of the images, as `SampleConfig` has them
    private record Drawing(Path directory, ImageModel.Kind kind, boolean isDemo, boolean chooses, Path out,
            int[] classes) {}

    /// What drew, and with which settings where none were asked for.
    private record Used(String device, int steps, double guidance) {}

    @Override
    public void run() {
        Drawing drawing = drawing();
        SampleConfig.Builder settings = config(drawing);
        SampleConfig config = settings.build();
        MemoryEstimate memory = ImageModel.estimate(drawing.directory, how(), config);
        System.err.println("gatun: " + memory);
        if (!memory.fits()) {
            throw new OutOfDeviceMemoryException(("%s: fewer images (--count %d), a smaller picture (--height, --width)"
                    + " or a narrower --dtype need less").formatted(memory, Math.max(1, memory.maxCount())),
                    memory.peakBytes());
        }
        Images images;
        Used used;
        try (ImageModel model = load(drawing.directory); Progress progress = new Progress("drawing", "calls")) {
            used = new Used(model.deviceDescription(), steps == null ? model.defaultSteps() : steps,
                    guidance == null ? model.defaultGuidance() : guidance);
            if (drawing.chooses()) {
                settings.seeds(seeds(model, drawing, config.count()));
            }
            long start = System.nanoTime();
            images = model.sample(settings.cancelledWhen(() -> false).progress((done, all) -> progress.step(done, all,
                    "%.2f images/s".formatted(config.count() * 1e9 * done / all / (System.nanoTime() - start))))
                    .build());
        }
        write(images, drawing);
        if (options.json()) {
            Terminal.printLine(json(images, drawing, used, memory));
        } else if (out == null) {
            Terminal.printLine(drawing.out.toString());
        }
        for (Images.Failure failure : images.failed()) {
            System.err.println("gatun: image %d is not a number anywhere: the first part to give NaN was %s"
                    .formatted(failure.index(), failure.module()));
        }
        if (!images.failed().isEmpty()) {
            throw new GatunException(GatunException.Status.INTERNAL, ("%d of %d images hold NaN; %s is written all the"
                    + " same").formatted(images.failed().size(), images.count(), drawing.out), null);
        }
    }

    /// Checks what can be checked before a model is loaded.
    private Drawing drawing() {
        if (count != null && (count < 1 || count > SampleConfig.MAX_COUNT)) {
            throw GatunException.invalid("--count is %d, expected 1 to %d images", count, SampleConfig.MAX_COUNT);
        }
        String demo = options.demoModel("digits-" + lower(kind == null ? ImageModel.Kind.DIFFUSION : kind));
        if (out == null && demo == null) {
            throw GatunException.invalid("--out is missing: pass the name of the picture, FILE.png");
        }
        Path file = out == null ? Path.of(DEMO_OUT) : out;
        requireWritable(file);
        if (!file.toString().toLowerCase(Locale.ROOT).endsWith(".png")) {
            throw GatunException.invalid("--out is %s, expected a name that ends in .png", file);
        }
        if (raw != null) {
            requireWritable(raw);
        }
        Path directory = demo == null ? options.model() : DemoModels.directory(demo);
        ImageModel.Kind held = ImageModel.kindOf(directory);
        if (kind != null && kind != held) {
            throw GatunException.invalid("--kind is %s, but %s holds a %s model", lower(kind),
                    demo == null ? directory : demo, lower(held));
        }
        boolean takesDigits = demo != null && held != ImageModel.Kind.VAE;
        Drawing drawing = new Drawing(directory, held, demo != null, demo != null && !takesDigits && !classes.isEmpty(),
                file, classes(takesDigits));
        if (drawing.chooses() && latents != null) {
            throw GatunException.invalid("there are both --class and --latents, expected one of them: a %s draws what"
                    + " the latents say", lower(held));
        }
        if (drawing.chooses() && count != null && classes.size() > 1 && classes.size() != count) {
            throw GatunException.invalid("there are %d classes for %d images, expected one, or one for each",
                    classes.size(), count);
        }
        return drawing;
    }

    /// Those that were asked for; of digits, where the model takes a class and none was, all in turn.
    private int[] classes(boolean takesDigits) {
        if (takesDigits && classes.isEmpty() && latents == null) {
            return IntStream.range(0, count == null ? DEMO_COUNT : count).map(i -> i % DIGITS).toArray();
        }
        return classes.stream().mapToInt(Integer::intValue).toArray();
    }

    /// Of pictures that show their class, as the demo classifier sees it.
    private long[] seeds(ImageModel model, Drawing drawing, int number) {
        int[] asked = new int[number];
        Arrays.setAll(asked, i -> drawing.classes[drawing.classes.length == 1 ? 0 : i]);
        try (ImageJudge judge = new ImageJudge(DemoModels.digitsClassifier(), options.device(), options.threads())) {
            ClassSeeds found = ClassSeeds.find(model, judge, asked, seed);
            System.err.println(("gatun: a %s takes no class: it drew %d pictures for %d that %s takes for theirs, with"
                    + " 0.9 or more").formatted(lower(drawing.kind), found.drawn(), number,
                    DemoModels.DIGITS_CLASSIFIER));
            return found.seeds();
        }
    }

    private void write(Images images, Drawing drawing) {
        boolean inTurn = drawing.isDemo && classes.isEmpty() && images.count() >= DIGITS;
        try {
            Images.writePng(drawing.out, inTurn ? images.grid(DIGITS) : images.grid());
        } finally {
            if (raw != null) {
                writeRaw(images, raw);
            }
        }
    }

    private ImageModel.Options how() {
        return ImageModel.Options.defaults().withDevice(options.device()).withDtype(options.dtype())
                .withThreads(options.threads());
    }

    private ImageModel load(Path directory) {
        try (Progress loading = Progress.ofLoading()) {
            return ImageModel.load(directory, how().withProgress(loading::step));
        }
    }

    private static String lower(ImageModel.Kind value) {
        return value.name().toLowerCase(Locale.ROOT);
    }

    private SampleConfig.Builder config(Drawing drawing) {
        SampleConfig.Builder b = SampleConfig.builder().scheduler(scheduler).eta(eta).seed(seed)
                .classes(drawing.chooses() ? new int[0] : drawing.classes).prompts(prompts)
                .negativePrompts(negative).guidanceRescale(guidanceRescale).size(height, width).keepRaw(raw != null);
        if (count != null) {
            b.count(count);
        } else if (drawing.isDemo && prompts.isEmpty()) {
            b.count(drawing.classes.length > 1 ? drawing.classes.length : DEMO_COUNT);
        }
        if (steps != null) {
            b.steps(steps);
        }
        if (guidance != null) {
            b.guidance(guidance);
        }
        if (shift != null) {
            b.shift(shift);
        }
        if (strength != null && image == null) {
            throw GatunException.invalid("there is a --strength and no --image to start from");
        }
        if (image != null) {
            b.image(readPicture("--image", image), strength == null ? DEFAULT_STRENGTH : strength);
        }
        if (mask != null) {
            b.mask(readPicture("--mask", mask));
        }
        if (latents != null) {
            readLatents(b, latents);
        }
        return b;
    }

    private void readLatents(SampleConfig.Builder b, Path file) {
        try (SafetensorsFile tensors = SafetensorsFile.open(file)) {
            String name = tensors.names().contains("latents") ? "latents" : "init";
            if (!tensors.names().contains(name) && !tensors.names().contains("noise")) {
                throw GatunException.invalid("--latents %s: no tensor 'latents', 'init' or 'noise'; there is %s", file,
                        String.join(", ", tensors.names()));
            }
            if (tensors.names().contains(name)) {
                long[] shape = tensors.info(name).shape();
                if (shape.length == 0 || shape[0] < 1 || count != null && count != shape[0]) {
                    throw GatunException.invalid("--latents %s: %s is %s, expected [%s, C, H, W]", file, name,
                            Arrays.toString(shape), count == null ? "N" : count);
                }
                b.latents(tensors.floats(name), shape).count(Math.toIntExact(Math.min(shape[0], Integer.MAX_VALUE)));
            }
            if (tensors.names().contains("noise")) {
                b.noise(tensors.floats("noise"), tensors.info("noise").shape());
            }
        }
    }

    private static BufferedImage readPicture(String option, Path file) {
        try {
            BufferedImage picture = Files.isRegularFile(file) ? ImageIO.read(file.toFile()) : null;
            if (picture == null) {
                throw GatunException.invalid("%s %s: %s, expected a PNG, JPEG, GIF or BMP file", option, file,
                        Files.isRegularFile(file) ? "not a picture that Java reads" : "no such file");
            }
            return picture;
        } catch (IOException e) {
            throw GatunException.invalid("%s %s: damaged picture (%s)", option, file, IoReason.of(e));
        }
    }

    /// Said before the work, not after it; what goes wrong later is handled by [Images#writePng].
    private static void requireWritable(Path file) {
        Path folder = file.toAbsolutePath().getParent();
        if (folder == null || !Files.isDirectory(folder)) {
            throw GatunException.invalid("cannot write %s: there is no folder %s", file, folder);
        }
        if (Files.isDirectory(file)) {
            throw GatunException.invalid("cannot write %s: it is a folder", file);
        }
        if (!Files.isWritable(folder)) {
            throw GatunException.invalid("cannot write %s: permission denied in the folder %s", file, folder);
        }
    }

    private static void writeRaw(Images images, Path file) {
        Images.Raw numbers = images.raw();
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        tensors.put("latents", TensorSource.of(numbers.latents(), numbers.latentsShape()));
        tensors.put("image", TensorSource.of(numbers.image(), images.count(), numbers.channels(), images.height(),
                images.width()));
        SafetensorsWriter.write(file, tensors, Map.of());
    }

    private String json(Images images, Drawing drawing, Used used, MemoryEstimate memory) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("out", drawing.out.toString());
        fields.put("count", images.count());
        fields.put("height", images.height());
        fields.put("width", images.width());
        fields.put("seeds", images.seeds());
        fields.put("calls", images.calls());
        fields.put("scheduler", images.scheduler());
        fields.put("prompts", prompts);
        fields.put("negative", negative);
        fields.put("classes", drawing.classes);
        fields.put("steps", used.steps);
        fields.put("guidance", used.guidance);
        fields.put("guidance_rescale", guidanceRescale);
        fields.put("eta", eta);
        fields.put("shift", shift);
        fields.put("strength", image == null ? null : strength == null ? DEFAULT_STRENGTH : strength);
        fields.put("failed", new ArrayList<>(images.failed()));
        Map<String, Object> timings = new LinkedHashMap<>();
        timings.put("encoding", images.timings().encoding().toNanos() * 1e-6);
        timings.put("denoising", images.timings().denoising().toNanos() * 1e-6);
        timings.put("decoding", images.timings().decoding().toNanos() * 1e-6);
        fields.put("timings_ms", timings);
        fields.put("images_per_second", images.count() * 1e9 / Math.max(1, images.timings().encoding()
                .plus(images.timings().denoising()).plus(images.timings().decoding()).toNanos()));
        fields.put("memory", memory);
        fields.put("device", used.device);
        try {
            return new ObjectMapper().writeValueAsString(fields);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
