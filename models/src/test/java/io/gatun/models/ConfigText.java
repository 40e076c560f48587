package io.gatun.models;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import org.junit.jupiter.api.function.Executable;

/// Configs of tests, written with single quotes.
public final class ConfigText {
    private ConfigText() {}

    public static ConfigFile of(Path folder, String json) {
        Path file = folder.resolve("config.json");
        ModelDirectory.writeText(file, json.replace('\'', '"'));
        return ConfigFile.read(file);
    }

    /// The message names the field, what it holds and what is expected.
    public static void assertRefused(Executable parse, String field, String... parts) {
        String message = assertThrows(GatunException.class, parse).getMessage();
        assertTrue(message.contains("'" + field + "'"), message);
        for (String part : parts) {
            assertTrue(message.contains(part), message);
        }
    }
}
