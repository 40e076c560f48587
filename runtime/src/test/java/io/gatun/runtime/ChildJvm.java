package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.bindings.Libraries;
import java.io.File;
import java.io.IOException;
import java.net.JarURLConnection;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/// Runs a test's program in a JVM of its own with Gatun on the class path, for what is read once per process: system
/// properties, and which libraries are there. JUnit is not on that class path.
final class ChildJvm {
    private static final int MAX_SECONDS = 60;

    /// How it ended; standard output and error together.
    record Result(int exit, String output) {
        /// The output of a program that ended well.
        String text() {
            assertTrue(exit == 0, "exit status " + exit + ": " + output);
            return output;
        }
    }

    private ChildJvm() {}

    static Result run(Class<?> program, String... options) throws IOException, InterruptedException {
        return run(program, true, Map.of(), options);
    }

    static Result runWithoutOneDnn(Class<?> program, String... options) throws IOException, InterruptedException {
        return run(program, false, Map.of(), options);
    }

    static Result run(Class<?> program, Map<String, String> environment) throws IOException, InterruptedException {
        return run(program, true, environment);
    }

    private static Result run(Class<?> program, boolean oneDnn, Map<String, String> environment, String... options)
            throws IOException, InterruptedException {
        List<Path> classPath = new ArrayList<>(List.of(rootOf(program), rootOf(Device.class), rootOf(Libraries.class),
                rootOf("META-INF/gatun/" + Libraries.platform() + "/libgatun.so")));
        String library = "org/bytedeco/dnnl/" + Libraries.platform() + "/libdnnl.so.3";
        // the archive for GPU hosts has no oneDNN
        if (oneDnn && ChildJvm.class.getClassLoader().getResource(library) != null) {
            classPath.add(rootOf(library));
        }
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED", "--illegal-native-access=deny", "-cp",
                classPath.stream().map(Path::toString).collect(Collectors.joining(File.pathSeparator))));
        for (String property : List.of("gatun.test.device", "gatun.cuda.path")) {
            if (System.getProperty(property) != null) {
                command.add("-D" + property + "=" + System.getProperty(property));
            }
        }
        command.addAll(List.of(options));
        command.add(program.getName());
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
        builder.environment().remove("JDK_JAVA_OPTIONS");
        builder.environment().remove("JAVA_TOOL_OPTIONS");
        builder.environment().putAll(environment);
        Process process = builder.start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertTrue(process.waitFor(MAX_SECONDS, TimeUnit.SECONDS), "the child JVM does not end: " + output);
        return new Result(process.exitValue(), output);
    }

    private static Path rootOf(Class<?> type) {
        return rootOf(type.getName().replace('.', '/') + ".class");
    }

    private static Path rootOf(String resource) {
        URL url = Objects.requireNonNull(ChildJvm.class.getClassLoader().getResource(resource), resource);
        try {
            if (url.openConnection() instanceof JarURLConnection jar) {
                return Path.of(URI.create(jar.getJarFileURL().toString()));
            }
        } catch (IOException e) {
            throw new IllegalStateException("cannot look into " + url, e);
        }
        String file = Path.of(URI.create(url.toString())).toString();
        return Path.of(file.substring(0, file.length() - resource.length()));
    }
}
