package io.gatun.bench;

import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Rope.Pairing;
import io.gatun.ops.cases.AttentionCases;
import io.gatun.ops.cases.AttentionCases.Dims;
import io.gatun.ops.cases.ElementwiseCases;
import io.gatun.ops.cases.ElementwiseCases.Binary;
import io.gatun.ops.cases.ElementwiseCases.Unary;
import io.gatun.ops.cases.EmbeddingCases;
import io.gatun.ops.cases.LinearCases;
import io.gatun.ops.cases.NormCases;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.PagedCases;
import io.gatun.ops.cases.PagedCases.Batch;
import io.gatun.ops.cases.PagedCases.Sequence;
import io.gatun.ops.cases.RopeCases;
import io.gatun.ops.cases.SamplingCases;
import io.gatun.ops.cases.SamplingCases.Params;
import io.gatun.ops.cases.SoftmaxCases;
import io.gatun.runtime.DType;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.function.Function;
import java.util.stream.IntStream;

/// Which sizes of which ops are measured: those of GPT-2 124M (C = 768, H = 12, D = 64) and of a Llama of a billion
/// parameters (C = 2048, H = 32, G = 8, D = 64), for a prompt of 512 tokens and for one decode step.
final class KernelCases {
    private static final int PROMPT = 512;
    private static final int V = 50257;
    /// A table that no cache need hold, but that is made in a second.
    private static final int TABLE_ROWS = 8192;
    private static final int CONTEXT = 1024;

    private final List<DType> dtypes;
    private final List<List<OpCase>> groups = new ArrayList<>();

    private KernelCases(List<DType> dtypes) {
        this.dtypes = dtypes;
    }

    /// Cases that are measured in turns: one op and size in each dtype.
    ///
    /// @param only part of the ops' names; empty: all
    static List<List<OpCase>> groups(List<DType> dtypes, String only) {
        KernelCases cases = new KernelCases(dtypes);
        cases.addElementwise();
        cases.addRows();
        cases.addLinear();
        cases.addAttention();
        cases.addSampling();
        return cases.groups.stream().filter(group -> group.getFirst().op().contains(only)).toList();
    }

    private void addElementwise() {
        int[] shape = {PROMPT, 3072};
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

    private void addRows() {
        Set<Part> layerNorm = EnumSet.of(Part.RESIDUAL, Part.WEIGHT, Part.BIAS);
        Set<Part> rmsNorm = EnumSet.of(Part.RESIDUAL, Part.WEIGHT);
        for (int n : new int[] {1, PROMPT}) {
            add(t -> NormCases.layerNorm(t, n, 768, layerNorm));
            add(t -> NormCases.rmsNorm(t, n, 2048, rmsNorm));
            add(t -> EmbeddingCases.embedding(t, DType.I32, n, 768, TABLE_ROWS, CONTEXT));
            add(t -> RopeCases.rope(t, 32, 64, 64, Pairing.HALF, PROMPT, IntStream.range(0, n).toArray()));
        }
        add(t -> SoftmaxCases.softmax(t, DType.F32, 64, V));
        add(t -> SoftmaxCases.logSoftmax(t, DType.F32, 64, V));
        groups.add(List.of(RopeCases.table(PROMPT, 32, 0, 1)));
    }

    private void addLinear() {
        for (int n : new int[] {1, 8}) {
            add(t -> LinearCases.linear(t, t, t, WeightLayout.IN_OUT, n, 768, 3072));
            add(t -> LinearCases.linear(t, t, t, WeightLayout.IN_OUT, n, 3072, 768));
            add(t -> LinearCases.linear(t, t, null, WeightLayout.OUT_IN, n, 2048, 8192));
        }
        add(t -> LinearCases.linear(t, DType.F32, null, WeightLayout.OUT_IN, 1, 768, TABLE_ROWS));
    }

    private void addAttention() {
        add(t -> AttentionCases.dense(t, new Dims(1, PROMPT, PROMPT, 12, 12, 64), Mask.CAUSAL, Set.of()));
        add(t -> AttentionCases.dense(t, new Dims(1, PROMPT, PROMPT, 32, 8, 64), Mask.CAUSAL, Set.of()));
        add(t -> AttentionCases.dense(t, new Dims(2, CONTEXT, CONTEXT, 8, 8, 40), Mask.NONE, Set.of()));
        Batch step = Batch.of(Sequence.of(PROMPT - 1, 1));
        Batch longStep = Batch.of(Sequence.of(8191, 1));
        Batch steps = Batch.of(IntStream.range(0, 8).mapToObj(i -> Sequence.of(PROMPT - 1, 1))
                .toArray(Sequence[]::new));
        Batch prompt = Batch.of(Sequence.of(0, PROMPT));
        for (Batch batch : List.of(step, steps, prompt)) {
            add(t -> PagedCases.paged(t, batch, 12, 12, 64));
            add(t -> PagedCases.append(t, batch, 12, 64));
        }
        for (Batch batch : List.of(step, longStep, prompt)) {
            add(t -> PagedCases.paged(t, batch, 32, 8, 64));
        }
    }

    /// Logits are f32 whatever the model computes in.
    private void addSampling() {
        Params all = new Params(0.8, 50, 0.95, 0.02, 1.1, 0.1, 0.1);
        groups.add(List.of(named("all settings", SamplingCases.processLogits(V, CONTEXT, all))));
        groups.add(List.of(named("greedy", SamplingCases.sample(V, CONTEXT, 1, Params.GREEDY))));
        groups.add(List.of(named("random", SamplingCases.sample(V, CONTEXT, 1, Params.PLAIN))));
        add(t -> SamplingCases.argmax(t, 1, V));
    }

    private static OpCase named(String note, OpCase c) {
        return new OpCase(c.op(), c.dtype(), c.sizes() + " " + note, c.operands(), c.aliases(), c.call(), c.workspace(),
                c.reference(), c.accuracy(), c.flops());
    }

    private void add(Function<DType, OpCase> of) {
        groups.add(dtypes.stream().map(of).toList());
    }
}
