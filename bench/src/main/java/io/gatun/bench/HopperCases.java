package io.gatun.bench;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Diffusion;
import io.gatun.ops.Linear.InputNormKind;
import io.gatun.ops.Linear.MlpActivation;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.cases.AttentionBackwardCases;
import io.gatun.ops.cases.AttentionCases;
import io.gatun.ops.cases.AttentionCases.Dims;
import io.gatun.ops.cases.DecodeCases;
import io.gatun.ops.cases.DiffusionCases;
import io.gatun.ops.cases.ElementwiseCases;
import io.gatun.ops.cases.ElementwiseCases.Binary;
import io.gatun.ops.cases.ElementwiseCases.Unary;
import io.gatun.ops.cases.NormBackwardCases;
import io.gatun.ops.cases.NormCases;
import io.gatun.ops.cases.NormCases.Channels;
import io.gatun.ops.cases.NormCases.Groups;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.ops.cases.NormLinearCases;
import io.gatun.ops.cases.NormLinearCases.Choice;
import io.gatun.ops.cases.NormLinearCases.Form;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.OptimizerCases;
import io.gatun.ops.cases.PagedCases.Batch;
import io.gatun.ops.cases.PagedCases.Sequence;
import io.gatun.ops.cases.SoftmaxCases;
import io.gatun.ops.cases.SoftmaxCases.Loss;
import io.gatun.runtime.DType;
import java.util.Collections;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/// The kernels and shapes that are to be near the limit of a Hopper GPU, those that count most first: for a run that
/// takes two minutes with its peers.
final class HopperCases {
    private static final int TRIAL = 33;
    private static final int TRIAL_BATCH = 2;
    /// Rows of a step's table, more than calls that are ever measured: each call counts one on.
    private static final int STEPS = 1 << 16;

    private final boolean isTrial;

    private HopperCases(boolean isTrial) {
        this.isTrial = isTrial;
    }

    /// A case per group.
    static List<List<OpCase>> groups(Setup setup) {
        return new HopperCases(setup.isTrial()).cases().stream().map(List::of).toList();
    }

    private int limited(int size) {
        return isTrial ? Math.min(size, TRIAL) : size;
    }

    private int batch(int size) {
        return isTrial ? Math.min(size, TRIAL_BATCH) : size;
    }

    private List<OpCase> cases() {
        DType t = DType.BF16;
        int n = limited(16384);
        int c = limited(4096);
        Set<Part> affine = EnumSet.of(Part.WEIGHT, Part.BIAS);
        Set<Part> weight = EnumSet.of(Part.WEIGHT);
        Set<Part> residual = EnumSet.of(Part.RESIDUAL, Part.WEIGHT);
        Dims wide = dims(4, 8192, 16, 128);
        Dims narrow = dims(16, 1024, 16, 64);
        return List.of(
                AttentionCases.dense(t, wide, Mask.CAUSAL, Set.of()),
                AttentionCases.dense(t, narrow, Mask.CAUSAL, Set.of()),
                decode(t, 32, 4096, 32, 8, 128),
                diffusionStep(DType.F32, 64, 128),
                NormCases.layerNorm(t, n, c, affine),
                NormCases.rmsNorm(t, n, c, weight),
                NormBackwardCases.layerNorm(t, n, c, affine),
                NormBackwardCases.rmsNorm(t, n, c, weight),
                SoftmaxCases.crossEntropy(t, limited(32768), limited(50304), Loss.TRAINING),
                AttentionBackwardCases.alone(t, wide, Mask.CAUSAL, Set.of()),
                AttentionBackwardCases.alone(t, narrow, Mask.CAUSAL, Set.of()),
                OptimizerCases.adamw(t, limited(124_000_000), EnumSet.of(OptimizerCases.Part.LOW,
                        OptimizerCases.Part.SCALED, OptimizerCases.Part.DECOUPLED)),
                NormCases.rmsNorm(t, n, c, residual),
                SoftmaxCases.softmax(t, t, n, c),
                ElementwiseCases.unary(Unary.GELU_TANH, t, n, c),
                ElementwiseCases.binary(Binary.SWIGLU, t, n, c),
                NormCases.groupNorm(t, new Groups(Channels.LAST, batch(16), limited(4096), limited(320) / 32 * 32,
                        32), 1e-5f, ActivationKind.SILU, affine),
                AttentionCases.dense(t, wide, Mask.NONE, Set.of()),
                decode(t, 8, 16384, 32, 8, 128),
                decode(t, 1, 512, 12, 12, 64),
                gpt2Node(InputNormKind.LAYER, MlpActivation.NONE, t, 768, 2304),
                gpt2Node(InputNormKind.NONE, MlpActivation.NONE, t, 768, 768),
                gpt2Node(InputNormKind.LAYER, MlpActivation.GELU_TANH, t, 768, 3072),
                gpt2Node(InputNormKind.NONE, MlpActivation.NONE, t, 3072, 768),
                node(InputNormKind.LAYER, Form.ONE, WeightLayout.OUT_IN, MlpActivation.NONE, DType.F32, 768, 50257),
                node(InputNormKind.RMS, Form.GATED, WeightLayout.OUT_IN, MlpActivation.SILU, t, 2048, 8192),
                diffusionStep(t, 64, 128));
    }

    private Dims dims(int b, int s, int h, int d) {
        int heads = batch(h);
        return new Dims(batch(b), limited(s), limited(s), heads, heads, d);
    }

    /// One query for each sequence. A call stores what the one before it has stored: nothing needs restoring.
    private OpCase decode(DType dtype, int b, int keys, int h, int kvHeads, int d) {
        int cached = limited(keys) - 1;
        Batch batch = Batch.of(Collections.nCopies(batch(b), Sequence.of(cached, 1)).toArray(Sequence[]::new));
        OpCase step = DecodeCases.decode(dtype, batch, DecodeCases.Heads.of(h, kvHeads, d), 1);
        List<Operand> operands = step.operands().stream().map(o -> o.role() == Operand.Role.IN_OUT ? new Operand(
                o.name(), Operand.Role.IN, o.dtype(), o.shape(), o.strides(), o.fill(), o.touched()) : o).toList();
        return new OpCase(step.op(), dtype, "B=%d cached=%d T=1 H=%d G=%d D=%d".formatted(batch(b), cached, h, kvHeads,
                d), operands, step.aliases(), step.call(), step.workspace(), step.reference(), step.accuracy(),
                step.flops());
    }

    /// Of a decode step of GPT-2 124M, by itself: in a graph it begins while the one in front still runs.
    private OpCase gpt2Node(InputNormKind norm, MlpActivation activation, DType yType, int c, int f) {
        return node(norm, Form.ONE, WeightLayout.IN_OUT, activation, yType, c, f);
    }

    private OpCase node(InputNormKind norm, Form form, WeightLayout layout, MlpActivation activation, DType yType,
            int c, int f) {
        return NormLinearCases.fused(DType.BF16, new Choice(norm, form, layout, activation, yType, true), 1, limited(c),
                limited(f));
    }

    /// DDIM with guidance, latents of Stable Diffusion's size.
    private OpCase diffusionStep(DType dtype, int b, int side) {
        OpCase few = DiffusionCases.step(dtype, batch(b), limited(side), limited(side), 4, 0, 1,
                EnumSet.of(DiffusionCases.Part.GUIDANCE));
        List<Operand> operands = few.operands().stream().map(o -> o.name().equals("table") ? new Operand(o.name(),
                o.role(), o.dtype(), new int[] {STEPS, Diffusion.FIELDS}, o.strides(), o.fill(), Diffusion.FIELDS) : o)
                .toList();
        return new OpCase(few.op(), few.dtype(), few.sizes(), operands, few.aliases(), few.call(), few.workspace(),
                few.reference(), few.accuracy(), few.flops());
    }
}
