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
import io.gatun.ops.cases.DiffusionCases;
import io.gatun.ops.cases.ElementwiseCases;
import io.gatun.ops.cases.ElementwiseCases.Binary;
import io.gatun.ops.cases.ElementwiseCases.Unary;
import io.gatun.ops.cases.Fp8Cases;
import io.gatun.ops.cases.LinearCases;
import io.gatun.ops.cases.NormBackwardCases;
import io.gatun.ops.cases.NormCases;
import io.gatun.ops.cases.NormCases.Channels;
import io.gatun.ops.cases.NormCases.Groups;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.OptimizerCases;
import io.gatun.ops.cases.SoftmaxCases;
import io.gatun.runtime.DType;
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
                new KernelCases.Sequences(1, limited(3584), limited(512)).paged(t, 32, 8, 128),
                diffusionStep(DType.F32, 64, 128),
                NormCases.layerNorm(t, n, c, affine),
                NormCases.rmsNorm(t, n, c, weight),
                NormBackwardCases.layerNorm(t, n, c, affine),
                NormBackwardCases.rmsNorm(t, n, c, weight),
                KernelCases.crossEntropy(t, limited(32768), limited(50304)),
                KernelCases.crossEntropy(t, limited(8192), limited(128256)),
                AttentionBackwardCases.alone(t, wide, Mask.CAUSAL, Set.of()),
                AttentionBackwardCases.alone(t, narrow, Mask.CAUSAL, Set.of()),
                OptimizerCases.adamw(t, limited(124_000_000), EnumSet.of(OptimizerCases.Part.LOW,
                        OptimizerCases.Part.SCALED, OptimizerCases.Part.DECOUPLED)),
                product(t, 8192, 8192, 8192),
                productFp8(t, 8192, 8192, 8192),
                product(t, 4096, 4096, 14336),
                productFp8(t, 4096, 4096, 14336),
                NormCases.rmsNorm(t, n, c, residual),
                SoftmaxCases.softmax(t, t, n, c),
                SoftmaxCases.softmax(t, t, limited(8192), limited(128256)),
                ElementwiseCases.unary(Unary.GELU_TANH, t, n, c),
                ElementwiseCases.binary(Binary.SWIGLU, t, n, c),
                NormCases.groupNorm(t, new Groups(Channels.LAST, batch(16), limited(4096), limited(320) / 32 * 32,
                        32), 1e-5f, ActivationKind.SILU, affine),
                AttentionCases.dense(t, wide, Mask.NONE, Set.of()),
                decode(t, 8, 16384, 32, 8, 128),
                decode(t, 1, 512, 12, 12, 64),
                DecodeNodes.gpt2(InputNormKind.LAYER, MlpActivation.NONE, t, limited(768), limited(2304)),
                DecodeNodes.gpt2(InputNormKind.NONE, MlpActivation.NONE, t, limited(768), limited(768)),
                DecodeNodes.gpt2(InputNormKind.LAYER, MlpActivation.GELU_TANH, t, limited(768), limited(3072)),
                DecodeNodes.gpt2(InputNormKind.NONE, MlpActivation.NONE, t, limited(3072), limited(768)),
                DecodeNodes.head(t, limited(768), limited(50257)),
                DecodeNodes.llamaQkv(t, limited(2048), limited(2048), limited(512)),
                DecodeNodes.llamaGated(t, limited(2048), limited(8192)),
                DecodeNodes.llamaQkvF8(t, limited(2048), limited(2048), limited(512)),
                DecodeNodes.llamaGatedF8(t, limited(2048), limited(8192)),
                LinearCases.linear(t, t, null, WeightLayout.OUT_IN, 1, c, limited(14336)),
                Fp8Cases.linear(t, t, null, 1, c, limited(14336)),
                Fp8Cases.linear(t, t, null, batch(16), c, limited(14336)),
                Fp8Cases.quantizeRows(t, n, c),
                diffusionStep(t, 64, 128));
    }

    private Dims dims(int b, int s, int h, int d) {
        int heads = batch(h);
        return new Dims(batch(b), limited(s), limited(s), heads, heads, d);
    }

    /// By the device's library, which takes e4m3 rows of whole 16 bytes alone.
    private OpCase product(DType dtype, int n, int c, int f) {
        return KernelCases.byLibrary(LinearCases.linear(dtype, dtype, null, WeightLayout.OUT_IN, limited(n),
                whole(c), whole(f)), WeightLayout.OUT_IN);
    }

    private OpCase productFp8(DType yType, int n, int c, int f) {
        return Fp8Cases.matmul(yType, null, limited(n), whole(c), whole(f));
    }

    private int whole(int size) {
        return limited(size) / 16 * 16;
    }

    private OpCase decode(DType dtype, int b, int keys, int h, int kvHeads, int d) {
        return DecodeNodes.attention(dtype, batch(b), limited(keys) - 1, h, kvHeads, d);
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
