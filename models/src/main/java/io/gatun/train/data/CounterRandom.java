package io.gatun.train.data;

/// Random numbers of the data order: number `n` of a seed is a function of both, so that a position is all there is to
/// save. SplitMix64 (Steele, Lea and Flood 2014), whose state after n draws is `seed + n * GAMMA`.
public final class CounterRandom {
    private static final long GAMMA = 0x9E3779B97F4A7C15L;

    private CounterRandom() {}

    /// 64 random bits.
    public static long bits(long seed, long n) {
        long z = seed + (n + 1) * GAMMA;
        z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
        z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
        return z ^ z >>> 31;
    }

    /// 0 to bound - 1, with a bias of less than bound / 2^64.
    public static long below(long bound, long seed, long n) {
        if (bound <= 0) {
            throw new IllegalArgumentException("bound " + bound + ", expected 1 or more");
        }
        return Math.unsignedMultiplyHigh(bits(seed, n), bound);
    }

    /// From 0 to just below 1.
    public static float uniform(long seed, long n) {
        return (bits(seed, n) >>> 40) * 0x1p-24f;
    }
}
