package io.gatun.diffusion;

import io.gatun.models.Layers;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Image;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// Samples to 8-bit pixels, image by image: an image does not depend on the others, and only one is decoded at a time.
final class PixelDecoder implements AutoCloseable {
    private final Device device;
    private final Stream stream;
    private final LatentCoder coder;
    private final DeviceArena arena;
    private final Tensor rgb;
    private final Tensor latents;
    private final Tensor pixels;
    private final Tensor nonfinite;
    private final Plan plan;

    /// @param count images;  height, width and channels of the sample
    PixelDecoder(Device device, Stream stream, LatentCoder coder, int count, int height, int width, long channels) {
        this.device = device;
        this.stream = stream;
        this.coder = coder;
        this.arena = device.newArena("pixels");
        int h = height * coder.reduction();
        int w = width * coder.reduction();
        try {
            rgb = arena.allocate(DType.U8, count, h, w, 3);
            latents = arena.allocate(DType.F32, 1, height, width, channels);
            pixels = arena.allocate(DType.F32, 1, h, w, coder.imageChannels());
            nonfinite = arena.allocate(DType.I64, 2 * count);
            plan = Plan.of(device, recorder -> record(new Layers(device, stream, recorder), coder, latents, pixels));
        } catch (RuntimeException e) {
            arena.close();
            throw e;
        }
    }

    private static void record(Layers net, LatentCoder coder, Tensor latents, Tensor pixels) {
        Tensor scratch = net.allocate(coder.dtype(), latents.shape()); // which decoding may overwrite
        net.op(s -> Elementwise.cast(s, scratch, latents), scratch, latents);
        Tensor decoded = coder.decode(net, scratch);
        net.op(s -> Elementwise.cast(s, pixels, decoded), pixels, decoded);
    }

    /// Bytes that a decoder takes.
    static long measure(Device device, Stream stream, LatentCoder coder, Shapes shapes, int count, int height,
            int width, long channels) {
        long h = (long) height * coder.reduction();
        long w = (long) width * coder.reduction();
        Tensor latents = shapes.of(DType.F32, 1, height, width, channels);
        Tensor pixels = shapes.of(DType.F32, 1, h, w, coder.imageChannels());
        return h * w * (3L * count + (long) Float.BYTES * coder.imageChannels())
                + Plan.measure(device, recorder ->
                        record(new Layers(device, stream, recorder), coder, latents, pixels));
    }

    /// @param sample    [B, h, w, C] f32
    /// @param suspicion the part that gave NaN before the loop; null: none
    /// @param clock     when encoding began, the loop began and the loop ended
    Images decode(Tensor sample, SampleConfig config, int calls, @Nullable String scheduler,
            @Nullable String suspicion, long[] clock) {
        int count = (int) rgb.size(0);
        int height = (int) rgb.size(1);
        int width = (int) rgb.size(2);
        int channels = coder.imageChannels();
        float[] raw = config.keepsRaw() ? new float[count * height * width * channels] : null;
        for (int i = 0; i < count; i++) {
            Tensor one = sample.slice(0, i, i + 1);
            Elementwise.copy(stream, latents, one);
            plan.run();
            Image.rgb8(stream, rgb.slice(0, i, i + 1), pixels, coder.pixelScale(),
                    coder.pixelOffset());
            Elementwise.countNonfinite(stream, nonfinite.slice(0, 2 * i, 2 * i + 1), one);
            Elementwise.countNonfinite(stream, nonfinite.slice(0, 2 * i + 1, 2 * i + 2), pixels);
            if (raw != null) {
                float[] image = HostImages.channelsFirst(device, stream, pixels);
                for (int k = 0; k < image.length; k++) {
                    raw[i * image.length + k] = Math.clamp(image[k] * coder.pixelScale() + coder.pixelOffset(), 0,
                            1);
                }
            }
        }
        MemorySegment bytes = rgb.toBytes(stream);
        List<Images.Failure> failed = failures(nonfinite.toLongs(stream), suspicion, config.latents());
        long end = System.nanoTime();
        return new Images(bytes.toArray(ValueLayout.JAVA_BYTE), count, height, width, config.seeds(), calls, scheduler,
                failed, raw == null ? null : new Images.Raw(HostImages.channelsFirst(device, stream, sample),
                        HostImages.nchw(sample), raw, channels),
                new Images.Timings(Duration.ofNanos(clock[1] - clock[0]),
                        Duration.ofNanos(clock[2] - clock[1]), Duration.ofNanos(end - clock[2])));
    }

    private static List<Images.Failure> failures(long[] counts, @Nullable String suspicion, float @Nullable [] start) {
        List<Images.Failure> failed = new ArrayList<>();
        int images = counts.length / 2;
        for (int i = 0; i < images; i++) {
            if (counts[2 * i] > 0) {
                failed.add(new Images.Failure(i, suspicion != null ? suspicion : isNonfinite(start, i, images)
                        ? "the latents that were given" : "the denoising network"));
            } else if (counts[2 * i + 1] > 0) {
                failed.add(new Images.Failure(i, "the decoder"));
            }
        }
        return failed;
    }

    private static boolean isNonfinite(float @Nullable [] start, int image, int images) {
        if (start != null) {
            int n = start.length / images;
            for (int i = image * n; i < (image + 1) * n; i++) {
                if (!Float.isFinite(start[i])) {
                    return true;
                }
            }
        }
        return false;
    }

    @Override
    public void close() {
        try (arena; plan) {
            // the plan, then the arena
        }
    }
}
