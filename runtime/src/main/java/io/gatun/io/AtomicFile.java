package io.gatun.io;

import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;

/// Replaces a file as a whole: readers see the old content or the new, also after a crash, and whoever has the old one
/// mapped keeps it.
public final class AtomicFile {
    private AtomicFile() {}

    /// Writes the content.
    public interface Body {
        void write(FileChannel out) throws IOException;
    }

    /// Writes to a file beside `file`, then renames it.
    ///
    /// @param bytes how much will be written, for the message when the disk has less room
    /// @throws GatunException when it cannot be written; nothing is left behind then
    public static void replace(Path file, long bytes, Body body) {
        Path folder = file.toAbsolutePath().normalize().getParent();
        if (folder == null || Files.isDirectory(file)) {
            throw GatunException.invalid("%s: a folder, expected the name of a file to write", file);
        }
        Path part = folder.resolve("." + file.getFileName() + "." + ProcessHandle.current().pid() + "-"
                + Long.toHexString(System.nanoTime()) + ".part");
        try {
            try (FileChannel out = FileChannel.open(part, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
                body.write(out);
                out.force(true); // before the rename, or a crash could leave an empty file under the name
            }
            Files.move(part, file, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException e) {
            discard(part, e);
            long free = folder.toFile().getUsableSpace(); // 0 where there is no such folder
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, e instanceof NoSuchFileException
                    ? "%s: cannot be written: there is no folder %s".formatted(file, folder)
                    : "%s: cannot be written: %s.%s Nothing was left behind, a file of that name is as it was"
                            .formatted(file, IoReason.of(e), free >= bytes ? ""
                                    : " It needs %,d bytes, the disk has %,d free.".formatted(bytes, free)), e);
        } catch (RuntimeException e) {
            discard(part, e);
            throw e;
        }
    }

    /// As above, with all of it at hand.
    public static void replace(Path file, byte[] content) {
        replace(file, content.length, out -> {
            ByteBuffer bytes = ByteBuffer.wrap(content);
            while (bytes.hasRemaining()) {
                out.write(bytes);
            }
        });
    }

    private static void discard(Path part, Exception reason) {
        try {
            Files.deleteIfExists(part);
        } catch (IOException e) {
            reason.addSuppressed(e);
        }
    }
}
