package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Do the programs of docs/training.md compile and run as they stand there?
class DocumentedProgramTest {
    private static final String IMPORTS = """
            import io.gatun.ops.*;
            import io.gatun.runtime.*;
            import io.gatun.train.*;
            import io.gatun.train.Parameters.Shape;
            import io.gatun.train.UpdateRule.Adam;
            import java.util.*;
            import java.util.function.Function;

            """;

    @TempDir
    private Path folder;

    private static List<String> programs() throws IOException {
        String page = Files.readString(Path.of(System.getProperty("gatun.root"), "docs/training.md"));
        return Pattern.compile("```java\\R(.*?)```", Pattern.DOTALL).matcher(page).results()
                .map(found -> found.group(1)).toList();
    }

    private String run(String program) throws IOException, InterruptedException {
        Path source = Files.writeString(folder.resolve("Program.java"), IMPORTS + program);
        Process process = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin/java").toString(),
                "-XX:TieredStopAtLevel=1", "--enable-native-access=ALL-UNNAMED", "-cp",
                String.join(File.pathSeparator, System.getProperty("jdk.module.path", ""),
                        System.getProperty("java.class.path")), source.toString()).redirectErrorStream(true).start();
        String printed = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertTrue(process.waitFor(60, TimeUnit.SECONDS), printed);
        assertEquals(0, process.exitValue(), printed);
        return printed;
    }

    /// Learns whether the sum of three numbers is above 0.
    @Test
    void training() throws IOException, InterruptedException {
        String printed = run("""
                float[] inputs(int step) {
                    Random random = new Random(step);
                    float[] x = new float[64 * 3];
                    for (int i = 0; i < x.length; i++) {
                        x[i] = (float) random.nextGaussian();
                    }
                    return x;
                }

                float[] targets(int step) {
                    float[] x = inputs(step);
                    float[] t = new float[64];
                    for (int i = 0; i < t.length; i++) {
                        t[i] = x[3 * i] + x[3 * i + 1] + x[3 * i + 2] > 0 ? 1 : 0;
                    }
                    return t;
                }

                void main() {
                %s
                }
                """.formatted(programs().getFirst()));
        assertTrue(Float.parseFloat(printed.strip()) < 0.15, printed);
    }

    @Test
    void gradientCheck() throws IOException, InterruptedException {
        String program = """
                void main() {
                    List<Shape> shapes = List.of(new Shape("w", new long[] {2, 3}, true));
                    try (Device device = Device.open("cpu");
                            Trainer trainer = new Trainer(device, shapes, Adam.decoupled(0), 0.1f)) {
                        trainer.set(new Initialiser(1).torch(shapes));
                        Tensor w = trainer.parameters().get("w").value();
                        %s
                        System.out.println(GradientCheck.of(trainer, ownOp).elements().size());
                    }
                }
                """.formatted(programs().getLast());
        assertEquals("6", run(program).strip());
    }
}
