package io.gatun.train;

import io.gatun.models.Layers;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Reduce;
import io.gatun.runtime.Device;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/// What layers that learn share: the tape, which ops leave entries on it, losses, dropout, recomputation, and gradients
/// as values.
public abstract sealed class Taped extends Layers permits TapedImageLayers {
    private final Tape tape;
    private final boolean recomputes;
    private final @Nullable Tensor lossScale;
    private final Set<Tensor> losses = Collections.newSetFromMap(new IdentityHashMap<>());
    /// Inside a layer's own code, which calls others.
    private boolean quiet;
    /// Values that will be computed again.
    private boolean untaped;
    /// Inside [#gradient].
    private boolean derives;
    private @Nullable Dropout dropout;
    /// Dropouts so far: each draws from numbers of its own.
    private int dropouts;

    /// @param recomputes whether the values inside a [#block] are computed again for its gradients rather than kept
    /// @param lossScale  what the gradients are multiplied by, f32 [1]; null: 1
    Taped(Device device, Stream stream, Plan.Recorder plan, Parameters parameters, boolean recomputes,
            @Nullable Tensor lossScale) {
        super(device, stream, plan);
        this.tape = new Tape(stream, plan, parameters);
        this.recomputes = recomputes;
        this.lossScale = lossScale;
    }

    /// Writes the gradients of all parameters that went into the losses so far down.
    public final void backward() {
        tape.unwind();
    }

    /// `d sum(f(x)) / d x`, as a value that losses can be made of: their gradients go on through it, as the gradient
    /// penalty of a WGAN needs. Linear layers, convolutions, group and layer norm, ReLU, leaky ReLU and sums can be in
    /// f; other ops are refused by name.
    ///
    /// @param x contiguous
    /// @param f writes a computation down, of x and other values
    /// @return x's shape
    public final Tensor gradient(Tensor x, UnaryOperator<Tensor> f) {
        return gradient(x, f, null);
    }

    /// `d sum(weights f(x)) / d x`, see [#gradient(Tensor, UnaryOperator)].
    ///
    /// @param weights of f(x)'s shape, which are not trained; null: 1
    final Tensor gradient(Tensor x, UnaryOperator<Tensor> f, @Nullable Tensor weights) {
        boolean before = derives;
        derives = true;
        try {
            return second().gradient(x, f, weights);
        } finally {
            derives = before;
        }
    }

    final SecondOrder second() {
        return new SecondOrder(this, stream(), plan(), tape);
    }

    @Override
    protected void record(Runnable run, @Nullable Tensor... operands) {
        if (tapes(operands)) {
            throw new IllegalStateException("an op without a gradient reads or writes a trained value: "
                    + Arrays.toString(operands));
        }
        super.record(run, operands);
    }

    /// An op with a gradient of the caller's own.
    ///
    /// @param result   what the op writes whole
    /// @param operands what it reads
    /// @param run      starts the op
    /// @param backward starts the op that writes the gradient of an operand: which one, the gradient of the result, and
    ///     where to. It may read the operands and the result
    public final Tensor differentiable(Tensor result, List<Tensor> operands, Consumer<Stream> run,
            OwnGradient backward) {
        quietly(() -> op(run, all(result, operands)));
        if (tapes(operands.toArray(Tensor[]::new))) {
            List<@Nullable Tensor> values = list(all(result, operands));
            tape.add("own op", List.of(result), Collections.unmodifiableList(new ArrayList<>(operands)), values, () -> {
                Tensor dy = tape.requireGradient(result);
                Tensor[] read = all(dy, List.of(all(result, operands)));
                for (int i = 0; i < operands.size(); i++) {
                    int which = i;
                    tape.give(operands.get(i), to -> backward.write(stream(), which, to, dy), read);
                }
            });
        }
        return result;
    }

    /// The gradient of an op of a caller's own.
    @FunctionalInterface
    public interface OwnGradient {
        /// @param operand number of the operand
        /// @param dx      receives the loss's derivative by the operand
        /// @param dy      the loss's derivative by the result
        void write(Stream stream, int operand, Tensor dx, Tensor dy);
    }

    private static Tensor[] all(Tensor first, List<Tensor> others) {
        List<Tensor> list = new ArrayList<>(others);
        list.addFirst(first);
        return list.toArray(Tensor[]::new);
    }

    final @Nullable Tensor lossScale() {
        return lossScale;
    }

    /// Inside a layer's own code, where others' ops leave no entries and may work in place.
    final boolean isQuiet() {
        return quiet;
    }

    /// The sum of losses is one.
    final void addLoss(Tensor sum) {
        losses.add(sum.base());
    }

    final Tape tape() {
        return tape;
    }

    /// Whether an op on these leaves an entry.
    final boolean tapes(@Nullable Tensor... operands) {
        if (quiet || untaped) {
            return false;
        }
        for (Tensor operand : operands) {
            if (operand != null && isLoss(operand)) {
                throw new IllegalStateException("a loss can only be added to others: give it its factor when it is"
                        + " made");
            }
        }
        return tape.wantsAny(operands);
    }

    /// Whether a tensor is a loss whose gradients are on the tape, or a sum of such.
    public final boolean isLoss(Tensor x) {
        return losses.contains(x.base());
    }

    /// A loss's gradients are computed with it, since nothing but the loss scale is applied to them.
    final Tensor lossOf(Tensor loss, Runnable backward) {
        losses.add(loss.base());
        tape.root(backward);
        return loss;
    }

    final <T> T quietly(Supplier<T> work) {
        boolean before = quiet;
        quiet = true;
        try {
            return work.get();
        } finally {
            quiet = before;
        }
    }

    final void quietly(Runnable work) {
        quietly(() -> {
            work.run();
            return true;
        });
    }

    /// Leaves an entry for a result that goes on from the operands.
    final Tape.Entry entry(String op, Tensor result, List<@Nullable Tensor> operands, List<@Nullable Tensor> saved,
            Consumer<Tensor> backward) {
        return tape.add(op, List.of(result), operands, saved, () -> backward.accept(tape.requireGradient(result)));
    }

    static List<@Nullable Tensor> list(@Nullable Tensor... tensors) {
        return Arrays.asList(tensors);
    }

    @Override
    public Branches block(Supplier<Branches> body) {
        if (quiet || untaped || derives || !recomputes) {
            return body.get();
        }
        int first = dropouts;
        untaped = true;
        Branches y;
        try {
            y = body.get();
        } finally {
            untaped = false;
        }
        List<Tensor> results = y.added() == null ? List.of(y.stream()) : List.of(y.stream(), y.added());
        tape.add("block", results, List.of(), List.of(), () -> {
            Tensor dStream = tape.gradient(y.stream());
            Tensor dAdded = y.added() == null ? null : tape.gradient(y.added());
            tape.unwindInner(() -> {
                dropouts = first;
                Branches again = body.get();
                if (dStream != null) {
                    tape.pass(again.stream(), dStream);
                }
                if (dAdded != null) {
                    tape.pass(again.added(), dAdded);
                }
            });
        });
        return y;
    }

    /// The sum of all rows, for a bias. dy [..., F]; [F]
    final void giveColumnSums(@Nullable Tensor bias, Tensor dy) {
        if (tape.wants(bias)) {
            Tensor rows = rows(dy);
            Tensor one = rows.strided(new long[] {1, rows.size(0), rows.size(1)},
                    new long[] {rows.size(0) * rows.stride(0), rows.stride(0), 1});
            giveSums(bias, one, null);
        }
    }

    /// `sum_s a b` into a gradient [B, C] or [C]. a, b [B, S, C]
    final void giveSums(Tensor operand, Tensor a, @Nullable Tensor b) {
        Tensor scratch = scratch(Reduce.sumRowsWorkspaceBytes(stream(), a));
        tape.give(operand, to -> Reduce.sumRows(stream(), to.reshape(a.size(0), a.size(2)), a, b, scratch), a, b,
                scratch);
    }

    /// What the dropouts of a network drop.
    ///
    /// @param probability of each element
    /// @param step        number of the training's step, i32 [1]: each draws anew
    public record Dropout(float probability, long seed, Tensor step) {}

    /// From now on, [#dropout] drops.
    public final void dropOut(Dropout settings) {
        dropout = settings;
    }

    @Override
    public Tensor dropout(Tensor x) {
        Dropout d = dropout;
        if (d == null || d.probability == 0) {
            return x;
        }
        int layer = dropouts++;
        Tensor y = allocate(x.dtype(), x.shape());
        plan().op(() -> Elementwise.dropout(stream(), y, x, d.probability, d.seed, d.step, layer), y, x, d.step);
        if (tapes(x)) {
            entry("dropout", y, list(x), list(), dy -> tape.give(x, to -> Elementwise.dropout(stream(), to, dy,
                    d.probability, d.seed, d.step, layer), dy, d.step));
        }
        return y;
    }
}
