package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.Attention.Mask;
import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.PagedCases;
import io.gatun.ops.cases.PagedCases.Batch;
import io.gatun.ops.cases.PagedCases.Sequence;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.SplittableRandom;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class PagedAttentionTest {
    private static final int H = 4;
    private static final int G = 2;
    private static final int D = 40;

    /// Decode steps, prefill from nothing, a chunk in the middle, an idle sequence, a sequence without rows.
    private static final Batch MIXED = Batch.of(Sequence.of(127, 1), Sequence.of(0, 33), Sequence.of(70, 61),
            new Sequence(5, 1, true), Sequence.of(64, 0), Sequence.of(256, 1));

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void attentionPaged_mixedBatch(DType dtype) {
        OpCheck.check(PagedCases.paged(dtype, MIXED, H, G, D));
        OpCheck.check(PagedCases.paged(dtype, Batch.of(Sequence.of(0, 1)), 1, 1, 1));
        OpCheck.check(PagedCases.paged(dtype, Batch.of(Sequence.of(1000, 1), Sequence.of(63, 2)), 3, 1, 33));
    }

    @ParameterizedTest
    @ValueSource(ints = {64, 72, 80, 88, 96, 128, 160, 256, 512})
    void attentionPaged_headDims(int d) {
        for (DType dtype : new DType[] {DType.F32, DType.BF16}) {
            OpCheck.check(PagedCases.paged(dtype, Batch.of(Sequence.of(60, 7), Sequence.of(63, 1)), 2, 1, d));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void kvAppend_mixedBatch(DType dtype) {
        OpCheck.check(PagedCases.append(dtype, MIXED, G, D));
        OpCheck.check(PagedCases.append(dtype, Batch.of(Sequence.of(63, 3)), 3, 1));
        OpCheck.check(PagedCases.append(dtype, Batch.of(Sequence.of(0, 257), Sequence.of(64, 1)), 1, 127));
    }

    @Test
    void attentionPaged_equalsDense() {
        for (int length : new int[] {1, 31, 64, 65, 200}) {
            try (World world = new World(length)) {
                float[] dense = world.dense();
                float[] paged = world.paged(length);
                for (int i = 0; i < dense.length; i++) {
                    assertEquals(dense[i], paged[i], 2e-6, "attention_paged f32, %d keys: y[%d, %d, %d]"
                            .formatted(length, i / D / H, i / D % H, i % D));
                }
            }
        }
    }

    /// A row's bits are the same for any way to cut the prompt, down to one position at a time on the CPU. CUDA has a
    /// kernel of its own for one row per sequence, which sums in another order.
    @ParameterizedTest
    @ValueSource(ints = {1, 7, 33, 64, 100})
    void attentionPaged_chunksDoNotMatter(int chunk) {
        try (World world = new World(200)) {
            float[] whole = world.paged(200);
            float[] chunked = world.paged(chunk);
            double allowed = chunk == 1 && !TestDevice.isCpu() ? 2e-6 : 0;
            for (int i = 0; i < whole.length; i++) {
                assertEquals(whole[i], chunked[i], allowed, "attention_paged f32, chunks of %d: y[%d, %d, %d]"
                        .formatted(chunk, i / D / H, i / D % H, i % D));
            }
        }
    }

    /// A sequence alone and in a batch, where its pages are others too.
    @Test
    void attentionPaged_sequenceAlone() {
        Fill byPosition = (random, i) -> Math.sin(1 + i);
        Batch together = Batch.of(Sequence.of(0, 70), Sequence.of(100, 31));
        Batch alone = Batch.of(Sequence.of(0, 70));
        float[] expected = run(PagedCases.paged(DType.F32, alone, H, G, D).with("q", byPosition, ""), alone);
        float[] actual = run(PagedCases.paged(DType.F32, together, H, G, D).with("q", byPosition, ""), together);
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], actual[i], "attention_paged f32, in a batch: y[%d, %d, %d]".formatted(
                    i / D / H, i / D % H, i % D));
        }
    }

    /// With keys and values that depend on position alone, wherever their page is.
    private static float[] run(OpCase opCase, Batch batch) {
        double[] cache = new double[opCase.values(1).array("k_pages").size()];
        for (int s = 0; s < 70; s++) {
            for (int g = 0; g < G; g++) {
                for (int i = 0; i < D; i++) {
                    cache[batch.keyAt(0, s, g, G, D) + i] = Math.cos(3 + (s * G + g) * D + i);
                }
            }
        }
        OpCase filled = opCase.with("k_pages", Fill.values(cache), "").with("v_pages", Fill.values(cache), "");
        return OpCheck.run(filled, filled.values(1)).floats("y");
    }

    @Test
    void attentionPaged_badArguments() {
        OpCase opCase = PagedCases.paged(DType.F32, MIXED, H, G, D);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "v_pages", DType.F32, new int[] {1, G, 64, D}, "v_pages");
        BadArguments.refuses(opCase, "k_pages", DType.F32, new int[] {11, G, 32, D}, "k_pages");
        BadArguments.refuses(opCase, "query_start", DType.I32, new int[] {3}, "query_start");
    }

    @Test
    void kvAppend_badArguments() {
        OpCase opCase = PagedCases.append(DType.BF16, MIXED, G, D);
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "k", DType.F16, new int[] {97, G, D}, "k");
        BadArguments.refuses(opCase, "positions", DType.I32, new int[] {1}, "positions");
    }

    /// One sequence with q, k, v for each position.
    private static final class World implements AutoCloseable {
        private final int length;
        private final Device device = TestDevice.open(2);
        private final Stream stream = device.newStream();
        private final DeviceArena arena = device.newArena("World");
        private final float scale = (float) (1 / Math.sqrt(D));
        private final Tensor q;
        private final Tensor k;
        private final Tensor v;

        World(int length) {
            this.length = length;
            var random = new SplittableRandom(5);
            q = random(random, H);
            k = random(random, G);
            v = random(random, G);
        }

        private Tensor random(SplittableRandom random, int heads) {
            float[] values = new float[length * heads * D];
            for (int i = 0; i < values.length; i++) {
                values[i] = (float) random.nextGaussian();
            }
            Tensor t = arena.allocate(DType.F32, length, heads, D);
            t.copyFrom(stream, values);
            return t;
        }

        float[] dense() {
            Tensor y = arena.allocate(DType.F32, 1, length, H, D);
            Attention.attention(stream, y, null, q.reshape(1, length, H, D), k.reshape(1, length, G, D),
                    v.reshape(1, length, G, D), null, null, scale, Mask.CAUSAL, null);
            return y.toFloats(stream);
        }

        /// Appends and attends chunk by chunk; the page of position p is numbered backwards.
        float[] paged(int chunk) {
            int pages = (length + Attention.PAGE_SIZE - 1) / Attention.PAGE_SIZE;
            Tensor kPages = arena.allocate(DType.F32, pages, G, Attention.PAGE_SIZE, D);
            Tensor vPages = arena.allocate(DType.F32, pages, G, Attention.PAGE_SIZE, D);
            Elementwise.fill(stream, kPages, Double.NaN);
            Elementwise.fill(stream, vPages, Double.NaN);
            Tensor table = arena.allocate(DType.I32, 1, pages);
            table.copyFrom(stream, LongStream.range(0, pages).map(p -> pages - 1 - p).toArray());
            Tensor start = arena.allocate(DType.I32, 2);
            Tensor y = arena.allocate(DType.F32, length, H, D);
            for (int from = 0; from < length; from += chunk) {
                int to = Math.min(length, from + chunk);
                Tensor positions = arena.allocate(DType.I32, to - from);
                positions.copyFrom(stream, LongStream.range(from, to).toArray());
                start.copyFrom(stream, 0L, to - from);
                Attention.appendKv(stream, kPages, vPages, k.slice(0, from, to), v.slice(0, from, to), table, start,
                        positions);
                Tensor queries = q.slice(0, from, to);
                long bytes = Attention.pagedWorkspaceBytes(stream, queries, table);
                Attention.attentionPaged(stream, y.slice(0, from, to), null, queries, kPages, vPages, table, start,
                        positions, scale, bytes == 0 ? null : arena.allocate(DType.U8, bytes));
            }
            return y.toFloats(stream);
        }

        @Override
        public void close() {
            arena.close();
            stream.close();
            device.close();
        }
    }
}
