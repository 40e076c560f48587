package io.gatun.demomodels;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.awt.image.BufferedImage;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What the command line does where no model is named. Each run is a JVM of its own.
class DemoCommandsTest {
    private static final String MODULES = "io.gatun.bindings,io.gatun.models,ai.djl.tokenizers";

    @TempDir
    private Path folder;

    /// Everything that this JVM has, from the class path and the module path.
    private static List<String> jars() {
        List<String> all = new ArrayList<>();
        for (String property : new String[] {"java.class.path", "jdk.module.path"}) {
            String value = System.getProperty(property, "");
            Stream.of(value.split(File.pathSeparator)).filter(part -> !part.isEmpty() && !part.contains("test-classes"))
                    .forEach(all::add);
        }
        return all.stream().distinct().toList();
    }

    private record Run(int code, String out, String err) {}

    private static List<String> command(List<String> jvm, String... arguments) {
        List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin", "java")
                .toString(), "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"));
        command.addAll(jvm);
        command.addAll(List.of(arguments));
        return command;
    }

    private Process start(List<String> jvm, String... arguments) throws IOException {
        ProcessBuilder builder = new ProcessBuilder(command(jvm, arguments)).directory(folder.toFile())
                .redirectOutput(Files.createTempFile(folder, "run", ".out").toFile());
        builder.environment().put("LC_ALL", "C.UTF-8");
        return builder.start();
    }

    private static List<String> classPath(Path cache) {
        return List.of("--enable-native-access=ALL-UNNAMED", "-Dgatun.cache=" + cache, "-cp",
                String.join(File.pathSeparator, jars()), "io.gatun.cli.Main");
    }

    private Run gatun(String... arguments) throws Exception {
        return await(start(classPath(folder.resolve("cache")), arguments));
    }

    private Run await(Process process) throws Exception {
        String err = new String(process.getErrorStream().readAllBytes(), StandardCharsets.UTF_8);
        int code = process.waitFor();
        StringBuilder out = new StringBuilder();
        try (Stream<Path> files = Files.list(folder)) {
            for (Path file : files.filter(f -> f.toString().endsWith(".out")).toList()) {
                out.append(Files.readString(file));
                Files.delete(file);
            }
        }
        return new Run(code, out.toString(), err);
    }

    @Test
    void generate_withoutAnything() throws Exception {
        Run run = gatun("generate");
        assertEquals(0, run.code, run.err);
        assertTrue(run.out.startsWith("ROMEO:"), run.out);
        assertEquals("ROMEO:".length() + 250, run.out.length(), run.out);
        Run named = gatun("generate", "--model", "shakespeare", "--prompt", "KING", "--max-new-tokens", "7",
                "--greedy");
        assertEquals("KING".length() + 7, named.out.length(), named.toString());
    }

    @Test
    void sample_withoutAnything() throws Exception {
        Run run = gatun("sample", "--steps", "2", "--json");
        assertEquals(0, run.code, run.err);
        assertTrue(run.out.contains("\"classes\":[0,1,2,3,4,5,6,7,8,9]") && run.out.contains("\"out\":\"digits.png\""),
                run.out);
        assertTrue(run.out.contains("\"steps\":2,\"guidance\":1.5"), run.out);
        BufferedImage grid = ImageIO.read(folder.resolve("digits.png").toFile());
        assertEquals(10 * 32 + 9 * 2, grid.getWidth());
        assertEquals(32, grid.getHeight());
    }

    @Test
    void sample_kinds() throws Exception {
        for (String kind : new String[] {"vae", "gan"}) {
            Run run = gatun("sample", "--kind", kind, "--count", "4");
            assertEquals(0, run.code, run.err);
            assertEquals("digits.png\n", run.out);
        }
        Run seven = gatun("sample", "--kind", "vae", "--class", "7", "--count", "3", "--json");
        assertEquals(0, seven.code, seven.err);
        assertTrue(seven.err.contains("pictures for 3 that digits-classifier takes for theirs"), seven.err);
        assertTrue(seven.out.contains("\"classes\":[7]"), seven.out);
        assertRefused(gatun("sample", "--kind", "vae", "--class", "10"), "class is 10, expected 0 to 9");
        assertRefused(gatun("sample", "--kind", "vae", "--class", "1,2", "--count", "3"),
                "there are 2 classes for 3 images, expected one, or one for each");
        Run gan = gatun("sample", "--kind", "gan", "--json");
        assertTrue(gan.out.contains("\"classes\":[0,1,2,3,4,5,6,7,8,9]"), gan.toString());
        assertTrue(gan.out.contains("\"steps\":0,\"guidance\":1.0"), gan.out);
        assertRefused(gatun("sample", "--kind", "gan", "--class", "10"), "class is 10, expected 0 to 9");
        assertRefused(gatun("sample", "--kind", "gan", "--model", "digits-vae"),
                "--kind is gan, but digits-vae holds a vae model");
        assertRefused(gatun("sample", "--model", "shakespeare"), "gatun_dcgan or gatun_vae");
        assertRefused(gatun("sample", "--class", "12"), "class is 12, expected 0 to 9, or 10 for none");
    }

    private static void assertRefused(Run run, String... parts) {
        assertEquals(2, run.code, run.toString());
        assertEquals(1, run.err.lines().filter(line -> !line.startsWith("gatun: memory:")).count(), run.err);
        for (String part : parts) {
            assertTrue(run.err.contains(part), run.err);
        }
    }

    /// MNIST's files with ten small pictures, one of each class, the first `classes` of them.
    private Path pictures(int classes) throws IOException {
        Path data = Files.createDirectory(folder.resolve("pictures-" + classes));
        byte[] labels = new byte[10];
        for (int i = 0; i < labels.length; i++) {
            labels[i] = (byte) (i % classes);
        }
        for (String part : List.of("train", "t10k")) {
            Files.write(data.resolve(part + "-images-idx3-ubyte"), ByteBuffer.allocate(16 + 10 * 64).putInt(0x803)
                    .putInt(10).putInt(8).putInt(8).array());
            Files.write(data.resolve(part + "-labels-idx1-ubyte"), ByteBuffer.allocate(8 + 10).putInt(0x801)
                    .putInt(10).put(labels).array());
        }
        return data;
    }

    @Test
    void evaluate_judgesDigits() throws Exception {
        Run run = gatun("evaluate", "--model", "digits-gan", "--data", pictures(10).toString(), "--count", "2");
        assertEquals(0, run.code, run.err);
        assertTrue(run.out.contains("confident share"), run.out);
        assertTrue(run.err.contains("judged by the demo model digits-classifier"), run.err);
        assertRefused(gatun("evaluate", "--model", "digits-gan", "--data", pictures(2).toString()),
                "--classifier is missing", "knows digits alone");
    }

    /// The models are those that the cards speak of, not others of the same shape.
    @Test
    void evaluate_figuresOfTheCards() throws Exception {
        Path assets = Path.of(System.getProperty("gatun.assets"));
        assumeTrue(Files.isDirectory(assets), "skipped: no " + assets + " (-Dgatun.assets)");
        String mnist = assets.resolve("mnist").toString();
        assertTrue(figure("accuracy", "digits-classifier", mnist) >= 0.99);
        assertTrue(figure("label_agreement", "digits-diffusion", mnist, "--count", "50") >= 0.97);
        assertTrue(figure("label_agreement", "digits-gan", mnist, "--count", "300") >= 0.97);
        assertTrue(figure("confident_share", "digits-gan", mnist, "--count", "300") >= 0.97);
        assertTrue(figure("confident_share", "digits-vae", mnist, "--count", "200") >= 0.5);
        assertTrue(figure("loss", "shakespeare", assets.resolve("tinyshakespeare/input.txt").toString(),
                "--held-out") <= 1.5);
    }

    private double figure(String name, String model, String data, String... more) throws Exception {
        List<String> arguments = new ArrayList<>(List.of("evaluate", "--model", model, "--data", data, "--json"));
        arguments.addAll(List.of(more));
        Run run = gatun(arguments.toArray(String[]::new));
        assertEquals(0, run.code, run.err);
        Matcher found = Pattern.compile("\"" + name + "\":([0-9.E-]+)").matcher(run.out);
        assertTrue(found.find(), run.out);
        return Double.parseDouble(found.group(1));
    }

    @Test
    void forward_takesAName() throws Exception {
        assertRefused(gatun("forward", "--model", "digits-gan", "--inputs", "none", "--out", "x"), "none");
        assertRefused(gatun("forward", "--model", "digits", "--inputs", "none", "--out", "x"),
                "--model: no directory digits", "or the name of a demo model: digits-classifier, digits-diffusion");
    }

    /// A service of a module is found without naming the module.
    @Test
    void generate_onTheModulePath() throws Exception {
        Run run = onTheModulePath(MODULES);
        assertEquals(0, run.code, run.err);
        assertEquals("ROMEO:".length() + 3, run.out.length(), run.out);
    }

    /// Whichever module asks first names all that will ask.
    @Test
    void nativeAccess_deniedToModules() throws Exception {
        for (String allowed : List.of("java.base", "io.gatun.bindings", "io.gatun.models,ai.djl.tokenizers")) {
            Run run = onTheModulePath(allowed);
            assertEquals(2, run.code, run.toString());
            assertEquals("gatun: native access is denied: start java with --enable-native-access=" + MODULES + "\n",
                    run.err);
        }
    }

    private Run onTheModulePath(String allowed) throws Exception {
        List<String> modules = jars().stream().filter(jar -> !Path.of(jar).getFileName().toString().startsWith("dnnl"))
                .toList();
        List<String> rest = jars().stream().filter(jar -> !modules.contains(jar)).toList();
        return await(start(List.of("--illegal-native-access=deny", "--enable-native-access=" + allowed,
                "-Dgatun.cache=" + folder.resolve("cache"), "-p", String.join(File.pathSeparator, modules), "-cp",
                String.join(File.pathSeparator, rest), "-m", "io.gatun.models/io.gatun.cli.Main"), "generate",
                "--max-new-tokens", "3"));
    }

    @Test
    void output_thatCannotBeWritten() throws Exception {
        Path full = Path.of("/dev/full");
        assumeTrue(Files.exists(full), "no /dev/full");
        List<String> command = command(classPath(folder.resolve("cache")), "generate", "--max-new-tokens", "2");
        Run run = await(new ProcessBuilder(command).redirectOutput(full.toFile()).start());
        assertEquals(1, run.code, run.toString());
        assertEquals("gatun: cannot write to standard output\n", run.err);
    }

    /// Somebody named a folder: nothing else will do in its place.
    @Test
    void oneDnn_thatIsNotThere() throws Exception {
        List<String> jvm = new ArrayList<>(List.of("-Dgatun.onednn.path=" + folder));
        jvm.addAll(classPath(folder.resolve("cache")));
        assertRefused(await(start(jvm, "generate", "--max-new-tokens", "2")), "oneDNN: no readable file",
                "-Dgatun.onednn.path");
        Run doctor = await(start(jvm, "doctor"));
        assertEquals(1, doctor.code, doctor.toString());
        assertTrue(doctor.out.contains("NOT USABLE: oneDNN: no readable file"), doctor.out);
    }

    @Test
    void cache_isSharedByProcessesThatStartTogether() throws Exception {
        List<Process> both = List.of(start(classPath(folder.resolve("new")), "generate", "--max-new-tokens", "2"),
                start(classPath(folder.resolve("new")), "generate", "--max-new-tokens", "2"));
        for (Process process : both) {
            String err = new String(process.getErrorStream().readAllBytes(), StandardCharsets.UTF_8);
            assertEquals(0, process.waitFor(), err);
        }
        try (Stream<Path> files = Files.walk(folder.resolve("new"))) {
            assertFalse(files.anyMatch(file -> file.toString().endsWith(".part")));
        }
    }

    @Test
    void cache_thatCannotBeWritten() throws Exception {
        Path file = Files.createFile(folder.resolve("file"));
        assertRefused(await(start(classPath(file), "generate")), "cannot unpack", "-Dgatun.cache=DIR");
    }
}
