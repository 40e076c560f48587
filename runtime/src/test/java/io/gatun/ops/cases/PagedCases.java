package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.OUTER;

import io.gatun.ops.Attention;
import io.gatun.runtime.DType;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/// Cases of [Attention] against a paged cache, and of filling that cache. What no query may see is NaN.
public final class PagedCases {
    private static final int P = Attention.PAGE_SIZE;

    private PagedCases() {}

    /// A sequence with `cached` keys before its `rows` new ones; idle: its rows have position -1.
    public record Sequence(int cached, int rows, boolean idle) {
        public static Sequence of(int cached, int rows) {
            return new Sequence(cached, rows, false);
        }

        int length() {
            return cached + rows;
        }

        int pages() {
            return (length() + P - 1) / P;
        }
    }

    /// Where the rows of a batch and their pages are. Pages are handed out from the last to the first, in turn among
    /// the sequences, so that none has neighbours; one more stays unused.
    public record Batch(List<Sequence> sequences, int[] queryStart, int[] positions, int[] pageTable, int maxPages,
            int numPages) {
        public static Batch of(Sequence... sequences) {
            int b = sequences.length;
            int[] queryStart = new int[b + 1];
            int maxPages = 1;
            for (int i = 0; i < b; i++) {
                queryStart[i + 1] = queryStart[i] + sequences[i].rows;
                maxPages = Math.max(maxPages, sequences[i].pages());
            }
            int[] positions = Arrays.stream(sequences).flatMapToInt(
                    s -> IntStream.range(0, s.rows).map(r -> s.idle ? -1 : s.cached + r)).toArray();
            int next = Arrays.stream(sequences).mapToInt(Sequence::pages).sum();
            int numPages = next + 1;
            int[] pageTable = new int[b * maxPages];
            Arrays.fill(pageTable, -1);
            for (int page = 0; page < maxPages; page++) {
                for (int i = 0; i < b; i++) {
                    if (page < sequences[i].pages()) {
                        pageTable[i * maxPages + page] = next--;
                    }
                }
            }
            return new Batch(List.of(sequences), queryStart, positions, pageTable, maxPages, numPages);
        }

        int rows() {
            return positions.length;
        }

        int sequenceOf(int row) {
            int b = 0;
            while (queryStart[b + 1] <= row) {
                b++;
            }
            return b;
        }

        /// Where the key of a position begins in `k_pages`.
        public int keyAt(int sequence, int position, int g, int kvHeads, int d) {
            int page = pageTable[sequence * maxPages + position / P];
            return ((page * kvHeads + g) * P + position % P) * d;
        }

        /// Elements of all keys that some query sees.
        long visible(int elementsPerKey) {
            return sequences.stream().mapToLong(Sequence::length).sum() * elementsPerKey;
        }

        boolean[] isVisible(int kvHeads, int d) {
            boolean[] visible = new boolean[numPages * kvHeads * P * d];
            for (int b = 0; b < sequences.size(); b++) {
                for (int s = 0; s < sequences.get(b).length() && !sequences.get(b).idle; s++) {
                    for (int g = 0; g < kvHeads; g++) {
                        int at = keyAt(b, s, g, kvHeads, d);
                        Arrays.fill(visible, at, at + d, true);
                    }
                }
            }
            return visible;
        }

        @Override
        public String toString() {
            return "N=%d %s".formatted(rows(), sequences.stream()
                    .map(s -> s.cached + "+" + s.rows + (s.idle ? " idle" : "")).toList());
        }
    }

    public static OpCase paged(DType dtype, Batch batch, int h, int kvHeads, int d) {
        int n = batch.rows();
        float scale = (float) (1 / Math.sqrt(d));
        boolean[] visible = batch.isVisible(kvHeads, d);
        Fill keys = Fill.normal(1.5);
        Fill cache = (random, i) -> {
            double value = keys.at(random, i);
            return visible[i] ? value : Double.NaN;
        };
        long touched = batch.visible(kvHeads * d);
        return tables(OpCase.of("attention_paged", dtype, "%s H=%d G=%d D=%d", batch, h, kvHeads, d)
                .out("y", dtype, OUTER, n, h, d)
                .out("lse", DType.F32, CONTIGUOUS, n, h)
                .in("q", dtype, OUTER, Fill.normal(1.5), n, h, d)
                .in("k_pages", dtype, CONTIGUOUS, cache, batch.numPages, kvHeads, P, d).touching(touched)
                .in("v_pages", dtype, CONTIGUOUS, cache, batch.numPages, kvHeads, P, d).touching(touched), batch)
                .flops(4L * h * d * Arrays.stream(batch.positions).mapToLong(p -> p + 1).sum())
                .accuracy(Accuracy.ROOT_MEAN_SQUARE)
                .workspace((s, t) -> Attention.pagedWorkspaceBytes(s, t.get("q"), t.get("page_table")))
                .build((s, t) -> Attention.attentionPaged(s, t.get("y"), t.get("lse"), t.get("q"), t.get("k_pages"),
                        t.get("v_pages"), t.get("page_table"), t.get("query_start"), t.get("positions"), scale,
                        t.get("workspace")),
                        (in, out, round) -> paged(in, out, new AttentionRow(round, dtype, d, scale), batch, h, kvHeads,
                                d));
    }

    public static OpCase append(DType dtype, Batch batch, int kvHeads, int d) {
        int n = batch.rows();
        long touched = (long) n * kvHeads * d;
        return tables(OpCase.of("kv_append", dtype, "%s G=%d D=%d", batch, kvHeads, d)
                .inOut("k_pages", dtype, CONTIGUOUS, Fill.normal(1), batch.numPages, kvHeads, P, d).touching(touched)
                .inOut("v_pages", dtype, CONTIGUOUS, Fill.normal(1), batch.numPages, kvHeads, P, d).touching(touched)
                .in("k", dtype, OUTER, Fill.normal(1).withSpecials(), n, kvHeads, d)
                .in("v", dtype, OUTER, Fill.normal(1).withSpecials(), n, kvHeads, d), batch)
                .accuracy(Accuracy.EXACT)
                .build((s, t) -> Attention.appendKv(s, t.get("k_pages"), t.get("v_pages"), t.get("k"), t.get("v"),
                        t.get("page_table"), t.get("query_start"), t.get("positions")), (in, out, round) -> {
                            append(in.floats("k"), out.get("k_pages"), batch, kvHeads, d);
                            append(in.floats("v"), out.get("v_pages"), batch, kvHeads, d);
                        });
    }

    private static OpCaseBuilder tables(OpCaseBuilder b, Batch batch) {
        int sequences = batch.sequences.size();
        return b.in("page_table", DType.I32, CONTIGUOUS, fill(batch.pageTable), sequences, batch.maxPages)
                .in("query_start", DType.I32, CONTIGUOUS, fill(batch.queryStart), sequences + 1)
                .in("positions", DType.I32, CONTIGUOUS, fill(batch.positions), batch.rows());
    }

    static Fill fill(int[] values) {
        return Fill.values(Arrays.stream(values).asDoubleStream().toArray());
    }

    private static void paged(HostValues in, Map<String, double[]> out, AttentionRow row, Batch batch, int h,
            int kvHeads, int d) {
        for (int i = 0; i < batch.rows() * h; i++) {
            int b = batch.sequenceOf(i / h);
            int g = i % h / (h / kvHeads);
            int[] at = new int[batch.positions[i / h] + 1];
            Arrays.setAll(at, s -> batch.keyAt(b, s, g, kvHeads, d));
            out.get("lse")[i] = row.compute(in.floats("q"), i * d, in.floats("k_pages"), in.floats("v_pages"), at,
                    new double[at.length], out.get("y"));
        }
    }

    static void append(float[] rows, double[] pages, Batch batch, int kvHeads, int d) {
        for (int i = 0; i < rows.length; i++) {
            int n = i / d / kvHeads;
            if (batch.positions[n] >= 0) {
                int at = batch.keyAt(batch.sequenceOf(n), batch.positions[n], i / d % kvHeads, kvHeads, d);
                pages[at + i % d] = rows[i];
            }
        }
    }
}
