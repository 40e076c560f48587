package io.gatun.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.SampleConfig;
import io.gatun.evaluate.ImageEvaluation;
import io.gatun.evaluate.ImageJudge;
import io.gatun.evaluate.TextEvaluation;
import io.gatun.models.ConfigFile;
import io.gatun.models.DemoModels;
import io.gatun.models.ModelLoader;
import io.gatun.models.Quantization;
import io.gatun.models.classifier.ImageClassifierConfig;
import io.gatun.models.gan.DcganConfig;
import io.gatun.models.gan.VaeDecoderConfig;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.text.Tokenizer;
import io.gatun.train.data.ImageSet;
import io.gatun.train.data.TextCorpus;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `gatun evaluate`: figures of a model on data it was not trained on.
@Command(name = "evaluate", mixinStandardHelpOptions = true, sortOptions = false,
        description = "Measures a model: perplexity and bits per byte of a text, with --quantization also how much the"
                + " perplexity differs from that without; of pictures that it draws, whether a"
                + " classifier sees what was asked for, and the Frechet distance of its features from those of the"
                + " held-out pictures; accuracy of a classifier.")
final class EvaluateCommand implements Runnable {
    private static final int HELD_OUT_SHARE = 10;
    /// In characters, of the names of figures.
    private static final int LEAST_WIDTH = 18;
    private static final List<String> DIGITS = List.of("0", "1", "2", "3", "4", "5", "6", "7", "8", "9");

    @Mixin
    private ModelOptions options;

    @Mixin
    private QuantizationOption quantization;

    @Option(names = "--data", required = true, paramLabel = "PATH",
            description = "a text file or a folder of .txt files; a folder of pictures or of idx files (MNIST), of"
                    + " which the held-out part is taken")
    private Path data;

    @Option(names = "--held-out", description = "only the last tenth of a text, which training leaves out")
    private boolean heldOut;

    @Option(names = "--length", paramLabel = "T", description = "tokens of a window (default: the model's context)")
    private @Nullable Integer length;

    @Option(names = "--classifier", paramLabel = "DIR",
            description = "judges the pictures that the model draws (default for digits: the demo model "
                    + DemoModels.DIGITS_CLASSIFIER + ")")
    private @Nullable Path classifier;

    @Option(names = "--count", paramLabel = "N", defaultValue = "1000",
            description = "pictures that are drawn (default: ${DEFAULT-VALUE})")
    private int count;

    @Option(names = "--steps", paramLabel = "N", description = "denoising steps (default: the pipeline's)")
    private @Nullable Integer steps;

    @Option(names = "--scheduler", paramLabel = "NAME", description = "as in gatun sample (default: the model's)")
    private @Nullable String scheduler;

    @Option(names = "--guidance", paramLabel = "W",
            description = "towards the class, 0 to 100 (default: the pipeline's)")
    private @Nullable Double guidance;

    @Option(names = "--seed", paramLabel = "S", defaultValue = "0",
            description = "of the first picture (default: ${DEFAULT-VALUE})")
    private long seed;

    EvaluateCommand() {}

    /// What a directory holds.
    private enum Kind {
        TEXT,
        PICTURES,
        CLASSIFIER
    }

    @Override
    public void run() {
        Path directory = options.model();
        Kind kind = kind(directory);
        if (kind != Kind.TEXT && quantization.value() != Quantization.NONE) {
            throw GatunException.invalid("--quantization %s is for language models, %s is none: leave it out",
                    quantization.value().name().toLowerCase(Locale.ROOT), directory);
        }
        Map<String, Double> figures = switch (kind) {
            case TEXT -> text(directory);
            case PICTURES -> pictures(directory);
            case CLASSIFIER -> classifier(directory);
        };
        print(figures);
    }

    private static Kind kind(Path directory) {
        if (Files.exists(directory.resolve("model_index.json"))) {
            return Kind.PICTURES;
        }
        ConfigFile config = ConfigFile.read(directory.resolve("config.json"));
        if (config.has("_class_name")) {
            return Kind.PICTURES;
        }
        return switch (config.requireString("model_type")) {
            case ImageClassifierConfig.MODEL_TYPE -> Kind.CLASSIFIER;
            case VaeDecoderConfig.MODEL_TYPE, DcganConfig.MODEL_TYPE -> Kind.PICTURES;
            default -> Kind.TEXT;
        };
    }

    private Map<String, Double> text(Path directory) {
        TextCorpus corpus = TextCorpus.open(data);
        int[] ids;
        long bytes;
        try (Tokenizer tokenizer = Tokenizer.open(directory)) {
            IntStream.Builder all = IntStream.builder();
            for (Path file : corpus.files()) {
                corpus.readPieces(file, piece -> Arrays.stream(tokenizer.encode(piece, Tokenizer.SpecialTokens.OMIT))
                        .forEach(all::add));
            }
            ids = all.build().toArray();
            if (heldOut) {
                ids = Arrays.copyOfRange(ids, ids.length - ids.length / HELD_OUT_SHARE, ids.length);
                bytes = tokenizer.decode(ids).getBytes(StandardCharsets.UTF_8).length;
            } else {
                bytes = corpus.files().stream().mapToLong(file -> file.toFile().length()).sum();
            }
        }
        TextEvaluation.Result result = evaluate(directory, ids, quantization.value());
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("tokens", (double) ids.length);
        figures.put("bytes", (double) bytes);
        figures.put("loss", result.loss());
        figures.put("perplexity", result.perplexity());
        figures.put("bits_per_byte", result.bitsPerByte(ids.length, bytes));
        if (quantization.value() != Quantization.NONE) {
            double plain = evaluate(directory, ids, Quantization.NONE).perplexity();
            figures.put("perplexity_without_quantization", plain);
            figures.put("perplexity_difference", result.perplexity() - plain);
        }
        return figures;
    }

    private TextEvaluation.Result evaluate(Path directory, int[] ids, Quantization quantized) {
        try (Device device = Device.open(options.device(), new Device.Options(options.threads()));
                Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, directory, options.dtype(), quantized,
                        n -> {});
                Progress progress = new Progress("evaluating", "tokens")) {
            return TextEvaluation.of(device, stream, model.network(), ids,
                    length == null ? model.network().config().contextLength() : length,
                    (done, all) -> progress.step(done, all, ""));
        }
    }

    private ImageJudge judge(Path directory) {
        return new ImageJudge(directory, options.device(), options.threads());
    }

    private ImageSet heldOut(ImageJudge judge) {
        ImageSet set = ImageSet.open(data, ImageSet.Part.HELD_OUT, judge.size(), judge.channels());
        set.warnings().forEach(warning -> System.err.println("gatun: warning: " + warning));
        return set;
    }

    private Map<String, Double> classifier(Path directory) {
        try (ImageJudge judge = judge(directory)) {
            ImageSet set = heldOut(judge);
            Map<String, Double> figures = new LinkedHashMap<>(Map.of("pictures", (double) set.count()));
            figures.putAll(ImageEvaluation.ofClassifier(judge, set));
            return figures;
        }
    }

    private Map<String, Double> pictures(Path directory) {
        if (count < 2) {
            throw GatunException.invalid("--count is %d, expected 2 or more", count);
        }
        SampleConfig.Builder settings = SampleConfig.builder().scheduler(scheduler);
        if (steps != null) {
            settings.steps(steps);
        }
        if (guidance != null) {
            settings.guidance(guidance);
        }
        ImageModel.Options how = ImageModel.Options.defaults().withDevice(options.device()).withDtype(options.dtype())
                .withThreads(options.threads());
        if (classifier == null && DemoModels.names().isEmpty()) {
            throw missingClassifier("the artifact gatun-demo-models, which has one of digits, is not there");
        }
        try (ImageJudge judge = judge(classifier == null ? DemoModels.digitsClassifier()
                : ModelOptions.directory("--classifier", classifier))) {
            ImageSet set = heldOut(judge);
            if (classifier == null && !set.classes().equals(DIGITS)) {
                throw missingClassifier("the demo model %s knows digits alone".formatted(
                        DemoModels.DIGITS_CLASSIFIER));
            }
            if (classifier == null) {
                System.err.println("gatun: judged by the demo model " + DemoModels.DIGITS_CLASSIFIER);
            }
            try (ImageModel model = ImageModel.load(directory, how);
                    Progress progress = new Progress("drawing", "pictures")) {
                Map<String, Double> figures = new LinkedHashMap<>(Map.of("pictures", (double) count));
                figures.putAll(ImageEvaluation.ofModel(model, judge, set, count, settings, seed,
                        (done, all) -> progress.step(done, all, "")));
                return figures;
            }
        }
    }

    private static GatunException missingClassifier(String reason) {
        return GatunException.invalid("--classifier is missing: pass the directory of a trained classifier, which"
                + " judges the pictures (%s)", reason);
    }

    /// Counts as whole numbers.
    private void print(Map<String, Double> figures) {
        List<String> counts = List.of("tokens", "bytes", "pictures", "classes_present");
        if (options.json()) {
            ObjectNode json = new ObjectMapper().createObjectNode();
            figures.forEach((name, value) -> {
                if (counts.contains(name)) {
                    json.put(name, value.longValue());
                } else {
                    json.put(name, value);
                }
            });
            Terminal.printLine(json.toString());
        } else {
            int width = figures.keySet().stream().mapToInt(String::length).reduce(LEAST_WIDTH, Math::max);
            figures.forEach((name, value) -> Terminal.print(String.format(Locale.ROOT,
                    "%-" + width + "s " + (counts.contains(name) ? "%,.0f%n" : "%.4f%n"), name.replace('_', ' '),
                    value)));
            System.out.flush();
        }
    }
}
