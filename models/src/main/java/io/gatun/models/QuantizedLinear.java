package io.gatun.models;

import io.gatun.ops.Fp8;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Linear layers whose weights are e4m3 ([Quantization#FP8]).
final class QuantizedLinear {
    private final Layers net;
    private final Map<Tensor, Tensor> scales;
    private @Nullable Rows shared;

    /// Rows in e4m3.
    ///
    /// @param of     what they were
    /// @param values [N, C]
    /// @param scale  [N] f32
    private record Rows(Tensor of, Tensor values, Tensor scale) {}

    /// @param scales [F] f32 of each weight
    QuantizedLinear(Layers net, Map<Tensor, Tensor> scales) {
        this.net = net;
        this.scales = scales;
    }

    static boolean takes(Tensor weight) {
        return weight.dtype() == DType.F8_E4M3;
    }

    /// As the ops want it. [F, C]
    static Tensor matrix(Tensor weight, WeightLayout layout) {
        return layout == WeightLayout.OUT_IN ? weight : weight.permute(1, 0);
    }

    /// Null where the weight is not e4m3.
    @Nullable Tensor scaleOf(Tensor weight) {
        if (!takes(weight)) {
            return null;
        }
        Tensor scale = scales.get(weight);
        if (scale == null) {
            throw GatunException.invalid("%s has no scale, expected one of those that the layers were told", weight);
        }
        return scale;
    }

    /// Quantises x once for the layers that come next.
    void share(Tensor x) {
        shared = quantize(x);
    }

    /// `y = x weight + bias`: of few rows 16-bit x, of many x in e4m3.
    void into(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout, boolean fewRows) {
        Tensor matrix = matrix(weight, layout);
        Tensor scale = scaleOf(weight);
        Tensor out = Layers.rows(y);
        if (fewRows) {
            Tensor in = Layers.rows(x);
            net.record(() -> Fp8.linear(net.stream(), out, in, null, matrix, scale, bias), y, x, weight, bias);
        } else {
            Rows in = shared != null && shared.of == x ? shared : quantize(x);
            net.record(() -> net.device().matmulFp8(net.stream(), out, in.values, in.scale, matrix, scale, bias), y,
                    in.values, in.scale, weight, bias);
        }
    }

    private Rows quantize(Tensor x) {
        Tensor in = Layers.rows(x);
        Rows q = new Rows(x, net.allocate(DType.F8_E4M3, in.shape()), net.allocate(DType.F32, in.size(0)));
        net.record(() -> Fp8.quantizeRows(net.stream(), q.values, q.scale, in), q.values, q.scale, x);
        return q;
    }
}
