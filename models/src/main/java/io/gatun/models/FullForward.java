package io.gatun.models;

import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/// A model's raw function: ids in, logits and the states between layers out, on the host. For parity checks, perplexity
/// and tests; generation does not go this way.
public final class FullForward {
    private FullForward() {}

    /// Runs one sequence without a past.
    ///
    /// @return `logits` [T, V], `hidden.0_embeddings`, `hidden.<i+1>_block<i>_out`, `hidden.final_norm` [T, C],
    /// row-major
    public static Map<String, float[]> run(Device device, Stream stream, CausalModel model, int[] ids) {
        ModelConfig config = model.config();
        if (ids.length == 0 || ids.length > config.contextLength()) {
            throw GatunException.invalid("%d ids, expected 1 to %d (the model's context)", ids.length,
                    config.contextLength());
        }
        Map<String, float[]> outputs = new LinkedHashMap<>();
        int n = ids.length;
        try (DeviceArena arena = device.newArena("forward"); KvCache cache = new KvCache(device, config,
                KvCache.pagesFor(n))) {
            model.reserve(stream, n);
            int[] places = new int[n];
            Arrays.setAll(places, i -> i);
            Batch batch = new Batch(upload(stream, arena, ids), upload(stream, arena, places),
                    upload(stream, arena, 0, n),
                    upload(stream, arena, cache.allocate(KvCache.pagesFor(n))).reshape(1, KvCache.pagesFor(n)), null, n,
                    false);
            try (Workspace workspace = device.newWorkspace(
                    Workspace.measure(device, w -> new ForwardPass(device, stream, w, model, batch, cache)))) {
                ForwardPass pass = new ForwardPass(device, stream, workspace, model, batch, cache);
                pass.run((index, state) -> outputs.put(nameOf(index, config.layers()), state.toFloats(stream)));
                Tensor logits = arena.allocate(DType.F32, n, config.vocabSize());
                model.head(stream, logits, pass.hidden());
                outputs.put("logits", logits.toFloats(stream));
            }
        }
        return outputs;
    }

    private static String nameOf(int index, int layers) {
        return index == 0 ? "hidden.0_embeddings"
                : index > layers ? "hidden.final_norm" : "hidden.%d_block%d_out".formatted(index, index - 1);
    }

    private static Tensor upload(Stream stream, DeviceArena arena, int... values) {
        Tensor tensor = arena.allocate(DType.I32, values.length);
        tensor.copyFrom(stream, values);
        return tensor;
    }
}
