package io.gatun.train;

import io.gatun.models.Activation;
import io.gatun.models.Layers;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Norm;
import io.gatun.runtime.DType;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/// The gradient of a function by its input, computed by layers, so that a loss of that gradient has gradients too.
///
/// An op whose gradient can be written with layers says so beside its entry on the tape
/// ([Tape.Entry#derivative]): what turns the gradient of its result into that of an operand. [#gradient] runs
/// the function, walks over the entries that it left from the last to the first, and calls those instead of
/// what would write first-order gradients down. Each leaves entries of its own behind the function's, and unwinding the
/// whole tape later gives the second-order gradients: through the walk first, then through the function's own entries.
///
/// Most need no op of their own. A linear layer's is the linear layer of the transposed weight, a convolution's the
/// transposed convolution with the same weight, and the other way round. Piecewise linear activations multiply by a
/// mask that does not change, so they are linear in the gradient and have none by their operand; a norm's gradient
/// depends on its operand and has a gradient kernel. An op that does not say it is refused by its name.
final class SecondOrder {
    private final Taped net;
    private final Stream stream;
    private final Plan.Recorder plan;
    private final Tape tape;

    SecondOrder(Taped net, Stream stream, Plan.Recorder plan, Tape tape) {
        this.net = net;
        this.stream = stream;
        this.plan = plan;
        this.tape = tape;
    }

    /// `d sum(weights f(x)) / d x`
    Tensor gradient(Tensor x, UnaryOperator<Tensor> f, @Nullable Tensor weights) {
        boolean watched = tape.watch(x);
        try {
            int from = tape.size();
            Tensor y = f.apply(x);
            return walk(x, y, weights, tape.since(from));
        } finally {
            if (watched) {
                tape.forget(x);
            }
        }
    }

    /// @param entries of what made y of x and other things
    private Tensor walk(Tensor x, Tensor y, @Nullable Tensor weights, List<Tape.Entry> entries) {
        Set<Tensor> reached = reached(x, entries);
        if (!reached.contains(y.base()) || y.base() == x.base()) {
            throw new IllegalStateException("the gradient of " + y + ": nothing leads to it from " + x);
        }
        Tensor seed = plan.allocate(y.dtype(), y.base().elements());
        if (weights == null) {
            plan.op(() -> Elementwise.fill(stream, seed, 1), seed);
        } else {
            if (!Arrays.equals(weights.shape(), y.shape())) {
                throw new IllegalArgumentException("weights are " + weights + ", expected the shape of " + y);
            }
            Tensor flat = weights.reshape(weights.elements());
            plan.op(() -> Elementwise.cast(stream, seed, flat), seed, flat);
        }
        Map<Tensor, Tensor> gradients = new IdentityHashMap<>();
        gradients.put(whole(y, "result").base(), seed);
        for (Tape.Entry entry : entries.reversed()) {
            Tensor dy = entry.results().size() == 1 ? gradients.remove(entry.results().getFirst().base()) : null;
            if (dy == null) {
                continue;
            }
            Tensor result = whole(entry.results().getFirst(), entry.op());
            for (Tape.Derivative derivative : entry.derivatives()) {
                Tensor operand = derivative.operand();
                if (reached.contains(operand.base())) {
                    Tensor whole = whole(operand, entry.op()).base();
                    Tensor dx = derivative.layers().apply(dy.reshape(result.shape()));
                    gradients.merge(whole, dx.reshape(dx.elements()), net::add);
                }
            }
        }
        Tensor gradient = gradients.get(x.base());
        if (gradient == null) {
            throw new IllegalStateException("the gradient of " + y + ": nothing leads to it from " + x);
        }
        return gradient.reshape(x.shape());
    }

    /// The bases of all values that x went into. All ops on the way must have said how their gradients are made.
    private static Set<Tensor> reached(Tensor x, List<Tape.Entry> entries) {
        Set<Tensor> reached = Collections.newSetFromMap(new IdentityHashMap<>());
        reached.add(x.base());
        for (Tape.Entry entry : entries) {
            Map<Tensor, Integer> missing = new IdentityHashMap<>();
            entry.operands().stream().filter(o -> o != null && reached.contains(o.base()))
                    .forEach(o -> missing.merge(o.base(), 1, Integer::sum));
            entry.derivatives().forEach(d -> missing.computeIfPresent(d.operand().base(), (o, n) -> n - 1));
            boolean again = entry.results().stream().anyMatch(result -> reached.contains(result.base()));
            if (again || missing.values().stream().anyMatch(n -> n > 0)) {
                throw new IllegalStateException(("a gradient of a gradient: '%s'%s has none; a network whose gradient"
                        + " is trained cannot use it").formatted(entry.op(), again ? " in place" : ""));
            }
            if (!missing.isEmpty()) {
                entry.results().forEach(result -> reached.add(result.base()));
            }
        }
        return reached;
    }

    private static Tensor whole(Tensor x, String op) {
        if (!x.isContiguous() || x.elements() != x.base().elements()) {
            throw new IllegalStateException("a gradient of a gradient: '" + op + "' works on a part of a value, " + x
                    + ", which has none");
        }
        return x;
    }

    /// The transposed convolution that a convolution's gradient is; null where there is none.
    static @Nullable Transposed turned(Geometry g, Tensor x, Tensor weight) {
        if (g.padTop() != g.padBottom() || g.padLeft() != g.padRight()) {
            return null;
        }
        long restH = (x.size(1) + 2L * g.padTop() - g.dilationH() * (weight.size(2) - 1) - 1) % g.strideH();
        long restW = (x.size(2) + 2L * g.padLeft() - g.dilationW() * (weight.size(3) - 1) - 1) % g.strideW();
        return new Transposed(g.strideH(), g.strideW(), g.padTop(), g.padLeft(), (int) restH, (int) restW,
                g.dilationH(), g.dilationW(), g.groups());
    }

    /// The convolution that a transposed convolution's gradient is.
    static Geometry turned(Transposed g) {
        return new Geometry(g.strideH(), g.strideW(), g.padH(), g.padH(), g.padW(), g.padW(), g.dilationH(),
                g.dilationW(), g.groups());
    }

    /// `dy` where x is positive, `slope dy` elsewhere.
    Tensor leakyRelu(Tensor dy, Tensor x, float slope) {
        Tensor dx = plan.allocate(dy.dtype(), dy.shape());
        plan.op(() -> Elementwise.leakyReluBackward(stream, dx, dy, x, slope), dx, dy, x);
        if (net.tapes(dy)) {
            net.entry("gradient of leaky relu", dx, List.of(dy), List.of(x), ddx -> tape.give(dy, to ->
                    Elementwise.leakyReluBackward(stream, to, ddx, x, slope), ddx, x));
        }
        return dx;
    }

    /// `dy` where x is positive, 0 elsewhere.
    Tensor relu(Tensor dy, Tensor x, Tensor y) {
        Tensor dx = plan.allocate(dy.dtype(), dy.shape());
        plan.op(() -> Activation.RELU.backward(stream, dx, dy, x, y), dx, dy, x, y);
        if (net.tapes(dy)) {
            net.entry("gradient of relu", dx, List.of(dy), List.of(x, y), ddx -> tape.give(dy, to ->
                    Activation.RELU.backward(stream, to, ddx, x, y), ddx, x, y));
        }
        return dx;
    }

    /// The gradient of a group norm without activation by its operand; see [Norm#groupNormDoubleBackward].
    ///
    /// @param dy, x      [B, ..., C]
    /// @param mean, rstd f32 [B, groups]
    Tensor groupNorm(Tensor dy, Tensor x, Tensor mean, Tensor rstd, @Nullable Tensor weight, int groups) {
        Tensor dx = plan.allocate(x.dtype(), x.shape());
        Tensor out = Layers.pixels(dx);
        Tensor dOut = Layers.pixels(dy);
        Tensor in = Layers.pixels(x);
        Tensor scratch = scratch(Norm.groupNormBackwardWorkspaceBytes(stream, in, groups));
        plan.op(() -> Norm.groupNormBackward(stream, out, null, null, null, null, dOut, in, mean, rstd, weight, null,
                null, null, groups, ActivationKind.NONE, scratch), dx, dy, x, mean, rstd, weight, scratch);
        if (!net.tapes(dy, x, weight)) {
            return dx;
        }
        List<@Nullable Tensor> operands = Arrays.asList(dy, x, weight);
        net.entry("gradient of group norm", dx, operands, operands, ddx -> {
            Tensor ddxPixels = Layers.pixels(ddx);
            Tape.Slot toDy = tape.slot(dy);
            Tape.Slot toX = tape.slot(x);
            Tape.Slot toWeight = tape.slot(weight);
            Tensor ddy = toDy == null ? plan.allocate(x.dtype(), x.shape()) : toDy.target();
            Tensor ddIn = toX == null ? plan.allocate(x.dtype(), x.shape()) : toX.target();
            Tensor ddyPixels = Layers.pixels(ddy);
            Tensor ddInPixels = Layers.pixels(ddIn);
            Tensor again = scratch(Norm.groupNormDoubleBackwardWorkspaceBytes(stream, in, groups));
            plan.op(() -> Norm.groupNormDoubleBackward(stream, ddyPixels, ddInPixels, Tape.target(toWeight), ddxPixels,
                    dOut, in, mean, rstd, weight, groups, again), ddy, ddIn, Tape.target(toWeight), ddx, dy, x, mean,
                    rstd, weight, again);
            Tape.finish(toDy, toX, toWeight);
        });
        return dx;
    }

    private @Nullable Tensor scratch(long bytes) {
        return bytes == 0 ? null : plan.allocate(DType.U8, bytes);
    }
}
