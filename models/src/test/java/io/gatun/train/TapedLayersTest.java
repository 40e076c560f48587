package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.Activation;
import io.gatun.models.TestDevice;
import io.gatun.ops.Elementwise;
import io.gatun.ops.LossKind;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.BiFunction;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// What the tape does with views, with ops of a caller's own, and with what has no gradient.
@Tag("device")
class TapedLayersTest {
    private static final float[] VALUES = {1, -2, 3, 0.5f, -1, 4};

    /// `sum(3 w)` by an op that the layers do not know.
    @Test
    void differentiable_ownOp() {
        assertArrayEquals(new float[] {3, 3, 3, 3, 3, 3}, gradient((net, w) -> {
            Tensor y = net.allocate(DType.F32, w.shape());
            net.differentiable(y, List.of(w), s -> Elementwise.scale(s, y, w, 3),
                    (s, which, dx, dy) -> Elementwise.scale(s, dx, dy, 3));
            return sum(net, y);
        }));
    }

    /// A slice that is used twice, beside elements that are not used: [2, 3], the middle column.
    @Test
    void slice_usedTwice() {
        assertArrayEquals(new float[] {0, 3, 0, 0, 3, 0}, gradient((net, w) -> {
            Tensor column = w.slice(1, 1, 2);
            Tensor twice = net.add(column, column);
            return sum(net, net.add(twice, net.copy(column)));
        }));
    }

    /// Of a whole and of a part of it, in either order.
    @Test
    void slice_besideWhole() {
        float[] expected = {1, 1, 1, 2, 2, 2};
        assertArrayEquals(expected, gradient((net, w) -> {
            Tensor whole = net.copy(w);
            Tensor part = sum(net, net.copy(whole.slice(0, 1, 2)));
            return net.add(part, sum(net, net.copy(whole)));
        }));
        assertArrayEquals(expected, gradient((net, w) -> {
            Tensor whole = net.copy(w);
            Tensor all = sum(net, net.copy(whole));
            return net.add(all, sum(net, net.copy(whole.slice(0, 1, 2))));
        }));
    }

    /// Two transposed slices that have the middle column in common.
    @Test
    void slice_transposedOverlaps() {
        assertArrayEquals(new float[] {1, 2, 1, 1, 2, 1}, gradient((net, w) -> {
            Tensor columns = net.copy(w).permute(1, 0);
            Tensor first = sum(net, net.copy(columns.slice(0, 0, 2)));
            return net.add(first, sum(net, net.copy(columns.slice(0, 1, 3))));
        }));
    }

    /// Two transposed slices side by side, which cover everything.
    @Test
    void slice_transposedBeside() {
        assertArrayEquals(new float[] {2, 1, 1, 2, 1, 1}, gradient((net, w) -> {
            Tensor columns = net.copy(w).permute(1, 0);
            Tensor first = net.copy(columns.slice(0, 0, 1));
            Tensor twice = sum(net, net.add(first, first));
            return net.add(twice, sum(net, net.copy(columns.slice(0, 1, 3))));
        }));
    }

    /// Rows of logits begin at multiples of 16 bytes; gradients are those of rows side by side. A tied weight, V = 2.
    @Test
    void logits_rowsAreAligned() {
        float[] apart = gradient((net, w) -> {
            Tensor logits = net.logits(net.copy(w), w);
            assertEquals("f32[2, 2]", logits.dtype() + Arrays.toString(logits.shape()));
            assertEquals(4, logits.stride(0));
            return net.crossEntropy(logits, ones(net), 0);
        });
        assertArrayEquals(gradient((net, w) -> net.crossEntropy(net.linear(net.copy(w), w, null), ones(net), 0)),
                apart);
        assertTrue(apart[0] != 0);
    }

    private static Tensor ones(TapedLayers net) {
        Tensor targets = net.allocate(DType.I32, 2);
        net.op(s -> Elementwise.fill(s, targets, 1), targets);
        return targets;
    }

    @Test
    void view_thatRepeatsIsRefused() {
        IllegalStateException e = assertThrows(IllegalStateException.class, () -> gradient((net, w) ->
                sum(net, net.copy(w.slice(0, 0, 1).strided(new long[] {4, 3}, new long[] {0, 1})))));
        assertEquals("copy: no gradient of a view that repeats elements: f32[4, 3]", e.getMessage());
    }

    @Test
    void op_withoutGradientIsRefused() {
        IllegalStateException e = assertThrows(IllegalStateException.class, () -> gradient((net, w) -> {
            net.op(s -> Elementwise.scale(s, w, w, 2), w);
            return sum(net, w);
        }));
        assertEquals("an op without a gradient reads or writes a trained value: [f32[2, 3]]", e.getMessage());
    }

    @Test
    void loss_canOnlyBeAdded() {
        IllegalStateException e = assertThrows(IllegalStateException.class,
                () -> gradient((net, w) -> net.scale(sum(net, w), 0.5f)));
        assertEquals("a loss can only be added to others: give it its factor when it is made", e.getMessage());
    }

    @Test
    void value_changedInPlaceIsRefused() {
        IllegalStateException e = assertThrows(IllegalStateException.class, () -> gradient((net, w) -> {
            Tensor x = net.copy(w);
            Tensor y = net.leakyRelu(x, 0.2f);
            net.scale(x, 2);
            return sum(net, y);
        }));
        assertEquals("leaky relu: a value that its gradient needs was changed in place afterwards", e.getMessage());
    }

    /// Also the result, of which a gradient is made.
    @Test
    void result_changedInPlaceIsRefused() {
        IllegalStateException e = assertThrows(IllegalStateException.class, () -> gradient((net, w) ->
                sum(net, net.scale(net.activation(w, Activation.TANH), 2))));
        assertEquals("TANH: a value that its gradient needs was changed in place afterwards", e.getMessage());
    }

    /// An op's own gradient may read the result, whose memory nothing else takes before.
    @Test
    void differentiable_gradientReadsTheResult() {
        float[] found = gradient((net, w) -> {
            Tensor y = net.allocate(DType.F32, w.shape());
            net.differentiable(y, List.of(w), s -> Elementwise.tanh(s, y, w),
                    (s, which, dx, dy) -> Elementwise.tanhBackward(s, dx, dy, y));
            return sum(net, net.copy(net.copy(net.copy(y))));
        });
        for (int i = 0; i < VALUES.length; i++) {
            assertEquals(1 - Math.pow(Math.tanh(VALUES[i]), 2), found[i], 1e-6, "element " + i);
        }
    }

    private static Tensor sum(TapedLayers net, Tensor x) {
        Tensor one = net.allocate(DType.F32, 1);
        net.op(s -> Elementwise.fill(s, one, 1), one);
        return net.loss(LossKind.LINEAR, x, one.strided(x.shape(), new long[x.rank()]), null, 1);
    }

    /// The gradient by w [2, 3].
    private static float[] gradient(BiFunction<TapedLayers, Tensor, Tensor> loss) {
        try (Device device = Device.open(TestDevice.NAME);
                Trainer trainer = new Trainer(device, List.of(new Parameters.Shape("w", new long[] {2, 3}, true)),
                        new UpdateRule.Sgd(0, false, 0), new float[] {0}, Trainer.Options.defaults())) {
            trainer.set(Map.of("w", VALUES));
            Parameters.Parameter w = trainer.parameters().get("w");
            trainer.loss(net -> loss.apply(net, w.value()));
            trainer.step();
            trainer.step();
            return w.gradient().toFloats(trainer.stream());
        }
    }
}
