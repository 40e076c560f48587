package io.gatun.runtime;

import io.gatun.bindings.CudaFolders;
import io.gatun.bindings.Libraries;
import io.gatun.bindings.LibraryException;
import io.gatun.bindings.cudart.Cudart;
import io.gatun.bindings.gatun.Gatun;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Linear;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.CudnnConvolution.Of;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/// An NVIDIA GPU: cudart for memory, streams, events and graphs, cuBLASLt for matrix products, cuDNN, where it is, for
/// convolutions, our kernels for the rest.
/// Works in the device's primary context, as every other library of the process does.
public final class CudaDevice extends Device {
    /// 8.0, Ampere: the first with bf16 tensor cores and cp.async.
    private static final int MIN_MAJOR = 8;
    private static final long MAX_ARRAY_BYTES = Integer.MAX_VALUE - 8;
    /// From so many on reading a product's weights takes longer than starting its kernel.
    private static final long MANY_WEIGHTS = 1L << 17;

    /// The order of a weight's dimensions in memory that cuDNN wants.
    private static final int[] ROW_MAJOR = {0, 1, 2, 3};

    private final int ordinal;
    private final CudaRuntime cuda;
    private final CudaPool pool;
    private final Facts facts;
    private final boolean hasCudnn = CudaFolders.find(CudaFolders.CUDNN) != null;
    private final Map<Long, CudaPool.Block> blocks = new ConcurrentHashMap<>();
    private final Map<Stream, Resources> resources = new ConcurrentHashMap<>();
    private boolean closed;

    /// What was found when the device was opened.
    private record Facts(String model, int major, int minor, int multiprocessors, int driver, int runtime,
            String buildInfo) {}

    /// What belongs to one stream.
    private record Resources(MemorySegment handle, StreamWork work, PinnedStaging staging, LibraryWorkspace workspace,
            CublasLtMatmul matmul, CudnnConvolution convolution, WeightCopies weights) {}

    /// @param spec `cuda` or `cuda:N`
    /// @throws DeviceUnavailableException when something is missing or too old; says what and what to do
    /// @throws GatunException             when [ProgrammaticLaunch] means nothing
    CudaDevice(String spec) {
        ProgrammaticLaunch.check(System.getenv(ProgrammaticLaunch.VARIABLE));
        this.ordinal = spec.equals("cuda") ? 0 : Integer.parseInt(spec.substring("cuda:".length()));
        this.cuda = new CudaRuntime(ordinal);
        this.pool = new CudaPool(cuda, counters());
        if (CudaFolders.find(CudaFolders.CUDART) == null || CudaFolders.find(CudaFolders.CUBLASLT) == null) {
            throw CudaSearch.unavailable(spec, null);
        }
        try {
            Libraries.cudart();
            Libraries.cublasLt();
        } catch (LibraryException e) {
            throw CudaSearch.unavailable(spec, e.getMessage());
        }
        String buildInfo = NativeErrors.loadLibrary();
        if (buildInfo.startsWith("flavour cpu,")) {
            throw CudaSearch.unavailable(spec, "this libgatun was built without CUDA kernels (" + buildInfo
                    + "): build it where nvcc is on the PATH");
        }
        this.facts = inspect(spec, buildInfo);
        if (!hasCudnn) {
            System.getLogger("io.gatun.runtime").log(System.Logger.Level.INFO, CudaSearch.withoutCudnn());
        }
    }

    /// Devices that CUDA sees.
    static int count(String spec) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.JAVA_INT);
            int code = Cudart.cudaGetDeviceCount(out);
            if (code == Cudart.cudaErrorNoDevice()) {
                return 0;
            }
            if (code != Cudart.cudaSuccess()) {
                int ignored = Cudart.cudaGetLastError();
                throw CudaSearch.unavailable(spec, "cudaGetDeviceCount failed: " + CudaRuntime.describe(code));
            }
            return out.get(ValueLayout.JAVA_INT, 0);
        }
    }

    private Facts inspect(String spec, String buildInfo) {
        int driver = version("cudaDriverGetVersion");
        int runtime = version("cudaRuntimeGetVersion");
        if (driver == 0) {
            throw CudaSearch.unavailable(spec, "no NVIDIA driver: install " + CudaFolders.bringer(CudaFolders.DRIVER));
        }
        if (driver / 1000 < runtime / 1000) {
            throw CudaSearch.unavailable(spec, ("the driver supports CUDA %s, the CUDA runtime that was found is %s:"
                    + " update the driver (CUDA 13 needs R580 or later)").formatted(dotted(driver), dotted(runtime)));
        }
        int count = count(spec);
        if (ordinal >= count) {
            throw CudaSearch.unavailable(spec, "there %s %d CUDA device%s (is CUDA_VISIBLE_DEVICES set?)".formatted(
                    count == 1 ? "is" : "are", count, count == 1 ? "" : "s"));
        }
        int major = cuda.attribute(Cudart.cudaDevAttrComputeCapabilityMajor());
        int minor = cuda.attribute(Cudart.cudaDevAttrComputeCapabilityMinor());
        String model = modelName(cuda.busId());
        if (major < MIN_MAJOR) {
            throw CudaSearch.unavailable(spec, ("%s has compute capability %d.%d, expected 8.0 (Ampere) or later")
                    .formatted(model, major, minor));
        }
        cuda.makeCurrent();
        return new Facts(model, major, minor, cuda.attribute(Cudart.cudaDevAttrMultiProcessorCount()), driver, runtime,
                buildInfo);
    }

    private int version(String call) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.JAVA_INT);
            cuda.check(call, call.equals("cudaDriverGetVersion") ? Cudart.cudaDriverGetVersion(out)
                    : Cudart.cudaRuntimeGetVersion(out));
            return out.get(ValueLayout.JAVA_INT, 0);
        }
    }

    private static String dotted(int version) {
        return version / 1000 + "." + version % 1000 / 10;
    }

    /// The driver's own words; cudart tells the name only in a struct whose layout changes between versions.
    private static String modelName(String busId) {
        Path file = Path.of("/proc/driver/nvidia/gpus", busId.toLowerCase(Locale.ROOT), "information");
        try (var lines = Files.lines(file)) {
            return lines.filter(line -> line.startsWith("Model:")).findFirst()
                    .map(line -> line.substring("Model:".length()).strip()).orElse("CUDA device " + busId);
        } catch (IOException e) {
            return "CUDA device " + busId;
        }
    }

    @Override
    public String name() {
        return "cuda:" + ordinal;
    }

    @Override
    public String description() {
        return "cuda:%d: %s, compute capability %d.%d, %d SMs, %,d MiB, driver for CUDA %s, cudart %s, cuBLASLt %s, %s,"
                .formatted(ordinal, facts.model, facts.major, facts.minor, facts.multiprocessors, memoryTotal() >> 20,
                        dotted(facts.driver), dotted(facts.runtime), CublasLtMatmul.version(),
                        hasCudnn ? "cuDNN" : "no cuDNN (convolutions by our kernel)")
                + " libgatun " + facts.buildInfo;
    }

    @Override
    public long memoryTotal() {
        return cuda.memory()[1];
    }

    @Override
    public long memoryFree() {
        return cuda.memory()[0] + pool.cachedBytes();
    }

    @Override
    public boolean addressesHostMemory() {
        return false;
    }

    @Override
    public boolean prefersGraphs() {
        return true;
    }

    /// cuBLASLt's algorithm is fixed by the shape of the weight.
    @Override
    public boolean matmulDependsOnRows() {
        return false;
    }

    @Override
    public long matmulWorkspaceBytes() {
        return LibraryWorkspace.BYTES;
    }

    /// They take turns with the products.
    @Override
    public long convolutionWorkspaceBytes() {
        return 0;
    }

    /// By cuBLASLt, with its algorithm for many rows; decode steps and heads call [#matmulRowwise].
    @Override
    public void matmul(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        product(stream, y, x, weight, bias, layout, false, false);
    }

    @Override
    public void matmulRowwise(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout) {
        product(stream, y, x, weight, bias, layout, true, false);
    }

    @Override
    public void matmulGeluTanh(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout, boolean rowwise) {
        product(stream, y, x, weight, bias, layout, rowwise, true);
    }

    /// By cuBLASLt on Hopper, from 12.9 on, where the operands suit it.
    @Override
    public void matmulFp8(Stream stream, Tensor y, Tensor x, Tensor xScale, Tensor weight, Tensor weightScale,
            @Nullable Tensor bias) {
        if (!CublasLtMatmul.takesFp8(y, x, xScale, weight, weightScale, bias)
                || !libraryFp8(stream, y, x, xScale, weight, weightScale, bias)) {
            super.matmulFp8(stream, y, x, xScale, weight, weightScale, bias);
        }
    }

    /// After a library took a call for the stream.
    private void queued(Stream stream) {
        countLaunch(stream);
        if (synchronizesEachOp()) {
            synchronizeEntered(stream);
        }
    }

    private boolean libraryFp8(Stream stream, Tensor y, Tensor x, Tensor xScale, Tensor weight, Tensor weightScale,
            @Nullable Tensor bias) {
        stream.enter("matmulFp8");
        try {
            for (Tensor operand : new Tensor[] {y, x, xScale, weight, weightScale}) {
                operand.on(stream);
            }
            Tensor.on(bias, stream);
            if (!resources(stream).matmul.runFp8(resources(stream).handle, y, x, xScale, weight, weightScale, bias)) {
                return false;
            }
            queued(stream);
            return true;
        } finally {
            stream.exit();
        }
    }

    @Override
    public void matmulOuter(Stream stream, Tensor y, Tensor a, Tensor b) {
        if (!libraryOuter(stream, y, a, b)) {
            outerByConvolution(stream, y, a, b);
        }
    }

    private boolean libraryOuter(Stream stream, Tensor y, Tensor a, Tensor b) {
        stream.enter("matmulOuter");
        try {
            checkOuter(stream, y, a, b);
            if (y.elements() == 0 || a.size(0) == 0 || !CublasLtMatmul.takes(a, b) || !CublasLtMatmul.takes(b, y)
                    || !resources(stream).matmul.runOuter(resources(stream).handle, y, a, b)) {
                return false;
            }
            queued(stream);
            return true;
        } finally {
            stream.exit();
        }
    }

    private enum ByLibrary { NOTHING, PRODUCT, PRODUCT_AND_GELU }

    /// By cuBLASLt, which adds a bias of y's dtype: another one is rounded to it; its GELU is off by 4e-6, which 16-bit
    /// results alone do not show. Row by row with many weights, and what cuBLASLt has no notion of or no algorithm for,
    /// are our kernel's: at one row cuBLASLt took up to 70 us for the 5 MB of a layer of GPT-2 in bf16 on an H200.
    ///
    /// @param rowwise whether a row must have the same bits whatever other rows there are
    private void product(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout,
            boolean rowwise, boolean thenGelu) {
        boolean fusesGelu = thenGelu && y.dtype() != DType.F32;
        ByLibrary done = ByLibrary.NOTHING;
        if (x.rank() == 2 && weight.rank() == 2 && CublasLtMatmul.takes(x, weight)
                && (!rowwise || fusesGelu || x.size(1) * y.size(1) < MANY_WEIGHTS)) {
            Tensor added = bias == null || bias.dtype() == y.dtype() ? bias
                    : biasLikeY(stream, y, x, weight, bias, layout);
            done = libraryProduct(stream, y, x, weight, added, layout, rowwise, fusesGelu);
        }
        if (done == ByLibrary.NOTHING) {
            Linear.linear(stream, y, x, weight, bias, layout);
        }
        if (thenGelu && done != ByLibrary.PRODUCT_AND_GELU) {
            Elementwise.geluTanh(stream, y, y);
        }
    }

    private Tensor biasLikeY(Stream stream, Tensor y, Tensor x, Tensor weight, Tensor bias, WeightLayout layout) {
        stream.enter("matmul");
        try {
            checkOperands(stream, y, x, weight, bias, layout);
        } finally {
            stream.exit();
        }
        return resources(stream).weights.cast(stream, bias, y.dtype());
    }

    /// GELU is left out where cuBLASLt cannot do it for the operands.
    private ByLibrary libraryProduct(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout, boolean fewRows, boolean thenGelu) {
        stream.enter("matmul");
        try {
            checkOperands(stream, y, x, weight, bias, layout);
            if (y.elements() == 0) {
                return ByLibrary.PRODUCT_AND_GELU;
            }
            CublasLtMatmul matmul = resources(stream).matmul;
            MemorySegment handle = resources(stream).handle;
            boolean fused = thenGelu && matmul.run(handle, y, x, weight, bias, layout, fewRows, true);
            if (!fused && !matmul.run(handle, y, x, weight, bias, layout, fewRows, false)) {
                return ByLibrary.NOTHING;
            }
            queued(stream);
            return fused ? ByLibrary.PRODUCT_AND_GELU : ByLibrary.PRODUCT;
        } finally {
            stream.exit();
        }
    }

    @Override
    public void convolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Geometry geometry, ActivationKind activation) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        boolean fits = window.fits(y, x, weight, bias);
        Tensor lying = fits ? resources(stream).weights.inOrder(stream, weight, ROW_MAJOR) : weight;
        if (!fits || !byCudnn(stream, Of.OUTPUT, x, y, lying, window, bias, false)) {
            super.convolution(stream, y, x, lying, bias, geometry, activation);
        } else {
            finish(stream, y, bias, activation);
        }
    }

    @Override
    public void trainingConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Geometry geometry, ActivationKind activation) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fits(y, x, weight, bias)
                || !byCudnn(stream, Of.OUTPUT, x, y, passing(stream, weight), window, bias, true)) {
            super.trainingConvolution(stream, y, x, weight, bias, geometry, activation);
        } else {
            finish(stream, y, bias, activation);
        }
    }

    /// Our kernel, where it is the one that works, reads a transposed weight as fast where it lies.
    @Override
    public void transposedConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Transposed geometry, ActivationKind activation) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        boolean fits = hasCudnn && window.fits(y, x, weight, bias);
        Tensor lying = fits ? resources(stream).weights.inOrder(stream, weight, ROW_MAJOR) : weight;
        if (!fits || !byCudnn(stream, Of.INPUT, y, x, lying, window.plain(), bias, false)) {
            super.transposedConvolution(stream, y, x, lying, bias, geometry, activation);
        } else {
            finish(stream, y, bias, activation);
        }
    }

    @Override
    public void trainingTransposedConvolution(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Transposed geometry, ActivationKind activation) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fits(y, x, weight, bias)
                || !byCudnn(stream, Of.INPUT, y, x, passing(stream, weight), window.plain(), bias, true)) {
            super.trainingTransposedConvolution(stream, y, x, weight, bias, geometry, activation);
        } else {
            finish(stream, y, bias, activation);
        }
    }

    @Override
    public void convolutionInputGradient(Stream stream, Tensor dx, Tensor dy, Tensor weight,
            Convolution.Geometry geometry) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fits(dy, dx, weight, null)
                || !byCudnn(stream, Of.INPUT, dx, dy, passing(stream, weight), window, null, true)) {
            super.convolutionInputGradient(stream, dx, dy, weight, geometry);
        }
    }

    @Override
    public void transposedConvolutionInputGradient(Stream stream, Tensor dx, Tensor dy, Tensor weight,
            Convolution.Transposed geometry) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (!window.fits(dy, dx, weight, null)
                || !byCudnn(stream, Of.OUTPUT, dy, dx, passing(stream, weight), window.plain(), null, true)) {
            super.transposedConvolutionInputGradient(stream, dx, dy, weight, geometry);
        }
    }

    /// cuDNN would round the gradient of a 16-bit weight to 16 bits: that is our kernel's.
    @Override
    public void convolutionWeightGradient(Stream stream, Tensor dweight, Tensor dy, Tensor x,
            Convolution.Geometry geometry) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (x.dtype() != DType.F32 || !dweight.isContiguous() || !window.fitsGradient(dy, x, dweight)
                || !byCudnn(stream, Of.WEIGHT, x, dy, dweight, window, null, true)) {
            super.convolutionWeightGradient(stream, dweight, dy, x, geometry);
        }
    }

    /// As above.
    @Override
    public void transposedConvolutionWeightGradient(Stream stream, Tensor dweight, Tensor dy, Tensor x,
            Convolution.Transposed geometry) {
        ConvolutionWindow window = ConvolutionWindow.of(geometry);
        if (x.dtype() != DType.F32 || !dweight.isContiguous() || !window.fitsGradient(dy, x, dweight)
                || !byCudnn(stream, Of.WEIGHT, dy, x, dweight, window.plain(), null, true)) {
            super.transposedConvolutionWeightGradient(stream, dweight, dy, x, geometry);
        }
    }

    /// A weight that changes from step to step, as cuDNN wants it.
    private Tensor passing(Stream stream, Tensor weight) {
        return hasCudnn ? resources(stream).weights.passing(stream, weight) : weight;
    }

    private boolean byCudnn(Stream stream, Of of, Tensor x, Tensor y, Tensor weight, ConvolutionWindow window,
            @Nullable Tensor bias, boolean together) {
        boolean addsBias = bias == null || bias.dtype() == y.dtype();
        if (!hasCudnn || !addsBias || !CudnnConvolution.suits(x, y, weight, window)) {
            return false;
        }
        stream.enter("convolution");
        try {
            for (Tensor operand : new Tensor[] {y, x, weight}) {
                operand.on(stream);
            }
            Tensor.on(bias, stream);
            if (!resources(stream).convolution.run(stream, of, x, y, weight, window, together)) {
                return false;
            }
            queued(stream);
            return true;
        } finally {
            stream.exit();
        }
    }

    private void finish(Stream stream, Tensor y, @Nullable Tensor bias, ActivationKind activation) {
        if (bias != null) {
            Elementwise.add(stream, y, y, resources(stream).weights.broadcast(bias, y));
        }
        applyInPlace(stream, y, activation);
    }

    @Override
    @Nullable Tensor scratch(Stream stream, long bytes) {
        return bytes == 0 ? null : resources(stream).workspace.tensor(this, bytes);
    }

    private Resources resources(Stream stream) {
        Resources found = resources.get(stream);
        if (found == null) {
            throw new IllegalStateException("the stream is closed");
        }
        return found;
    }

    @Override
    public Graph capture(Stream stream, Runnable work) {
        Set<Lifetime> operands = stream.beginCapture();
        Resources own;
        MemorySegment executable;
        try {
            own = resources(stream);
            cuda.makeCurrent();
            own.work.beginCapture();
            try {
                executable = cuda.capture(own.handle, work);
            } finally {
                own.work.endCapture();
            }
        } finally {
            stream.endCapture();
        }
        Lifetime[] needed = operands.toArray(Lifetime[]::new);
        return new Graph(stream, () -> {
            stream.enter("graph");
            try {
                for (Lifetime operand : needed) {
                    operand.requireOpen();
                }
                cuda.launchGraph(executable, own.handle);
                counters().countLaunch();
            } finally {
                stream.exit();
            }
        }, () -> cuda.destroyGraph(executable));
    }

    @Override
    public Event record(Stream stream) {
        cuda.makeCurrent();
        MemorySegment event = cuda.newEvent(true);
        try {
            cuda.record(event, resources(stream).handle);
        } catch (RuntimeException e) {
            cuda.destroyEvent(event);
            throw e;
        }
        return new Event(cuda, event);
    }

    @Override
    void waitFor(Stream stream, Event event) {
        stream.enter("wait");
        try {
            cuda.waitFor(resources(stream).handle, event.handle());
        } finally {
            stream.exit();
        }
    }

    @Override
    Stream createStream() {
        cuda.makeCurrent();
        MemorySegment handle = cuda.newStream();
        try {
            Stream stream = new Stream(this, Gatun.GT_CUDA(), ordinal, handle, 1);
            LibraryWorkspace workspace = new LibraryWorkspace(pool);
            resources.put(stream, new Resources(handle, new StreamWork(cuda, handle), new PinnedStaging(cuda, handle),
                    workspace, new CublasLtMatmul(cuda, workspace), new CudnnConvolution(cuda, handle, workspace),
                    new WeightCopies(this)));
            return stream;
        } catch (RuntimeException e) {
            cuda.destroyStream(handle);
            throw e;
        }
    }

    @Override
    void forget(Stream stream) {
        Endings endings = new Endings();
        endings.attempt(() -> super.forget(stream));
        Resources own = resources.remove(stream);
        if (own != null) {
            own.work.end();
            endings.attempt(own.matmul::close);
            endings.attempt(own.convolution::close);
            endings.attempt(own.workspace::close);
            endings.attempt(own.weights::close);
            endings.attempt(own.staging::close);
            endings.attempt(() -> cuda.destroyStream(own.handle));
        }
        endings.rethrow();
    }

    @Override
    void prepareThread() {
        cuda.makeCurrent();
    }

    @Override
    long allocate(long bytes) {
        cuda.makeCurrent();
        CudaPool.Block block = pool.allocate(bytes);
        if (block.address() == 0) {
            throw new OutOfDeviceMemoryException(("%s has no memory for %,d bytes: %,d of %,d bytes are free, %,d in"
                    + " use by Gatun").formatted(name(), bytes, memoryFree(), memoryTotal(),
                            counters().snapshot().allocatedBytes()), bytes);
        }
        blocks.put(block.address(), block);
        return block.address();
    }

    @Override
    void free(long address, long bytes) {
        CudaPool.Block block = blocks.remove(address);
        if (block != null) {
            pool.free(block);
        }
    }

    @Override
    Mapped allocateMapped(long bytes) {
        cuda.makeCurrent();
        MemorySegment pinned = cuda.hostAlloc(bytes);
        try {
            return new Mapped(cuda.devicePointer(pinned), pinned);
        } catch (RuntimeException e) {
            cuda.freeHost(pinned);
            throw e;
        }
    }

    @Override
    void freeMapped(Mapped mapped) {
        cuda.freeHost(mapped.memory());
    }

    @Override
    void upload(Stream stream, Tensor to, MemorySegment from) {
        stream.enter("upload");
        try {
            to.on(stream);
            long bytes = to.contiguousBytes();
            if (bytes != from.byteSize()) {
                throw GatunException.invalid("upload of %d bytes to %s of %d bytes", from.byteSize(), to, bytes);
            }
            resources(stream).staging.upload(to.address(), from);
            counters().countHostToDevice(bytes);
        } finally {
            stream.exit();
        }
    }

    @Override
    void uploadPinned(Stream stream, Tensor to, MemorySegment pinned) {
        stream.enter("upload");
        try {
            to.on(stream);
            cuda.copyToDevice(to.address(), pinned, resources(stream).handle);
            counters().countHostToDevice(pinned.byteSize());
        } finally {
            stream.exit();
        }
    }

    @Override
    MemorySegment download(Stream stream, Tensor from) {
        stream.enter("download");
        try {
            from.on(stream);
            long bytes = from.contiguousBytes();
            if (bytes > MAX_ARRAY_BYTES) {
                throw GatunException.invalid("download of %s: %d bytes do not fit a Java array, take slices", from,
                        bytes);
            }
            MemorySegment copy = MemorySegment.ofArray(new byte[(int) bytes]);
            resources(stream).staging.download(copy, from.address());
            counters().countDeviceToHost(bytes);
            return copy;
        } finally {
            stream.exit();
        }
    }

    @Override
    void synchronize(Stream stream) {
        Resources own = resources.get(stream);
        if (own != null) {
            cuda.makeCurrent();
            cuda.synchronize(own.handle);
        }
    }

    @Override
    void synchronizeEntered(Stream stream) {
        if (!stream.isCapturing()) {
            cuda.synchronize(resources(stream).handle);
        }
    }

    /// Also waits for the work on the device: memory that is freed now may be given to another stream at once.
    @Override
    void awaitIdleStreams() {
        super.awaitIdleStreams();
        resources.forEach((stream, own) -> {
            if (!cuda.isLost()) {
                try {
                    own.work.await();
                } catch (GatunException e) {
                    // Closing goes on. A fault of the device is remembered, and every later call throws it.
                    System.getLogger("io.gatun.runtime").log(System.Logger.Level.WARNING, e.getMessage());
                }
            }
        });
    }

    @Override
    GatunException explain(GatunException failure, Stream stream) {
        if (failure.status() != GatunException.Status.DEVICE_ERROR || stream.isCapturing()) {
            return failure;
        }
        try {
            cuda.synchronize(resources(stream).handle);
            return failure;
        } catch (GatunException e) {
            e.addSuppressed(failure);
            return e;
        }
    }

    @Override
    public void close() {
        try {
            super.close();
        } finally {
            synchronized (this) {
                if (!closed) {
                    closed = true;
                    pool.trim();
                }
            }
        }
    }
}
