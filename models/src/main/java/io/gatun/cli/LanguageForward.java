package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.FullForward;
import io.gatun.models.ModelConfig;
import io.gatun.models.ModelLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Language models: `ids` (or `input_ids`) [B, T] to `logits` [B, T, V] and `hidden.*` [B, T, C].
final class LanguageForward implements ForwardFamily {
    LanguageForward() {}

    @Override
    public Map<String, TensorSource> run(Device device, Stream stream, Path model, @Nullable DType dtype,
            SafetensorsFile inputs) {
        String name = inputs.names().contains("ids") ? "ids" : "input_ids";
        if (!inputs.names().contains(name)) {
            throw GatunException.invalid("%s has no tensor 'ids' or 'input_ids'; it has %s", inputs.path(),
                    inputs.names());
        }
        long[] shape = inputs.info(name).shape();
        long[] ids = inputs.longs(name);
        if (shape.length != 1 && shape.length != 2 || ids.length == 0) {
            throw GatunException.invalid("%s: ids have shape %s, expected [B, T]", inputs.path(),
                    Arrays.toString(shape));
        }
        int batch = shape.length == 1 ? 1 : (int) shape[0];
        int length = ids.length / batch;
        try (ModelLoader.Result loaded = ModelLoader.load(device, stream, model, dtype, n -> {})) {
            ModelConfig config = loaded.network().config();
            Map<String, float[]> all = new LinkedHashMap<>();
            for (int b = 0; b < batch; b++) {
                int[] row = toIds(ids, b * length, length, config.vocabSize());
                int at = b;
                FullForward.run(device, stream, loaded.network(), row).forEach((output, values) -> {
                    float[] joined = all.computeIfAbsent(output, n -> new float[Math.multiplyExact(values.length,
                            batch)]);
                    System.arraycopy(values, 0, joined, at * values.length, values.length);
                });
            }
            Map<String, TensorSource> tensors = new LinkedHashMap<>();
            all.forEach((output, data) -> tensors.put(output,
                    TensorSource.of(data, batch, length, data.length / ((long) batch * length))));
            return tensors;
        }
    }

    private static int[] toIds(long[] ids, int from, int length, int vocabSize) {
        int[] row = new int[length];
        for (int i = 0; i < length; i++) {
            long id = ids[from + i];
            if (id < 0 || id >= vocabSize) {
                throw GatunException.invalid("ids: id %d, expected 0 to %d (vocab_size %d)", id, vocabSize - 1,
                        vocabSize);
            }
            row[i] = (int) id;
        }
        return row;
    }
}
