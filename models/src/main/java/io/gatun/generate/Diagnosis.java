package io.gatun.generate;

import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.KvCache;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Sampling;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import java.util.Arrays;
import java.util.Map;

/// Finds out, after a fault, what was the first thing to go wrong: a weight that is not finite, else the first layer
/// whose output is not. Only runs when generation has failed already.
final class Diagnosis {
    private static final int MAX_TOKENS = 64;

    private final Device device;
    private final Stream stream;
    private final CausalModel model;

    Diagnosis(Device device, Stream stream, CausalModel model) {
        this.device = device;
        this.stream = stream;
        this.model = model;
    }

    /// The exception for a fault in a sequence with this prompt.
    GatunException explain(Sampling.Fault fault, int[] prompt) {
        String cause = fault == Sampling.Fault.NAN ? ": " + firstNonfinite(prompt) : "";
        return new GatunException(GatunException.Status.DEVICE_ERROR, "generation failed: " + fault + cause);
    }

    private String firstNonfinite(int[] prompt) {
        try (DeviceArena arena = device.newArena("diagnosis")) {
            Tensor count = arena.allocate(DType.I64, 1);
            for (Map.Entry<String, Tensor> weight : model.weights().entrySet()) {
                if (!weight.getValue().dtype().isFloat()) {
                    continue; // its scale says so
                }
                Elementwise.countNonfinite(stream, count, weight.getValue());
                long bad = count.toLongs(stream)[0];
                if (bad > 0) {
                    return "weight '%s' %s has %d values that are NaN or infinite".formatted(weight.getKey(),
                            weight.getValue(), bad);
                }
            }
            return "all weights are finite; " + firstLayer(arena, count, prompt);
        }
    }

    private String firstLayer(DeviceArena arena, Tensor count, int[] prompt) {
        int n = Math.min(MAX_TOKENS, prompt.length);
        String[] found = {"the layers are finite on the prompt: the overflow came later"};
        try (KvCache cache = new KvCache(device, model.config(), KvCache.pagesFor(n))) {
            int[] places = new int[n];
            Arrays.setAll(places, i -> i);
            Tensor ids = upload(arena, Arrays.copyOf(prompt, n));
            Batch batch = new Batch(ids, upload(arena, places), upload(arena, 0, n),
                    upload(arena, cache.allocate(KvCache.pagesFor(n))).reshape(1, KvCache.pagesFor(n)), null, n,
                    false);
            try (Workspace workspace = device.newWorkspace(
                    Workspace.measure(device, w -> new ForwardPass(device, stream, w, model, batch, cache)))) {
                new ForwardPass(device, stream, workspace, model, batch, cache).run(new ForwardPass.Observer() {
                    private boolean done;

                    @Override
                    public void layer(int index, Tensor state) {
                        Elementwise.countNonfinite(stream, count, state);
                        if (!done && count.toLongs(stream)[0] > 0) {
                            done = true;
                            found[0] = index == 0 ? "the embeddings are the first values that are not finite"
                                    : index > model.config().layers() ? "the final norm is the first whose"
                                            + " output is not finite"
                                    : "layer %d is the first whose output is not finite".formatted(index - 1);
                        }
                    }
                });
            }
        }
        return found[0];
    }

    private Tensor upload(DeviceArena arena, int... values) {
        Tensor tensor = arena.allocate(DType.I32, values.length);
        tensor.copyFrom(stream, values);
        return tensor;
    }
}
