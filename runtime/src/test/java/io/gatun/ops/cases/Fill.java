package io.gatun.ops.cases;

import java.util.random.RandomGenerator;

/// How the values of an operand are made: element `index` (row-major) from a seeded generator.
@FunctionalInterface
public interface Fill {
    double at(RandomGenerator random, int index);

    /// Gaussian with mean 0.
    static Fill normal(double deviation) {
        return (random, index) -> random.nextGaussian() * deviation;
    }

    /// Evenly in [low, high).
    static Fill uniform(double low, double high) {
        return (random, index) -> low + (high - low) * random.nextDouble();
    }

    /// Whole numbers in [low, high).
    static Fill integers(int low, int high) {
        return (random, index) -> random.nextInt(low, high);
    }

    static Fill constant(double value) {
        return (random, index) -> value;
    }

    /// These values, again from the start when there are more elements.
    static Fill values(double... values) {
        return (random, index) -> values[index % values.length];
    }

    /// This, with every `period`-th element, from `first` on, taken in turn from `specials`.
    default Fill with(int first, int period, double... specials) {
        return (random, index) -> {
            double ordinary = at(random, index);
            int k = index - first;
            return k >= 0 && k % period == 0 ? specials[k / period % specials.length] : ordinary;
        };
    }

    /// This, with NaN, infinities, zeros of both signs and large values strewn in.
    default Fill withSpecials() {
        return with(1, 5, Double.NaN, Double.POSITIVE_INFINITY, -0.0, Double.NEGATIVE_INFINITY, 0.0, 300.0, -300.0);
    }
}
