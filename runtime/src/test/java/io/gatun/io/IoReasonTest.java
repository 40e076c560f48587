package io.gatun.io;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.io.EOFException;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.charset.MalformedInputException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/// Is what Java's exceptions say with a class name and a path said in words?
class IoReasonTest {
    @TempDir
    private Path folder;

    @Test
    void of_saysWhy() {
        Map.of(new AccessDeniedException("/x"), "permission denied",
                new FileSystemException("/x", null, "Read-only file system"), "read-only file system",
                new MalformedInputException(1), "not UTF-8 text", new EOFException(), "it ends too early",
                new IOException("Stream closed"), "stream closed", new IOException(), "IOException")
                .forEach((e, reason) -> assertEquals(reason, IoReason.of(e)));
    }

    @Test
    void of_whatTheSystemSays() throws IOException {
        Path file = Files.createFile(folder.resolve("a (file)"));
        Path none = folder.resolve("none (at all)");
        assertEquals("no such file or folder", reason(() -> Files.readString(none)));
        assertEquals("no such file or directory", reason(() -> new FileInputStream(none.toFile()).close()));
        assertEquals("there is a file of that name already", reason(() -> Files.createDirectories(file)));
        assertEquals("it is no folder", reason(() -> Files.list(file).close()));
        assertEquals("is a directory", reason(() -> Files.readString(folder)));
    }

    private static String reason(Executable work) {
        return IoReason.of(assertThrows(IOException.class, work));
    }

    /// The disk's room is told where it is the reason.
    @Test
    void replace_tellsTheRoomWhereItIsTooLittle() {
        AtomicFile.Body denied = out -> {
            throw new AccessDeniedException("/x");
        };
        Path file = folder.resolve("file");
        String message = assertThrows(GatunException.class, () -> AtomicFile.replace(file, 1, denied)).getMessage();
        assertTrue(message.startsWith(file + ": cannot be written: permission denied. Nothing was left"), message);
        assertFalse(message.contains("free"), message);
        message = assertThrows(GatunException.class, () -> AtomicFile.replace(file, Long.MAX_VALUE, denied))
                .getMessage();
        assertTrue(message.contains("permission denied. It needs 9,223,372,036,854,775,807 bytes, the disk has "),
                message);
    }
}
