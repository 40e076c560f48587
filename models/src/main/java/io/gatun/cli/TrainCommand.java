package io.gatun.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.plot.ChartFile;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.OutOfDeviceMemoryException;
import io.gatun.train.Recipe;
import io.gatun.train.RunDirectory;
import io.gatun.train.TrainingMemory;
import io.gatun.train.TrainingRun;
import io.gatun.train.TrainingTask;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `gatun train`: makes or goes on with a run.
///
/// On an interrupt (Ctrl-C) or a request to end (SIGTERM) the update in progress is finished and a checkpoint written:
/// the JVM then waits for its shutdown hooks, and ours waits for the run.
@Command(name = "train", mixinStandardHelpOptions = true, sortOptions = false,
        description = "Trains a model as a recipe says. Ctrl-C saves a checkpoint; --resume goes on from the last.",
        footer = {"", "Writes DIR/metrics.jsonl, DIR/loss.png, DIR/checkpoint-STEP and, at the end, DIR/model, which"
                + " the other commands open with --model; of a recipe with lora it is the --adapter of gatun"
                + " generate."})
final class TrainCommand implements CliCommand, Callable<Integer> {
    static final int INTERRUPTED = 130;

    @Option(names = "--recipe", required = true, paramLabel = "FILE", description = "what to train and how, JSON")
    private Path recipe;

    @Option(names = "--data", required = true, paramLabel = "PATH",
            description = "a text file or a folder of .txt files; a folder of pictures or of idx files (MNIST)")
    private Path data;

    @Option(names = "--out", required = true, paramLabel = "DIR", description = "directory of the run")
    private Path out;

    @Option(names = "--resume", description = "go on with the run in --out")
    private boolean resume;

    @Option(names = "--device", paramLabel = "NAME", defaultValue = "auto",
            description = "auto, cpu, cuda or cuda:N (default: ${DEFAULT-VALUE})")
    private String device;

    @Option(names = "--threads", paramLabel = "N", defaultValue = "0", description = "CPU threads (default: all cores)")
    private int threads;

    @Option(names = "--json", description = "print the last figures as JSON")
    private boolean json;

    private final TrainingTask.Factory tasks;

    TrainCommand(TrainingTask.Factory tasks) {
        this.tasks = tasks;
    }

    @Override
    public Integer call() {
        if (threads < 0) {
            throw GatunException.invalid("--threads is %d, expected 0 (all cores) or more", threads);
        }
        Recipe parsed = Recipe.read(recipe);
        if (!Files.exists(data)) {
            throw GatunException.invalid("--data %s: no such file or folder", data);
        }
        try (RunDirectory directory = resume ? RunDirectory.resume(out, parsed) : RunDirectory.create(out, parsed);
                TrainingTask task = tasks.open(new TrainingTask.Request(parsed, data, out, device, threads));
                TrainingProgress progress = new TrainingProgress(task.unit())) {
            task.warnings().forEach(progress::warning);
            TrainingMemory memory = task.memory();
            System.err.println("gatun: " + memory);
            if (!memory.fits()) {
                throw new OutOfDeviceMemoryException(memory.toString(), memory.peakBytes());
            }
            return run(new TrainingRun(task, parsed, directory, progress), task, progress);
        } catch (OutOfDeviceMemoryException e) {
            throw new OutOfDeviceMemoryException(e.getMessage() + ": a smaller train_batch_size, dtype bf16 or, for"
                    + " text, gradient_checkpointing need less", e.requestedBytes());
        }
    }

    private int run(TrainingRun run, TrainingTask task, TrainingProgress progress) {
        ChartFile.prepare();
        CountDownLatch ended = new CountDownLatch(1);
        Thread hook = Thread.ofPlatform().unstarted(() -> {
            run.stop();
            try {
                ended.await();
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        });
        Runtime.getRuntime().addShutdownHook(hook);
        try {
            TrainingRun.End end = run.run();
            progress.close();
            System.out.print(end == TrainingRun.End.FINISHED ? report(run, task)
                    : "interrupted after step %d of %d: go on with --resume%n".formatted(run.step(), task.steps()));
            System.out.flush();
            return end == TrainingRun.End.FINISHED ? 0 : INTERRUPTED;
        } catch (GatunException e) {
            if (!run.isStopped()) {
                throw e;
            }
            // the JVM ends with the hook, before anyone above could say it
            progress.close();
            System.err.println("gatun: " + e.getMessage());
            return Main.FAILED;
        } finally {
            ended.countDown();
            try {
                Runtime.getRuntime().removeShutdownHook(hook);
            } catch (IllegalStateException e) {
                // the JVM is ending: that is what the hook was for
            }
        }
    }

    private String report(TrainingRun run, TrainingTask task) {
        Path model = out.resolve("model");
        TreeMap<String, Double> figures = new TreeMap<>(run.figures());
        if (json) {
            ObjectMapper mapper = new ObjectMapper();
            ObjectNode result = mapper.createObjectNode().put("step", run.step());
            figures.forEach(result::put);
            result.put("model", model.toString()).set("memory", mapper.valueToTree(task.memory()));
            return result + System.lineSeparator();
        }
        StringBuilder text = new StringBuilder("step %d of %d".formatted(run.step(), task.steps()));
        figures.forEach((name, value) -> text.append(String.format(Locale.ROOT, ", %s %.5g", name, value)));
        return text.append("%nmodel: %s%n".formatted(model)).toString();
    }
}
