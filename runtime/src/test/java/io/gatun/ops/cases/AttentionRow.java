package io.gatun.ops.cases;

import io.gatun.runtime.DType;

/// One query row of attention: scores, softmax and weighted sum, one after the other. As the obvious same-dtype
/// computation it keeps scores in f32 and rounds the weights to the dtype of the values, as a matrix product needs it.
final class AttentionRow {
    private final Rounding round;
    private final DType dtype;
    private final int d;
    private final float scale;

    AttentionRow(Rounding round, DType dtype, int d, float scale) {
        this.round = round;
        this.dtype = dtype;
        this.d = d;
        this.scale = scale;
    }

    /// Writes D elements of y at `first`, where q has the row too, and returns the lse.
    ///
    /// @param keyAt where each visible key and value begins
    double compute(float[] q, int first, float[] k, float[] v, int[] keyAt, double[] bias, double[] y) {
        double[] score = new double[keyAt.length];
        double max = Double.NEGATIVE_INFINITY;
        for (int s = 0; s < keyAt.length; s++) {
            double dot = 0;
            for (int i = 0; i < d; i++) {
                dot = round.f32(dot + round.f32((double) q[first + i] * k[keyAt[s] + i]));
            }
            score[s] = round.f32(round.f32(dot * scale) + bias[s]);
            max = Math.max(max, score[s]);
        }
        double sum = 0;
        int seen = max == Double.NEGATIVE_INFINITY ? 0 : keyAt.length;
        for (int s = 0; s < seen; s++) {
            score[s] = round.f32(Math.exp(round.f32(score[s] - max)));
            sum = round.f32(sum + score[s]);
        }
        for (int i = 0; i < d; i++) {
            double weighted = 0;
            for (int s = 0; s < seen; s++) {
                double weight = round.store(dtype, round.f32(score[s] / sum));
                weighted = round.f32(weighted + round.f32(weight * v[keyAt[s] + i]));
            }
            y[first + i] = round.store(dtype, weighted);
        }
        return round.f32(max + Math.log(sum));
    }
}
