package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.LossCases;
import io.gatun.ops.cases.LossCases.Part;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.EnumSet;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class LossTest {
    private static final DType[] FLOATS = {DType.F32, DType.BF16, DType.F16};
    private static final int[][] SHAPES = {{1}, {3}, {31}, {257}, {0}, {3, 5, 7}, {2, 33}, {2, 3, 1, 2, 33}};
    /// Without the smallest: the terms of a divergence cancel, and a few elements of the obvious computation may be
    /// right by luck.
    private static final int[][] DIVERGENCE_SHAPES = {{31}, {257}, {0}, {3, 5, 7}, {2, 33}, {2, 3, 1, 2, 33}};
    /// Work for two threads, and several chunks.
    private static final int[] LARGE = {5, 1999};
    private static final Set<Part> ALL = EnumSet.allOf(Part.class);

    @ParameterizedTest
    @EnumSource(LossKind.class)
    void loss_oddSizes(LossKind kind) {
        for (DType dtype : FLOATS) {
            for (int[] shape : SHAPES) {
                OpCheck.check(LossCases.loss(kind, dtype, DType.F32, ALL, shape));
                OpCheck.check(LossCases.loss(kind, dtype, dtype, EnumSet.of(Part.GRADIENT), shape));
            }
            OpCheck.check(LossCases.loss(kind, dtype, DType.F32, EnumSet.of(Part.WEIGHT), 3, 33));
            OpCheck.check(LossCases.loss(kind, dtype, dtype, Set.of(), 3, 33));
            for (String input : new String[] {"x", "target"}) {
                OpCheck.check(LossCases.loss(kind, dtype, dtype, ALL, 3, 33).with(input, Fill.normal(1).withSpecials(),
                        "specials in " + input));
            }
        }
        OpCheck.check(LossCases.loss(kind, DType.BF16, DType.F32, ALL, LARGE));
    }

    @Test
    void klGaussian_oddSizes() {
        for (DType dtype : FLOATS) {
            for (int[] shape : DIVERGENCE_SHAPES) {
                OpCheck.check(LossCases.klGaussian(dtype, ALL, shape));
            }
            OpCheck.check(LossCases.klGaussian(dtype, Set.of(), 3, 33));
            OpCheck.check(LossCases.klGaussian(dtype, ALL, 3, 33).with("logvar", Fill.normal(1).withSpecials(),
                    "specials"));
        }
        OpCheck.check(LossCases.klGaussian(DType.BF16, ALL, LARGE));
    }

    /// One label for a batch: a target whose strides are 0.
    @Test
    void loss_broadcastTarget() {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("loss")) {
            Tensor x = arena.allocate(DType.F32, 2, 2);
            Tensor label = arena.allocate(DType.F32, 1);
            Tensor loss = arena.allocate(DType.F32, 1);
            Tensor workspace = arena.allocate(DType.U8, Loss.lossWorkspaceBytes(stream, x));
            x.copyFrom(stream, 1f, 2, 3, 4);
            label.copyFrom(stream, 2f);
            Loss.loss(stream, LossKind.MSE, loss, x, x, label.strided(new long[] {2, 2}, new long[] {0, 0}), null,
                    0.25f, null, workspace);
            assertArrayEquals(new float[] {1.5f}, loss.toFloats(stream));
            assertArrayEquals(new float[] {-0.5f, 0, 0.5f, 1}, x.toFloats(stream));
        }
    }

    @Test
    void loss_sameBitsThirtyTimes() {
        OpCase opCase = LossCases.loss(LossKind.BCE_WITH_LOGITS, DType.F32, DType.F32, ALL, LARGE);
        HostValues in = opCase.values(3);
        float first = OpCheck.run(opCase, in).floats("loss")[0];
        for (int i = 1; i < 30; i++) {
            assertEquals(first, OpCheck.run(opCase, in).floats("loss")[0], "run " + i);
        }
    }

    @Test
    void loss_badArguments() {
        BadArguments.check(LossCases.loss(LossKind.MSE, DType.BF16, DType.BF16, ALL, 3, 5));
        BadArguments.check(LossCases.klGaussian(DType.BF16, ALL, 3, 5));
    }
}
