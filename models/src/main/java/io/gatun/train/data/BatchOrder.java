package io.gatun.train.data;

import io.gatun.runtime.GatunException;

/// Which examples are in which batch: every epoch goes through all of them once, in an order that depends on the seed
/// and the number of the epoch. What does not fill the last batch of an epoch is left out of it. For one thread.
///
/// The order after [#seek] is the order after as many calls of [#next], bit for bit.
public final class BatchOrder {
    /// Whether an epoch's order is the examples' own.
    public enum Order {
        SHUFFLED, SEQUENTIAL
    }

    /// The batch that comes next.
    ///
    /// @param epoch from 0
    /// @param batch from 0, within the epoch
    public record Position(long epoch, long batch) {
        public static final Position START = new Position(0, 0);
    }

    private final int batchSize;
    private final Order order;
    private final long seed;
    private final int[] examples;
    private long epoch;
    private int batch;

    /// @param numExamples of an epoch
    /// @throws GatunException when they do not fill one batch
    public BatchOrder(int numExamples, int batchSize, Order order, long seed) {
        if (batchSize < 1 || numExamples < batchSize) {
            throw GatunException.invalid("%d examples do not fill a batch of %d: make the batch smaller or add data",
                    numExamples, batchSize);
        }
        this.batchSize = batchSize;
        this.order = order;
        this.seed = seed;
        this.examples = new int[numExamples];
        arrange();
    }

    public int batchesPerEpoch() {
        return examples.length / batchSize;
    }

    public Position position() {
        return new Position(epoch, batch);
    }

    /// Goes to a position; [#next] then gives its batch.
    ///
    /// @throws GatunException when an epoch has fewer batches
    public void seek(Position position) {
        if (position.epoch < 0 || position.batch < 0 || position.batch >= batchesPerEpoch()) {
            throw GatunException.invalid("position %s, expected an epoch from 0 and a batch from 0 to %d: are these the"
                    + " data and the batch size that it was saved with?", position, batchesPerEpoch() - 1);
        }
        batch = (int) position.batch;
        if (epoch != position.epoch) {
            epoch = position.epoch;
            arrange();
        }
    }

    /// The examples of the next batch.
    public int[] next() {
        int[] chosen = new int[batchSize];
        System.arraycopy(examples, batch * batchSize, chosen, 0, batchSize);
        if (++batch == batchesPerEpoch()) {
            batch = 0;
            epoch++;
            arrange();
        }
        return chosen;
    }

    /// Fisher and Yates, from the examples' own order, so that an epoch does not depend on those before it.
    private void arrange() {
        for (int i = 0; i < examples.length; i++) {
            examples[i] = i;
        }
        if (order == Order.SEQUENTIAL) {
            return;
        }
        long epochSeed = CounterRandom.bits(seed, epoch);
        for (int i = examples.length - 1; i > 0; i--) {
            int j = (int) CounterRandom.below(i + 1L, epochSeed, i);
            int moved = examples[i];
            examples[i] = examples[j];
            examples[j] = moved;
        }
    }
}
