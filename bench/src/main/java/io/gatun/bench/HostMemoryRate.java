package io.gatun.bench;

import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/// The memory of the CPU: all threads read a large array that no cache holds.
final class HostMemoryRate implements MemoryRate {
    private static final long LARGEST = 2L << 30;
    private static final long TRIAL = 64L << 20;
    /// Of the heap, so that the rest of a benchmark has room.
    private static final int HEAP_SHARE = 3;
    /// Longs read per call, so that the loop is compiled as a method of its own.
    private static final int CHUNK = 1 << 20;
    /// Longs of a cache line.
    private static final int LINE = 8;

    private final long[][] parts;
    private final ExecutorService pool;
    private final List<Double> rates = new ArrayList<>();
    /// Where the sums go, so that they are needed.
    private volatile long sum;

    HostMemoryRate(Setup setup) {
        int threads = setup.threads();
        long most = setup.isTrial() ? TRIAL : LARGEST;
        int chunks = (int) (Math.min(most, Runtime.getRuntime().maxMemory() / HEAP_SHARE) / Long.BYTES / CHUNK);
        parts = new long[threads][Math.max(1, chunks / threads) * CHUNK];
        for (long[] part : parts) {
            for (int i = 0; i < part.length; i++) {
                part[i] = i * 0x9E3779B97F4A7C15L;
            }
        }
        pool = Executors.newFixedThreadPool(threads, Thread.ofPlatform().daemon().name("memory-rate-", 0).factory());
        read(bytes());
    }

    @Override
    public long bytes() {
        return (long) parts.length * parts[0].length * Long.BYTES;
    }

    @Override
    public double sample() {
        double rate = read(bytes());
        rates.add(rate);
        return rate;
    }

    /// In whole chunks.
    @Override
    public double read(long bytes) {
        int each = Math.clamp(bytes / Long.BYTES / parts.length / CHUNK * CHUNK, CHUNK, parts[0].length);
        List<Callable<Long>> work = new ArrayList<>();
        for (long[] part : parts) {
            work.add(() -> {
                long total = 0;
                for (int from = 0; from < each; from += CHUNK) {
                    total += sum(part, from, from + CHUNK);
                }
                return total;
            });
        }
        try {
            long start = System.nanoTime();
            for (Future<Long> total : pool.invokeAll(work)) {
                sum ^= total.get();
            }
            return (double) parts.length * each * Long.BYTES / (System.nanoTime() - start) * 1e9;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new GatunException(GatunException.Status.CANCELLED, "interrupted while measuring memory", e);
        } catch (ExecutionException e) {
            throw new IllegalStateException(e.getCause());
        }
    }

    /// Adds up one long of each cache line. Memory hands out whole lines, so all of them are read; adding up every long
    /// would take the compiled loop twice as long as the lines need to arrive.
    private static long sum(long[] values, int from, int to) {
        long a = 0;
        long b = 0;
        long c = 0;
        long d = 0;
        for (int i = from; i < to; i += 4 * LINE) {
            a += values[i];
            b += values[i + LINE];
            c += values[i + 2 * LINE];
            d += values[i + 3 * LINE];
        }
        return a + b + c + d;
    }

    @Override
    public List<Map<String, Object>> rows() {
        if (rates.isEmpty()) {
            return List.of();
        }
        return List.of(Report.measure("read rate, array of %d MiB".formatted(bytes() >> 20), "GB/s",
                Spread.of(rates).times(1e-9)));
    }

    @Override
    public void close() {
        pool.shutdownNow();
    }
}
