package io.gatun.bench;

import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/// Measures a case on the CPU, where a call ends with its work: each call by the host's clock.
final class HostTimer implements CaseTimer {
    private static final int WARM_UPS = 5;
    /// A repeat takes at least so long, so that the clock does not matter.
    private static final long REPEAT_NANOS = 2_000_000;
    private static final int MAX_CALLS = 2000;

    private final OpCase opCase;
    private final Stream stream;
    private final RotatingOperands rotating;
    private final List<Double> nanos = new ArrayList<>();
    private final int calls;

    HostTimer(OpCase opCase, Stream stream, RotatingOperands rotating) {
        this.opCase = opCase;
        this.stream = stream;
        this.rotating = rotating;
        long fastest = Long.MAX_VALUE;
        for (int i = 0; i < WARM_UPS; i++) {
            fastest = Math.min(fastest, call());
        }
        calls = rotating.isChanged() ? 1 : Math.clamp(REPEAT_NANOS / Math.max(1, fastest), 1, MAX_CALLS);
        for (int i = 0; i < calls; i++) {
            call();
        }
    }

    @Override
    public void repeat() {
        long total = 0;
        for (int i = 0; i < calls; i++) {
            total += call();
        }
        nanos.add((double) total / calls);
    }

    private long call() {
        Map<String, Tensor> operands = rotating.next();
        rotating.restore(operands);
        stream.synchronize();
        long start = System.nanoTime();
        opCase.run(stream, operands);
        stream.synchronize();
        return System.nanoTime() - start;
    }

    @Override
    public double[] nanos() {
        return nanos.stream().mapToDouble(Double::doubleValue).toArray();
    }

    @Override
    public int calls() {
        return calls;
    }

    @Override
    public int copies() {
        return rotating.size();
    }

    @Override
    public boolean isCold() {
        return rotating.isCold();
    }
}
