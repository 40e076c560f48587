package io.gatun.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.MemoryEstimate;
import io.gatun.diffusion.SampleConfig;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
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
import javax.imageio.ImageIO;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `gatun sample`: pictures from a diffusion model, a VAE or a GAN, as one PNG.
@Command(name = "sample", mixinStandardHelpOptions = true, sortOptions = false,
        description = "Draws images and writes them as one PNG, side by side.")
final class SampleCommand implements Runnable {
    private static final double DEFAULT_STRENGTH = 0.8;

    @Mixin
    private ModelOptions options;

    @Option(names = "--out", paramLabel = "FILE.png", required = true, description = "the picture")
    private Path out;

    @Option(names = "--kind", paramLabel = "KIND", description = "diffusion, vae or gan: what the model must be")
    private ImageModel.@Nullable Kind kind;

    @Option(names = "--count", paramLabel = "N", description = "images (default: one per prompt or class)")
    private @Nullable Integer count;

    @Option(names = "--steps", paramLabel = "N", description = "denoising steps (default: the pipeline's)")
    private @Nullable Integer steps;

    @Option(names = "--scheduler", paramLabel = "NAME",
            description = "ddpm, ddim, euler, euler-ancestral, dpm++, pndm, heun, kdpm2, kdpm2-ancestral, lms, unipc,"
                    + " deis, lcm, flow-euler, flow-heun or a class name (default: the model's)")
    private @Nullable String scheduler;

    @Option(names = "--eta", paramLabel = "E", defaultValue = "0", description = "noise of ddim, 0 to 1 (default: 0)")
    private double eta;

    @Option(names = "--shift", paramLabel = "MU", description = "of a flow with use_dynamic_shifting")
    private @Nullable Double shift;

    @Option(names = "--seed", paramLabel = "S", defaultValue = "0",
            description = "of the first image; the next has S + 1 (default: ${DEFAULT-VALUE})")
    private long seed;

    @Option(names = "--class", paramLabel = "N", split = ",",
            description = "class id, one for all images or one for each")
    private List<Integer> classes = List.of();

    @Option(names = "--prompt", paramLabel = "TEXT", description = "what to draw; may be repeated, one image each")
    private List<String> prompts = List.of();

    @Option(names = "--negative", paramLabel = "TEXT", description = "what not to draw; one, or one per prompt")
    private List<String> negative = List.of();

    @Option(names = "--guidance", paramLabel = "G",
            description = "classifier-free guidance, 1: none (default: the pipeline's)")
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

    @Override
    public void run() {
        requireWritable(out);
        if (!out.toString().toLowerCase(Locale.ROOT).endsWith(".png")) {
            throw GatunException.invalid("--out is %s, expected a name that ends in .png", out);
        }
        if (raw != null) {
            requireWritable(raw);
        }
        Images images;
        String device;
        SampleConfig.Builder settings = config();
        SampleConfig config = settings.build();
        MemoryEstimate memory = ImageModel.estimate(options.model(), how(), config);
        System.err.println("gatun: " + memory);
        if (!memory.fits()) {
            throw new OutOfDeviceMemoryException(("%s: fewer images (--count %d), a smaller picture (--height, --width)"
                    + " or a narrower --dtype need less").formatted(memory, Math.max(1, memory.maxCount())),
                    memory.peakBytes());
        }
        try (ImageModel model = load(); Progress drawing = new Progress("drawing", "calls")) {
            device = model.deviceDescription();
            long start = System.nanoTime();
            images = model.sample(settings.cancelledWhen(() -> false).progress((done, all) -> drawing.step(done, all,
                    "%.2f images/s".formatted(config.count() * 1e9 * done / all / (System.nanoTime() - start))))
                    .build());
        }
        try {
            images.writePng(out);
        } finally {
            if (raw != null) {
                writeRaw(images, raw);
            }
        }
        if (options.json()) {
            Terminal.print(json(images, device, memory) + "\n");
            Terminal.endLine();
        }
        for (Images.Failure failure : images.failed()) {
            System.err.println("gatun: image %d is not a number anywhere: the first part to give NaN was %s"
                    .formatted(failure.index(), failure.module()));
        }
        if (!images.failed().isEmpty()) {
            throw new GatunException(GatunException.Status.INTERNAL, ("%d of %d images hold NaN; %s is written all the"
                    + " same").formatted(images.failed().size(), images.count(), out), null);
        }
    }

    private ImageModel.Options how() {
        return ImageModel.Options.defaults().withDevice(options.device()).withDtype(options.dtype())
                .withThreads(options.threads());
    }

    private ImageModel load() {
        try (Progress loading = Progress.ofLoading()) {
            ImageModel model = ImageModel.load(options.model(), how().withProgress(loading::step));
            if (kind != null && kind != model.kind()) {
                model.close();
                throw GatunException.invalid("--kind is %s, but %s holds a %s model", lower(kind), options.model(),
                        lower(model.kind()));
            }
            return model;
        }
    }

    private static String lower(ImageModel.Kind value) {
        return value.name().toLowerCase(Locale.ROOT);
    }

    private SampleConfig.Builder config() {
        SampleConfig.Builder b = SampleConfig.builder().scheduler(scheduler).eta(eta).seed(seed)
                .classes(classes.stream().mapToInt(Integer::intValue).toArray()).prompts(prompts)
                .negativePrompts(negative).guidanceRescale(guidanceRescale).size(height, width).keepRaw(raw != null);
        if (count != null) {
            b.count(count);
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
            throw GatunException.invalid("%s %s: damaged picture (%s)", option, file, e.getMessage());
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
    }

    private static void writeRaw(Images images, Path file) {
        Images.Raw numbers = images.raw();
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        tensors.put("latents", TensorSource.of(numbers.latents(), numbers.latentsShape()));
        tensors.put("image", TensorSource.of(numbers.image(), images.count(), numbers.channels(), images.height(),
                images.width()));
        SafetensorsWriter.write(file, tensors, Map.of());
    }

    private String json(Images images, String device, MemoryEstimate memory) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("out", out.toString());
        fields.put("count", images.count());
        fields.put("height", images.height());
        fields.put("width", images.width());
        fields.put("seeds", images.seeds());
        fields.put("calls", images.calls());
        fields.put("scheduler", images.scheduler());
        fields.put("prompts", prompts);
        fields.put("negative", negative);
        fields.put("classes", classes);
        fields.put("steps", steps);
        fields.put("guidance", guidance);
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
        fields.put("device", device);
        try {
            return new ObjectMapper().writeValueAsString(fields);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
