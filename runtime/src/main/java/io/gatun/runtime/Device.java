package io.gatun.runtime;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Fp8;
import io.gatun.ops.Linear.WeightLayout;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.jspecify.annotations.Nullable;

/// Where tensors live and ops run. A device is opened explicitly and closed by whoever opened it; there is no default
/// device and no silent fallback from one to another.
///
/// Threads: a device may be shared; each [Stream] serves one thread at a time.
public abstract sealed class Device implements AutoCloseable permits CpuDevice, CudaDevice {
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
        if (spec.equals("cpu")) {
            return new CpuDevice(options);
        }
        if (spec.equals("auto")) {
            return openBest(options);
        }
        if (spec.matches("cuda(:\\d{1,4})?")) {
            return new CudaDevice(spec);
        }
        throw GatunException.invalid("device '%s': expected auto, cpu, cuda or cuda:N", spec);
    }

    /// The first CUDA device, where there is a driver and everything fits; why not is logged.
    private static Device openBest(Options options) {
        if (CudaSearch.isLikely()) {
            try {
                return new CudaDevice("cuda");
            } catch (DeviceUnavailableException e) {
                System.getLogger("io.gatun.runtime").log(System.Logger.Level.INFO, "device auto takes the CPU: "
                        + e.getMessage());
            }
        }
        return new CpuDevice(options);
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

    /// Whether work that is repeated should be captured and launched as a graph, and batch sizes be rounded up so that
    /// few graphs are needed.
    public abstract boolean prefersGraphs();

    /// Device memory that matrix products take for themselves, per stream.
    public abstract long matmulWorkspaceBytes();

    /// About what convolutions and their gradients take for themselves beside it, per stream.
    public abstract long convolutionWorkspaceBytes();

    /// `y[n,f] = sum_c x[n,c] w[f,c] + bias[f]`, sums in f32. With few rows our own kernel reads the weights once; with
    /// many the vendor's library works. In f32 a row's bits do not depend on the number of threads.
    ///
    /// @param y      [N, F] x's dtype or f32
    /// @param x      [N, C] f32, bf16 or f16
    /// @param weight [F, C] or [C, F] by `layout`, x's dtype
    /// @param bias   [F] x's dtype or f32, or null
    public abstract void matmul(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout);

    /// Whether the bits of a row of [#matmul] may depend on how many rows there are: then images that must not notice
    /// each other take a product each.
    public abstract boolean matmulDependsOnRows();

    /// As [#matmul], and a row has the same bits whatever other rows there are: for decode steps, whose sequences must
    /// not notice each other.
    public abstract void matmulRowwise(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout);

    /// [#matmul] (or [#matmulRowwise]) followed by `y = gelu_tanh(y)`: in one kernel where the device has one.
    public abstract void matmulGeluTanh(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout, boolean rowwise);

    /// `y[n,f] = xScale[n] weightScale[f] sum_c x[n,c] weight[f,c] + bias[f]`, sums in f32: a product of many rows that
    /// [Fp8#quantizeRows] made, by the vendor's library where it can, else by [Fp8#linear], whose operands these are.
    ///
    /// @param y           [N, F] bf16, f16 or f32
    /// @param x           [N, C] f8_e4m3
    /// @param xScale      [N] f32
    /// @param weight      [F, C] f8_e4m3
    /// @param weightScale [F] f32
    /// @param bias        [F] y's dtype or f32, or null
    public void matmulFp8(Stream stream, Tensor y, Tensor x, Tensor xScale, Tensor weight, Tensor weightScale,
            @Nullable Tensor bias) {
        Fp8.linear(stream, y, x, xScale, weight, weightScale, bias);
    }

    /// `y[f,c] = sum_n a[n,f] b[n,c]`, sums in f32: the gradient of a product's weight. Of [#matmul] with a weight
    /// [F, C] `a` is the gradient of y and `b` is x, with a weight [C, F] the other way round. In f32 the bits do not
    /// depend on the number of threads.
    ///
    /// @param y [F, C] a's dtype or f32
    /// @param a [N, F] f32, bf16 or f16
    /// @param b [N, C] a's dtype
    public abstract void matmulOuter(Stream stream, Tensor y, Tensor a, Tensor b);

    /// `y = activation(convolution of x with weight + bias)`, by the vendor's library where it suits, else by
    /// [Convolution#conv2d], whose operands these are. An image's result does not depend on the others of its batch.
    ///
    /// @param weight [F, kh, kw, C/groups], any strides
    public void convolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Geometry geometry, ActivationKind activation) {
        Convolution.conv2d(stream, y, x, weight, bias, geometry, activation);
    }

    /// As [#convolution], for [Convolution#convTranspose2d].
    public void transposedConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Transposed geometry, ActivationKind activation) {
        Convolution.convTranspose2d(stream, y, x, weight, bias, geometry, activation);
    }

    /// As [#convolution], in training: a batch may be one call of the library, so that an image's bits may depend on
    /// the number of images, but not on the number of threads.
    public void trainingConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Geometry geometry, ActivationKind activation) {
        convolution(stream, y, x, weight, bias, geometry, activation);
    }

    /// As [#trainingConvolution], for [#transposedConvolution].
    public void trainingTransposedConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Transposed geometry, ActivationKind activation) {
        transposedConvolution(stream, y, x, weight, bias, geometry, activation);
    }

    /// The gradient of [#convolution] with respect to x, by the vendor's library where it suits, else by
    /// [Convolution#conv2dBackwardInput], whose operands these are. Of no activation: its gradient is another op.
    public void convolutionInputGradient(Stream stream, Tensor dx, Tensor dy, Tensor weight,
            Convolution.Geometry geometry) {
        Convolution.conv2dBackwardInput(stream, dx, dy, weight, geometry);
    }

    /// The gradient of [#convolution] with respect to weight, likewise. It is summed and written in f32 also where x
    /// and dy are 16-bit floats, in an order that depends on the sizes alone.
    ///
    /// @param dweight [F, kh, kw, C/groups] f32, any strides
    public void convolutionWeightGradient(Stream stream, Tensor dweight, Tensor dy, Tensor x,
            Convolution.Geometry geometry) {
        Convolution.conv2dBackwardWeight(stream, dweight, dy, x, geometry,
                weightScratch(stream, dweight, dy, geometry.groups()));
    }

    /// As [#convolutionInputGradient], for [#transposedConvolution].
    public void transposedConvolutionInputGradient(Stream stream, Tensor dx, Tensor dy, Tensor weight,
            Convolution.Transposed geometry) {
        Convolution.convTranspose2dBackwardInput(stream, dx, dy, weight, geometry);
    }

    /// As [#convolutionWeightGradient], for [#transposedConvolution].
    ///
    /// @param dweight [C, kh, kw, F/groups] f32, any strides
    public void transposedConvolutionWeightGradient(Stream stream, Tensor dweight, Tensor dy, Tensor x,
            Convolution.Transposed geometry) {
        Convolution.convTranspose2dBackwardWeight(stream, dweight, dy, x, geometry,
                weightScratch(stream, dweight, x, geometry.groups()));
    }

    /// What the gradient of a weight works in; nothing for operands that do not fit: the op says what is wrong.
    private @Nullable Tensor weightScratch(Stream stream, Tensor dweight, Tensor images, int groups) {
        boolean fits = dweight.rank() == 4 && images.rank() == 4 && dweight.dtype().isFloat()
                && images.dtype().isFloat() && dweight.size(0) % groups == 0;
        return fits ? scratch(stream, Convolution.backwardWeightWorkspaceBytes(stream, dweight, images, groups)) : null;
    }

    /// [#matmulOuter] where no library can: the gradient of a convolution of one tap. The operands have been checked.
    final void outerByConvolution(Stream stream, Tensor y, Tensor a, Tensor b) {
        if (a.size(0) == 0) {
            Elementwise.fill(stream, y, 0);
        } else if (y.elements() > 0) {
            Tensor weight = y.strided(new long[] {y.size(0), 1, 1, y.size(1)},
                    new long[] {y.stride(0), 0, 0, y.stride(1)});
            Convolution.conv2dBackwardWeight(stream, weight, pixels(a), pixels(b), Convolution.Geometry.of(1, 0),
                    weightScratch(stream, weight, pixels(a), 1));
        }
    }

    /// [N, C] as an image [1, 1, N, C].
    private static Tensor pixels(Tensor t) {
        return t.strided(new long[] {1, 1, t.size(0), t.size(1)}, new long[] {0, 0, t.stride(0), t.stride(1)});
    }

    static void applyInPlace(Stream stream, Tensor y, ActivationKind activation) {
        switch (activation) {
            case SILU -> Elementwise.silu(stream, y, y);
            case RELU -> Elementwise.relu(stream, y, y);
            case TANH -> Elementwise.tanh(stream, y, y);
            case NONE -> { }
        }
    }

    /// Memory of the stream that holds until its next op; null for 0 bytes.
    abstract @Nullable Tensor scratch(Stream stream, long bytes);

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
        Endings.all(streams.stream().<Runnable>map(stream -> stream::close).toArray(Runnable[]::new));
    }

    @Override
    public String toString() {
        return name();
    }

    abstract Stream createStream();

    /// Lets the calling thread talk to the device; throws when the device has been lost.
    abstract void prepareThread();

    abstract long allocate(long bytes);

    abstract void free(long address, long bytes);

    /// Host memory that kernels can write.
    abstract Mapped allocateMapped(long bytes);

    abstract void freeMapped(Mapped mapped);

    /// The work given to the stream from now on begins after the event.
    abstract void waitFor(Stream stream, Event event);

    /// What a failed op really means, where the device knows more.
    abstract GatunException explain(GatunException failure, Stream stream);

    abstract void upload(Stream stream, Tensor to, MemorySegment from);

    /// Queues a copy from pinned memory, which must stay as it is until the stream has got there. Counted.
    abstract void uploadPinned(Stream stream, Tensor to, MemorySegment pinned);

    abstract MemorySegment download(Stream stream, Tensor from);

    abstract void synchronize(Stream stream);

    /// As [#synchronize] from inside an op, for `-Dgatun.sync=true`: an asynchronous error then names its op.
    abstract void synchronizeEntered(Stream stream);

    /// An op or a graph was started; what is being captured starts later, as a whole.
    final void countLaunch(Stream stream) {
        if (!stream.isCapturing()) {
            counters.countLaunch();
        }
    }

    /// What every device asks of the operands of a product.
    static void checkOperands(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout) {
        for (Tensor operand : new Tensor[] {y, x, weight}) {
            operand.on(stream);
            if (operand.rank() != 2 || operand.stride(1) != 1 && operand.size(1) > 1) {
                throw GatunException.invalid("matmul: operand %s, expected rank 2 with contiguous rows", operand);
            }
        }
        Tensor.on(bias, stream);
        long n = x.size(0);
        long c = x.size(1);
        long f = y.size(1);
        boolean fits = layout == WeightLayout.OUT_IN ? weight.size(0) == f && weight.size(1) == c
                : weight.size(0) == c && weight.size(1) == f;
        if (!fits || y.size(0) != n || weight.dtype() != x.dtype()
                || y.dtype() != x.dtype() && y.dtype() != DType.F32
                || bias != null && (bias.rank() != 1 || bias.size(0) != f || !bias.isContiguous()
                        || bias.dtype() != x.dtype() && bias.dtype() != DType.F32)) {
            throw GatunException.invalid("matmul: x %s, weight %s (%s), bias %s, y %s do not fit together", x, weight,
                    layout, bias, y);
        }
    }

    /// What every device asks of the operands of [#matmulOuter].
    static void checkOuter(Stream stream, Tensor y, Tensor a, Tensor b) {
        for (Tensor operand : new Tensor[] {y, a, b}) {
            operand.on(stream);
            if (operand.rank() != 2 || operand.stride(1) != 1 && operand.size(1) > 1) {
                throw GatunException.invalid("matmulOuter: %s is %s, expected rank 2 with contiguous rows",
                        operand == y ? "y" : operand == a ? "a" : "b", operand);
            }
        }
        if (a.size(0) != b.size(0) || y.size(0) != a.size(1) || y.size(1) != b.size(1) || !a.dtype().isFloat()
                || b.dtype() != a.dtype() || y.dtype() != a.dtype() && y.dtype() != DType.F32) {
            throw GatunException.invalid("matmulOuter: y %s, a %s, b %s do not fit together: expected [F, C], [N, F],"
                    + " [N, C] of one float dtype (y: or f32)", y, a, b);
        }
    }

    final boolean synchronizesEachOp() {
        return synchronizesEachOp;
    }

    /// @param address where the device sees the memory
    record Mapped(long address, MemorySegment memory) {}

    /// No op runs in any stream when this returns, and on the device no work.
    void awaitIdleStreams() {
        awaitIdleCallers();
    }

    /// No thread is inside an op when this returns.
    final void awaitIdleCallers() {
        for (Stream stream : streams) {
            stream.awaitIdle();
        }
    }

    /// The stream has been closed.
    void forget(Stream stream) {
        streams.remove(stream);
    }
}
