package io.gatun.bench;

import io.gatun.models.ModelLoader;
import io.gatun.models.Quantization;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// What is the least that a model's prefill and decode must do? The matrix products of all layers, run one after the
/// other without anything in between, and the bytes of weights that a token needs.
final class ModelCeiling implements AutoCloseable {
    private final Device device;
    private final Stream stream;
    private final DeviceArena arena;
    private final ModelLoader.Result model;
    private final List<Product> products = new ArrayList<>();
    private final long weightBytes;
    /// Of the products on a GPU, where starting them one by one could take longer than they do.
    private final @Nullable Graph graph;
    private double flops;

    /// `y = x weight`
    ///
    /// @param scales of the rows of x and of the outputs, where both matrices are e4m3; null where they are not
    private record Product(Tensor y, Tensor x, Tensor weight, WeightLayout layout, @Nullable Scales scales) {}

    private record Scales(Tensor x, Tensor weight) {}

    /// @param rows of the prompt
    ModelCeiling(Path directory, DType dtype, Quantization quantization, Setup setup, int rows) {
        device = setup.open();
        stream = device.newStream();
        arena = device.newArena("matrix products");
        model = ModelLoader.load(device, stream, directory, dtype, quantization, count -> {});
        // GPT-2 stores its matrices [in, out], every other family [out, in].
        WeightLayout layout = model.network().config().family().equals("gpt2") ? WeightLayout.IN_OUT
                : WeightLayout.OUT_IN;
        Map<String, Tensor> weights = model.network().weights();
        boolean tied = !weights.containsKey("lm_head.weight");
        long bytes = 0;
        for (Map.Entry<String, Tensor> entry : weights.entrySet()) {
            Kind kind = kind(entry.getKey());
            Tensor weight = entry.getValue();
            if (kind == Kind.MATRIX && weight.rank() == 2) {
                add(weight, weights.get(entry.getKey() + "_scale"), dtype, layout, rows);
            }
            boolean read = kind == Kind.EMBEDDING ? tied : kind != Kind.POSITIONS;
            bytes += read ? weight.elements() * weight.dtype().bytes() : 0;
        }
        weightBytes = bytes;
        if (setup.isCpu()) {
            graph = null;
        } else {
            multiply(); // what is loaded or chosen by the first calls must not be captured
            stream.synchronize();
            graph = device.capture(stream, this::multiply);
        }
    }

    /// What a token needs of a weight: of positions one row, of an embedding one row or, where it is the head too, all.
    private enum Kind { MATRIX, HEAD, EMBEDDING, POSITIONS }

    private static Kind kind(String name) {
        return name.endsWith("wpe.weight") ? Kind.POSITIONS
                : name.endsWith("wte.weight") || name.endsWith("embed_tokens.weight") ? Kind.EMBEDDING
                : name.endsWith("lm_head.weight") ? Kind.HEAD : Kind.MATRIX;
    }

    /// @param scale of a weight in e4m3, else null
    private void add(Tensor weight, @Nullable Tensor scale, DType dtype, WeightLayout layout, int rows) {
        long in = weight.size(layout == WeightLayout.IN_OUT ? 0 : 1);
        long out = weight.size(layout == WeightLayout.IN_OUT ? 1 : 0);
        Tensor x = products.stream().map(Product::x).filter(t -> t.size(1) == in).findFirst()
                .orElseGet(() -> random(weight.dtype(), rows, in));
        Tensor y = products.stream().map(Product::y).filter(t -> t.size(1) == out).findFirst()
                .orElseGet(() -> arena.allocate(dtype, rows, out));
        products.add(scale == null ? new Product(y, x, weight, layout, null)
                : new Product(y, x, layout == WeightLayout.OUT_IN ? weight : weight.permute(1, 0), WeightLayout.OUT_IN,
                        new Scales(ones(rows), scale)));
        flops += 2.0 * rows * in * out;
    }

    private Tensor ones(int rows) {
        float[] values = new float[rows];
        Arrays.fill(values, 1);
        Tensor tensor = arena.allocate(DType.F32, rows);
        tensor.copyFrom(stream, values);
        return tensor;
    }

    private Tensor random(DType dtype, long rows, long columns) {
        Tensor tensor = arena.allocate(dtype, rows, columns);
        tensor.copyFrom(stream, RandomFloats.normal(Math.toIntExact(rows * columns), 1));
        return tensor;
    }

    /// Of the products of all layers for the prompt.
    double flops() {
        return flops;
    }

    /// Bytes of weights that one token needs.
    long weightBytes() {
        return weightBytes;
    }

    /// Of the products of all layers.
    double matmulNanos() {
        if (graph != null) {
            return QueuedTime.nanos(stream, 1, graph::launch);
        }
        long start = System.nanoTime();
        multiply();
        stream.synchronize();
        return System.nanoTime() - start;
    }

    private void multiply() {
        for (Product p : products) {
            if (p.scales == null) {
                device.matmul(stream, p.y, p.x, p.weight, null, p.layout);
            } else {
                device.matmulFp8(stream, p.y, p.x, p.scales.x, p.weight, p.scales.weight, null);
            }
        }
    }

    @Override
    public void close() {
        try (device; model; arena; stream) {
            if (graph != null) {
                graph.close();
            }
        }
    }
}
