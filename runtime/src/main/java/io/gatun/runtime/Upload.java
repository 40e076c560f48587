package io.gatun.runtime;

import io.gatun.ops.Elementwise;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import org.jspecify.annotations.Nullable;

/// Brings many large host tensors, such as the weights in a mapped file, to a device that does not address host memory.
/// Several threads read pieces into pinned buffers (for a mapped file that is what reads the disk), and two streams
/// carry them over while the next pieces are read. Values of another dtype are converted on the device.
///
/// ```java
/// try (Upload upload = new Upload(device)) {
///     upload.add(tensor, DType.BF16, bytes);    // any number of them; the bytes stay valid until finish
///     Upload.Result result = upload.finish();
/// }
/// ```
///
/// One thread adds. After a failure everything stops, and [#finish] throws it.
public final class Upload implements AutoCloseable {
    private static final long PIECE = 8L << 20;
    private static final int MAX_READERS = 4;
    private static final int QUEUED_PIECES = 64;
    private static final Piece END = new Piece(null, null, null);

    private final Device device;
    private final Stream[] streams = new Stream[2];
    private final List<Thread> readers = new ArrayList<>();
    private final BlockingQueue<Piece> pieces = new ArrayBlockingQueue<>(QUEUED_PIECES);
    private final DeviceArena scratch;
    private final long start = System.nanoTime();
    private final List<Runnable> releases = new ArrayList<>();
    private volatile @Nullable Throwable failure;
    private long bytes;
    private boolean finished;

    /// What an upload did.
    public record Result(long bytes, long nanos) {
        public double gigabytesPerSecond() {
            return nanos == 0 ? 0 : (double) bytes / nanos;
        }
    }

    /// A part of a tensor; null fields: the end.
    private record Piece(@Nullable Tensor to, @Nullable DType stored, @Nullable MemorySegment from) {}

    public Upload(Device device) {
        this.device = device;
        this.scratch = device.newArena("upload");
        try {
            for (int i = 0; i < streams.length; i++) {
                streams[i] = device.newStream();
            }
        } catch (RuntimeException e) {
            closeResources();
            throw e;
        }
    }

    /// Runs `release` when nothing of this upload reads host memory any more, on the thread that closes.
    public void whenClosed(Runnable release) {
        releases.add(release);
    }

    /// Queues a contiguous tensor.
    ///
    /// @param stored the dtype of `from`; where it is not the tensor's, the values are converted on the device
    public void add(Tensor to, DType stored, MemorySegment from) {
        long elements = to.elements();
        if (from.byteSize() != elements * stored.bytes()) {
            throw GatunException.invalid("upload of %d bytes of %s to %s", from.byteSize(), stored, to);
        }
        Tensor flat = to.reshape(elements);
        long perPiece = PIECE / Math.max(stored.bytes(), to.dtype().bytes());
        for (long at = 0; at < elements; at += perPiece) {
            long end = Math.min(elements, at + perPiece);
            put(new Piece(at == 0 && end == elements ? flat : flat.slice(0, at, end), stored,
                    from.asSlice(at * stored.bytes(), (end - at) * stored.bytes())));
        }
        bytes += from.byteSize();
        if (stored != to.dtype()) {
            device.counters().countConversion(elements * to.dtype().bytes());
        }
    }

    private void put(Piece piece) {
        if (readers.size() < Math.min(MAX_READERS, Runtime.getRuntime().availableProcessors())
                && (readers.isEmpty() || !pieces.isEmpty())) {
            int number = readers.size();
            readers.add(Thread.ofPlatform().daemon().name("gatun-upload-" + number).start(() -> read(number)));
        }
        try {
            pieces.put(piece);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new GatunException(GatunException.Status.CANCELLED, "interrupted while loading", e);
        }
    }

    /// A reader's life. After a failure it only empties the queue.
    private void read(int number) {
        try (Reader reader = new Reader(streams[number % streams.length])) {
            while (true) {
                Piece piece = pieces.take();
                if (piece == END) {
                    break;
                }
                if (failure == null) {
                    attempt(() -> reader.carry(piece));
                }
            }
            attempt(reader::await);
        } catch (InterruptedException e) {
            failure = new GatunException(GatunException.Status.CANCELLED, "interrupted while loading", e);
        }
    }

    /// An Error too is for whoever waits: what a mapped file has lost since gives one.
    private void attempt(Runnable action) {
        try {
            action.run();
        } catch (RuntimeException | Error e) {
            synchronized (this) {
                if (failure == null) {
                    failure = e;
                }
            }
        }
    }

    /// One thread's pinned buffers, which take turns.
    private final class Reader implements AutoCloseable {
        private final Stream stream;
        private final Device.@Nullable Mapped[] pinned = new Device.Mapped[2];
        private final @Nullable Event[] done = new Event[2];
        private final @Nullable Tensor[] unconverted = new Tensor[2];
        private int turn;

        Reader(Stream stream) {
            this.stream = stream;
        }

        void carry(Piece piece) {
            if (piece.to == null || piece.from == null || piece.stored == null) {
                return;
            }
            turn ^= 1;
            awaitTurn();
            Device.Mapped buffer = pinned[turn];
            if (buffer == null) {
                buffer = device.allocateMapped(PIECE);
                pinned[turn] = buffer;
            }
            MemorySegment bytes = buffer.memory().asSlice(0, piece.from.byteSize());
            bytes.copyFrom(piece.from);
            synchronized (stream) { // its other users are other readers
                if (piece.stored == piece.to.dtype()) {
                    device.uploadPinned(stream, piece.to, bytes);
                } else {
                    Tensor raw = unconverted(bytes.byteSize()).slice(0, 0, bytes.byteSize())
                            .viewAs(piece.stored, piece.to.elements());
                    device.uploadPinned(stream, raw, bytes);
                    Elementwise.cast(stream, piece.to, raw);
                }
                done[turn] = device.record(stream);
            }
        }

        private Tensor unconverted(long size) {
            Tensor tensor = unconverted[turn];
            if (tensor == null || tensor.elements() < size) {
                tensor = scratch.allocate(DType.U8, Math.max(size, PIECE));
                unconverted[turn] = tensor;
            }
            return tensor;
        }

        private void awaitTurn() {
            Event event = done[turn];
            if (event != null) {
                done[turn] = null;
                try (event) {
                    event.synchronize();
                }
            }
        }

        void await() {
            for (int i = 0; i < done.length; i++) {
                turn = i;
                awaitTurn();
            }
        }

        @Override
        public void close() {
            for (int i = 0; i < pinned.length; i++) {
                Event event = done[i];
                if (event != null) {
                    event.close();
                }
                Device.Mapped buffer = pinned[i];
                if (buffer != null) {
                    device.freeMapped(buffer);
                }
            }
        }
    }

    /// Waits until everything has arrived: each reader does for what it carried.
    public Result finish() {
        stopReaders();
        Throwable first = failure;
        if (first instanceof RuntimeException e) {
            throw e;
        }
        if (first != null) {
            throw new GatunException(GatunException.Status.INTERNAL, "loading failed: %s%s".formatted(first,
                    first instanceof InternalError ? ". A file that becomes shorter meanwhile does this: load it again"
                            : ""), first);
        }
        return new Result(bytes, System.nanoTime() - start);
    }

    private void stopReaders() {
        if (!finished) {
            finished = true;
            boolean interrupted = false;
            for (Thread reader : readers) {
                putEnd();
            }
            for (Thread reader : readers) {
                while (reader.isAlive()) {
                    try {
                        reader.join();
                    } catch (InterruptedException e) {
                        interrupted = true;
                    }
                }
            }
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    private void putEnd() {
        boolean interrupted = false;
        while (true) {
            try {
                pieces.put(END);
                break;
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private void closeResources() {
        try (scratch) {
            for (Stream stream : streams) {
                if (stream != null) {
                    stream.close();
                }
            }
        }
    }

    /// Stops what still runs; twice is fine.
    @Override
    public void close() {
        if (!finished) {
            failure = failure != null ? failure
                    : new GatunException(GatunException.Status.CANCELLED, "the upload was closed");
        }
        stopReaders();
        releases.forEach(Runnable::run);
        releases.clear();
        closeResources();
    }
}
