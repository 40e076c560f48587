package io.gatun.diffusion;

import io.gatun.diffusion.ImageModel.Kind;
import io.gatun.models.ImageNetwork;
import io.gatun.models.Layers;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Event;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.ops.Elementwise;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;

/// A denoising network with what stands around it: what it is told (nothing, a class, a text), the sampler, and what
/// turns samples into pixels. All diffusion pipelines are this one with other parts.
final class DiffusionPipeline implements Pipeline {
    /// Calls that a device may be behind the host where somebody may want to end the loop.
    private static final int CALLS_AHEAD = 2;

    private final Device device;
    private final Stream stream;
    private final DiffusionParts parts;

    DiffusionPipeline(Device device, Stream stream, DiffusionParts parts) {
        this.device = device;
        this.stream = stream;
        this.parts = parts;
    }

    @Override
    public Kind kind() {
        return Kind.DIFFUSION;
    }

    @Override
    public int classes() {
        return parts.network().numClasses();
    }

    @Override
    public int defaultSteps() {
        return parts.defaults().steps();
    }

    @Override
    public double defaultGuidance() {
        return parts.text() == null && classes() == 0 ? 1 : parts.defaults().guidance();
    }

    @Override
    public Images sample(SampleConfig config) {
        DrawRequest request = DrawRequest.of(parts, config);
        long start = System.nanoTime();
        try (DeviceArena arena = device.newArena("drawing")) {
            Conditions conditions = Conditions.encode(device, stream, parts, arena, request);
            stream.synchronize();
            long encoded = System.nanoTime();
            Tensor sample = arena.allocate(DType.F32, request.count(), request.height(), request.width(),
                    request.channels());
            try (SamplingLoop loop = SamplingLoop.of(stream, request.trajectory(), request.settings(parts.dtype()),
                    (plan, in) -> denoise(plan, in, conditions))) {
                LoopStart.begin(device, stream, parts.coder(), loop, request);
                run(loop, config);
                Elementwise.copy(stream, sample, loop.sample()); // the loop's memory is free while pixels are decoded
                stream.synchronize();
            }
            long denoised = System.nanoTime();
            String suspicion = conditions.firstNonfinite(device, stream);
            try (PixelDecoder decoder = new PixelDecoder(device, stream, parts.coder(), request.count(),
                    request.height(), request.width(), request.channels())) {
                return decoder.decode(sample, config, request.trajectory().calls(), request.schedulerClass(), suspicion,
                        new long[] {start, encoded, denoised});
            }
        }
    }

    private void run(SamplingLoop loop, SampleConfig config) {
        int calls = loop.trajectory().calls();
        Deque<Event> ahead = new ArrayDeque<>();
        try {
            for (int call = 0; call < calls; call++) {
                if (config.cancelled() != null && config.cancelled().getAsBoolean()) {
                    throw new GatunException(GatunException.Status.CANCELLED,
                            "cancelled after %d of %d calls of the network".formatted(call, calls), null);
                }
                loop.step();
                if (config.cancelled() != null) {
                    ahead.add(device.record(stream));
                    awaitOldest(ahead);
                }
                config.progress().calls(call + 1, calls);
                if (config.preview() != null && (call + 1) % config.previewEvery() == 0) {
                    config.preview().accept(HostImages.preview(device, stream, loop, call + 1, calls));
                }
            }
        } finally {
            ahead.forEach(Event::close);
        }
    }

    private static void awaitOldest(Deque<Event> ahead) {
        if (ahead.size() > CALLS_AHEAD) {
            try (Event oldest = ahead.remove()) {
                oldest.synchronize();
            }
        }
    }

    private Tensor denoise(Plan.Recorder plan, Denoiser.Inputs in, Conditions conditions) {
        Tensor x = in.sample();
        Layers net = new Layers(device, stream, plan);
        Tensor output = plan.allocate(parts.dtype(), x.size(0), x.size(1), x.size(2), parts.network().outChannels());
        parts.network().forward(net, output, new ImageNetwork.Inputs(x, in.timesteps(), in.counter(),
                conditions.states(), conditions.classes(), conditions.pooled(), conditions.timeIds(), null));
        return output;
    }

    @Override
    public MemoryEstimate memory(SampleConfig config) {
        DrawRequest request = DrawRequest.of(parts, config);
        List<Tensor> weights = parts.weights();
        long weightBytes = weights.stream().mapToLong(t -> t.elements() * t.dtype().bytes()).sum();
        long copies = device.addressesHostMemory() ? 0 : weights.stream().filter(t -> t.rank() == 4)
                .mapToLong(t -> t.elements() * t.dtype().bytes()).sum(); // channels last, for the convolutions
        long fixed = copies + device.matmulWorkspaceBytes();
        boolean counted = parts.loaded() && !device.addressesHostMemory();
        return MemoryEstimate.of(weights.stream().mapToLong(Tensor::elements).sum(), weightBytes,
                count -> fixed + activations(request, count), config.count(),
                device.memoryFree() + (counted ? weightBytes : 0));
    }

    /// Bytes that a loop of `count` images, or decoding its result, takes beside the weights.
    private long activations(DrawRequest request, int count) {
        int rows = request.guidance() == null ? count : 2 * count;
        Trajectory trajectory = request.trajectory();
        long image = (long) request.height() * request.width() * request.channels() * Float.BYTES;
        int samples = 2 + trajectory.slots() + (request.config().mask() == null ? 0 : 3)
                + (request.config().noise() == null ? 0 : trajectory.calls());
        long loop = image * count * samples + image / Float.BYTES * rows * parts.dtype().bytes();
        try (Shapes shapes = new Shapes(device)) {
            Conditions conditions = Conditions.shapes(parts, shapes, rows);
            Denoiser.Inputs in = new Denoiser.Inputs(
                    shapes.of(parts.dtype(), rows, request.height(), request.width(), request.channels()),
                    shapes.of(DType.F32, trajectory.calls()), shapes.of(DType.I32, 1));
            long denoising = loop + Plan.measure(device, plan -> denoise(plan, in, conditions));
            long decoding = image * count + PixelDecoder.measure(device, stream, parts.coder(), shapes, count,
                    request.height(), request.width(), request.channels());
            return conditions.bytes() + Math.max(denoising, decoding);
        }
    }

    @Override
    public void close() {
        parts.close();
    }
}
