package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.Libraries;
import io.gatun.bindings.gatun.Gatun;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Linear;
import io.gatun.ops.Linear.WeightLayout;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/// The CPU: our kernels with AVX2 or AVX-512, and oneDNN for matrix products with many rows and
/// for convolutions.
public final class CpuDevice extends Device {
    /// Up to this many rows our own kernel is used: it reads the weights at the speed of memory.
    private static final int MAX_ROWS_OF_OWN_KERNEL = 16;
    private static final int ONEDNN_TILE_COLUMNS = 32;
    /// Orders of a weight's dimensions in memory that our kernel packs fastest: taps, channels, outputs.
    private static final int[] CONVOLUTION_ORDER = {1, 2, 3, 0};
    private static final int[] TRANSPOSED_ORDER = {1, 2, 0, 3};
    /// What oneDNN works in is known once it has planned: trainings of image networks took 1.3 to 5.7 MiB, the same on
    /// 1 to 8 threads, for parts of a batch that their gradients are made of, and the largest weight as it wants it.
    private static final long CONVOLUTION_SCRATCH = 4L << 20;
    private static final long LARGE_ALLOCATION = 64L << 20;
    private static final long MAX_ARRAY_BYTES = Integer.MAX_VALUE - 8;

    private final int threads;
    private final String buildInfo;
    private final boolean hasOneDnn;
    private final Map<Stream, OneDnnOps> oneDnn = new ConcurrentHashMap<>();
    private final Map<Stream, WeightCopies> copies = new ConcurrentHashMap<>();

    /// What belongs to one stream.
    private record OneDnnOps(OneDnnEngine engine, OneDnnPackedWeights packed, OneDnnMatmul matmul,
            OneDnnConvolution convolution, OneDnnGradients gradients) {
        static OneDnnOps open(int threads, TransferCounters counters) {
            OneDnnEngine engine = OneDnnEngine.open(threads, counters);
            var packed = new OneDnnPackedWeights(engine);
            return new OneDnnOps(engine, packed, new OneDnnMatmul(engine, packed),
                    new OneDnnConvolution(engine, packed), new OneDnnGradients(engine, packed));
        }

        void close() {
            Endings.all(matmul::close, convolution::close, gradients::close, packed::close, engine::close);
        }
    }

    CpuDevice(Options options) {
        this.buildInfo = NativeErrors.loadLibrary();
        this.hasOneDnn = Libraries.hasOneDnn();
        if (Libraries.isOneDnnChosen()) {
            OneDnnEngine.requireLibrary(); // not only where a prompt is long enough for it
        }
        this.threads = options.threads() == 0 ? Runtime.getRuntime().availableProcessors() : options.threads();
    }

    @Override
    public String name() {
        return "cpu";
    }

    @Override
    public String description() {
        return "cpu: %d threads, %,d MiB, libgatun %s".formatted(threads, memoryTotal() >> 20, buildInfo);
    }

    /// CPU threads of this device's streams.
    public int threads() {
        return threads;
    }

    @Override
    public long memoryTotal() {
        return memInfo("MemTotal:");
    }

    @Override
    public long memoryFree() {
        return memInfo("MemAvailable:");
    }

    @Override
    public boolean addressesHostMemory() {
        return true;
    }

    @Override
    public boolean prefersGraphs() {
        return false;
    }

    /// Few rows are our kernel's, many oneDNN's.
    @Override
    public boolean matmulDependsOnRows() {
        return true;
    }

    @Override
    public long matmulWorkspaceBytes() {
        return 0;
    }

    @Override
    public long convolutionWorkspaceBytes() {
        return CONVOLUTION_SCRATCH;
    }

    @Override
    public void matmul(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        if (x.size(0) <= MAX_ROWS_OF_OWN_KERNEL || !oneDnnMatmul(stream, y, x, weight, bias, layout)) {
            Linear.linear(stream, y, x, weight, bias, layout);
        }
    }

    @Override
    public void matmulRowwise(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout) {
        Linear.linear(stream, y, x, weight, bias, layout);
    }

    @Override
    public void matmulGeluTanh(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout, boolean rowwise) {
        if (rowwise) {
            matmulRowwise(stream, y, x, weight, bias, layout);
        } else {
            matmul(stream, y, x, weight, bias, layout);
        }
        Elementwise.geluTanh(stream, y, y);
    }

    private boolean oneDnnMatmul(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout) {
        stream.enter("matmul");
        try {
            OneDnnOps oneDnn = oneDnn(stream);
            if (oneDnn == null) {
                return false;
            }
            checkOperands(stream, y, x, weight, bias, layout);
            boolean done = suitsOneDnn(y, x, weight) && oneDnn.matmul.run(y, x, weight, bias, layout);
            if (done) {
                countLaunch(stream);
            }
            return done;
        } finally {
            stream.exit();
        }
    }

    @Override
    public void matmulOuter(Stream stream, Tensor y, Tensor a, Tensor b) {
        if (!oneDnnOuter(stream, y, a, b)) {
            outerByConvolution(stream, y, a, b);
        }
    }

    private boolean oneDnnOuter(Stream stream, Tensor y, Tensor a, Tensor b) {
        stream.enter("matmulOuter");
        try {
            checkOuter(stream, y, a, b);
            OneDnnOps oneDnn = oneDnn(stream);
            boolean wholeTiles = a.dtype() == DType.F32 || a.size(0) % ONEDNN_TILE_COLUMNS == 0;
            boolean done = oneDnn != null && a.size(0) > 0 && y.elements() > 0 && wholeTiles && hasRowsApart(y)
                    && hasRowsApart(a) && hasRowsApart(b) && oneDnn.matmul.runOuter(y, a, b);
            if (done) {
                countLaunch(stream);
            }
            return done;
        } finally {
            stream.exit();
        }
    }

    private @Nullable OneDnnOps oneDnn(Stream stream) {
        if (!hasOneDnn) {
            return null;
        }
        return oneDnn.computeIfAbsent(stream, s -> OneDnnOps.open(s.numThreads(), counters()));
    }

    @Override
    public void convolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Geometry geometry, ActivationKind activation) {
        convolution(stream, y, x, weight, bias, geometry, activation, false);
    }

    @Override
    public void trainingConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Geometry geometry, ActivationKind activation) {
        convolution(stream, y, x, weight, bias, geometry, activation, true);
    }

    private void convolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Geometry geometry, ActivationKind activation, boolean together) {
        if (!convolvesByOneDnn(stream, y, x, weight, bias, ConvolutionWindow.of(geometry), activation, together)) {
            super.convolution(stream, y, x, inOrder(stream, weight, CONVOLUTION_ORDER), bias, geometry, activation);
        }
    }

    @Override
    public void transposedConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Transposed geometry, ActivationKind activation) {
        if (!convolvesByOneDnn(stream, y, x, weight, bias, ConvolutionWindow.of(geometry), activation, false)) {
            super.transposedConvolution(stream, y, x, inOrder(stream, weight, TRANSPOSED_ORDER), bias, geometry,
                    activation);
        }
    }

    /// A transposed convolution is the gradient of a convolution's input, plus bias.
    @Override
    public void trainingTransposedConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Transposed geometry, ActivationKind activation) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fits(y, x, weight, bias) || bias != null && bias.dtype() != y.dtype()
                || !byOneDnn(stream, x.dtype(), new Tensor[] {y, x, weight},
                        ops -> ops.gradients.input(stream, y, x, weight, window.plain()))) {
            transposedConvolution(stream, y, x, weight, bias, geometry, activation);
            return;
        }
        if (bias != null) {
            Elementwise.add(stream, y, y, bias.strided(y.shape(), new long[] {0, 0, 0, 1}));
        }
        applyInPlace(stream, y, activation);
    }

    @Override
    public void convolutionInputGradient(Stream stream, Tensor dx, Tensor dy, Tensor weight,
            Convolution.Geometry geometry) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fits(dy, dx, weight, null) || !byOneDnn(stream, dx.dtype(), new Tensor[] {dx, dy, weight},
                ops -> ops.gradients.input(stream, dx, dy, weight, window))) {
            super.convolutionInputGradient(stream, dx, dy, weight, geometry);
        }
    }

    @Override
    public void convolutionWeightGradient(Stream stream, Tensor dweight, Tensor dy, Tensor x,
            Convolution.Geometry geometry) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fitsGradient(dy, x, dweight) || !byOneDnn(stream, x.dtype(), new Tensor[] {dweight, dy, x},
                ops -> ops.gradients.weight(stream, dweight, dy, x, window))) {
            super.convolutionWeightGradient(stream, dweight, dy, x, geometry);
        }
    }

    @Override
    public void transposedConvolutionInputGradient(Stream stream, Tensor dx, Tensor dy, Tensor weight,
            Convolution.Transposed geometry) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fits(dy, dx, weight, null) || !byOneDnn(stream, dx.dtype(), new Tensor[] {dx, dy, weight},
                ops -> ops.convolution.run(dx, dy, weight, null, window.plain(), ActivationKind.NONE, true))) {
            super.transposedConvolutionInputGradient(stream, dx, dy, weight, geometry);
        }
    }

    @Override
    public void transposedConvolutionWeightGradient(Stream stream, Tensor dweight, Tensor dy, Tensor x,
            Convolution.Transposed geometry) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fitsGradient(dy, x, dweight) || !byOneDnn(stream, x.dtype(), new Tensor[] {dweight, dy, x},
                ops -> ops.gradients.weight(stream, dweight, x, dy, window.plain()))) {
            super.transposedConvolutionWeightGradient(stream, dweight, dy, x, geometry);
        }
    }

    private Tensor inOrder(Stream stream, Tensor weight, int[] order) {
        return weight.rank() != order.length ? weight
                : copies.computeIfAbsent(stream, s -> new WeightCopies(this)).inOrder(stream, weight, order);
    }

    private boolean convolvesByOneDnn(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            ConvolutionWindow window, ActivationKind activation, boolean together) {
        if (!OneDnnConvolution.suits(window) || !window.fits(y, x, weight, bias)) {
            return false;
        }
        boolean fuses = OneDnnConvolution.fuses(activation);
        boolean done = byOneDnn(stream, x.dtype(), new Tensor[] {y, x, weight}, ops -> {
            Tensor.on(bias, stream);
            return ops.convolution.run(y, x, weight, bias, window, fuses ? activation : ActivationKind.NONE, together);
        });
        if (done && !fuses) {
            applyInPlace(stream, y, activation);
        }
        return done;
    }

    /// Work of oneDNN on a stream; false where it cannot do it.
    private boolean byOneDnn(Stream stream, DType dtype, Tensor[] operands, Predicate<OneDnnOps> work) {
        if (!hasOneDnn || dtype != DType.F32 && dtype != DType.BF16) {
            return false;
        }
        stream.enter("convolution");
        try {
            for (Tensor operand : operands) {
                operand.on(stream);
            }
            OneDnnOps oneDnn = oneDnn(stream);
            boolean done = oneDnn != null && work.test(oneDnn);
            if (done) {
                countLaunch(stream);
            }
            return done;
        } finally {
            stream.exit();
        }
    }

    /// oneDNN leaves y unwritten where C = 0 and refuses rows that overlap. Of 16-bit floats its AMX kernels read x in
    /// tiles of 32 columns: what lies behind a row that is no multiple of that, the next row included, turns results
    /// into NaN if it is one (oneDNN issue 5717, mended after 3.11).
    private static boolean suitsOneDnn(Tensor y, Tensor x, Tensor weight) {
        boolean wholeTiles = x.dtype() == DType.F32 || x.size(1) % ONEDNN_TILE_COLUMNS == 0;
        return x.size(1) > 0 && wholeTiles && hasRowsApart(y) && hasRowsApart(x) && hasRowsApart(weight);
    }

    private static boolean hasRowsApart(Tensor matrix) {
        return matrix.size(0) <= 1 || matrix.stride(0) >= matrix.size(1);
    }

    /// The ops of the CPU want none.
    @Override
    @Nullable Tensor scratch(Stream stream, long bytes) {
        if (bytes > 0) {
            throw new IllegalStateException("%,d bytes of scratch for an op of the CPU".formatted(bytes));
        }
        return null;
    }

    @Override
    public Graph capture(Stream stream, Runnable work) {
        return new Graph(stream, work, () -> {});
    }

    @Override
    public Event record(Stream stream) {
        return new Event(System.nanoTime());
    }

    @Override
    void forget(Stream stream) {
        Endings endings = new Endings();
        endings.attempt(() -> super.forget(stream));
        OneDnnOps ops = oneDnn.remove(stream);
        if (ops != null) {
            endings.attempt(ops::close);
        }
        WeightCopies own = copies.remove(stream);
        if (own != null) {
            endings.attempt(own::close);
        }
        endings.rethrow();
    }

    @Override
    Stream createStream() {
        return new Stream(this, Gatun.GT_CPU(), 0, MemorySegment.NULL, threads);
    }

    @Override
    void prepareThread() {
        // any thread may call the CPU
    }

    @Override
    void waitFor(Stream stream, Event event) {
        // it has happened
    }

    @Override
    GatunException explain(GatunException failure, Stream stream) {
        return failure;
    }

    @Override
    Mapped allocateMapped(long bytes) {
        long address = allocate(bytes);
        return new Mapped(address, HostMemory.view(address, bytes));
    }

    @Override
    void freeMapped(Mapped mapped) {
        free(mapped.address(), mapped.memory().byteSize());
    }

    @Override
    long allocate(long bytes) {
        // Linux promises memory it does not have; a large request is held against what is really available.
        boolean hopeless = bytes > LARGE_ALLOCATION && bytes > memoryFree();
        long address = hopeless ? 0 : HostMemory.allocate(bytes);
        if (address == 0) {
            throw new OutOfDeviceMemoryException(("no memory for %,d bytes on the CPU: %,d bytes are available,"
                    + " %,d in use by Gatun")
                    .formatted(bytes, memoryFree(), counters().snapshot().allocatedBytes()), bytes);
        }
        counters().countAllocation(bytes);
        return address;
    }

    @Override
    void free(long address, long bytes) {
        HostMemory.free(address);
        counters().countFree(bytes);
    }

    @Override
    void upload(Stream stream, Tensor to, MemorySegment from) {
        stream.enter("upload");
        try {
            MemorySegment memory = to.hostMemory();
            if (memory.byteSize() != from.byteSize()) {
                throw GatunException.invalid("upload of %d bytes to %s of %d bytes", from.byteSize(), to,
                        memory.byteSize());
            }
            memory.copyFrom(from);
            counters().countHostToDevice(from.byteSize());
        } finally {
            stream.exit();
        }
    }

    @Override
    void uploadPinned(Stream stream, Tensor to, MemorySegment pinned) {
        upload(stream, to, pinned);
    }

    @Override
    MemorySegment download(Stream stream, Tensor from) {
        stream.enter("download");
        try {
            MemorySegment memory = from.hostMemory();
            if (memory.byteSize() > MAX_ARRAY_BYTES) {
                throw GatunException.invalid("download of %s: %d bytes do not fit a Java array, take slices", from,
                        memory.byteSize());
            }
            MemorySegment copy = MemorySegment.ofArray(new byte[(int) memory.byteSize()]);
            copy.copyFrom(memory);
            counters().countDeviceToHost(memory.byteSize());
            return copy;
        } finally {
            stream.exit();
        }
    }

    @Override
    void synchronize(Stream stream) {
        // every op has finished when its call returns
    }

    @Override
    void synchronizeEntered(Stream stream) {
        // as above
    }

    /// A line of `/proc/meminfo` in bytes.
    private static long memInfo(String key) {
        try (var lines = Files.lines(Path.of("/proc/meminfo"))) {
            return lines.filter(line -> line.startsWith(key)).findFirst()
                    .map(line -> Long.parseLong(line.replaceAll("\\D", "")) << 10).orElse(0L);
        } catch (IOException e) {
            return 0;
        }
    }
}
