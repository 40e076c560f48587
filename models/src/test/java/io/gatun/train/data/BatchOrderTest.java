package io.gatun.train.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import io.gatun.train.data.BatchOrder.Order;
import io.gatun.train.data.BatchOrder.Position;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Does every epoch hold every example once, and does an order go on where it was?
class BatchOrderTest {
    private static List<int[]> take(BatchOrder order, int batches) {
        List<int[]> taken = new ArrayList<>();
        for (int i = 0; i < batches; i++) {
            taken.add(order.next());
        }
        return taken;
    }

    @ParameterizedTest
    @CsvSource({"1, 1", "7, 3", "12, 4", "1000, 33"})
    void next_takesNoExampleTwiceInAnEpoch(int examples, int batchSize) {
        BatchOrder order = new BatchOrder(examples, batchSize, Order.SHUFFLED, 5);
        for (int epoch = 0; epoch < 3; epoch++) {
            int[] all = take(order, order.batchesPerEpoch()).stream().flatMapToInt(Arrays::stream).toArray();
            assertEquals(examples / batchSize * batchSize, all.length);
            assertEquals(all.length, Arrays.stream(all).distinct().count(), "epoch " + epoch);
            assertTrue(Arrays.stream(all).allMatch(i -> i >= 0 && i < examples));
        }
    }

    @Test
    void next_differsByEpochAndSeed() {
        BatchOrder one = new BatchOrder(100, 100, Order.SHUFFLED, 1);
        int[] first = one.next();
        int[] second = one.next();
        assertFalse(Arrays.equals(first, second));
        assertFalse(Arrays.equals(first, new BatchOrder(100, 100, Order.SHUFFLED, 2).next()));
        assertArrayEquals(first, new BatchOrder(100, 100, Order.SHUFFLED, 1).next());
    }

    @Test
    void next_sequentialIsInOrder() {
        BatchOrder order = new BatchOrder(5, 2, Order.SEQUENTIAL, 1);
        assertArrayEquals(new int[] {0, 1}, order.next());
        assertArrayEquals(new int[] {2, 3}, order.next());
        assertArrayEquals(new int[] {0, 1}, order.next());
    }

    /// Where one example ends up must not depend on where it was: a wrong shuffle shows in the mean.
    @Test
    void next_isUniform() {
        int examples = 8;
        int[][] seen = new int[examples][examples];
        for (int seed = 0; seed < 4000; seed++) {
            int[] order = new BatchOrder(examples, examples, Order.SHUFFLED, seed).next();
            for (int place = 0; place < examples; place++) {
                seen[place][order[place]]++;
            }
        }
        for (int[] row : seen) {
            for (int count : row) {
                assertEquals(500, count, 110, Arrays.deepToString(seen)); // five standard deviations of 21
            }
        }
    }

    @Test
    void seek_goesOnBitEqual() {
        BatchOrder whole = new BatchOrder(50, 8, Order.SHUFFLED, 3);
        for (int before = 0; before < 20; before++) {
            Position saved = whole.position();
            List<int[]> expected = take(whole, 9);
            BatchOrder resumed = new BatchOrder(50, 8, Order.SHUFFLED, 3);
            resumed.seek(saved);
            List<int[]> actual = take(resumed, 9);
            for (int i = 0; i < 9; i++) {
                assertArrayEquals(expected.get(i), actual.get(i), saved + " + " + i);
            }
            whole.seek(saved);
            whole.next();
        }
    }

    /// A saved run goes on only if the order never changes; this one is Gatun's own, so it is written down here.
    @Test
    void next_isTheSameInAllVersions() {
        assertEquals(0xE220A8397B1DCDAFL, CounterRandom.bits(0, 0)); // SplitMix64 of seed 0, as published
        assertEquals(0x6E789E6AA1B965F4L, CounterRandom.bits(0, 1));
        assertArrayEquals(new int[] {6, 4, 1, 7, 3, 0, 5, 2}, new BatchOrder(8, 8, Order.SHUFFLED, 0).next());
    }

    @Test
    void seek_refusesPositionsOfOtherData() {
        BatchOrder order = new BatchOrder(10, 5, Order.SHUFFLED, 0);
        String message = assertThrows(GatunException.class, () -> order.seek(new Position(0, 2))).getMessage();
        assertTrue(message.contains("batch from 0 to 1"), message);
        assertThrows(GatunException.class, () -> order.seek(new Position(-1, 0)));
    }

    @Test
    void batchOrder_refusesTooFewExamples() {
        String message = assertThrows(GatunException.class, () -> new BatchOrder(3, 4, Order.SHUFFLED, 0))
                .getMessage();
        assertTrue(message.contains("3 examples do not fill a batch of 4"), message);
    }
}
