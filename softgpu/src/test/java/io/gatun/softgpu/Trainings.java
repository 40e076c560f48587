package io.gatun.softgpu;

import io.gatun.train.Recipe;
import io.gatun.train.RunDirectory;
import io.gatun.train.TrainingRun;
import io.gatun.train.TrainingTask;
import io.gatun.train.TrainingTasks;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/// The small trainings that these tests run on the stand-ins: what is trained, on which data, and what is left behind.
enum Trainings {
    LANGUAGE_MODEL("'tokenizer': 'characters', 'dropout': 0.1",
            "'model_type': 'gpt2', 'n_layer': 1, 'n_head': 2, 'n_embd': 8, 'n_positions': 4",
            "'model_type': 'gpt2', 'n_layer': 4, 'n_head': 4, 'n_embd': 256, 'n_positions': 8"),
    CLASSIFIER("'label_smoothing_factor': 0.1", "'channels': [4], 'hidden_size': 8, 'image_size': 8",
            "'channels': [64, 128], 'hidden_size': 512, 'image_size': 64");

    static final int STEPS = 3;
    static final int BATCH = 2;
    /// Of the text: T.
    static final int LENGTH = 4;
    /// Of the pictures: height and width.
    static final int SIZE = 8;
    private static final int PICTURES = 8;
    private static final int CHECKPOINTS = 10;

    private final String fields;
    private final String model;
    private final String largeModel;

    Trainings(String fields, String model, String largeModel) {
        this.fields = fields;
        this.model = model;
        this.largeModel = largeModel;
    }

    /// With a checkpoint after each step.
    Recipe recipe() {
        return recipe(model);
    }

    private Recipe recipe(String config) {
        return Recipe.parse(Path.of("recipe.json"), ("{'task': '" + name().toLowerCase(Locale.ROOT) + "', "
                + fields + ", 'model': {" + config + "}, 'max_steps': " + STEPS + ", 'train_batch_size': " + BATCH
                + ", 'save_steps': 1, 'save_total_limit': " + CHECKPOINTS + ", 'logging_steps': 1, 'seed': 3,"
                + " 'optimizer': {'learning_rate': 0.01}}").replace('\'', '"'));
    }

    /// Writes the data.
    ///
    /// @return what a run is given
    Path writeData(Path folder) throws IOException {
        if (this == LANGUAGE_MODEL) {
            return Files.writeString(folder.resolve("text.txt"), "abba cab, a bad cab. ".repeat(20));
        }
        Path pictures = Files.createDirectories(folder.resolve("pictures"));
        for (String part : new String[] {"train", "t10k"}) {
            ByteArrayOutputStream images = new ByteArrayOutputStream();
            ByteArrayOutputStream labels = new ByteArrayOutputStream();
            DataOutputStream out = new DataOutputStream(images);
            for (int header : new int[] {0x803, PICTURES, SIZE, SIZE}) {
                out.writeInt(header);
            }
            new DataOutputStream(labels).writeLong((0x801L << 32) + PICTURES);
            for (int i = 0; i < PICTURES; i++) {
                labels.write(i % 2);
                for (int p = 0; p < SIZE * SIZE; p++) {
                    images.write(p % SIZE < SIZE / 2 == (i % 2 == 0) ? 200 + i : i);
                }
            }
            Files.write(pictures.resolve(part + "-images-idx3-ubyte"), images.toByteArray());
            Files.write(pictures.resolve(part + "-labels-idx1-ubyte"), labels.toByteArray());
        }
        return pictures;
    }

    TrainingTask open(Path data, Path root) {
        return open(recipe(), data, root);
    }

    /// As [#open], of a model whose memory counts.
    TrainingTask openLarge(Path data, Path root) {
        return open(recipe(largeModel), data, root);
    }

    private static TrainingTask open(Recipe recipe, Path data, Path root) {
        return TrainingTasks.open(new TrainingTask.Request(recipe, data, root, "cuda", 1));
    }

    /// Begins a run, or goes on with the one that is there, to its end.
    void run(Path data, Path root) {
        Recipe recipe = recipe();
        try (RunDirectory directory = Files.exists(root.resolve("recipe.json")) ? RunDirectory.resume(root, recipe)
                : RunDirectory.create(root, recipe); TrainingTask task = open(data, root)) {
            new TrainingRun(task, recipe, directory, new Silent()).run();
        }
    }

    private static final class Silent implements TrainingRun.Listener {
        @Override
        public void step(int step, int steps, Map<String, Double> figures) {}

        @Override
        public void warning(String message) {
            throw new AssertionError(message);
        }
    }

    /// The last checkpoint's step; 0 where there is none.
    static int lastStep(Path root) {
        int last = 0;
        for (int step = 1; step <= STEPS; step++) {
            last = Files.exists(checkpoint(root, step)) ? step : last;
        }
        return last;
    }

    private static Path checkpoint(Path root, int step) {
        return root.resolve("checkpoint-" + step);
    }

    /// The tensors of a checkpoint: the file of the model, that of the training's state.
    static List<byte[]> tensors(Path root, int step) throws IOException {
        return List.of(Files.readAllBytes(checkpoint(root, step).resolve("model.safetensors")),
                Files.readAllBytes(checkpoint(root, step).resolve("training_state.safetensors")));
    }
}
