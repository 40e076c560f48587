package io.gatun.train.data;

import io.gatun.runtime.GatunException;

/// Windows of T + 1 ids in a part of a token file: T inputs, and the same shifted by one as targets.
///
/// In sequence they overlap by one id, so that each id but the first is a target once. Drawn at random, window `n` of a
/// seed is always the same, so that a run that goes on needs to know no more than `n`.
public final class TokenWindows {
    private final TokenFile file;
    private final long begin;
    private final long size;
    private final int length;

    TokenWindows(TokenFile file, long begin, long end, int length) {
        this.file = file;
        this.begin = begin;
        this.size = end - begin;
        this.length = length;
        if (length < 1 || size <= length) {
            throw GatunException.invalid("%s: ids %,d to %,d do not hold one window of %,d + 1: shorten the windows or"
                    + " add text", file, begin, end, length);
        }
    }

    /// T
    public int length() {
        return length;
    }

    /// How many ids are there.
    public long size() {
        return size;
    }

    /// How many windows there are in sequence.
    public int count() {
        return (int) Math.min((size - 1) / length, Integer.MAX_VALUE);
    }

    /// Window number `index` in sequence.
    ///
    /// @param ids its T + 1 ids are put there
    /// @param at  from this place on
    public void sequential(int index, int[] ids, int at) {
        if (index < 0 || index >= count()) {
            throw new IndexOutOfBoundsException("window " + index + " of " + count());
        }
        copy((long) index * length, ids, at);
    }

    /// Draws a window, at any offset.
    ///
    /// @param seed of the run
    /// @param n    number of the window: step, micro-batch and row in one
    public void random(long seed, long n, int[] ids, int at) {
        copy(CounterRandom.below(size - length, seed, n), ids, at);
    }

    private void copy(long offset, int[] ids, int at) {
        for (int i = 0; i <= length; i++) {
            ids[at + i] = file.get(begin + offset + i);
        }
    }

    /// A batch in sequence; see [BatchOrder#next].
    ///
    /// @return [B, T + 1]
    public int[] batch(int[] windows) {
        int[] ids = new int[windows.length * (length + 1)];
        for (int b = 0; b < windows.length; b++) {
            sequential(windows[b], ids, b * (length + 1));
        }
        return ids;
    }

    /// A random batch, number `index` of a seed.
    ///
    /// @return [B, T + 1]
    public int[] randomBatch(long seed, long index, int batchSize) {
        int[] ids = new int[batchSize * (length + 1)];
        for (int b = 0; b < batchSize; b++) {
            random(seed, index * batchSize + b, ids, b * (length + 1));
        }
        return ids;
    }

    @Override
    public String toString() {
        return "%,d ids from %,d of %s in windows of %,d".formatted(size, begin, file, length);
    }
}
