package io.gatun.runtime;

import io.gatun.ops.Linear.WeightLayout;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.jspecify.annotations.Nullable;

/// Where tensors live and ops run. A device is opened explicitly and closed by whoever opened it; there is no default
/// device and no silent fallback from one to another.
///
/// Threads: a device may be shared; each [Stream] serves one thread at a time.
public abstract sealed class Device implements AutoCloseable permits CpuDevice {
    private final TransferCounters counters = new TransferCounters();
    private final List<Stream> streams = new CopyOnWriteArrayList<>();
    private final boolean synchronizesEachOp = Boolean.getBoolean("gatun.sync");

    Device() {}

    /// How to open a device.
    ///
    /// @param threads CPU threads for ops and for host work; 0: all cores this process may use
    public record Options(int threads) {
        /// OpenMP keeps a team on the calling thread's stack: with 20,000 threads the process dies.
        public static final int MAX_THREADS = 1024;

        public Options {
            if (threads < 0 || threads > MAX_THREADS) {
                throw GatunException.invalid("threads is %d, expected 0 (all cores) to %d", threads, MAX_THREADS);
            }
        }

        public static Options defaults() {
            return new Options(0);
        }
    }

    /// Opens `cpu`, `cuda`, `cuda:N`, or `auto`: the first CUDA device where there is one, else the CPU.
    ///
    /// @throws DeviceUnavailableException when `cuda` was asked for and is not there; says what was searched
    public static Device open(String spec) {
        return open(spec, Options.defaults());
    }

    /// As [#open(String)].
    public static Device open(String spec, Options options) {
        if (spec.equals("cpu") || spec.equals("auto")) {
            return new CpuDevice(options);
        }
        if (spec.matches("cuda(:\\d{1,4})?")) {
            throw new DeviceUnavailableException(CudaSearch.whyUnavailable(spec));
        }
        throw GatunException.invalid("device '%s': expected auto, cpu, cuda or cuda:N", spec);
    }

    /// `cpu`, `cuda:0`: what [#open] takes.
    public abstract String name();

    /// One line for people: model, cores or memory, instruction set.
    public abstract String description();

    /// Bytes of device memory in all.
    public abstract long memoryTotal();

    /// Bytes of device memory that an allocation could still get.
    public abstract long memoryFree();

    /// Whether kernels can read host memory, so that mapped files serve as tensors without a copy.
    public abstract boolean addressesHostMemory();

    /// `y[n,f] = sum_c x[n,c] w[f,c] + bias[f]`, sums in f32. With few rows our own kernel reads the weights once; with
    /// many the vendor's library works. In f32 a row's bits do not depend on the number of threads.
    ///
    /// @param y      [N, F] x's dtype or f32
    /// @param x      [N, C] f32, bf16 or f16
    /// @param weight [F, C] or [C, F] by `layout`, x's dtype
    /// @param bias   [F] x's dtype or f32, or null
    public abstract void matmul(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout);

    /// As [#matmul], and a row has the same bits whatever other rows there are: for decode steps, whose sequences must
    /// not notice each other.
    public abstract void matmulRowwise(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout);

    /// Records the ops that `work` gives to the stream, to be started together by [Graph#launch].
    public abstract Graph capture(Stream stream, Runnable work);

    /// An event that happens when the stream's work so far has finished.
    public abstract Event record(Stream stream);

    public final Stream newStream() {
        Stream stream = createStream();
        streams.add(stream);
        return stream;
    }

    /// An arena whose memory ends when it is closed.
    ///
    /// @param name what leak reports and use-after-close messages call it
    public final DeviceArena newArena(String name) {
        return new DeviceArena(this, name);
    }

    public final Workspace newWorkspace(long bytes) {
        return new Workspace(this, bytes);
    }

    public final TransferCounters counters() {
        return counters;
    }

    /// Closes all streams; tensors of this device may not be used any more. Twice is fine.
    @Override
    public void close() {
        for (Stream stream : streams) {
            stream.close();
        }
    }

    @Override
    public String toString() {
        return name();
    }

    abstract Stream createStream();

    abstract long allocate(long bytes);

    abstract void free(long address, long bytes);

    abstract void upload(Stream stream, Tensor to, MemorySegment from);

    abstract MemorySegment download(Stream stream, Tensor from);

    abstract void synchronize(Stream stream);

    /// As [#synchronize] from inside an op, for `-Dgatun.sync=true`: an asynchronous error then names its op.
    abstract void synchronizeEntered(Stream stream);

    final boolean synchronizesEachOp() {
        return synchronizesEachOp;
    }

    final void awaitIdleStreams() {
        for (Stream stream : streams) {
            stream.awaitIdle();
        }
    }

    /// The stream has been closed.
    void forget(Stream stream) {
        streams.remove(stream);
    }
}
