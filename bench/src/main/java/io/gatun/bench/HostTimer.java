package io.gatun.bench;

import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
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
    private final double[] nanos;
    private final int calls;

    HostTimer(OpCase opCase, Stream stream, RotatingOperands rotating, int repeats) {
        this.opCase = opCase;
        this.stream = stream;
        this.rotating = rotating;
        nanos = new double[repeats];
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
    public void repeat(int index) {
        long total = 0;
        for (int i = 0; i < calls; i++) {
            total += call();
        }
        nanos[index] = (double) total / calls;
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
        return nanos;
    }

    @Override
    public int calls() {
        return calls;
    }

    @Override
    public int copies() {
        return rotating.size();
    }
}
