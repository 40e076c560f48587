package io.gatun.bench;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Linear.InputNormKind;
import io.gatun.ops.Linear.MlpActivation;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.LossKind;
import io.gatun.ops.Rope.Pairing;
import io.gatun.ops.cases.AttentionBackwardCases;
import io.gatun.ops.cases.AttentionCases;
import io.gatun.ops.cases.AttentionCases.Dims;
import io.gatun.ops.cases.ConvolutionBackwardCases;
import io.gatun.ops.cases.ConvolutionCases;
import io.gatun.ops.cases.ConvolutionCases.Sizes;
import io.gatun.ops.cases.ConvolutionCases.Via;
import io.gatun.ops.cases.DiffusionCases;
import io.gatun.ops.cases.ElementwiseBackwardCases;
import io.gatun.ops.cases.ElementwiseCases;
import io.gatun.ops.cases.ElementwiseCases.Binary;
import io.gatun.ops.cases.ElementwiseCases.Unary;
import io.gatun.ops.cases.EmbeddingCases;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.Fp8Cases;
import io.gatun.ops.cases.ImageBackwardCases;
import io.gatun.ops.cases.LinearCases;
import io.gatun.ops.cases.LossCases;
import io.gatun.ops.cases.NoiseCases;
import io.gatun.ops.cases.NormBackwardCases;
import io.gatun.ops.cases.NormBackwardImageCases;
import io.gatun.ops.cases.NormCases;
import io.gatun.ops.cases.NormCases.Channels;
import io.gatun.ops.cases.NormCases.Groups;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.OptimizerCases;
import io.gatun.ops.cases.PagedCases;
import io.gatun.ops.cases.PagedCases.Batch;
import io.gatun.ops.cases.PagedCases.Sequence;
import io.gatun.ops.cases.ReduceCases;
import io.gatun.ops.cases.RopeCases;
import io.gatun.ops.cases.SamplingCases;
import io.gatun.ops.cases.SamplingCases.Params;
import io.gatun.ops.cases.SoftmaxCases;
import io.gatun.ops.cases.SoftmaxCases.Loss;
import io.gatun.runtime.DType;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.function.Function;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// Which sizes of which ops are measured: those of GPT-2 124M (C = 768, H = 12, D = 64) and of a Llama of a billion
/// parameters (C = 2048, H = 32, G = 8, D = 64), for a prompt of 512 tokens and for one decode step.
final class KernelCases {
    private static final int PROMPT = 512;
    /// Rows of a training step: 8 texts of 256 tokens.
    private static final int TRAINED_ROWS = 2048;
    private static final int V = 50257;
    private static final int LLAMA_V = 128_256;
    /// A table that no cache need hold, but that is made in a second.
    private static final int TABLE_ROWS = 8192;
    private static final int CONTEXT = 1024;

    /// No dimension but heads and head dims is larger in a trial.
    private static final int TRIAL = 33;

    private final List<DType> dtypes;
    private final Setup setup;
    private final List<List<OpCase>> groups = new ArrayList<>();

    private KernelCases(List<DType> dtypes, Setup setup) {
        this.dtypes = dtypes;
        this.setup = setup;
    }

    private int limited(int size) {
        return setup.isTrial() ? Math.min(size, TRIAL) : size;
    }

    /// Cases that are measured in turns: one op and size in each dtype.
    static List<List<OpCase>> groups(List<DType> dtypes, Setup setup) {
        KernelCases cases = new KernelCases(dtypes, setup);
        cases.addElementwise();
        cases.addGradients();
        cases.addOptimizers();
        cases.addRows();
        cases.addImages();
        cases.addProducts();
        cases.addWeightGradients();
        cases.addConvolutions();
        cases.addDiffusion();
        cases.addAttention();
        cases.addSampling();
        if (!setup.isCpu()) {
            cases.addLarge();
        }
        return cases.groups;
    }

    private void addElementwise() {
        int[] shape = {limited(PROMPT), limited(3072)};
        for (Unary f : Unary.values()) {
            add(t -> ElementwiseCases.unary(f, t, shape));
        }
        for (Binary f : Binary.values()) {
            add(t -> ElementwiseCases.binary(f, t, shape));
        }
        add(t -> ElementwiseCases.cast(t, t == DType.F32 ? DType.BF16 : DType.F32, shape));
        add(t -> ElementwiseCases.fill(t, 1, shape));
        add(t -> ElementwiseCases.copy(t, shape));
        add(t -> ElementwiseCases.countNonfinite(t, shape));
    }

    private void addGradients() {
        int prompt = limited(PROMPT);
        int[] shape = {prompt, limited(3072)};
        for (ElementwiseBackwardCases.Unary f : ElementwiseBackwardCases.Unary.values()) {
            add(t -> ElementwiseBackwardCases.unary(f, t, shape));
        }
        for (ElementwiseBackwardCases.Gated f : ElementwiseBackwardCases.Gated.values()) {
            add(t -> ElementwiseBackwardCases.gated(f, t, shape));
        }
        add(t -> ElementwiseBackwardCases.dropout(t, 0.1f, 7, shape));
        for (int[] size : new int[][] {{4 * prompt, 768}, {4 * prompt, 3072}, {128 * prompt, 64}, {128 * prompt, 3}}) {
            add(t -> ReduceCases.sumRows(t, DType.F32, 1, size[0], limited(size[1]), false));
        }
        add(t -> ReduceCases.sum(t, 1024 * prompt));
        add(t -> LossCases.loss(LossKind.MSE, t, t, EnumSet.of(LossCases.Part.GRADIENT), 16, 64 * prompt));
        add(t -> LossCases.loss(LossKind.BCE_WITH_LOGITS, t, t, EnumSet.of(LossCases.Part.GRADIENT), 16, 64 * prompt));
    }

    /// Of ten million parameters, each beside a copy of as many bytes.
    private void addOptimizers() {
        int n = limited(10_000_000);
        var adamw = EnumSet.of(OptimizerCases.Part.SCALED, OptimizerCases.Part.DECOUPLED);
        var mixed = EnumSet.of(OptimizerCases.Part.LOW, OptimizerCases.Part.SCALED, OptimizerCases.Part.DECOUPLED);
        var momentum = EnumSet.of(OptimizerCases.Part.MOMENTUM);
        groups.add(List.of(OptimizerCases.adamw(DType.F32, n, adamw), ElementwiseCases.copy(DType.F32, 7 * n / 2)));
        groups.add(List.of(OptimizerCases.adamw(DType.BF16, n, mixed), ElementwiseCases.copy(DType.F32, 15 * n / 4)));
        groups.add(List.of(OptimizerCases.sgd(DType.F32, n, momentum), ElementwiseCases.copy(DType.F32, 5 * n / 2)));
        groups.add(List.of(OptimizerCases.rmsprop(DType.F32, n, momentum),
                ElementwiseCases.copy(DType.F32, 7 * n / 2)));
        groups.add(List.of(OptimizerCases.gradientNorm(n, true)));
        groups.add(List.of(OptimizerCases.ema(DType.F32, n, 0.999, 100), ElementwiseCases.copy(DType.F32, 3 * n / 2)));
    }

    private void addRows() {
        Set<Part> layerNorm = EnumSet.of(Part.RESIDUAL, Part.WEIGHT, Part.BIAS);
        Set<Part> rmsNorm = EnumSet.of(Part.RESIDUAL, Part.WEIGHT);
        int prompt = limited(PROMPT);
        int v = limited(V);
        for (int n : new int[] {1, prompt}) {
            add(t -> NormCases.layerNorm(t, n, limited(768), layerNorm));
            add(t -> NormCases.rmsNorm(t, n, limited(2048), rmsNorm));
            add(t -> EmbeddingCases.embedding(t, DType.I32, n, limited(768), limited(TABLE_ROWS), limited(CONTEXT)));
            add(t -> RopeCases.rope(t, 32, 64, 64, Pairing.HALF, prompt, IntStream.range(0, n).toArray()));
        }
        add(t -> Fp8Cases.quantizeRows(t, prompt, limited(2048)));
        int step = limited(TRAINED_ROWS);
        add(t -> NormBackwardCases.layerNorm(t, step, limited(768), layerNorm));
        add(t -> NormBackwardCases.rmsNorm(t, step, limited(768), rmsNorm));
        add(t -> RopeCases.ropeBackward(t, 32, 64, 64, Pairing.HALF, prompt, IntStream.range(0, prompt).toArray()));
        add(t -> EmbeddingCases.embeddingBackward(t, DType.I32, prompt, limited(768), limited(TABLE_ROWS)));
        add(t -> EmbeddingCases.embeddingBackward(t, DType.I32, 8 * prompt, limited(384), 65));
        add(t -> crossEntropy(t, prompt, v));
        add(t -> crossEntropy(t, 8 * prompt, 65));
        add(t -> SoftmaxCases.softmax(t, DType.F32, 64, v));
        add(t -> SoftmaxCases.logSoftmax(t, DType.F32, 64, v));
        groups.add(List.of(RopeCases.table(prompt, 32, 0, 1)));
    }

    /// With the gradient. Every row counts, as the peer's do: every fifth of the tests' does not, and is not read.
    static OpCase crossEntropy(DType dtype, int n, int v) {
        return SoftmaxCases.crossEntropy(dtype, n, v, Loss.TRAINING).with("targets", Fill.integers(0, v),
                "every row counts");
    }

    /// Norms of a U-Net and of a VAE's decoder, each beside a copy of the same bytes. A norm reads an image twice:
    /// where no cache holds it, two thirds of the copy's rate are all there is.
    private void addImages() {
        for (int[] size : new int[][] {{4096, 320}, {65536, 128}}) {
            int s = limited(size[0]);
            int c = limited(size[1]) / 32 * 32;
            List<OpCase> group = new ArrayList<>();
            dtypes.forEach(t -> group.add(NormCases.groupNorm(t, new Groups(Channels.LAST, 1, s, c, 32), 1e-5f,
                    ActivationKind.SILU, EnumSet.of(Part.WEIGHT, Part.BIAS))));
            dtypes.forEach(t -> group.add(ElementwiseCases.copy(t, 1, s, c)));
            groups.add(group);
        }
        Set<Part> affine = EnumSet.of(Part.WEIGHT, Part.BIAS);
        int b = limited(16);
        for (int[] size : new int[][] {{1024, 64}, {256, 256}}) {
            int s = limited(size[0]);
            int c = limited(size[1]) / 32 * 32;
            Groups sizes = new Groups(Channels.LAST, b, s, c, 32);
            add(t -> NormBackwardImageCases.groupNorm(t, sizes, ActivationKind.SILU, affine));
            add(t -> NormBackwardImageCases.groupNormDouble(t, sizes, Set.of(Part.WEIGHT)));
            add(t -> NormCases.batchNormTrain(t, Channels.LAST, b, s, c, ActivationKind.NONE, affine));
            add(t -> NormBackwardImageCases.batchNorm(t, Channels.LAST, b, s, c, ActivationKind.NONE, affine));
        }
    }

    /// Of a decode step by our own kernels, alone and with norm and activation; of a prompt by the device's library.
    private void addProducts() {
        for (int n : new int[] {1, 8}) {
            add(t -> linear(t, t, t, WeightLayout.IN_OUT, n, 768, 3072));
            add(t -> linear(t, t, t, WeightLayout.IN_OUT, n, 3072, 768));
            add(t -> linear(t, t, null, WeightLayout.OUT_IN, n, 2048, 8192));
            addHalves(t -> Fp8Cases.linear(t, t, null, limited(n), limited(2048), limited(8192)));
        }
        add(t -> linear(t, DType.F32, null, WeightLayout.OUT_IN, 1, 768, TABLE_ROWS));
        add(t -> DecodeNodes.gpt2(InputNormKind.LAYER, MlpActivation.NONE, t, limited(768), limited(2304)));
        add(t -> DecodeNodes.gpt2(InputNormKind.LAYER, MlpActivation.GELU_TANH, t, limited(768), limited(3072)));
        add(t -> DecodeNodes.head(t, limited(768), limited(TABLE_ROWS)));
        add(t -> DecodeNodes.llamaQkv(t, limited(2048), limited(2048), limited(512)));
        add(t -> DecodeNodes.llamaGated(t, limited(2048), limited(8192)));
        for (int n : new int[] {1, 8, PROMPT}) {
            add(t -> byLibrary(linear(t, t, t, WeightLayout.IN_OUT, n, 768, 3072), WeightLayout.IN_OUT));
            add(t -> byLibrary(linear(t, t, null, WeightLayout.OUT_IN, n, 2048, 8192), WeightLayout.OUT_IN));
        }
        groups.add(List.of(Fp8Cases.matmul(DType.BF16, null, limited(PROMPT), limited(2048), limited(8192))));
    }

    /// Gradients of weights, of 2048 tokens and of a 1 x 1 convolution; of a U-Net's convolutions both gradients.
    private void addWeightGradients() {
        for (int[] s : new int[][] {{2048, 768, 3072}, {2048, 384, 384}, {16384, 128, 128}}) {
            add(t -> LinearCases.outer(t, DType.F32, limited(s[0]), limited(s[1]), limited(s[2])));
        }
        for (int[] s : new int[][] {{32, 64, 64, 3, 1}, {32, 64, 64, 3, 2}, {16, 128, 128, 3, 1}, {8, 256, 256, 3, 1},
            {16, 64, 128, 1, 1}}) {
            Sizes sizes = Sizes.of(limited(16), limited(s[0]), limited(s[0]), limited(s[1]), limited(s[2]), s[3]);
            Geometry g = Geometry.of(s[4], s[3] / 2);
            add(t -> ConvolutionBackwardCases.inputGradient(t, sizes, g, Via.DEVICE));
            add(t -> ConvolutionBackwardCases.weightGradient(t, sizes, g, Via.DEVICE));
        }
        int b = limited(16);
        int side = limited(32) / 2 * 2;
        int c = limited(64);
        add(t -> ImageBackwardCases.upsampleNearestBackward(t, b, side / 2, side / 2, c, side, side));
        add(t -> ImageBackwardCases.averagePoolBackward(t, b, side, side, c, 2));
        add(t -> ImageBackwardCases.maxPool(t, b, side, side, c, 2, 2, 0));
        add(t -> ImageBackwardCases.maxPoolBackward(t, b, side, side, c, 2, 2, 0));
        Sizes deep = Sizes.of(limited(16), limited(16), limited(16), limited(128), limited(128), 3);
        add(t -> ConvolutionBackwardCases.weightGradient(t, deep, Geometry.same(3), Via.OWN_KERNEL));
    }

    private OpCase linear(DType dtype, DType yType, @Nullable DType bias, WeightLayout layout, int n, int c, int f) {
        return LinearCases.linear(dtype, yType, bias, layout, limited(n), limited(c), limited(f));
    }

    static OpCase byLibrary(OpCase c, WeightLayout layout) {
        return new OpCase("matmul", c.dtype(), c.sizes(), c.operands(), c.aliases(), (s, t) -> s.device().matmul(s,
                t.get("y"), t.get("x"), t.get("weight"), t.get("bias"), layout), c.workspace(), c.reference(),
                c.accuracy(), c.flops());
    }

    /// Of a small U-Net, of Stable Diffusion's and its decoder, by the device's choice; one by our own kernel.
    private void addConvolutions() {
        for (int[] s : new int[][] {{32, 128, 128}, {16, 256, 256}, {8, 256, 256}, {64, 320, 320}, {512, 128, 128}}) {
            add(t -> conv(t, s[0], s[1], s[2], 3, 1, Via.DEVICE));
        }
        add(t -> conv(t, 32, 128, 128, 3, 2, Via.DEVICE));
        add(t -> conv(t, 64, 320, 320, 1, 1, Via.DEVICE));
        add(t -> conv(t, 64, 4, 320, 3, 1, Via.DEVICE));
        add(t -> conv(t, 16, 256, 256, 3, 1, Via.OWN_KERNEL));
        add(t -> ConvolutionCases.convTranspose2d(t, t, Sizes.of(1, limited(16), limited(16), limited(256),
                limited(128), 4), Transposed.of(2, 1), ActivationKind.NONE, Via.DEVICE));
    }

    private OpCase conv(DType dtype, int size, int c, int f, int kernel, int stride, Via via) {
        return ConvolutionCases.conv2d(dtype, dtype, Sizes.of(1, limited(size), limited(size), limited(c), limited(f),
                kernel), Geometry.of(stride, kernel / 2), ActivationKind.NONE, via);
    }

    /// A call of a guided loop on 64 images of Stable Diffusion's size, and the noise of an image-to-image start.
    private void addDiffusion() {
        int b = limited(64);
        int side = limited(128);
        add(t -> DiffusionCases.step(t, b, side, side, 4, 0, 1,
                EnumSet.of(DiffusionCases.Part.GUIDANCE, DiffusionCases.Part.INPUT)));
        add(t -> DiffusionCases.statistics(t, b, side, side, 4, true, 0.995f));
        add(t -> NoiseCases.addNoise(t, b, side, side, 4, false));
        add(t -> NoiseCases.addNoise(t, b, side, side, 4, true));
    }

    private void addAttention() {
        int prompt = limited(PROMPT);
        int context = limited(CONTEXT);
        add(t -> AttentionCases.dense(t, new Dims(1, prompt, prompt, 12, 12, 64), Mask.CAUSAL, Set.of()));
        add(t -> AttentionCases.dense(t, new Dims(1, prompt, prompt, 32, 8, 64), Mask.CAUSAL, Set.of()));
        add(t -> AttentionCases.dense(t, new Dims(2, context, context, 8, 8, 40), Mask.NONE, Set.of()));
        Dims training = new Dims(limited(8), limited(256), limited(256), 6, 6, 64);
        add(t -> AttentionCases.dense(t, training, Mask.CAUSAL, EnumSet.of(AttentionCases.Part.LSE)));
        add(t -> AttentionBackwardCases.alone(t, training, Mask.CAUSAL, Set.of()));
        add(t -> AttentionBackwardCases.alone(t, new Dims(1, prompt, prompt, 12, 12, 64), Mask.CAUSAL, Set.of()));
        add(t -> AttentionBackwardCases.alone(t, new Dims(1, prompt, prompt, 32, 8, 64), Mask.CAUSAL, Set.of()));
        for (Sequences batch : List.of(new Sequences(1, prompt - 1, 1), new Sequences(8, prompt - 1, 1),
                new Sequences(1, 0, prompt))) {
            add(t -> batch.paged(t, 12, 12, 64));
            add(t -> batch.append(t, 12, 64));
        }
        for (int b : new int[] {1, 8}) {
            add(t -> DecodeNodes.attention(t, b, prompt - 1, 12, 12, 64));
        }
        add(t -> DecodeNodes.attention(t, 1, limited(8191), 32, 8, 64));
        for (Sequences batch : List.of(new Sequences(1, prompt - 1, 1), new Sequences(1, limited(8191), 1),
                new Sequences(1, 0, prompt))) {
            add(t -> batch.paged(t, 32, 8, 64));
        }
    }

    /// A batch of `b` sequences that are alike.
    record Sequences(int b, int cached, int rows) {
        OpCase paged(DType dtype, int h, int kvHeads, int d) {
            return renamed(PagedCases.paged(dtype, batch(), h, kvHeads, d),
                    "%s H=%d G=%d D=%d".formatted(this, h, kvHeads, d));
        }

        OpCase append(DType dtype, int kvHeads, int d) {
            return renamed(PagedCases.append(dtype, batch(), kvHeads, d), "%s G=%d D=%d".formatted(this, kvHeads, d));
        }

        private Batch batch() {
            return Batch.of(Collections.nCopies(b, Sequence.of(cached, rows)).toArray(Sequence[]::new));
        }

        @Override
        public String toString() {
            return "B=%d cached=%d T=%d".formatted(b, cached, rows);
        }
    }

    /// Logits are f32 whatever the model computes in.
    private void addSampling() {
        Params all = new Params(0.8, 50, 0.95, 0.02, 1.1, 0.1, 0.1);
        int v = limited(V);
        int context = limited(CONTEXT);
        Params draw = new Params(0.8, 40, 0.95, 0, 1, 0, 0);
        groups.add(List.of(named("top-k, top-p", SamplingCases.choose(v, context, 1, draw))));
        groups.add(List.of(named("top-k, top-p", SamplingCases.choose(limited(LLAMA_V), context, 1, draw))));
        groups.add(List.of(named("all settings", SamplingCases.processLogits(v, context, all))));
        groups.add(List.of(named("greedy", SamplingCases.choose(v, context, 1, Params.GREEDY))));
        groups.add(List.of(named("greedy", SamplingCases.sample(v, context, 1, Params.GREEDY))));
        groups.add(List.of(named("random", SamplingCases.sample(v, context, 1, Params.PLAIN))));
        add(t -> SamplingCases.argmax(t, 1, v));
    }

    /// What fills a large GPU: a batch of a Llama of 8 billion parameters (C = 4096, H = 32, G = 8, D = 128).
    private void addLarge() {
        int n = limited(8192);
        int c = limited(4096);
        int[] shape = {n, c};
        add(t -> ElementwiseCases.unary(Unary.GELU_TANH, t, shape));
        add(t -> ElementwiseCases.binary(Binary.ADD, t, shape));
        add(t -> ElementwiseCases.binary(Binary.SWIGLU, t, shape));
        add(t -> NormCases.layerNorm(t, n, c, EnumSet.of(Part.WEIGHT, Part.BIAS)));
        add(t -> NormCases.rmsNorm(t, n, c, EnumSet.of(Part.RESIDUAL, Part.WEIGHT)));
        add(t -> SoftmaxCases.softmax(t, t, n, c));
        add(t -> byLibrary(linear(t, t, null, WeightLayout.OUT_IN, c, 4096, 4096), WeightLayout.OUT_IN));
        add(t -> AttentionCases.dense(t, new Dims(1, c, c, 32, 8, 128), Mask.CAUSAL, Set.of()));
        add(t -> AttentionCases.dense(t, new Dims(1, c, c, 16, 16, 64), Mask.NONE, Set.of()));
        add(t -> new Sequences(16, limited(2047), 1).paged(t, 32, 8, 128));
        add(t -> new Sequences(1, limited(3584), limited(PROMPT)).paged(t, 32, 8, 128));
    }

    private static OpCase named(String note, OpCase c) {
        return renamed(c, c.sizes() + " " + note);
    }

    /// The same case by another name.
    static OpCase renamed(OpCase c, String sizes) {
        return new OpCase(c.op(), c.dtype(), sizes, c.operands(), c.aliases(), c.call(), c.workspace(), c.reference(),
                c.accuracy(), c.flops());
    }

    private void add(Function<DType, OpCase> of) {
        groups.add(dtypes.stream().map(of).toList());
    }

    /// Of an op that takes no f32.
    private void addHalves(Function<DType, OpCase> of) {
        List<OpCase> group = dtypes.stream().filter(t -> t != DType.F32).map(of).toList();
        if (!group.isEmpty()) {
            groups.add(group);
        }
    }
}
