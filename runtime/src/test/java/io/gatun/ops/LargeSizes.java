package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertNull;

import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Rope.Pairing;
import io.gatun.ops.cases.AttentionBackwardCases;
import io.gatun.ops.cases.AttentionCases;
import io.gatun.ops.cases.AttentionCases.Dims;
import io.gatun.ops.cases.AttentionCases.Part;
import io.gatun.ops.cases.ConvolutionCases;
import io.gatun.ops.cases.ConvolutionCases.Sizes;
import io.gatun.ops.cases.ConvolutionCases.Via;
import io.gatun.ops.cases.DiffusionCases;
import io.gatun.ops.cases.ElementwiseBackwardCases;
import io.gatun.ops.cases.ElementwiseCases;
import io.gatun.ops.cases.ElementwiseCases.Binary;
import io.gatun.ops.cases.ElementwiseCases.Ternary;
import io.gatun.ops.cases.ElementwiseCases.Unary;
import io.gatun.ops.cases.EmbeddingCases;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.ImageCases;
import io.gatun.ops.cases.Layout;
import io.gatun.ops.cases.LinearCases;
import io.gatun.ops.cases.LossCases;
import io.gatun.ops.cases.NoiseCases;
import io.gatun.ops.cases.NormBackwardCases;
import io.gatun.ops.cases.NormBackwardImageCases;
import io.gatun.ops.cases.NormCases;
import io.gatun.ops.cases.NormCases.Channels;
import io.gatun.ops.cases.NormCases.Groups;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.OptimizerCases;
import io.gatun.ops.cases.PagedCases;
import io.gatun.ops.cases.PagedCases.Batch;
import io.gatun.ops.cases.PagedCases.Sequence;
import io.gatun.ops.cases.Placement;
import io.gatun.ops.cases.QuantiseCases;
import io.gatun.ops.cases.ReduceCases;
import io.gatun.ops.cases.RopeCases;
import io.gatun.ops.cases.Rounding;
import io.gatun.ops.cases.SamplingCases;
import io.gatun.ops.cases.SamplingCases.Params;
import io.gatun.ops.cases.SoftmaxCases;
import io.gatun.ops.cases.SoftmaxCases.Loss;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Does every op give what its oracle says at sizes that fill a GPU, and odd ones at that? Minutes of oracle, so the
/// name keeps this out of the build: bench's GPU suite runs it, several tests at a time.
/// `-Dgatun.test.limit` bounds the dimensions, to try the tests themselves.
@Tag("gpu")
@Execution(ExecutionMode.CONCURRENT)
class LargeSizes {
    private static final long SEED = 11;
    private static final int LIMIT = Integer.getInteger("gatun.test.limit", Integer.MAX_VALUE);

    private static int size(int large) {
        return Math.min(large, LIMIT);
    }

    /// Contiguous and as scattered as the op allows; in each a second run with equal bits.
    private static void check(OpCase opCase) {
        HostValues in = opCase.values(SEED);
        Map<String, double[]> oracle = opCase.expected(in, Rounding.EXACT);
        Map<String, double[]> naive = opCase.expected(in, Rounding.AS_DTYPE);
        for (Layout layout : new Layout[] {Layout.CONTIGUOUS, Layout.STRIDED}) {
            String where = "%s on %s, %s, seed %d: ".formatted(opCase, TestDevice.name(), layout, SEED);
            HostValues first = run(opCase, in, layout, where);
            HostValues second = run(opCase, in, layout, where);
            for (Operand operand : opCase.operands()) {
                if (operand.isWritten()) {
                    assertNull(opCase.accuracy().violation(operand, oracle.get(operand.name()),
                            naive.get(operand.name()), first.array(operand.name())), where);
                    OpCheck.assertSameBits(where + "first against second run: ", operand, first, second);
                }
            }
        }
    }

    private static HostValues run(OpCase opCase, HostValues in, Layout layout, String where) {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("LargeSizes")) {
            Placement placement = new Placement(opCase, arena, stream, layout, in, null);
            placement.run();
            Placement.Contents contents = placement.read();
            assertNull(contents.strayWrite(), where);
            return contents.values();
        }
    }

    @ParameterizedTest
    @EnumSource(Unary.class)
    void unary_large(Unary f) {
        check(ElementwiseCases.unary(f, DType.F32, size(1031), size(2053)));
        check(ElementwiseCases.unary(f, DType.BF16, size(1031), size(2053)));
    }

    @ParameterizedTest
    @EnumSource(Binary.class)
    void binary_large(Binary f) {
        check(ElementwiseCases.binary(f, DType.F32, size(1031), size(2053)));
        check(ElementwiseCases.binary(f, DType.F16, size(1031), size(2053)));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void gradients_large(DType dtype) {
        int[] shape = {size(1031), size(2053)};
        check(ElementwiseBackwardCases.unary(ElementwiseBackwardCases.Unary.GELU_TANH, dtype, shape));
        check(ElementwiseBackwardCases.gated(ElementwiseBackwardCases.Gated.SWIGLU, dtype, shape));
        check(ElementwiseBackwardCases.dropout(dtype, 0.3f, 5, shape));
        check(ReduceCases.sumRows(dtype, DType.F32, 3, size(4099), size(2053), false));
        check(ReduceCases.sumRows(dtype, DType.F32, 1, size(200_003), 3, true));
        check(ReduceCases.sum(dtype, size(5_000_011)));
        for (LossKind kind : LossKind.values()) {
            check(LossCases.loss(kind, dtype, DType.F32, EnumSet.allOf(LossCases.Part.class), shape));
        }
        check(LossCases.klGaussian(dtype, EnumSet.of(LossCases.Part.GRADIENT), shape));
    }

    @Test
    void optimizer_large() {
        int n = size(5_000_011);
        check(OptimizerCases.adamw(DType.BF16, n, EnumSet.allOf(OptimizerCases.Part.class)));
        check(OptimizerCases.sgd(DType.F16, n, EnumSet.allOf(OptimizerCases.Part.class)));
        check(OptimizerCases.rmsprop(DType.BF16, n, EnumSet.allOf(OptimizerCases.Part.class)));
        check(OptimizerCases.gradientNorm(n, true));
        check(OptimizerCases.ema(DType.BF16, n, 0.999, 100));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void copies_large(DType dtype) {
        int[] shape = {size(4099), size(2049)};
        check(ElementwiseCases.copy(dtype, shape));
        check(ElementwiseCases.fill(dtype, -3.5, shape));
        check(ElementwiseCases.cast(dtype, dtype == DType.F32 ? DType.BF16 : DType.F32, shape));
        check(ElementwiseCases.countNonfinite(dtype, shape));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void norm_large(DType dtype) {
        Set<NormCases.Part> parts = EnumSet.complementOf(EnumSet.of(NormCases.Part.F32_PARAMETERS));
        for (int[] shape : new int[][] {{4099, 769}, {257, 16387}, {33, 100_003}}) {
            check(NormCases.layerNorm(dtype, size(shape[0]), size(shape[1]), parts));
            check(NormCases.rmsNorm(dtype, size(shape[0]), size(shape[1]), parts));
            check(NormBackwardCases.layerNorm(dtype, size(shape[0]), size(shape[1]), parts));
            check(NormBackwardCases.rmsNorm(dtype, size(shape[0]), size(shape[1]), parts));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void imageNorm_large(DType dtype) {
        Set<NormCases.Part> parts = EnumSet.of(NormCases.Part.WEIGHT, NormCases.Part.BIAS);
        check(NormCases.groupNorm(dtype, new Groups(Channels.LAST, 3, size(127 * 129), 96, 32), 1e-5f,
                ActivationKind.SILU, parts));
        check(NormCases.groupNorm(dtype, new Groups(Channels.LAST, 2, size(65 * 63), 640, 32), 1e-6f,
                ActivationKind.NONE, parts));
        check(NormCases.batchNorm(dtype, Channels.LAST, 3, size(127 * 129), 67, ActivationKind.RELU, parts));
        check(NormCases.batchNormTrain(dtype, Channels.LAST, 3, size(63 * 65), 67, ActivationKind.RELU, parts));
        Groups groups = new Groups(Channels.LAST, 3, size(63 * 65), 96, 32);
        check(NormBackwardImageCases.groupNorm(dtype, groups, ActivationKind.SILU, parts));
        check(NormBackwardImageCases.groupNormDouble(dtype, groups, EnumSet.of(NormCases.Part.WEIGHT)));
        check(NormBackwardImageCases.batchNorm(dtype, Channels.FIRST, 3, size(63 * 65), 67, ActivationKind.RELU,
                parts));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void convolution_large(DType dtype) {
        for (Via via : Via.values()) {
            check(ConvolutionCases.conv2d(dtype, dtype, Sizes.of(2, size(33), size(31), size(67), size(131), 3),
                    Geometry.same(3), ActivationKind.SILU, via));
            check(ConvolutionCases.conv2d(dtype, DType.F32, Sizes.of(1, size(65), size(63), size(128), size(64), 3),
                    Geometry.of(2, 1), ActivationKind.NONE, via));
            check(ConvolutionCases.convTranspose2d(dtype, dtype, Sizes.of(2, size(17), size(19), size(129), size(65),
                    4), Transposed.of(2, 1), ActivationKind.NONE, via));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void image_large(DType dtype) {
        int h = size(127);
        int w = size(255);
        check(ImageCases.upsampleNearest(dtype, 2, h, w, 67, 2 * h, 2 * w));
        check(ImageCases.averagePool(dtype, 2, h, w, 67, 2));
        check(ImageCases.rgb8(dtype, 3, 4 * h, 4 * w, 3, 0.5f, 0.5f));
        check(QuantiseCases.nearestCode(dtype, size(4099), size(1025), 17));
    }

    @ParameterizedTest
    @EnumSource(Ternary.class)
    void ternary_large(Ternary f) {
        check(ElementwiseCases.ternary(f, DType.F32, size(1031), size(2053)));
        check(ElementwiseCases.ternary(f, DType.BF16, size(1031), size(2053)));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void diffusion_large(DType dtype) {
        int h = size(129);
        int w = size(127);
        Set<DiffusionCases.Part> parts = EnumSet.of(DiffusionCases.Part.GUIDANCE, DiffusionCases.Part.STATISTICS,
                DiffusionCases.Part.CLIP, DiffusionCases.Part.DRAWN_NOISE, DiffusionCases.Part.INPUT);
        check(DiffusionCases.step(dtype, 5, h, w, 4, 3, 1, parts));
        check(DiffusionCases.statistics(dtype, 5, h, w, 4, true, 0.995f));
        check(NoiseCases.normal(dtype, 5, h, w, 4));
        check(NoiseCases.addNoise(dtype, 5, h, w, 4, true));
        check(NoiseCases.addNoise(dtype, 5, h, w, 4, false));
        check(NoiseCases.velocity(dtype, 5, h, w, 4));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void softmax_large(DType dtype) {
        check(SoftmaxCases.softmax(dtype, DType.F32, size(67), size(50_257)));
        check(SoftmaxCases.logSoftmax(dtype, dtype, size(9), size(128_257)));
        check(SoftmaxCases.softmax(dtype, dtype, size(8193), size(129)));
        check(SoftmaxCases.crossEntropy(dtype, size(67), size(128_257), Loss.TRAINING));
        check(SoftmaxCases.crossEntropy(dtype, size(16_411), size(65), Loss.TRAINING));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void embedding_large(DType dtype) {
        check(EmbeddingCases.embedding(dtype, DType.I32, size(4099), size(1025), size(16_001), size(2049)));
        check(EmbeddingCases.embeddingBackward(dtype, DType.I32, size(8_209), size(769), size(5003)));
        check(EmbeddingCases.embeddingBackward(dtype, DType.I64, size(16_411), size(384), 65));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void rope_large(DType dtype) {
        int[] positions = IntStream.range(0, size(2049)).toArray();
        for (Pairing pairing : Pairing.values()) {
            check(RopeCases.rope(dtype, 33, 128, 128, pairing, positions.length, positions));
            check(RopeCases.ropeBackward(dtype, 33, 128, 128, pairing, positions.length, positions));
        }
        check(RopeCases.table(size(16_385), 64, 100_000, 1));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void linear_large(DType dtype) {
        for (WeightLayout layout : WeightLayout.values()) {
            check(LinearCases.linear(dtype, dtype, dtype, layout, 1, size(4097), size(14_339)));
            check(LinearCases.linear(dtype, DType.F32, DType.F32, layout, 9, size(14_339), size(4097)));
        }
    }

    /// Through the device's library, which the case of the linear op does not take.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void matmul_large(DType dtype) {
        for (WeightLayout layout : WeightLayout.values()) {
            OpCase c = LinearCases.linear(dtype, dtype, dtype, layout, size(127), size(2049), size(4099));
            check(new OpCase("matmul", c.dtype(), c.sizes(), c.operands(), c.aliases(), (s, t) -> s.device().matmul(s,
                    t.get("y"), t.get("x"), t.get("weight"), t.get("bias"), layout), c.workspace(), c.reference(),
                    c.accuracy(), c.flops()));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void attention_large(DType dtype) {
        check(AttentionCases.dense(dtype, new Dims(1, size(2049), size(2049), 4, 1, 128), Mask.CAUSAL,
                EnumSet.of(Part.LSE)));
        check(AttentionCases.dense(dtype, new Dims(3, size(513), size(1025), 6, 2, 80), Mask.NONE,
                EnumSet.of(Part.LSE, Part.SHARED_BIAS, Part.KEY_LENGTHS)));
        check(AttentionCases.dense(dtype, new Dims(2, size(1023), size(1023), 3, 3, 64), Mask.CAUSAL, Set.of()));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void attentionBackward_large(DType dtype) {
        check(AttentionBackwardCases.afterForward(dtype, new Dims(1, size(1025), size(1025), 4, 1, 128), Mask.CAUSAL,
                Set.of()));
        check(AttentionBackwardCases.afterForward(dtype, new Dims(3, size(257), size(513), 6, 2, 80), Mask.NONE,
                EnumSet.of(Part.SHARED_BIAS, Part.KEY_LENGTHS)));
        check(AttentionBackwardCases.afterForward(dtype, new Dims(2, size(1023), size(1023), 3, 3, 64), Mask.CAUSAL,
                Set.of()));
        check(AttentionBackwardCases.afterForward(dtype, new Dims(3, size(200), size(601), 4, 2, 128), Mask.CAUSAL,
                EnumSet.of(Part.KEY_LENGTHS)));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void attentionPaged_large(DType dtype) {
        Batch mixed = Batch.of(Sequence.of(size(8191), 1), Sequence.of(size(4097), size(33)), Sequence.of(0,
                size(1025)),
                new Sequence(5, 1, true), Sequence.of(size(127), 1));
        check(PagedCases.paged(dtype, mixed, 8, 2, 128));
        check(PagedCases.append(dtype, mixed, 8, 128));
        Sequence[] steps = IntStream.range(0, 33).mapToObj(i -> Sequence.of(size(61 * i), 1)).toArray(Sequence[]::new);
        check(PagedCases.paged(dtype, Batch.of(steps), 12, 12, 64));
    }

    @Test
    void sampling_large() {
        Params all = new Params(0.8, 50, 0.95, 0.02, 1.1, 0.1, 0.1);
        Params[] batch = new Params[33];
        Arrays.setAll(batch, i -> switch (i % 3) {
            case 0 -> all;
            case 1 -> Params.PLAIN;
            default -> Params.GREEDY;
        });
        int v = size(128_257);
        check(SamplingCases.processLogits(v, 1024, batch));
        check(SamplingCases.sample(v, 1024, SEED, batch));
        for (DType dtype : new DType[] {DType.F32, DType.BF16, DType.F16}) {
            check(SamplingCases.argmax(dtype, 33, v));
        }
    }
}
