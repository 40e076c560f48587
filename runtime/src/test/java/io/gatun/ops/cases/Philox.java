package io.gatun.ops.cases;

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), and how Gatun keys it.
public final class Philox {
    private static final int ROUNDS = 10;

    private Philox() {}

    /// The four words of a counter under a key.
    ///
    /// @param counter four words
    /// @param key     two words
    public static int[] words(int[] counter, int[] key) {
        int[] x = counter.clone();
        int k0 = key[0];
        int k1 = key[1];
        for (int round = 0; round < ROUNDS; round++) {
            long a = 0xD2511F53L * Integer.toUnsignedLong(x[0]);
            long b = 0xCD9E8D57L * Integer.toUnsignedLong(x[2]);
            x = new int[] {(int) (b >>> 32) ^ x[1] ^ k0, (int) b, (int) (a >>> 32) ^ x[3] ^ k1, (int) a};
            k0 += 0x9E3779B9;
            k1 += 0xBB67AE85;
        }
        return x;
    }

    /// In (0, 1], a multiple of 2^-24: of element `element` of a step of a sequence.
    public static double uniform(long seed, int sequence, int step, long element) {
        return uniform(words(seed, sequence, step, element)[(int) (element % 4)]);
    }

    /// Standard normal, by Box and Muller: of four elements the first two share two words, and the last two.
    public static double normal(long seed, int sequence, int step, long element, Rounding round) {
        int[] words = words(seed, sequence, step, element);
        int pair = (int) (element % 4) / 2 * 2;
        double radius = round.f32(Math.sqrt(round.f32(-2 * round.f32(Math.log(uniform(words[pair]))))));
        double angle = round.f32(round.f32(2 * Math.PI) * uniform(words[pair + 1]));
        return round.f32(radius * round.f32(element % 2 == 0 ? Math.cos(angle) : Math.sin(angle)));
    }

    private static int[] words(long seed, int sequence, int step, long element) {
        long quad = element / 4;
        return words(new int[] {(int) quad, (int) (quad >>> 32), step, sequence},
                new int[] {(int) seed, (int) (seed >>> 32)});
    }

    private static double uniform(int word) {
        return ((word >>> 8) + 1) * 0x1p-24;
    }
}
