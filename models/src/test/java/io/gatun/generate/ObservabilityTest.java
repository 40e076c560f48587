package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.GoldenCase;
import java.io.File;
import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import jdk.jfr.Recording;
import jdk.jfr.consumer.RecordedEvent;
import jdk.jfr.consumer.RecordingFile;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Can one see from outside what a model does: its leaks, and its events?
@Tag("device")
class ObservabilityTest {
    @TempDir
    private Path directory;

    /// In a process of its own, because the level is read once.
    @Test
    void leaks_trace() throws Exception {
        String output = run(LeakyProgram.class, List.of("-Dgatun.leaks=trace"), GoldenCase.GPT2.model().toString());
        assertTrue(output.contains("closed: []"), output);
        assertTrue(output.contains("open: weights of " + GoldenCase.GPT2.model()), output);
        assertTrue(output.contains("open: forgotten arena with 40 bytes"), output);
        String report = output.substring(output.indexOf("open: forgotten arena"));
        assertTrue(report.contains("at " + LeakyProgram.class.getName() + ".forgetArena(LeakyProgram.java:")
                || report.contains(LeakyProgram.class.getName() + ".forgetArena(LeakyProgram.java:"), output);
        assertTrue(output.contains("never closed: forgotten arena"), "the collector's warning in " + output);
        assertTrue(output.endsWith("end\n"), output);
    }

    @Test
    void leaks_simple() throws Exception {
        String output = run(LeakyProgram.class, List.of(), GoldenCase.GPT2.model().toString());
        assertTrue(output.contains("open: forgotten arena with 40 bytes (-Dgatun.leaks=trace shows where)"), output);
        assertTrue(!output.contains("forgetArena("), output);
    }

    /// Runs a class of the tests with everything of this process on the class path; returns what it prints.
    private static String run(Class<?> main, List<String> options, String... args)
            throws IOException, InterruptedException, URISyntaxException {
        Path testClasses = Path.of(Objects.requireNonNull(main.getResource(main.getSimpleName() + ".class")).toURI());
        for (int i = 0; i < main.getName().split("\\.").length; i++) {
            testClasses = testClasses.getParent();
        }
        String separator = File.pathSeparator;
        List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin/java").toString(),
                "-XX:TieredStopAtLevel=1", "-Xshare:auto", "--enable-native-access=ALL-UNNAMED", "-cp",
                String.join(separator, testClasses.toString(), System.getProperty("jdk.module.path", ""),
                        System.getProperty("java.class.path"))));
        for (String property : List.of("gatun.native.path", "gatun.onednn.path", "gatun.cache", "gatun.test.device",
                "gatun.cuda.path")) {
            if (System.getProperty(property) != null) {
                command.add("-D" + property + "=" + System.getProperty(property));
            }
        }
        command.addAll(options);
        command.add(main.getName());
        command.addAll(List.of(args));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String output = new String(process.getInputStream().readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
        assertEquals(0, process.waitFor(), output);
        return output;
    }

    @Test
    void events_loadAndKernels() throws IOException {
        Path file = directory.resolve("events.jfr");
        try (Recording recording = new Recording()) {
            recording.enable("io.gatun.ModelLoad");
            recording.enable("io.gatun.Kernel");
            recording.enable("io.gatun.Step").withoutThreshold();
            recording.start();
            try (LanguageModel model = Small.load(GoldenCase.GPT2.model())) {
                model.generate(new int[] {1, 2, 3}, GenerationConfig.builder().maxNewTokens(2).build());
            }
            recording.stop();
            recording.dump(file);
        }
        List<RecordedEvent> events = RecordingFile.readAllEvents(file);
        List<RecordedEvent> loads = named(events, "io.gatun.ModelLoad");
        assertEquals(1, loads.size());
        assertEquals(GoldenCase.GPT2.model().toString(), loads.getFirst().getString("directory"));
        long tensorBytes = Files.size(GoldenCase.GPT2.model().resolve("model.safetensors"));
        long weightBytes = loads.getFirst().getLong("weightBytes");
        assertTrue(weightBytes > tensorBytes * 9 / 10 && weightBytes < tensorBytes, weightBytes + " of " + tensorBytes);
        assertTrue(loads.getFirst().getDuration().isPositive());
        List<RecordedEvent> steps = named(events, "io.gatun.Step");
        assertEquals(List.of(true, false), steps.stream().map(step -> step.getBoolean("prefill")).toList());
        assertEquals(List.of(3, 1), steps.stream().map(step -> step.getInt("tokens")).toList());
        assertTrue(named(events, "io.gatun.Kernel").size() > 20, "kernels: " + named(events, "io.gatun.Kernel").size());
    }

    private static List<RecordedEvent> named(List<RecordedEvent> events, String name) {
        return events.stream().filter(event -> event.getEventType().getName().equals(name)).toList();
    }
}
