package io.gatun.bindings;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.JarURLConnection;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.TimeUnit;

/// A JVM of its own, for what a process does once: opening libraries and reading properties at its start.
final class ChildJvm {
    private static final int MAX_SECONDS = 60;

    /// How it ended; standard output and error together.
    record Result(int exit, String output) {}

    private ChildJvm() {}

    /// The folder or jar that brings a class or a resource of this JVM.
    static Path rootOf(String resource) {
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

    static Path rootOf(Class<?> type) {
        return rootOf(type.getName().replace('.', '/') + ".class");
    }

    /// Starts `java` with these arguments in a folder.
    static Process start(Path folder, List<String> arguments) throws IOException {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(List.of("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dstdout.encoding=UTF-8"));
        command.addAll(arguments);
        ProcessBuilder builder = new ProcessBuilder(command).directory(folder.toFile()).redirectErrorStream(true);
        builder.environment().remove("JDK_JAVA_OPTIONS");
        builder.environment().remove("JAVA_TOOL_OPTIONS");
        return builder.start();
    }

    static Result await(Process process) throws IOException, InterruptedException {
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertTrue(process.waitFor(MAX_SECONDS, TimeUnit.SECONDS), "the child JVM does not end: " + output);
        return new Result(process.exitValue(), output);
    }
}
