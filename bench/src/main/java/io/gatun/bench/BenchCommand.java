package io.gatun.bench;

import io.gatun.cli.CliCommand;
import io.gatun.models.LanguageFamily;
import io.gatun.models.ModelLoader;
import io.gatun.models.Quantization;
import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/// `gatun bench`: measures this machine and prints what was measured, on what and by which command.
@Command(name = "bench", mixinStandardHelpOptions = true,
        description = "Measures kernels, models, images, training and the host side on this machine; all where none is"
                + " named.")
public final class BenchCommand implements CliCommand, Runnable {
    private static final Double HOPPER_SECONDS = 120.0;

    private enum KernelSet { ALL, HOPPER }

    @Spec
    private CommandSpec spec;

    @Option(names = "--kernels", description = "each kernel, against the rate at which memory can be read")
    private boolean kernels;

    @Option(names = "--models", description = "load, prefill and decode of a language model")
    private boolean models;

    @Option(names = "--images", description = "a pass of a denoising network")
    private boolean images;

    @Option(names = "--train", description = "training steps of a GPT of 10 M and a U-Net of 3 M parameters")
    private boolean train;

    @Option(names = "--host", description = "calls, views and decode steps without work: what Java costs")
    private boolean host;

    @Option(names = "--model", paramLabel = "DIR",
            description = "Hugging Face directory for --models or --images (default: GPT-2 124M and the U-Net of DDPM"
                    + " for 32 x 32, with random weights)")
    private @Nullable Path model;

    @Option(names = "--only", paramLabel = "TEXT", defaultValue = "",
            description = "of the kernels and of the training tasks those whose names contain this; by itself:"
                    + " nothing else")
    private String only;

    @Option(names = "--set", paramLabel = "NAME", defaultValue = "ALL",
            description = "which kernels: all, or hopper, the shapes that count on a large GPU (default: all)")
    private KernelSet set;

    @Option(names = "--seconds", paramLabel = "N",
            description = "begin no kernel after so long; the JSON says which were left out"
            + " (default with --set hopper: 120)")
    private @Nullable Double seconds;

    @Option(names = "--after", paramLabel = "N", defaultValue = "0",
            description = "go on behind the first N kernel cases: where a run ended too early, `begun` in its JSON"
                    + " tells how many there were")
    private int after;

    @Option(names = "--dtype", paramLabel = "TYPE", description = "f32, bf16 or f16 (default: f32 and bf16)")
    private @Nullable String dtype;

    @Option(names = "--quantization", paramLabel = "NAME", defaultValue = "NONE",
            description = "fp8: --models also measures every 16-bit dtype with matrices in e4m3, in turns with it"
                    + " (default: none)")
    private Quantization quantization;

    @Option(names = "--device", paramLabel = "DEVICE", defaultValue = "cpu",
            description = "cpu, cuda or cuda:N (default: ${DEFAULT-VALUE})")
    private String device;

    @Option(names = "--peer", paramLabel = "PYTHON",
            description = "a Python with torch (and diffusers for --images), which then does the same and takes turns")
    private @Nullable String python;

    @Option(names = "--prepare-peer", description = "measure nothing; have the peer compile what it will be asked for,"
            + " which it keeps in a cache on the disk")
    private boolean preparesPeer;

    @Option(names = "--plot", paramLabel = "FILE", description = "measure nothing; draw the kernels of a file of"
            + " --json, or of a GPU suite's results.json, as FILE.roofline.png and FILE.shapes.png")
    private @Nullable Path plot;

    @Option(names = "--trial", description = "sizes and repeats so small that it only shows whether everything works")
    private boolean trial;

    @Option(names = "--threads", paramLabel = "N", defaultValue = "0", description = "CPU threads (default: all cores)")
    private int threads;

    @Option(names = "--json", paramLabel = "FILE", description = "write the results as JSON too")
    private @Nullable Path json;

    @Option(names = "--make-checkpoint", paramLabel = "DIR",
            description = "measure nothing; write random weights in --dtype (default: f32): those of the denoising"
                    + " network whose config.json is there, else GPT-2 124M")
    private @Nullable Path checkpoint;

    @Option(names = "--seed", paramLabel = "S", defaultValue = "1",
            description = "of those weights (default: ${DEFAULT-VALUE})")
    private long seed;

    /// For [java.util.ServiceLoader].
    public BenchCommand() {}

    @Override
    public void run() {
        if (!device.equals("cpu") && !device.startsWith("cuda")) {
            throw GatunException.invalid("--device is %s, expected cpu, cuda or cuda:N: how is measured depends on it",
                    device);
        }
        if (seconds != null && !(seconds > 0)) {
            throw GatunException.invalid("--seconds is %s, expected more than 0", seconds);
        }
        if (after < 0) {
            throw GatunException.invalid("--after is %d, expected 0 or more", after);
        }
        if (preparesPeer) {
            requirePreparation();
        }
        if (checkpoint != null) {
            if (Files.exists(checkpoint.resolve("config.json"))) {
                RandomCheckpoint.writeWeights(checkpoint, dtypes().getFirst(), seed);
            } else {
                Gpt2Checkpoint.GPT2_124M.write(checkpoint, dtypes().getFirst(), seed);
            }
            return;
        }
        if (plot != null) {
            KernelPlot.draw(plot);
            return;
        }
        if (threads < 0) {
            throw GatunException.invalid("--threads is %d, expected 0 (all cores) or more", threads);
        }
        int workers = threads == 0 ? Runtime.getRuntime().availableProcessors() : threads;
        try (TorchPeer peer = python == null ? null : new TorchPeer(python, device, workers)) {
            Setup setup = new Setup(device, workers, trial ? Setup.Effort.TRIAL : Setup.Effort.FULL,
                    new TimeLimit(seconds == null && set == KernelSet.HOPPER ? HOPPER_SECONDS : seconds), peer);
            if (preparesPeer) {
                prepare(setup);
            } else {
                measure(setup);
            }
        }
    }

    private void requirePreparation() {
        if (python == null) {
            throw GatunException.invalid("--prepare-peer needs --peer PYTHON");
        }
        if (!kernels && !train) {
            throw GatunException.invalid("--prepare-peer needs --kernels or --train, for which the peer compiles");
        }
        if (quantization != Quantization.NONE) {
            throw GatunException.invalid("--quantization is %s, expected none with --prepare-peer: the peer knows none",
                    quantization.name().toLowerCase(Locale.ROOT));
        }
        if (models || host || images || json != null || plot != null || checkpoint != null) {
            throw GatunException.invalid("--prepare-peer measures and writes nothing: expected without --models,"
                    + " --host, --images, --json, --plot and --make-checkpoint");
        }
    }

    private void prepare(Setup setup) {
        Chosen chosen = chosen(setup, kernels, train);
        KernelBench.preparePeer(Objects.requireNonNull(setup.peer()), chosen.kernels, setup.time());
        TrainingBench.preparePeer(dtypes(), chosen.tasks, setup);
    }

    /// What `--only` leaves.
    private record Chosen(List<List<OpCase>> kernels, List<TrainingBench.Task> tasks) {}

    /// @throws GatunException when it leaves nothing of what is asked for
    private Chosen chosen(Setup setup, boolean ofKernels, boolean ofTasks) {
        Chosen chosen = new Chosen(ofKernels ? groups(setup) : List.of(),
                ofTasks ? TrainingBench.tasks(only, setup) : List.of());
        if ((ofKernels || ofTasks) && chosen.kernels.isEmpty() && chosen.tasks.isEmpty()) {
            List<String> expected = new ArrayList<>();
            if (ofKernels) {
                expected.add("an op's name%s, such as rmsnorm".formatted(
                        set == KernelSet.HOPPER ? " in the set hopper" : ""));
            }
            if (ofTasks) {
                expected.add("gpt124m, gpt or unet");
            }
            throw GatunException.invalid("--only is %s, expected part of %s", only, String.join(", or of ", expected));
        }
        return chosen;
    }

    private List<List<OpCase>> groups(Setup setup) {
        List<List<OpCase>> all = set == KernelSet.HOPPER ? HopperCases.groups(setup)
                : KernelCases.groups(dtypes(), setup);
        return all.stream().filter(group -> group.getFirst().op().contains(only)).toList();
    }

    private void measure(Setup setup) {
        boolean none = !kernels && !models && !host && !images && !train;
        boolean all = none && only.isEmpty();
        Chosen chosen = chosen(setup, kernels || none, train || none); // refused before anything is measured
        requireQuantizedModels(models || all);
        if (model != null && (models || images || all)) {
            requireModel(model, models || all);
        }
        if (after > 0 && chosen.kernels.isEmpty()) {
            throw GatunException.invalid("--after is %d, expected with --kernels: it counts kernel cases", after);
        }
        Report report = new Report(Machine.describe(setup, command()), json);
        if (host || all) {
            progress("host");
            report.add("host", HostBench.run());
        }
        if (!chosen.kernels.isEmpty() || models || all) {
            try (MemoryRate memory = MemoryRate.of(setup)) {
                if (!chosen.kernels.isEmpty()) {
                    progress("kernels");
                    KernelBench.run(setup, chosen.kernels, after, memory, report);
                }
                if (models || all) {
                    progress("models");
                    measureModels(setup, memory, report);
                }
                report.add("memory", memory.rows());
            }
        }
        if (images || all) {
            progress("images");
            measureImages(setup, report);
        }
        if (!chosen.tasks.isEmpty()) {
            progress("train");
            TrainingBench.run(dtypes(), chosen.tasks, setup, report);
        }
        System.out.print(report.text());
        report.save();
    }

    /// Refuses a directory before minutes of measuring.
    private void requireModel(Path directory, boolean measuresModels) {
        ModelLoader.requireDirectory(directory);
        if (measuresModels) {
            LanguageFamily.config(directory);
        }
        if (images) {
            ImagePass.requireSuitable(directory);
        }
    }

    /// Nothing else that is measured has matrices to quantise.
    private void requireQuantizedModels(boolean measuresModels) {
        String name = quantization.name().toLowerCase(Locale.ROOT);
        if (quantization != Quantization.NONE && !measuresModels) {
            throw GatunException.invalid("--quantization is %s, which --models alone measures: pass that too", name);
        }
        if (quantization != Quantization.NONE && dtypes().equals(List.of(DType.F32))) {
            throw GatunException.invalid("--quantization %s computes in bf16 or f16, --dtype is %s", name, dtype);
        }
    }

    private void measureModels(Setup setup, MemoryRate memory, Report report) {
        if (model != null) {
            ModelBench.run(model, dtypes(), quantization, setup, memory, report);
            return;
        }
        try (TemporaryModel generated = TemporaryModel.of(
                trial ? Gpt2Checkpoint.TINY : Gpt2Checkpoint.GPT2_124M, DType.F32)) {
            ModelBench.run(generated.path(), dtypes(), quantization, setup, memory, report);
        }
    }

    private void measureImages(Setup setup, Report report) {
        if (model != null && images) {
            ImageBench.run(model, dtypes(), setup, report);
            return;
        }
        try (TemporaryModel generated = TemporaryModel.ddpmCifar10(DType.F32)) {
            ImageBench.run(generated.path(), dtypes(), setup, report);
        }
    }

    private List<DType> dtypes() {
        if (dtype == null) {
            return List.of(DType.F32, DType.BF16);
        }
        return switch (dtype.toLowerCase(Locale.ROOT)) {
            case "f32", "float32" -> List.of(DType.F32);
            case "bf16", "bfloat16" -> List.of(DType.BF16);
            case "f16", "float16" -> List.of(DType.F16);
            default -> throw GatunException.invalid("--dtype is %s, expected f32, bf16 or f16", dtype);
        };
    }

    private String command() {
        List<String> words = new ArrayList<>(List.of("gatun"));
        words.addAll(spec.root().commandLine().getParseResult().originalArgs());
        return String.join(" ", words);
    }

    private static void progress(String part) {
        System.err.println("gatun bench: " + part);
    }
}
