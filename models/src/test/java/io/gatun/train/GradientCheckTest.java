package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.Activation;
import io.gatun.models.TestDevice;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import io.gatun.train.GradientCheck.Element;
import io.gatun.train.GradientCheck.Report;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Does the check pass what is right, kinks included, and name what is wrong?
@Tag("device")
class GradientCheckTest {
    private final Device device = Device.open(TestDevice.NAME);
    private Trainer trainer;
    private Tensor a;
    private Tensor b;
    private Tensor x;

    @BeforeEach
    void open() {
        trainer = newTrainer(DType.F32);
        a = trainer.parameters().get("a").value();
        b = trainer.parameters().get("b").value();
        x = trainer.input(DType.F32, 6, 5);
        x.copyFrom(trainer.stream(), normal(1, 30));
    }

    private Trainer newTrainer(DType dtype) {
        Trainer made = new Trainer(device, List.of(new Parameters.Shape("a", new long[] {7, 5}, true),
                new Parameters.Shape("b", new long[] {7}, false)), UpdateRule.Adam.decoupled(0), new float[] {0.1f},
                new Trainer.Options(dtype, 0, 1, 0, false, 0, 0));
        made.set(Map.of("a", normal(2, 35), "b", normal(3, 7)));
        return made;
    }

    @AfterEach
    void close() {
        trainer.close();
        device.close();
    }

    private static float[] normal(long seed, int count) {
        Random random = new Random(seed);
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return values;
    }

    /// `factor * x` with a gradient that may be another's.
    private Tensor scaled(TapedLayers net, Tensor of, float factor, float gradient) {
        Tensor y = net.allocate(DType.F32, of.shape());
        return net.differentiable(y, List.of(of), s -> Elementwise.scale(s, y, of, factor),
                (s, which, dx, dy) -> Elementwise.scale(s, dx, dy, gradient));
    }

    @Test
    void of_rightOnes() {
        for (Activation activation : new Activation[] {Activation.SILU, Activation.RELU, Activation.TANH}) {
            Report report = GradientCheck.of(trainer, net ->
                    scaled(net, net.activation(net.linear(x, a, b), activation), 3, 3));
            report.requireCorrect();
            assertEquals(8 + 7, report.elements().size());
            assertEquals(List.of(), report.withoutGradient());
        }
    }

    /// A loss is one f32. The parameters are left as they were.
    @Test
    void of_aLoss() {
        Tensor target = trainer.input(DType.F32, 6, 7);
        target.copyFrom(trainer.stream(), normal(4, 42));
        float[] before = a.toFloats(trainer.stream());
        GradientCheck.of(trainer, net -> net.meanSquaredError(net.layerNorm(net.linear(x, a, b), b, b, 1e-5f), target))
                .requireCorrect();
        assertArrayEquals(before, a.toFloats(trainer.stream()));
    }

    @Test
    void of_wrongOneIsNamed() {
        Report report = GradientCheck.of(trainer, net -> net.linear(x, a, scaled(net, b, 2, 1)));
        assertEquals(7, report.wrong().size());
        Element wrong = report.wrong().getFirst();
        assertEquals("b", wrong.parameter());
        assertEquals(wrong.expected(), wrong.found() * 2, Math.abs(wrong.found()) * 1e-3);
        String message = assertThrows(IllegalStateException.class, report::requireCorrect).getMessage();
        assertTrue(message.startsWith("7 of 15 gradients are wrong%n  b[".formatted()), message);
        assertTrue(message.contains("expected " + "%.6g".formatted(wrong.expected()) + ", found "
                + "%.6g".formatted(wrong.found())), message);
    }

    /// What is frozen by mistake: its differences are not 0.
    @Test
    void of_missingOneIsNamed() {
        Report report = GradientCheck.of(trainer, net -> net.linear(x, a, net.detached(b)));
        assertEquals(List.of("b"), report.withoutGradient());
        assertEquals(7, report.wrong().size());
        assertEquals(List.of(), GradientCheck.of(trainer, net -> net.linear(x, a, null)).wrong());
    }

    /// Also a gradient that is no number.
    @Test
    void of_nan() {
        Report report = GradientCheck.of(trainer, net -> net.linear(x, a, scaled(net, b, 2, Float.NaN)));
        assertEquals(7, report.wrong().size());
    }

    @Test
    void of_refuses() {
        String nothing = assertThrows(GatunException.class, () -> GradientCheck.of(trainer, net -> net.silu(x)))
                .getMessage();
        assertTrue(nothing.contains("no parameter goes into it"), nothing);
        try (Trainer low = newTrainer(DType.BF16)) {
            Tensor w = low.parameters().get("a").value();
            String message = assertThrows(GatunException.class, () -> GradientCheck.of(low, net -> net.silu(w)))
                    .getMessage();
            assertTrue(message.contains("in bf16, expected f32"), message);
        }
        assertThrows(GatunException.class, () -> new GradientCheck.Options(0, 1, 1, 0));
    }
}
