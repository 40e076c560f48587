package io.gatun.io;

import io.gatun.bindings.HostMemory;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/// A whole file in native memory, mapped or copied, with several owners: the [SafetensorsFile] it was opened with and
/// one per tensor that looks at it. The last one to [#release] it frees it, so that a checkpoint can be closed while
/// its weights are in use.
final class FileBytes {
    /// `-Dgatun.load=map|copy`.
    enum Mode {
        /// The file's pages are the memory. A file that is cut short meanwhile ends the JVM with SIGBUS.
        MAP,
        /// The file is read into memory of its own.
        COPY;

        static Mode configured() {
            return parse(System.getProperty("gatun.load"));
        }

        static Mode parse(@Nullable String value) {
            if (value == null || value.equals("map")) {
                return MAP;
            }
            if (value.equals("copy")) {
                return COPY;
            }
            throw GatunException.invalid("-Dgatun.load=%s: expected map or copy", value);
        }
    }

    /// For one read; a ByteBuffer cannot hold more than 2^31 - 1.
    private static final long READ_CHUNK = 1L << 30;

    private final MemorySegment bytes;
    private final Runnable free;
    private int owners = 1;

    private FileBytes(MemorySegment bytes, Runnable free) {
        this.bytes = bytes;
        this.free = free;
    }

    /// @param size what the file had when its header was checked
    static FileBytes read(FileChannel channel, Path file, long size, Mode mode) throws IOException {
        if (channel.size() != size) {
            throw changed(file, size, channel.size());
        }
        return mode == Mode.MAP ? map(channel, size) : copy(channel, file, size);
    }

    private static FileBytes map(FileChannel channel, long size) throws IOException {
        Arena arena = Arena.ofShared(); // the last owner may be another thread
        try {
            return new FileBytes(channel.map(MapMode.READ_ONLY, 0, size, arena), arena::close);
        } catch (IOException | RuntimeException e) {
            arena.close();
            throw e;
        }
    }

    /// Not from a Java arena: that would clear the memory first and count it against -XX:MaxDirectMemorySize.
    private static FileBytes copy(FileChannel channel, Path file, long size) throws IOException {
        long address = HostMemory.allocate(size);
        if (address == 0) {
            throw new GatunException(GatunException.Status.OUT_OF_MEMORY,
                    "%s: no memory for its %,d bytes; without -Dgatun.load=copy none is needed".formatted(file, size));
        }
        try {
            MemorySegment bytes = HostMemory.view(address, size);
            long position = 0;
            while (position < size) {
                long chunk = Math.min(READ_CHUNK, size - position);
                int read = channel.read(bytes.asSlice(position, chunk).asByteBuffer(), position);
                if (read < 0) {
                    throw changed(file, size, position);
                }
                position += read;
            }
            return new FileBytes(bytes, () -> HostMemory.free(address));
        } catch (IOException | RuntimeException e) {
            HostMemory.free(address);
            throw e;
        }
    }

    private static GatunException changed(Path file, long before, long now) {
        return GatunException.invalid("%s: had %,d bytes when it was opened and has %,d now: open it again when nobody"
                + " writes to it", file, before, now);
    }

    MemorySegment slice(long from, long size) {
        return bytes.asSlice(from, size);
    }

    /// One more owner, who calls [#release] once.
    synchronized void retain() {
        owners++;
    }

    synchronized void release() {
        if (--owners == 0) {
            free.run();
        }
    }
}
