package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Softmax;
import io.gatun.runtime.DType;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;

/// Cases of [Softmax].
public final class SoftmaxCases {
    private SoftmaxCases() {}

    public static OpCase softmax(DType xType, DType yType, int n, int c) {
        return operands("softmax", xType, yType, n, c).build((s, t) -> Softmax.softmax(s, t.get("y"), t.get("x")),
                (in, out, round) -> rows(in, out.get("y"), round, yType, n, c, false));
    }

    public static OpCase logSoftmax(DType xType, DType yType, int n, int c) {
        return operands("log_softmax", xType, yType, n, c).build(
                (s, t) -> Softmax.logSoftmax(s, t.get("y"), t.get("x")),
                (in, out, round) -> rows(in, out.get("y"), round, yType, n, c, true));
    }

    /// What [Softmax#crossEntropy] is asked for.
    ///
    /// @param ignoreIndex target of rows that do not count
    public record Loss(DType targets, long ignoreIndex, double smoothing, Set<Part> parts) {
        public static final Loss TRAINING = new Loss(DType.I32, -100, 0, Set.of(Part.GRADIENT));
    }

    /// Operands of [Softmax#crossEntropy] that may be left out.
    public enum Part { ROW_LOSSES, GRADIENT, SCALE }

    /// Targets are drawn from 0 .. V-1, every fifth is ignored.
    public static OpCase crossEntropy(DType dtype, int n, int v, Loss loss) {
        Fill targets = Fill.integers(0, v).with(2, 5, loss.ignoreIndex);
        OpCaseBuilder b = OpCase.of("cross_entropy", dtype, "N=%d V=%d %s", n, v, loss)
                .out("loss", DType.F32, CONTIGUOUS, 1);
        if (loss.parts.contains(Part.ROW_LOSSES)) {
            b.out("row_losses", DType.F32, CONTIGUOUS, n);
        }
        if (loss.parts.contains(Part.GRADIENT)) {
            b.out("dlogits", dtype, ROWS, n, v).aliasing("dlogits", "logits");
        }
        b.in("logits", dtype, ROWS, Fill.normal(3), n, v).in("targets", loss.targets, CONTIGUOUS, targets, n);
        if (loss.parts.contains(Part.SCALE)) {
            b.in("grad_scale", DType.F32, CONTIGUOUS, Fill.constant(1024.5), 1);
        }
        return b.workspace((s, t) -> Softmax.crossEntropyWorkspaceBytes(s, t.get("logits")))
                .build((s, t) -> Softmax.crossEntropy(s, t.get("loss"), t.get("row_losses"), t.get("dlogits"),
                        t.get("logits"), t.get("targets"), loss.ignoreIndex, (float) loss.smoothing,
                        t.get("grad_scale"), t.get("workspace")),
                        (in, out, round) -> crossEntropy(in, out, round, dtype, n, v, loss));
    }

    private static void crossEntropy(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, int n,
            int v, Loss loss) {
        long[] targets = in.longs("targets");
        long count = Arrays.stream(targets).filter(t -> t != loss.ignoreIndex).count();
        double scale = round.f32((in.has("grad_scale") ? in.floats("grad_scale")[0] : 1) / count);
        double[] gradient = out.getOrDefault("dlogits", new double[n * v]);
        double[] losses = out.getOrDefault("row_losses", new double[n]);
        double sum = 0;
        for (int row = 0; row < n; row++) {
            losses[row] = 0;
            if (targets[row] == loss.ignoreIndex) {
                Arrays.fill(gradient, row * v, row * v + v, 0);
            } else {
                losses[row] = crossEntropyRow(in.floats("logits"), gradient, row * v, v, targets[row], scale, round,
                        dtype, loss);
            }
            sum += losses[row];
        }
        out.get("loss")[0] = count == 0 ? 0 : round.f32(sum / count);
    }

    /// The loss of one row; its gradient goes to `gradient` from `first` on.
    private static double crossEntropyRow(float[] x, double[] gradient, int first, int v, long target, double scale,
            Rounding round, DType dtype, Loss loss) {
        if (target < 0 || target >= v) {
            Arrays.fill(gradient, first, first + v, Double.NaN);
            return Double.NaN;
        }
        double e = (float) loss.smoothing;
        double max = Double.NEGATIVE_INFINITY;
        double mean = 0;
        for (int k = 0; k < v; k++) {
            max = Math.max(max, x[first + k]);
            mean = round.f32(mean + x[first + k]);
        }
        mean = round.f32(mean / v);
        double sum = 0;
        for (int k = 0; k < v; k++) {
            sum = round.f32(sum + round.f32(Math.exp(round.f32(x[first + k] - max))));
        }
        for (int k = 0; k < v; k++) {
            double p = round.f32(round.f32(Math.exp(round.f32(x[first + k] - max))) / sum);
            double wanted = round.f32((k == target ? 1 - e : 0) + e / v);
            gradient[first + k] = round.store(dtype, round.f32(round.f32(p - wanted) * scale));
        }
        double logSum = round.f32(max + round.f32(Math.log(sum)));
        double hit = e < 1 ? (1 - e) * round.f32(logSum - x[first + (int) target]) : 0;
        return round.f32(hit + (e > 0 ? e * round.f32(logSum - mean) : 0));
    }

    private static OpCaseBuilder operands(String op, DType xType, DType yType, int n, int c) {
        OpCaseBuilder b = OpCase.of(op, xType, "to %s N=%d C=%d", yType, n, c)
                .out("y", yType, ROWS, n, c)
                .in("x", xType, ROWS, Fill.normal(3), n, c);
        return xType == yType ? b.aliasing("y", "x") : b;
    }

    private static void rows(HostValues in, double[] y, Rounding round, DType yType, int n, int c, boolean log) {
        float[] x = in.floats("x");
        for (int row = 0; row < n; row++) {
            int first = row * c;
            double max = Double.NEGATIVE_INFINITY;
            for (int k = 0; k < c; k++) {
                max = Math.max(max, x[first + k]);
            }
            double sum = 0;
            for (int k = 0; k < c; k++) {
                sum = round.f32(sum + round.f32(Math.exp(round.f32(x[first + k] - max))));
            }
            for (int k = 0; k < c; k++) {
                double shifted = round.f32(x[first + k] - max);
                double value;
                if (max == Double.NEGATIVE_INFINITY) {
                    value = log ? max : 0;
                } else if (max == Double.POSITIVE_INFINITY) {
                    value = Double.NaN;
                } else {
                    value = log ? shifted - round.f32(Math.log(sum)) : round.f32(Math.exp(shifted)) / sum;
                }
                y[first + k] = round.store(yType, round.f32(value));
            }
        }
    }
}
