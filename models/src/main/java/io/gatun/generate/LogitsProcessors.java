package io.gatun.generate;

import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import java.util.stream.IntStream;

/// Logits processing on the host, in the order of Hugging Face transformers, for settings that have no kernel and for
/// beam search. One row at a time; removed logits become -inf. Ties: the lower id stays.
final class LogitsProcessors {
    private static final float REMOVED = Float.NEGATIVE_INFINITY;

    private LogitsProcessors() {}

    /// Whether the device's kernels do not cover these settings.
    static boolean needsHost(GenerationConfig c) {
        return c.typicalP() < 1 || c.noRepeatNgramSize() > 0 || !c.badWords().isEmpty() || c.minNewTokens() > 0
                || c.forcedEos() >= 0 || c.logprobs() >= 0;
    }

    /// All processors that the settings ask for.
    static void process(float[] logits, Sequence sequence, GenerationConfig c, Set<Integer> eosIds) {
        penalize(logits, sequence, c);
        if (c.noRepeatNgramSize() > 0) {
            banRepeatedNgrams(logits, sequence, c.noRepeatNgramSize());
        }
        c.badWords().forEach(word -> banLastOf(word, logits, sequence));
        if (sequence.numGenerated() < c.minNewTokens()) {
            eosIds.forEach(id -> remove(logits, id));
        }
        if (c.forcedEos() >= 0 && sequence.numGenerated() == sequence.maxNewTokens - 1) {
            Arrays.fill(logits, REMOVED);
            logits[c.forcedEos()] = 0;
        }
        if (!c.isGreedy()) {
            warp(logits, c);
        }
    }

    /// Repetition penalty over prompt and output, then frequency and presence penalty over the output.
    static void penalize(float[] logits, Sequence sequence, GenerationConfig c) {
        if (c.repetitionPenalty() != 1) {
            Set<Integer> seen = new HashSet<>();
            for (int i = 0; i < sequence.length(); i++) {
                int id = sequence.id(i);
                if (seen.add(id)) {
                    logits[id] = logits[id] < 0 ? logits[id] * c.repetitionPenalty()
                            : logits[id] / c.repetitionPenalty();
                }
            }
        }
        if (c.frequencyPenalty() != 0 || c.presencePenalty() != 0) {
            Set<Integer> seen = new HashSet<>();
            for (int i = sequence.prompt.length; i < sequence.length(); i++) {
                int id = sequence.id(i);
                logits[id] -= c.frequencyPenalty() + (seen.add(id) ? c.presencePenalty() : 0);
            }
        }
    }

    /// Temperature, top-k, top-p, min-p, typical.
    static void warp(float[] logits, GenerationConfig c) {
        for (int i = 0; c.temperature() != 1 && i < logits.length; i++) {
            logits[i] /= c.temperature();
        }
        if (c.topK() > 0) {
            keepFirst(logits, byLogit(logits), c.topK());
        }
        if (c.topP() < 1) {
            int[] order = byLogit(logits);
            keepFirst(logits, order, prefixWithMass(softmax(logits), order, c.topP()));
        }
        if (c.minP() > 0) {
            double[] p = softmax(logits);
            double least = c.minP() * Arrays.stream(p).max().orElse(0);
            for (int i = 0; i < p.length; i++) {
                if (p[i] < least) {
                    logits[i] = REMOVED;
                }
            }
        }
        if (c.typicalP() < 1) {
            keepTypical(logits, c.typicalP());
        }
    }

    /// Keeps the tokens whose information is closest to the entropy, until they hold `mass` of the probability.
    private static void keepTypical(float[] logits, float mass) {
        double[] p = softmax(logits);
        double entropy = 0;
        for (double x : p) {
            entropy -= x > 0 ? x * Math.log(x) : 0;
        }
        double[] distance = new double[p.length];
        for (int i = 0; i < p.length; i++) {
            distance[i] = p[i] > 0 ? Math.abs(-Math.log(p[i]) - entropy) : Double.POSITIVE_INFINITY;
        }
        int[] order = IntStream.range(0, p.length).boxed()
                .sorted((a, b) -> distance[a] != distance[b] ? Double.compare(distance[a], distance[b]) : a - b)
                .mapToInt(Integer::intValue).toArray();
        keepFirst(logits, order, prefixWithMass(p, order, mass));
    }

    /// Removes every id that would complete an n-gram that has occurred.
    private static void banRepeatedNgrams(float[] logits, Sequence s, int n) {
        for (int i = 0; i + n <= s.length(); i++) {
            boolean same = true;
            for (int k = 0; same && k < n - 1; k++) {
                same = s.id(i + k) == s.id(s.length() - n + 1 + k);
            }
            if (same) {
                remove(logits, s.id(i + n - 1));
            }
        }
    }

    /// Removes the last id of a bad word where its other ids have just been generated.
    private static void banLastOf(int[] word, float[] logits, Sequence s) {
        boolean same = s.length() >= word.length - 1;
        for (int k = 0; same && k < word.length - 1; k++) {
            same = s.id(s.length() - word.length + 1 + k) == word[k];
        }
        if (same) {
            remove(logits, word[word.length - 1]);
        }
    }

    private static void remove(float[] logits, int id) {
        if (id >= 0 && id < logits.length) {
            logits[id] = REMOVED;
        }
    }

    /// Ids by logit, largest first, then by id.
    private static int[] byLogit(float[] logits) {
        return IntStream.range(0, logits.length).boxed()
                .sorted((a, b) -> logits[a] != logits[b] ? Float.compare(logits[b], logits[a]) : a - b)
                .mapToInt(Integer::intValue).toArray();
    }

    private static void keepFirst(float[] logits, int[] order, int count) {
        for (int i = count; i < order.length; i++) {
            logits[order[i]] = REMOVED;
        }
    }

    /// How many of `order` it takes to reach a mass; at least one.
    private static int prefixWithMass(double[] p, int[] order, double mass) {
        double sum = 0;
        for (int i = 0; i < order.length; i++) {
            sum += p[order[i]];
            if (sum >= mass) {
                return i + 1;
            }
        }
        return order.length;
    }

    static double[] softmax(float[] logits) {
        double[] p = logSoftmax(logits);
        for (int i = 0; i < p.length; i++) {
            p[i] = Math.exp(p[i]);
        }
        return p;
    }

    static double[] logSoftmax(float[] logits) {
        double max = Double.NEGATIVE_INFINITY;
        for (float x : logits) {
            max = Math.max(max, x);
        }
        double sum = 0;
        for (float x : logits) {
            sum += Math.exp(x - max);
        }
        double shift = max + Math.log(sum);
        double[] y = new double[logits.length];
        for (int i = 0; i < y.length; i++) {
            y[i] = logits[i] - shift;
        }
        return y;
    }

    /// The log-probability of a chosen id and of the `count` best.
    static TokenLogprob logprob(double[] logProbabilities, int id, int count) {
        return new TokenLogprob(id, (float) logProbabilities[id],
                IntStream.range(0, logProbabilities.length).boxed()
                        .sorted((a, b) -> Double.compare(logProbabilities[b], logProbabilities[a])).limit(count)
                        .map(i -> new TokenLogprob.Alternative(i, (float) logProbabilities[i])).toList());
    }
}
