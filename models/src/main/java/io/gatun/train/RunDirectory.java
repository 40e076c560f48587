package io.gatun.train;

import io.gatun.io.AtomicFile;
import io.gatun.io.IoReason;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/// What a training writes:
///
///     recipe.json                 as it was given last
///     metrics.jsonl, loss.png     how it went
///     samples/                    what the model made on the way
///     tokens.bin, tokenizer/      what was made of a text
///     checkpoint-<step>/          a model directory, training_state.json, training_state.safetensors
///     model/                      the model at the end
///
/// A checkpoint and the model appear whole or not at all: they are written beside their place, synced and renamed. One
/// process at a time has a run directory open.
public final class RunDirectory implements AutoCloseable {
    private static final String RECIPE = "recipe.json";
    private static final String METRICS = "metrics.jsonl";
    private static final String LOCK = ".lock";
    private static final String PART = ".part";
    /// Of what is being replaced.
    private static final String OLD = ".old" + PART;
    private static final Pattern CHECKPOINT = Pattern.compile("checkpoint-(\\d{1,9})");
    private static final System.Logger LOG = System.getLogger(RunDirectory.class.getName());

    /// Writes a model into an empty directory, as Hugging Face has them.
    public interface ModelWriter {
        void write(Path directory) throws IOException;
    }

    private final Path root;
    private final String recipeHash;
    private final int keep;
    private final FileChannel lock;

    private RunDirectory(Path root, Recipe recipe, FileChannel lock) {
        this.root = root;
        this.recipeHash = recipe.hash();
        this.keep = recipe.settings().saveTotalLimit();
        this.lock = lock;
    }

    /// Begins a run, in a directory that does not exist, is empty, or holds a run that never made a step.
    ///
    /// @throws GatunException when the directory holds anything else; it is left as it is
    public static RunDirectory create(Path root, Recipe recipe) {
        if (Files.exists(root) && !Files.isDirectory(root)) {
            throw GatunException.invalid("%s: a file, expected a directory or none", root);
        }
        boolean begun = Files.exists(root.resolve(METRICS)) || !checkpoints(root).isEmpty();
        if (begun) {
            RecipeText there = recipeOf(root);
            RunCheckpoint last = there.hash().equals(recipe.hash()) ? latest(root, recipe.hash()) : null;
            throw there.hash().equals(recipe.hash())
                    ? GatunException.invalid("%s holds a run of this recipe, %s: go on with --resume, or choose another"
                            + " --out. Nothing was overwritten", root, last == null ? "without a checkpoint"
                            : "at step %d".formatted(last.state().step()))
                    : otherRecipe(root, recipe.text(), there);
        }
        if (!Files.exists(root.resolve(RECIPE)) && !isEmpty(root)) {
            throw GatunException.invalid("%s is not empty and holds no run: choose another --out", root);
        }
        try {
            Files.createDirectories(root);
            return open(root, recipe);
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT,
                    "%s: cannot be written: %s".formatted(root, IoReason.of(e)), e);
        }
    }

    /// Goes on with a run.
    ///
    /// @throws GatunException when there is none, or one of another recipe; it is left as it is
    public static RunDirectory resume(Path root, Recipe recipe) {
        if (!Files.isRegularFile(root.resolve(RECIPE))) {
            throw GatunException.invalid("%s holds no run to resume: there is no %s in it", root, RECIPE);
        }
        RecipeText there = recipeOf(root);
        if (!there.hash().equals(recipe.hash())) {
            throw otherRecipe(root, recipe.text(), there);
        }
        try {
            return open(root, recipe);
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT,
                    "%s: cannot be opened: %s".formatted(root, IoReason.of(e)), e);
        }
    }

    /// Takes the directory, and writes the recipe: of one that was there fields without effect may have changed.
    private static RunDirectory open(Path root, Recipe recipe) throws IOException {
        RunDirectory directory = new RunDirectory(root, recipe, lock(root));
        try {
            directory.removeRemains();
            AtomicFile.replace(root.resolve(RECIPE), recipe.text().json().getBytes(StandardCharsets.UTF_8));
            return directory;
        } catch (IOException | RuntimeException e) {
            directory.close();
            throw e;
        }
    }

    private static GatunException otherRecipe(Path root, RecipeText here, RecipeText there) {
        return GatunException.invalid("%s holds a run of another recipe (%s): choose another --out. Nothing was"
                + " overwritten", root, here.differences(there));
    }

    private static RecipeText recipeOf(Path root) {
        Path file = root.resolve(RECIPE);
        try {
            return RecipeText.of(file, Files.readString(file));
        } catch (IOException e) {
            throw GatunException.invalid("%s holds a run whose %s cannot be read: %s", root, RECIPE,
                    IoReason.of(e));
        }
    }

    private static boolean isEmpty(Path root) {
        if (!Files.exists(root)) {
            return true;
        }
        try (Stream<Path> inside = Files.list(root)) {
            return inside.allMatch(file -> file.getFileName().toString().equals(LOCK));
        } catch (IOException e) {
            throw GatunException.invalid("%s: cannot be read: %s", root, IoReason.of(e));
        }
    }

    private static FileChannel lock(Path root) throws IOException {
        FileChannel channel = FileChannel.open(root.resolve(LOCK), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        try {
            if (channel.tryLock() != null) {
                return channel;
            }
        } catch (OverlappingFileLockException e) {
            // by this process: the same message
        } catch (IOException e) {
            channel.close();
            throw e;
        }
        channel.close();
        throw GatunException.invalid("%s: another training writes there; wait for it or choose another --out", root);
    }

    public Path root() {
        return root;
    }

    /// `metrics.jsonl`
    public Path metrics() {
        return root.resolve(METRICS);
    }

    /// `loss.png`
    public Path lossCurve() {
        return root.resolve("loss.png");
    }

    /// The folder for samples, which is made.
    public Path samples() {
        try {
            return Files.createDirectories(root.resolve("samples"));
        } catch (IOException e) {
            throw failed("samples cannot be written", e);
        }
    }

    /// The checkpoint with the highest step; null before the first.
    ///
    /// @throws GatunException when it is damaged
    public @Nullable RunCheckpoint latest() {
        return latest(root, recipeHash);
    }

    private static @Nullable RunCheckpoint latest(Path root, String recipeHash) {
        List<Path> all = checkpoints(root);
        if (all.isEmpty()) {
            return null;
        }
        Path newest = all.getLast();
        try {
            TrainingState state = TrainingState.read(newest.resolve(TrainingState.FILE), recipeHash);
            if (state.step() != step(newest)) {
                throw GatunException.invalid("%s holds step %d", newest, state.step());
            }
            return new RunCheckpoint(newest, state);
        } catch (GatunException e) {
            throw new GatunException(e.status(), e.getMessage() + (all.size() == 1 ? ". There is no other checkpoint"
                    : ". Delete %s to go on from %s".formatted(newest, all.get(all.size() - 2).getFileName())), e);
        }
    }

    /// By step, ascending.
    private static List<Path> checkpoints(Path root) {
        if (!Files.isDirectory(root)) {
            return List.of();
        }
        try (Stream<Path> inside = Files.list(root)) {
            return inside.filter(path -> step(path) >= 0 && Files.isDirectory(path))
                    .sorted(Comparator.comparingInt(RunDirectory::step)).toList();
        } catch (IOException e) {
            throw GatunException.invalid("%s: cannot be read: %s", root, IoReason.of(e));
        }
    }

    private static int step(Path checkpoint) {
        Matcher matcher = CHECKPOINT.matcher(checkpoint.getFileName().toString());
        return matcher.matches() ? Integer.parseInt(matcher.group(1)) : -1;
    }

    /// Writes a checkpoint, then deletes the oldest beyond those that are kept.
    ///
    /// @param tensors everything that the training needs to go on, by name
    /// @throws GatunException when it cannot be written; the checkpoints before it are as they were
    public Path save(TrainingState state, Map<String, TensorSource> tensors, ModelWriter model) {
        Path target = root.resolve("checkpoint-" + state.step());
        write(target, "the checkpoint of step " + state.step(), directory -> {
            model.write(directory);
            SafetensorsWriter.write(directory.resolve(RunCheckpoint.TENSORS), tensors, Map.of());
            Files.writeString(directory.resolve(TrainingState.FILE), state.json(recipeHash));
        });
        List<Path> all = checkpoints(root);
        for (Path old : all.subList(0, Math.max(0, all.size() - keep))) {
            discard(old);
        }
        return target;
    }

    /// Writes `model/`, or replaces it as a whole.
    ///
    /// @throws GatunException when it cannot be written
    public Path saveModel(ModelWriter model) {
        Path target = root.resolve("model");
        write(target, "the model", model);
        return target;
    }

    private void write(Path target, String what, ModelWriter content) {
        Path part = hidden(target, PART);
        try {
            deleteTree(part);
            Files.createDirectory(part);
            content.write(part);
            sync(part);
            Path old = hidden(target, OLD);
            if (Files.exists(target)) {
                Files.move(target, old, StandardCopyOption.ATOMIC_MOVE);
            }
            try {
                Files.move(part, target, StandardCopyOption.ATOMIC_MOVE);
            } catch (IOException e) {
                if (Files.exists(old)) {
                    Files.move(old, target, StandardCopyOption.ATOMIC_MOVE);
                }
                throw e;
            }
            sync(root, 0);
            deleteTree(old);
        } catch (IOException | RuntimeException e) {
            try {
                deleteTree(part);
            } catch (IOException also) {
                e.addSuppressed(also);
            }
            if (e instanceof GatunException failure && failure.status() != GatunException.Status.INVALID_ARGUMENT) {
                throw failure; // of the device
            }
            throw failed(what + " cannot be written", e);
        }
    }

    private GatunException failed(String what, Exception e) {
        List<Path> all = checkpoints(root);
        String reason = e instanceof GatunException ? e.getMessage() : e instanceof IOException io ? IoReason.of(io)
                : e.toString();
        return new GatunException(GatunException.Status.INTERNAL, "%s: %s; the disk has %,d MB free. %s".formatted(what,
                reason, root.toFile().getUsableSpace() >> 20, all.isEmpty() ? "There is no checkpoint before it"
                : "The last good checkpoint is " + all.getLast()), e);
    }

    private static Path hidden(Path path, String suffix) {
        return path.resolveSibling("." + path.getFileName() + suffix);
    }

    private static void sync(Path tree) throws IOException {
        sync(tree, Integer.MAX_VALUE);
    }

    /// Before the rename, or a crash could leave empty files under the names. Directories too: their entries.
    private static void sync(Path tree, int depth) throws IOException {
        try (Stream<Path> all = Files.walk(tree, depth)) {
            for (Path path : all.toList()) {
                try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
                    channel.force(true);
                }
            }
        }
    }

    /// First by name, so that nobody takes half a checkpoint for one. That old ones cannot be deleted ends no run.
    private static void discard(Path checkpoint) {
        try {
            Path old = hidden(checkpoint, PART);
            deleteTree(old);
            deleteTree(Files.move(checkpoint, old, StandardCopyOption.ATOMIC_MOVE));
        } catch (IOException e) {
            LOG.log(System.Logger.Level.WARNING, "cannot delete " + checkpoint, e);
        }
    }

    /// What a process left that was killed while it wrote.
    private void removeRemains() throws IOException {
        List<Path> remains = new ArrayList<>();
        try (Stream<Path> inside = Files.list(root)) {
            inside.filter(path -> path.getFileName().toString().startsWith(".")
                    && path.getFileName().toString().endsWith(PART)).forEach(remains::add);
        }
        for (Path path : remains) {
            String name = path.getFileName().toString();
            Path replaced = name.endsWith(OLD) ? root.resolve(name.substring(1, name.length() - OLD.length())) : null;
            if (replaced != null && !Files.exists(replaced)) { // ended between the two moves
                Files.move(path, replaced, StandardCopyOption.ATOMIC_MOVE);
            } else {
                deleteTree(path);
            }
        }
    }

    private static void deleteTree(Path tree) throws IOException {
        if (!Files.exists(tree)) {
            return;
        }
        try (Stream<Path> all = Files.walk(tree)) {
            for (Path path : all.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(path);
            }
        }
    }

    /// Lets another process have the directory.
    @Override
    public void close() {
        try {
            lock.close();
        } catch (IOException e) {
            LOG.log(System.Logger.Level.WARNING, "cannot unlock " + root, e);
        }
    }
}
