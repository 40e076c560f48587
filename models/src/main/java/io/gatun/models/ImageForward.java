package io.gatun.models;

import io.gatun.io.SafetensorsFile;
import io.gatun.models.ImageNetwork.Inputs;
import io.gatun.models.ImageNetwork.Labels;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// A denoising network's raw function on tensors of a file, for parity checks: what the Hugging Face libraries pass in,
/// channels first, and the prediction out.
public final class ImageForward {
    /// A result on the host.
    ///
    /// @param values row-major, channels first
    /// @param shape  [B, C, H, W]
    public record Prediction(float[] values, long[] shape) {}

    private final Stream stream;
    private final DeviceArena arena;
    private final SafetensorsFile file;
    private final DType dtype;

    private ImageForward(Stream stream, DeviceArena arena, SafetensorsFile file, DType dtype) {
        this.stream = stream;
        this.arena = arena;
        this.file = file;
        this.dtype = dtype;
    }

    /// Runs one pass.
    ///
    /// @param file `sample` [B, C, H, W], `timesteps` [B], [1] or a single number, and what the network asks for of
    ///     `encoder_hidden_states` [B, S, K], `class_labels` [B] or [B, n], `text_embeds` [B, P], `time_ids` [B, n],
    ///     `timestep_cond` [B, n]; other tensors are ignored
    /// @throws GatunException when a tensor is missing or has another shape; says which
    public static Prediction run(Device device, Stream stream, ImageNetwork network, DType dtype,
            SafetensorsFile file) {
        try (DeviceArena arena = device.newArena("forward")) {
            ImageForward forward = new ImageForward(stream, arena, file, dtype);
            Tensor sample = forward.sample();
            Inputs in = new Inputs(sample, forward.timesteps(sample.size(0)), null,
                    forward.floats(dtype, "encoder_hidden_states"), forward.labels(network.classLabels()),
                    forward.floats(dtype, "text_embeds"), forward.floats(DType.F32, "time_ids"),
                    forward.floats(dtype, "timestep_cond"));
            Tensor out = arena.allocate(dtype, sample.size(0), sample.size(1), sample.size(2), network.outChannels());
            Consumer<Plan.Recorder> pass = recorder -> network.forward(new Layers(device, stream, recorder), out, in);
            try (Plan plan = Plan.of(device, pass)) {
                plan.run();
                Tensor channelsFirst = out.permute(0, 3, 1, 2);
                Tensor result = arena.allocate(DType.F32, channelsFirst.shape());
                Elementwise.cast(stream, result, channelsFirst);
                return new Prediction(result.toFloats(stream), result.shape());
            }
        }
    }

    /// [B, H, W, C]
    private Tensor sample() {
        Tensor channelsFirst = floats(DType.F32, "sample");
        if (channelsFirst == null || channelsFirst.rank() != 4) {
            throw GatunException.invalid("%s: tensor 'sample' is %s, expected [B, C, H, W]", file.path(),
                    channelsFirst == null ? "missing; there are " + file.names() : channelsFirst);
        }
        Tensor view = channelsFirst.permute(0, 2, 3, 1);
        Tensor sample = arena.allocate(dtype, view.shape());
        Elementwise.cast(stream, sample, view);
        return sample;
    }

    private Tensor timesteps(long batch) {
        String name = file.names().contains("timesteps") ? "timesteps" : "timestep";
        if (!file.names().contains(name)) {
            throw GatunException.invalid("%s has no tensor 'timesteps' or 'timestep'; it has %s", file.path(),
                    file.names());
        }
        float[] values = file.floats(name);
        if (values.length == 1) {
            float one = values[0];
            values = new float[Math.toIntExact(batch)];
            Arrays.fill(values, one);
        }
        if (values.length != batch) {
            throw GatunException.invalid("%s: tensor '%s' has %d numbers, expected 1 or one for each of %d images",
                    file.path(), name, values.length, batch);
        }
        Tensor tensor = arena.allocate(DType.F32, batch);
        tensor.copyFrom(stream, values);
        return tensor;
    }

    private @Nullable Tensor labels(Labels kind) {
        String name = "class_labels";
        if (kind == Labels.NONE || !file.names().contains(name)) {
            return null;
        }
        if (kind != Labels.IDS) {
            return floats(kind == Labels.NUMBERS ? DType.F32 : dtype, name);
        }
        int[] ids = Arrays.stream(file.longs(name)).mapToInt(Math::toIntExact).toArray();
        Tensor tensor = arena.allocate(DType.I32, ids.length);
        tensor.copyFrom(stream, ids);
        return tensor;
    }

    private @Nullable Tensor floats(DType wanted, String name) {
        if (!file.names().contains(name)) {
            return null;
        }
        Tensor f32 = arena.allocate(DType.F32, file.info(name).shape());
        f32.copyFrom(stream, file.floats(name));
        if (wanted == DType.F32) {
            return f32;
        }
        Tensor tensor = arena.allocate(wanted, f32.shape());
        Elementwise.cast(stream, tensor, f32);
        return tensor;
    }
}
