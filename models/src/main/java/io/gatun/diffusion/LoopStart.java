package io.gatun.diffusion;

import io.gatun.models.Layers;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// What a loop begins with: noise by seed, given noise, or a picture with noise, and what of the picture is to stay.
final class LoopStart {
    /// The step of Philox for the draw of an autoencoder, which no call of a loop has.
    private static final int ENCODER_NOISE = Integer.MIN_VALUE + 1;

    private LoopStart() {}

    static void begin(Device device, Stream stream, LatentCoder coder, SamplingLoop loop, DrawRequest request) {
        SampleConfig config = request.config();
        long[] seeds = config.seeds();
        int b = request.count();
        int h = request.height();
        int w = request.width();
        int c = request.channels();
        try (DeviceArena arena = device.newArena("start")) {
            if (config.noise() != null) {
                float[] ofCalls = loop.trajectory().noiseOfCalls(config.noise(), b * c * h * w);
                Tensor recorded = HostImages.upload(arena, stream, ofCalls, loop.trajectory().calls(), b, c, h, w);
                Elementwise.copy(stream, loop.noise(), channelsLast(recorded));
            }
            boolean isKnown = request.startsFromPicture() || config.mask() != null;
            Tensor known = isKnown ? encode(device, stream, coder, arena, request) : null;
            if (config.latents() != null) {
                Tensor given = HostImages.upload(arena, stream, config.latents(), b, c, h, w);
                loop.startFromNoise(channelsLast(given), seeds);
            } else if (known != null && request.startsFromPicture()) {
                loop.startFromImage(known, seeds);
            } else {
                loop.start(seeds);
            }
            if (config.mask() != null) {
                float[] one = Pictures.mask(config.mask(), h, w);
                Tensor mask = HostImages.upload(arena, stream, one, h, w);
                Tensor made = arena.allocate(DType.F32, b, h, w, 1);
                Elementwise.copy(stream, made, mask.strided(new long[] {b, h, w, 1}, new long[] {0, w, 1, 1}));
                loop.inpaint(made, known);
            }
            stream.synchronize();
        }
    }

    /// [..., C, H, W] as a view [..., H, W, C].
    private static Tensor channelsLast(Tensor x) {
        return x.rank() == 4 ? x.permute(0, 2, 3, 1) : x.permute(0, 1, 3, 4, 2);
    }

    /// The picture as a sample for each image, [B, h, w, C] f32.
    private static Tensor encode(Device device, Stream stream, LatentCoder coder, DeviceArena arena,
            DrawRequest request) {
        int b = request.count();
        int height = request.height() * coder.reduction();
        int width = request.width() * coder.reduction();
        float[] pixels = Pictures.pixels(request.config().image(), height, width, coder.imageChannels());
        Tensor picture = HostImages.upload(arena, stream, pixels, 1, height, width, coder.imageChannels());
        Tensor known = arena.allocate(DType.F32, b, request.height(), request.width(), request.channels());
        Tensor noise = arena.allocate(DType.F32, 1, request.height(), request.width(), request.channels());
        Tensor seed = arena.allocate(DType.I64, 1, 2);
        Tensor sample = arena.allocate(DType.F32, 1, request.height(), request.width(), request.channels());
        try (Plan plan = Plan.of(device, recorder -> {
            Layers net = new Layers(device, stream, recorder);
            Tensor encoded = coder.encode(net, net.cast(picture, coder.dtype()), net.cast(noise, coder.dtype()));
            net.op(s -> Elementwise.cast(s, sample, encoded), sample, encoded);
        })) {
            long[] seeds = request.config().seeds();
            for (int image = 0; image < b; image++) {
                seed.copyFrom(stream, seeds[image], 0L);
                Noise.normal(stream, noise, seed, ENCODER_NOISE);
                plan.run();
                Elementwise.copy(stream, known.slice(0, image, image + 1), sample);
            }
        }
        return known;
    }
}
