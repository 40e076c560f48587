package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.train.FakeTask;
import io.gatun.train.TrainingTask;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Does `gatun train` run a recipe, resume, save when it is interrupted, and say in one line what is wrong?
class TrainCommandTest {
    @TempDir
    private Path folder;
    private Path recipe;
    private Path data;
    private Path out;

    @BeforeEach
    void writeInputs() throws IOException {
        recipe = folder.resolve("recipe.json");
        data = Files.writeString(folder.resolve("data.txt"), "data");
        out = folder.resolve("run");
        writeRecipe("");
    }

    private void writeRecipe(String more) throws IOException {
        Files.writeString(recipe, ("{'task': 'vae', 'max_steps': 6, 'model': {'x': 1}, 'save_steps': 2,"
                + " 'optimizer': {'learning_rate': 0.001}" + more + "}").replace('\'', '"'));
    }

    private Captured train(TrainingTask.Factory tasks, String... more) {
        return Captured.run(() -> Main.execute(List.of(new TrainCommand(tasks)), arguments(more)));
    }

    private String[] arguments(String... more) {
        List<String> all = new ArrayList<>(List.of("train", "--recipe", recipe.toString(), "--data",
                data.toString(), "--out", out.toString()));
        all.addAll(List.of(more));
        return all.toArray(String[]::new);
    }

    private Captured train(String... more) {
        return train(request -> new FakeTask(request.recipe()), more);
    }

    @Test
    void train_runsTheRecipe() {
        Captured result = train();
        assertEquals(0, result.code(), result::toString);
        assertTrue(result.out().matches("step 6 of 6, eval_loss [0-9.]+, grad_norm 0.50000, images_per_second"
                + " [0-9.e+]+, loss [0-9.]+, peak_memory_mib 19.000, planned_memory_mib 20.000\\R"
                + "model: .*run/model\\R"), result.out());
        assertEquals("""
                gatun: warning: 1 of 21 pictures skipped
                gatun: memory: weights 3 MiB (3 trained parameters), gradients 4 MiB, optimizer 5 MiB, activations 6\
                 MiB for a batch of 2, peak 20 MiB of 1,024 MiB free
                """, result.err());
        assertTrue(Files.exists(out.resolve("model/config.json")));
        assertTrue(Files.exists(out.resolve("checkpoint-6")));
        train().assertFailed(2, "holds a run of this recipe, at step 6: go on with --resume");
        Captured resumed = train("--resume", "--json");
        assertEquals(0, resumed.code(), resumed::toString);
        assertTrue(resumed.out().startsWith("{\"step\":6,\"eval_loss\":"), resumed.out());
        assertTrue(resumed.out().contains("\"peak_memory_mib\":19.0,\"planned_memory_mib\":20.0")
                && resumed.out().contains("\"memory\":{\"parameters\":3,\"weightBytes\":3145728,"), resumed.out());
    }

    @Test
    void progress_describesTheFigures() {
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("loss", 1.43214);
        figures.put("grad_norm", 0.5);
        figures.put("eval_loss", 1.5);
        try (TrainingProgress progress = new TrainingProgress("tokens")) {
            assertEquals("", progress.describe(Map.of()));
            figures.put("tokens_per_second", 12345.6);
            assertEquals("loss 1.4321, eval_loss 1.5000, 12,346 tokens/s", progress.describe(figures));
        }
    }

    @Test
    void train_passesItsOptionsOn() {
        TrainingTask.Request[] seen = new TrainingTask.Request[1];
        train(request -> {
            seen[0] = request;
            return new FakeTask(request.recipe());
        }, "--device", "cpu", "--threads", "3");
        assertEquals("cpu", seen[0].device());
        assertEquals(3, seen[0].threads());
        assertEquals(data, seen[0].data());
        assertEquals(out, seen[0].work());
    }

    @Test
    void train_refusesBadInputInOneLine() throws IOException {
        train("--threads", "-1").assertFailed(2, "--threads is -1");
        writeRecipe(", 'btea': 1");
        train().assertFailed(2, "unknown field 'btea'; the nearest that exists is 'beta'");
        writeRecipe("");
        Files.delete(data);
        train().assertFailed(2, "--data", "data.txt: no such file or folder");
        Files.delete(recipe);
        train().assertFailed(2, "recipe.json: no such recipe");
        assertFalse(Files.exists(out), "nothing is made for bad input");
        Captured.run(() -> Main.execute(List.of(new TrainCommand(request -> new FakeTask(request.recipe()))), "train"))
                .assertFailed(2, "--recipe=FILE");
    }

    @Test
    void train_refusesToResumeAnotherRecipe() throws IOException {
        train("--resume").assertFailed(2, "holds no run to resume");
        train();
        byte[] before = Files.readAllBytes(out.resolve("recipe.json"));
        writeRecipe(", 'seed': 5");
        train("--resume").assertFailed(2, "holds a run of another recipe (seed is absent there, 5 here)",
                "Nothing was overwritten");
        train().assertFailed(2, "holds a run of another recipe");
        assertEquals(new String(before, StandardCharsets.UTF_8), Files.readString(out.resolve("recipe.json")));
    }

    @Test
    void train_aLossThatIsNoNumberFails() {
        Captured result = train(request -> new FakeTask(request.recipe()) {
            @Override
            public List<String> warnings() {
                return List.of();
            }

            @Override
            public Map<String, Double> figures() {
                return Map.of("loss", Double.NaN);
            }
        });
        assertEquals(1, result.code(), result::toString);
        List<String> lines = result.err().lines().toList();
        assertEquals(2, lines.size(), result::toString); // the first is the plan's memory
        assertTrue(lines.getLast().startsWith("gatun: loss is NaN at step 2"), result::toString);
        assertTrue(lines.getLast().contains("There is no checkpoint before it"), result::toString);
    }

    /// Said before the first step.
    @Test
    void train_refusesWhatDoesNotFit() {
        Captured result = train(request -> {
            FakeTask task = new FakeTask(request.recipe());
            task.freeBytes = 19 << 20;
            return task;
        });
        assertEquals(1, result.code(), result::toString);
        assertTrue(result.err().lines().toList().getLast().endsWith("peak 20 MiB of 19 MiB free: a smaller"
                + " train_batch_size, dtype bf16 or, for text, gradient_checkpointing need less"), result::toString);
        assertFalse(Files.exists(out.resolve("checkpoint-2")));
    }

    /// In a process of its own: a request to end finishes the update, saves, and the run can go on.
    @Test
    void train_interruptedSaves() throws Exception {
        writeRecipe(", 'seed': 8");
        Files.writeString(recipe, Files.readString(recipe).replace("\"max_steps\": 6", "\"max_steps\": 100000000")
                .replace("\"save_steps\": 2", "\"logging_steps\": 1"));
        Path testClasses = Path.of(SlowTraining.class.getResource("SlowTraining.class").toURI());
        for (int i = 0; i < SlowTraining.class.getName().split("\\.").length; i++) {
            testClasses = testClasses.getParent();
        }
        Process process = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin/java").toString(),
                "-XX:TieredStopAtLevel=1", "-cp", String.join(File.pathSeparator, testClasses.toString(),
                        System.getProperty("jdk.module.path", ""), System.getProperty("java.class.path")),
                SlowTraining.class.getName(), recipe.toString(), data.toString(), out.toString())
                .redirectErrorStream(true).start();
        BufferedReader output = process.inputReader(StandardCharsets.UTF_8);
        StringBuilder before = new StringBuilder();
        for (String line = output.readLine(); !SlowTraining.SAID.equals(line); line = output.readLine()) {
            assertNotNull(line, "ended before it was under way: " + before);
            before.append(line).append('\n');
        }
        process.toHandle().destroy(); // SIGTERM; SIGINT takes the same way, unless whoever started the tests ignores it
        String printed = output.lines().collect(Collectors.joining(System.lineSeparator(), "", System.lineSeparator()));
        assertTrue(process.waitFor(60, TimeUnit.SECONDS), printed);
        assertEquals(128 + 15, process.exitValue(), printed);
        assertTrue(printed.matches("(?s).*interrupted after step \\d+ of 100000000: go on with --resume\\R"), printed);
        String step = printed.replaceAll("(?s).*after step (\\d+) of.*", "$1");
        assertTrue(Files.exists(out.resolve("checkpoint-" + step + "/training_state.json")), printed);
        assertFalse(Files.exists(out.resolve("model")));
        assertFalse(printed.contains("Shutdown"), printed);
    }
}
