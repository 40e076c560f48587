package io.gatun.bench;

import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Measures a case on a GPU: many calls, over all copies of the operands, as one graph, so that the host's part does
/// not show. What restoring changed operands takes is measured alone and taken off.
final class GraphTimer implements CaseTimer {
    /// Calls in a graph, but no more than a repeat needs.
    private static final int CALLS = 64;
    private static final int TRIAL_CALLS = 2;
    /// A repeat takes at least so long, so that neither the clock nor the launch of a graph matters.
    private static final double REPEAT_NANOS = 3_000_000;
    private static final int MAX_LAUNCHES = 1000;

    private final OpCase opCase;
    private final Stream stream;
    private final RotatingOperands rotating;
    private final Graph graph;
    private final @Nullable Graph restoring;
    private final List<Double> nanos = new ArrayList<>();
    private final int calls;
    private final int launches;

    GraphTimer(OpCase opCase, Stream stream, RotatingOperands rotating, Setup setup) {
        this.opCase = opCase;
        this.stream = stream;
        this.rotating = rotating;
        call(true); // what is loaded or chosen by the first call must not be captured
        double alone = QueuedTime.nanos(stream, 1, () -> call(true));
        int wanted = setup.isTrial() ? TRIAL_CALLS : (int) Math.clamp(REPEAT_NANOS / alone, 1, CALLS);
        calls = Math.ceilDiv(wanted, rotating.size()) * rotating.size();
        graph = stream.device().capture(stream, () -> callAll(true));
        restoring = rotating.isChanged() ? stream.device().capture(stream, () -> callAll(false)) : null;
        double once = QueuedTime.nanos(stream, 1, graph::launch);
        launches = setup.isTrial() ? 1 : (int) Math.clamp(REPEAT_NANOS / once, 1, MAX_LAUNCHES);
    }

    private void callAll(boolean works) {
        for (int i = 0; i < calls; i++) {
            call(works);
        }
    }

    private void call(boolean works) {
        Map<String, Tensor> operands = rotating.next();
        rotating.restore(operands);
        if (works) {
            opCase.run(stream, operands);
        }
    }

    @Override
    public void repeat() {
        double all = QueuedTime.nanos(stream, launches, graph::launch);
        double rest = restoring == null ? 0 : QueuedTime.nanos(stream, launches, restoring::launch);
        nanos.add((all - rest) / calls);
    }

    @Override
    public double[] nanos() {
        return nanos.stream().mapToDouble(Double::doubleValue).toArray();
    }

    @Override
    public int calls() {
        return calls * launches;
    }

    @Override
    public int copies() {
        return rotating.size();
    }

    @Override
    public boolean isCold() {
        return rotating.isCold();
    }

    @Override
    public void close() {
        graph.close();
        if (restoring != null) {
            restoring.close();
        }
    }
}
