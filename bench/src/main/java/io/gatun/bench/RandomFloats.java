package io.gatun.bench;

import java.util.SplittableRandom;

/// Values to compute on: zeros would run faster.
final class RandomFloats {
    private static final long SEED = 1;

    private RandomFloats() {}

    static float[] normal(int count, double deviation) {
        float[] values = new float[count];
        SplittableRandom random = new SplittableRandom(SEED);
        for (int i = 0; i < count; i++) {
            values[i] = (float) (random.nextGaussian() * deviation);
        }
        return values;
    }
}
