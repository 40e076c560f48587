package io.gatun.bench;

import io.gatun.ops.Linear.InputNormKind;
import io.gatun.ops.Linear.MlpActivation;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.cases.DecodeCases;
import io.gatun.ops.cases.NormLinearCases;
import io.gatun.ops.cases.NormLinearCases.Choice;
import io.gatun.ops.cases.NormLinearCases.Form;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.PagedCases.Batch;
import io.gatun.ops.cases.PagedCases.Sequence;
import io.gatun.runtime.DType;
import java.util.Collections;

/// The nodes of a decode step's graph by themselves: in the graph each begins while the one in front still runs.
final class DecodeNodes {
    private DecodeNodes() {}

    /// One query for each of `b` sequences. A call stores what the one before it has stored: nothing needs restoring.
    static OpCase attention(DType dtype, int b, int cached, int h, int kvHeads, int d) {
        Batch batch = Batch.of(Collections.nCopies(b, Sequence.of(cached, 1)).toArray(Sequence[]::new));
        OpCase step = DecodeCases.decode(dtype, batch, DecodeCases.Heads.of(h, kvHeads, d), 1);
        return new OpCase(step.op(), dtype, "B=%d cached=%d T=1 H=%d G=%d D=%d".formatted(b, cached, h, kvHeads, d),
                step.operands().stream().map(DecodeNodes::kept).toList(), step.aliases(), step.call(),
                step.workspace(), step.reference(), step.accuracy(), step.flops());
    }

    private static Operand kept(Operand o) {
        return o.role() == Operand.Role.IN_OUT
                ? new Operand(o.name(), Operand.Role.IN, o.dtype(), o.shape(), o.strides(), o.fill(), o.touched()) : o;
    }

    /// Of GPT-2: [c, f] weights.
    static OpCase gpt2(InputNormKind norm, MlpActivation activation, DType dtype, int c, int f) {
        return node(dtype, new Choice(norm, Form.ONE, WeightLayout.IN_OUT, activation, dtype, true), c, f);
    }

    /// Queries, keys and values of Llama, after RMS norm.
    static OpCase llamaQkv(DType dtype, int c, int f, int kv) {
        return NormLinearCases.fusedQkv(dtype, llama(Form.QKV, dtype), 1, c, f, kv);
    }

    /// The gated pair of Llama's MLP, after RMS norm.
    static OpCase llamaGated(DType dtype, int c, int f) {
        return node(dtype, llama(Form.GATED, dtype), c, f);
    }

    /// The same two with weights in e4m3.
    static OpCase llamaQkvF8(DType dtype, int c, int f, int kv) {
        return NormLinearCases.fusedQkv(dtype, llama(Form.QKV, dtype).f8(), 1, c, f, kv);
    }

    static OpCase llamaGatedF8(DType dtype, int c, int f) {
        return node(dtype, llama(Form.GATED, dtype).f8(), c, f);
    }

    private static Choice llama(Form form, DType dtype) {
        return new Choice(InputNormKind.RMS, form, WeightLayout.OUT_IN,
                form == Form.GATED ? MlpActivation.SILU : MlpActivation.NONE, dtype, true);
    }

    /// Logits after GPT-2's last norm.
    static OpCase head(DType dtype, int c, int v) {
        return node(dtype, new Choice(InputNormKind.LAYER, Form.ONE, WeightLayout.OUT_IN, MlpActivation.NONE,
                DType.F32, true), c, v);
    }

    private static OpCase node(DType dtype, Choice choice, int c, int f) {
        return NormLinearCases.fused(dtype, choice, 1, c, f);
    }
}
