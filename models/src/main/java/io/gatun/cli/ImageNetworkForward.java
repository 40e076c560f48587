package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetwork.Inputs;
import io.gatun.models.ImageNetwork.Labels;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.Layers;
import io.gatun.models.blocks.Border;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Denoising networks: `sample` [B, C, H, W], `timesteps` (or `timestep`) [B], [1] or a single number, and what the
/// network asks for of `encoder_hidden_states` [B, S, K], `class_labels` [B] or [B, n], `text_embeds` [B, P],
/// `time_ids` [B, n], `timestep_cond` [B, n], to `sample_out` [B, C', H, W].
final class ImageNetworkForward implements ForwardFamily {
    ImageNetworkForward() {}

    @Override
    public Map<String, TensorSource> run(Device device, Stream stream, Path model, @Nullable DType dtype,
            SafetensorsFile inputs) {
        try (ForwardRun run = new ForwardRun(device, stream, inputs);
                Component<ImageNetwork> loaded = ImageNetworkLoader.load(device, stream, model, dtype, count -> {})) {
            ImageNetwork network = loaded.network();
            DType computed = loaded.dtype();
            Tensor sample = run.floats(run.find(4, "sample"));
            Tensor times = timesteps(run, stream, sample.size(0));
            Tensor text = floats(run, "encoder_hidden_states");
            Tensor labels = labels(run, stream, network);
            Tensor pooled = floats(run, "text_embeds");
            Tensor sizes = floats(run, "time_ids");
            Tensor guidance = floats(run, "timestep_cond");
            Tensor result = run.result("sample_out", sample.size(0), network.outChannels(), sample.size(2),
                    sample.size(3));
            run.run(net -> {
                Tensor x = Border.channelsLast(net, sample, computed);                          // [B, H, W, C]
                Tensor y = net.allocate(computed, x.size(0), x.size(1), x.size(2), network.outChannels());
                boolean castsLabels = network.classLabels() == Labels.VECTORS;
                network.forward(net, y, new Inputs(x, times, null, cast(net, text, computed),
                        castsLabels ? cast(net, labels, computed) : labels, cast(net, pooled, computed), sizes,
                        cast(net, guidance, computed)));
                Border.channelsFirstInto(net, result, y);                                       // [B, C', H, W]
            });
            return run.results();
        }
    }

    /// One for each image. [B]
    private static Tensor timesteps(ForwardRun run, Stream stream, long batch) {
        String name = run.find("timesteps", "timestep");
        float[] values = run.values(name);
        if (values.length != 1 && values.length != batch) {
            throw run.wrong(name, "one number, or one for each of %d images".formatted(batch));
        }
        float[] each = Arrays.copyOf(values, Math.toIntExact(batch));
        if (values.length == 1) {
            Arrays.fill(each, values[0]);
        }
        Tensor tensor = run.arena().allocate(DType.F32, batch);
        tensor.copyFrom(stream, each);
        return tensor;
    }

    private static @Nullable Tensor labels(ForwardRun run, Stream stream, ImageNetwork network) {
        String name = "class_labels";
        if (network.classLabels() == Labels.NONE || !run.has(name)) {
            return null;
        }
        if (network.classLabels() != Labels.IDS) {
            return run.floats(name);
        }
        int[] ids = run.ids(name, Integer.MAX_VALUE);
        Tensor tensor = run.arena().allocate(DType.I32, ids.length);
        tensor.copyFrom(stream, ids);
        return tensor;
    }

    private static @Nullable Tensor floats(ForwardRun run, String name) {
        return run.has(name) ? run.floats(name) : null;
    }

    private static @Nullable Tensor cast(Layers net, @Nullable Tensor x, DType dtype) {
        return x == null ? null : net.cast(x, dtype);
    }
}
