package io.gatun.ops.cases;

import io.gatun.ops.Sampling;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/// The logits of one sequence and what sampling does with them, by sorting, in double. Fields of `params` as in
/// [Sampling].
final class LogitsRow {
    private final double[] logits;

    private LogitsRow(double[] logits) {
        this.logits = logits;
    }

    static LogitsRow of(HostValues in, String name, int row, int v) {
        double[] logits = new double[v];
        Arrays.setAll(logits, i -> in.floats(name)[row * v + i]);
        return new LogitsRow(logits);
    }

    double at(int id) {
        return logits[id];
    }

    void copyTo(double[] target, int first) {
        System.arraycopy(logits, 0, target, first, logits.length);
    }

    /// The lowest id of the largest logit; -1 where one is NaN.
    int argmax() {
        int best = 0;
        for (int i = 0; i < logits.length; i++) {
            if (Double.isNaN(logits[i])) {
                return -1;
            }
            best = logits[i] > logits[best] ? i : best;
        }
        return best;
    }

    /// Penalties, temperature and filters of row `row` of a batch.
    void process(Rounding round, HostValues in, int row, int m) {
        float[] params = Arrays.copyOfRange(in.floats("params"), row * Sampling.FIELDS, (row + 1) * Sampling.FIELDS);
        long[] tokens = Arrays.copyOfRange(in.longs("tokens"), row * m, row * m + (int) in.longs("lengths")[row]);
        penalise(round, tokens, (int) in.longs("prompt_lengths")[row], params[4], params[5], params[6]);
        float temperature = params[0];
        if (temperature == 0) {
            return;
        }
        for (int i = 0; i < logits.length; i++) {
            logits[i] = round.f32(logits[i] / temperature);
        }
        if (params[1] > 0) {
            keepFirst((int) params[1]);
        }
        if (params[2] < 1) {
            keepFirst(prefixOfMass(params[2]));
        }
        if (params[3] > 0) {
            double largest = Arrays.stream(logits).max().orElseThrow();
            for (int i = 0; i < logits.length; i++) {
                logits[i] = Math.exp(logits[i] - largest) >= params[3] ? logits[i] : Double.NEGATIVE_INFINITY;
            }
        }
    }

    /// Where the cumulative sum of probabilities, in id order, reaches u.
    int draw(double u) {
        double[] weight = weights();
        double target = u * Arrays.stream(weight).sum();
        double sum = 0;
        int last = 0;
        for (int i = 0; i < weight.length; i++) {
            sum += weight[i];
            if (weight[i] > 0) {
                last = i;
                if (sum >= target) {
                    return i;
                }
            }
        }
        return last;
    }

    /// Probabilities but for a common factor.
    double[] weights() {
        double largest = Arrays.stream(logits).max().orElseThrow();
        return Arrays.stream(logits).map(l -> Math.exp(l - largest)).toArray();
    }

    private void penalise(Rounding round, long[] tokens, int promptLength, float repetition, float presence,
            float frequency) {
        for (int id = 0; id < logits.length; id++) {
            int inAll = 0;
            int generated = 0;
            for (int i = 0; i < tokens.length; i++) {
                inAll += tokens[i] == id ? 1 : 0;
                generated += tokens[i] == id && i >= promptLength ? 1 : 0;
            }
            if (inAll > 0) {
                logits[id] = round.f32(logits[id] > 0 ? logits[id] / repetition : logits[id] * repetition);
            }
            if (generated > 0) {
                logits[id] = round.f32(round.f32(logits[id] - round.f32(frequency * generated)) - presence);
            }
        }
    }

    /// Ids by logit, largest first; of equals the lowest id first.
    private int[] order() {
        return IntStream.range(0, logits.length).boxed()
                .sorted(Comparator.comparingDouble((Integer i) -> -logits[i]).thenComparingInt(i -> i))
                .mapToInt(i -> i).toArray();
    }

    private void keepFirst(int k) {
        int[] order = order();
        for (int i = k; i < order.length; i++) {
            logits[order[i]] = Double.NEGATIVE_INFINITY;
        }
    }

    private int prefixOfMass(double p) {
        double[] weight = weights();
        double total = Arrays.stream(weight).sum();
        double sum = 0;
        int n = 0;
        for (int id : order()) {
            if (n > 0 && sum >= p * total) {
                break;
            }
            sum += weight[id];
            n++;
        }
        return n;
    }
}
