package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.Activation;
import io.gatun.models.TestDevice;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Tensor;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Are the gradients of a loss that is made of a gradient those that finite differences give?
@Tag("device")
class SecondOrderTest {
    /// A network whose gradient is trained.
    @FunctionalInterface
    private interface Network {
        Tensor forward(TapedLayers net, Map<String, Tensor> weights, Tensor x);
    }

    private static Parameters.Shape shape(String name, long... shape) {
        return new Parameters.Shape(name, shape, true);
    }

    @Test
    void gradient_ofConvolutionsGroupNormAndLeakyRelu() {
        check(List.of(shape("a", 4, 2, 3, 3), shape("scale", 6), shape("shift", 6), shape("b", 6, 4, 4, 4),
                shape("c", 1, 6, 2, 3)), new long[] {2, 7, 6, 2}, (net, w, x) -> {
                    Tensor h = net.leakyRelu(net.conv(x, w.get("a"), null, Geometry.same(3)), 0.2f);
                    h = net.conv(h, w.get("b"), null, Geometry.of(2, 1));                       // [2, 3, 3, 6]
                    h = net.groupNorm(h, w.get("scale"), w.get("shift"), 2, 1e-5f, ActivationKind.NONE);
                    return net.conv(net.leakyRelu(h, 0.2f), w.get("c"), null, Geometry.of(1, 0));
                });
    }

    @Test
    void gradient_ofTransposedConvolutionsAndSums() {
        check(List.of(shape("a", 2, 3, 4, 4), shape("b", 3, 3, 3, 3)), new long[] {2, 3, 4, 2}, (net, w, x) -> {
            Tensor h = net.convTranspose(x, w.get("a"), null, Transposed.of(2, 1), ActivationKind.NONE);
            Tensor sum = net.add(h, net.conv(h, w.get("b"), null, Geometry.same(3)));
            return net.activation(net.add(sum, sum), Activation.RELU);
        });
    }

    /// The value that the gradient is by is trained too.
    @Test
    void gradient_ofLinearLayersLayerNormAndRelu() {
        check(List.of(shape("first", 5, 5), shape("a", 7, 5), shape("bias", 7), shape("scale", 7), shape("shift", 7),
                shape("b", 7, 3)), new long[] {3, 2, 5}, (net, w, x) -> {
                    Tensor h = net.layerNorm(net.linear(x, w.get("a"), w.get("bias")), w.get("scale"), w.get("shift"),
                            1e-5f);
                    return net.linear(net.activation(h, Activation.RELU), w.get("b"), null, WeightLayout.IN_OUT);
                });
    }

    @Test
    void gradient_refusesOpsWithoutASecondDerivativeByName() {
        refuses("'SILU' has none", (net, w, x) -> net.silu(net.linear(x, w, null)));
        refuses("'rms norm' has none", (net, w, x) -> net.rmsNorm(net.linear(x, w, null), null, 1e-5f));
        refuses("'scale' in place has none", (net, w, x) -> net.scale(net.linear(x, w, null), 2));
        refuses("works on a part of a value", (net, w, x) -> net.copy(net.linear(x, w, null).slice(1, 0, 1)));
        refuses("nothing leads to it", (net, w, x) -> net.linear(net.linear(w, w, null), w, null));
    }

    /// One weight of 2 x 2, and x [2, 2].
    @FunctionalInterface
    private interface Small {
        Tensor forward(TapedLayers net, Tensor weight, Tensor x);
    }

    private static void refuses(String message, Small network) {
        try (Device device = Device.open(TestDevice.NAME);
                Trainer trainer = trainer(device, List.of(shape("w", 2, 2)))) {
            Tensor x = trainer.input(DType.F32, 2, 2);
            Tensor w = trainer.parameters().get("w").value();
            String found = assertThrows(IllegalStateException.class, () -> trainer.loss(net ->
                    net.meanSquaredError(net.gradient(x, v -> network.forward(net, w, v)), x))).getMessage();
            assertTrue(found.contains(message), found);
        }
    }

    private static Trainer trainer(Device device, List<Parameters.Shape> shapes) {
        return new Trainer(device, shapes, new UpdateRule.Sgd(0, false, 0), new float[1], Trainer.Options.defaults());
    }

    /// @param shapes of the parameters; `first`, if it is there, makes x
    private static void check(List<Parameters.Shape> shapes, long[] shape, Network network) {
        Random random = new Random(7);
        Map<String, float[]> values = new LinkedHashMap<>();
        try (Device device = Device.open(TestDevice.NAME); Trainer trainer = trainer(device, shapes)) {
            trainer.parameters().all().forEach(p -> values.put(p.name(), normal(random, (int) p.master().elements(),
                    p.name().equals("scale") ? 1 : 0)));
            trainer.set(values);
            Map<String, Tensor> weights = trainer.parameters().weights();
            Tensor input = trainer.input(DType.F32, shape);
            input.copyFrom(trainer.stream(), normal(random, (int) input.elements(), 0));
            Tensor first = weights.get("first");
            GradientCheck.Report report = GradientCheck.of(trainer, net -> {
                Tensor x = first == null ? input : net.linear(input, first, null);
                UnaryOperator<Tensor> f = v -> network.forward(net, weights, v);
                return net.gradient(x, f);
            });
            report.requireCorrect();
            assertTrue(List.of("shift", "bias").containsAll(report.withoutGradient()), report::toString);
        }
    }

    private static float[] normal(Random random, int count, float mean) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = mean + 0.5f * (float) random.nextGaussian();
        }
        return values;
    }
}
