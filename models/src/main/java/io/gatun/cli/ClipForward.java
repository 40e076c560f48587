package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.ComponentLoader;
import io.gatun.models.clip.ClipText;
import io.gatun.models.clip.ClipTextConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// CLIP's text encoder: `ids` (or `input_ids`) [B, T] to `embeddings`, `hidden_penultimate`, `last_hidden_state`
/// [B, T, C], `pooler_output` [B, C] and, with a projection, `text_embeds` [B, P].
final class ClipForward implements ForwardFamily {
    ClipForward() {}

    @Override
    public Map<String, TensorSource> run(Device device, Stream stream, Path model, @Nullable DType dtype,
            SafetensorsFile inputs) {
        try (ForwardRun run = new ForwardRun(device, stream, inputs); ComponentLoader.Component<ClipText> loaded =
                ComponentLoader.load(device, stream, model, dtype, ClipText.FAMILY, n -> {})) {
            ClipText clip = loaded.network();
            ClipTextConfig config = clip.config();
            String name = run.find(2, "ids", "input_ids");
            int batch = Math.toIntExact(run.shape(name)[0]);
            int length = Math.toIntExact(run.shape(name)[1]);
            int[] flat = run.ids(name, config.vocabSize());
            int[][] rows = new int[batch][];
            Arrays.setAll(rows, b -> Arrays.copyOfRange(flat, b * length, (b + 1) * length));
            ClipText.Texts texts = clip.upload(stream, run.arena(), rows);
            Tensor embeddings = run.result("embeddings", batch, length, config.hiddenSize());
            Tensor penultimate = run.result("hidden_penultimate", batch, length, config.hiddenSize());
            Tensor last = run.result("last_hidden_state", batch, length, config.hiddenSize());
            Tensor pooled = run.result("pooler_output", batch, config.hiddenSize());
            Tensor projected = clip.isProjected() ? run.result("text_embeds", batch, config.projectionDim()) : null;
            run.run(net -> {
                ClipText.States states = clip.forward(net, texts);
                net.castInto(embeddings, states.hidden().getFirst());
                net.castInto(penultimate, states.hidden().get(config.layers() - 1));
                net.castInto(last, states.last());
                net.castInto(pooled, states.pooled());
                if (projected != null && states.projected() != null) {
                    net.castInto(projected, states.projected());
                }
            });
            return run.results();
        }
    }
}
