package io.gatun.io;

import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/// One safetensors file, open for reading. Opening reads and checks the header; the data is mapped when the first
/// tensor is asked for, or read into memory with `-Dgatun.load=copy`. Weights for a device come from a [Checkpoint];
/// this class gives a tensor's values to the host.
///
/// May be shared between threads. `close()` twice is fine; weights that were loaded keep the mapping they look at.
public final class SafetensorsFile implements AutoCloseable {
    private final Path path;
    private final FileChannel channel;
    private final long fileBytes;
    private final SafetensorsHeader header;
    private final FileBytes.Mode mode;
    private @Nullable FileBytes content;
    private boolean closed;

    private SafetensorsFile(Path path, FileChannel channel, FileBytes.Mode mode) throws IOException {
        this.path = path;
        this.channel = channel;
        this.mode = mode;
        this.fileBytes = channel.size();
        this.header = SafetensorsHeader.read(channel, path, fileBytes);
    }

    /// Opens a file and checks its header.
    ///
    /// @throws GatunException when the file cannot be read or is not a valid safetensors file; says what to do
    public static SafetensorsFile open(Path path) {
        return open(path, FileBytes.Mode.configured());
    }

    static SafetensorsFile open(Path path, FileBytes.Mode mode) {
        if (!Files.isRegularFile(path)) { // a pipe would block
            throw GatunException.invalid("%s: %s", path,
                    Files.exists(path) ? "not a file; expected a .safetensors file" : "no such file");
        }
        try {
            FileChannel channel = FileChannel.open(path, StandardOpenOption.READ);
            try {
                return new SafetensorsFile(path, channel, mode);
            } catch (IOException | RuntimeException e) {
                channel.close();
                throw e;
            }
        } catch (IOException e) {
            throw unreadable(path, e);
        }
    }

    static GatunException unreadable(Path path, IOException e) {
        return new GatunException(GatunException.Status.INVALID_ARGUMENT, path + ": cannot be read: "
                + IoReason.of(e), e);
    }

    public Path path() {
        return path;
    }

    /// The names of the tensors, in the order of their bytes.
    public Set<String> names() {
        return header.tensors().keySet();
    }

    /// Dtype, shape and place of a tensor.
    ///
    /// @throws GatunException when there is none of that name
    public TensorInfo info(String name) {
        TensorInfo info = header.tensors().get(name);
        if (info == null) {
            throw missing(path, name, names());
        }
        return info;
    }

    static GatunException missing(Path where, String name, Set<String> names) {
        return GatunException.invalid("%s: no tensor %s; there are %d%s", where, TensorInfo.quote(name), names.size(),
                names.isEmpty() ? "" : ", the first is " + TensorInfo.quote(names.iterator().next()));
    }

    /// The `__metadata__` of the file.
    public Map<String, String> metadata() {
        return header.metadata();
    }

    /// The values of an F32, F16, BF16, F64, I64, I32, U8 or BOOL tensor, rounded to f32.
    public float[] floats(String name) {
        TensorInfo info = info(name);
        StoredDType dtype = info.dtype();
        float[] values = new float[arrayLength(info, info.elements(), dtype.readsAsFloat(), "floats")];
        return read(info, data -> {
            for (int i = 0; i < values.length; i++) {
                values[i] = dtype.floatAt(data, i);
            }
            return values;
        });
    }

    /// The values of an I64, I32, U8 or BOOL tensor.
    public long[] longs(String name) {
        TensorInfo info = info(name);
        StoredDType dtype = info.dtype();
        long[] values = new long[arrayLength(info, info.elements(), dtype.readsAsLong(), "integers")];
        return read(info, data -> {
            for (int i = 0; i < values.length; i++) {
                values[i] = dtype.longAt(data, i);
            }
            return values;
        });
    }

    /// The bytes of a tensor as they are stored.
    public byte[] bytes(String name) {
        TensorInfo info = info(name);
        arrayLength(info, info.bytes(), true, "bytes");
        return read(info, data -> data.toArray(ValueLayout.JAVA_BYTE));
    }

    private int arrayLength(TensorInfo info, long length, boolean readable, String as) {
        if (!readable || length > Integer.MAX_VALUE - 8) {
            throw GatunException.invalid("%s: tensor %s cannot be read as %s: %s", path, info, as,
                    readable ? "it is larger than a Java array" : "its dtype has none");
        }
        return (int) length;
    }

    private <T> T read(TensorInfo info, Function<MemorySegment, T> body) {
        FileBytes bytes = acquire();
        try {
            return body.apply(data(bytes, info));
        } finally {
            bytes.release();
        }
    }

    /// The content of the file for a caller who releases it.
    synchronized FileBytes acquire() {
        if (closed) {
            throw new IllegalStateException(path + " is closed");
        }
        if (content == null) {
            try {
                content = FileBytes.read(channel, path, fileBytes, mode);
            } catch (IOException e) {
                throw unreadable(path, e);
            }
        }
        content.retain();
        return content;
    }

    MemorySegment data(FileBytes bytes, TensorInfo info) {
        return bytes.slice(header.dataStart() + info.begin(), info.bytes());
    }

    @Override
    public synchronized void close() {
        if (closed) {
            return;
        }
        closed = true;
        if (content != null) {
            content.release();
            content = null;
        }
        try {
            channel.close();
        } catch (IOException e) {
            throw unreadable(path, e);
        }
    }
}
