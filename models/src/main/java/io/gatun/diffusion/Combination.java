package io.gatun.diffusion;

import io.gatun.ops.Diffusion;

/// A linear combination of what a sampler step may use: the noisy sample x, the model's (guided) output e, the denoised
/// sample d after clipping, fresh noise, and slots of state. Samplers are written in these; a trajectory turns them
/// into rows of coefficients.
final class Combination {
    static final Combination ZERO = new Combination(new double[Diffusion.SOURCES]);
    static final Combination X = source(0);
    static final Combination E = source(1);
    static final Combination D = source(2);
    static final Combination NOISE = source(3);
    private static final int STATE = 4;
    private static final int NOISE_INDEX = 3;

    private final double[] coefficients;

    private Combination(double[] coefficients) {
        this.coefficients = coefficients;
    }

    private static Combination source(int index) {
        double[] one = new double[Diffusion.SOURCES];
        one[index] = 1;
        return new Combination(one);
    }

    /// What slot `j` holds before the step.
    static Combination state(int j) {
        return source(STATE + j);
    }

    Combination times(double factor) {
        double[] scaled = coefficients.clone();
        for (int i = 0; i < scaled.length; i++) {
            scaled[i] = scaled[i] == 0 ? 0 : scaled[i] * factor;
        }
        return new Combination(scaled);
    }

    Combination over(double divisor) {
        return times(1 / divisor);
    }

    Combination plus(Combination other) {
        double[] sum = coefficients.clone();
        for (int i = 0; i < sum.length; i++) {
            sum[i] += other.coefficients[i];
        }
        return new Combination(sum);
    }

    Combination minus(Combination other) {
        return plus(other.times(-1));
    }

    double of(int source) {
        return coefficients[source];
    }

    boolean hasNoise() {
        return coefficients[NOISE_INDEX] != 0;
    }

    /// The number of slots that this reads, counted from slot 0.
    int slots() {
        int n = 0;
        for (int j = 0; j < Diffusion.SLOTS; j++) {
            n = coefficients[STATE + j] != 0 ? j + 1 : n;
        }
        return n;
    }
}
