package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.OUTER;

import io.gatun.ops.Attention;
import io.gatun.ops.Rope;
import io.gatun.ops.Rope.Pairing;
import io.gatun.ops.cases.PagedCases.Batch;
import io.gatun.runtime.DType;
import java.util.Arrays;
import java.util.Map;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// Cases of [Attention#decode]. What no row may see is NaN, and so is the place of its own key and value before.
public final class DecodeCases {
    private static final int P = Attention.PAGE_SIZE;

    private DecodeCases() {}

    /// Heads of a model.
    ///
    /// @param rotated R; 0: no rotation
    public record Heads(int h, int g, int d, int rotated, Pairing pairing) {
        public static Heads of(int h, int g, int d) {
            return new Heads(h, g, d, 0, Pairing.HALF);
        }

        public Heads rotated(int r, Pairing by) {
            return new Heads(h, g, d, r, by);
        }
    }

    /// @param batch of sequences with one row each
    /// @param angles positions that the rope table has
    public static OpCase decode(DType dtype, Batch batch, Heads z, int angles) {
        int n = batch.positions().length;
        float scale = (float) (1 / Math.sqrt(z.d));
        Fill keys = Fill.normal(1.5);
        boolean[] isCached = cached(batch, z);
        Fill cache = (random, i) -> {
            double value = keys.at(random, i);
            return isCached[i] ? value : Double.NaN;
        };
        long touched = Arrays.stream(batch.positions()).mapToLong(p -> p + 1L).sum() * z.g * z.d;
        OpCaseBuilder b = OpCase.of("attention_decode", dtype, "%s H=%d G=%d D=%d R=%d %s", batch, z.h, z.g, z.d,
                z.rotated, z.pairing)
                .out("y", dtype, OUTER, n, z.h, z.d)
                .out("lse", DType.F32, CONTIGUOUS, n, z.h)
                .inOut("k_pages", dtype, CONTIGUOUS, cache, batch.numPages(), z.g, P, z.d).touching(touched)
                .inOut("v_pages", dtype, CONTIGUOUS, cache, batch.numPages(), z.g, P, z.d).touching(touched)
                .inOut("counters", DType.I32, CONTIGUOUS, Fill.constant(0), n, z.g)
                .in("q", dtype, OUTER, Fill.normal(1.5), n, z.h, z.d)
                .in("k", dtype, OUTER, keys, n, z.g, z.d)
                .in("v", dtype, OUTER, keys, n, z.g, z.d)
                .in("page_table", DType.I32, CONTIGUOUS, PagedCases.fill(batch.pageTable()), n, batch.maxPages())
                .in("positions", DType.I32, CONTIGUOUS, PagedCases.fill(batch.positions()), n);
        if (z.rotated > 0) {
            b.in("rope_table", DType.F32, CONTIGUOUS, Fill.uniform(-1, 1), angles, 2, z.rotated / 2)
                    .touching((long) n * z.rotated);
        }
        return b.flops(4L * z.h * touched / z.g)
                .accuracy(Accuracy.ROOT_MEAN_SQUARE)
                .workspace((s, t) -> Attention.decodeWorkspaceBytes(s, t.get("q"), t.get("k"), t.get("page_table")))
                .build((s, t) -> Attention.decode(s, t.get("y"), t.get("lse"), t.get("k_pages"), t.get("v_pages"),
                        t.get("counters"), t.get("q"), t.get("k"), t.get("v"), t.get("page_table"), t.get("positions"),
                        t.get("rope_table"), z.pairing, scale, t.get("workspace")),
                        (in, out, round) -> compute(in, out, round, new AttentionRow(round, dtype, z.d, scale), batch,
                                z, dtype, angles));
    }

    /// The same operands, by the ops that it stands for.
    public static OpCase inTurn(DType dtype, Batch batch, Heads z, int angles) {
        OpCase fused = decode(dtype, batch, z, angles);
        return new OpCase("attention_decode in turn", dtype, fused.sizes(), fused.operands(), fused.aliases(),
                (s, t) -> {
                    var arena = s.device().newArena("in turn");
                    try (arena) {
                        var start = arena.allocate(DType.I32, batch.positions().length + 1L);
                        start.copyFrom(s, IntStream.range(0, batch.positions().length + 1).toArray());
                        var q = t.get("q");
                        var k = t.get("k");
                        if (t.get("rope_table") != null) {
                            q = arena.allocate(dtype, q.shape());
                            k = arena.allocate(dtype, k.shape());
                            Rope.rope(s, q, t.get("q"), t.get("positions"), t.get("rope_table"), z.pairing);
                            Rope.rope(s, k, t.get("k"), t.get("positions"), t.get("rope_table"), z.pairing);
                        }
                        Attention.appendKv(s, t.get("k_pages"), t.get("v_pages"), k, t.get("v"), t.get("page_table"),
                                start, t.get("positions"));
                        long bytes = Attention.pagedWorkspaceBytes(s, q, t.get("page_table"));
                        Attention.attentionPaged(s, t.get("y"), t.get("lse"), q, t.get("k_pages"), t.get("v_pages"),
                                t.get("page_table"), start, t.get("positions"), (float) (1 / Math.sqrt(z.d)),
                                bytes == 0 ? null : arena.allocate(DType.U8, bytes));
                        s.synchronize();
                    }
                }, (s, t) -> 0, fused.reference(), fused.accuracy(), fused.flops());
    }

    private static boolean[] cached(Batch batch, Heads z) {
        boolean[] cached = new boolean[batch.numPages() * z.g * P * z.d];
        for (int b = 0; b < batch.positions().length; b++) {
            for (int s = 0; s < batch.positions()[b]; s++) {
                for (int g = 0; g < z.g; g++) {
                    int at = batch.keyAt(b, s, g, z.g, z.d);
                    Arrays.fill(cached, at, at + z.d, true);
                }
            }
        }
        return cached;
    }

    private static void compute(HostValues in, Map<String, double[]> out, Rounding round, AttentionRow row, Batch batch,
            Heads z, DType dtype, int angles) {
        int[] positions = batch.positions();
        float[] table = z.rotated > 0 ? in.floats("rope_table") : null;
        float[] q = turned(in.floats("q"), table, round, dtype, z, z.h, positions, angles);
        float[] k = turned(in.floats("k"), table, round, dtype, z, z.g, positions, angles);
        PagedCases.append(k, out.get("k_pages"), batch, z.g, z.d);
        PagedCases.append(in.floats("v"), out.get("v_pages"), batch, z.g, z.d);
        float[] keys = floats(out.get("k_pages"));
        float[] values = floats(out.get("v_pages"));
        for (int i = 0; i < positions.length * z.h; i++) {
            int n = i / z.h;
            int g = i % z.h / (z.h / z.g);
            int[] at = new int[positions[n] + 1];
            Arrays.setAll(at, s -> batch.keyAt(n, s, g, z.g, z.d));
            out.get("lse")[i] = row.compute(q, i * z.d, keys, values, at, new double[at.length], out.get("y"));
        }
    }

    private static float[] turned(float[] x, float @Nullable [] table, Rounding round, DType dtype, Heads z, int heads,
            int[] positions, int angles) {
        if (table == null) {
            return x;
        }
        double[] y = new double[x.length];
        for (int row = 0; row < positions.length * heads; row++) {
            RopeCases.turn(x, table, 1, y, round, dtype, row, positions[row / heads], angles, z.d, z.rotated,
                    z.pairing);
        }
        return floats(y);
    }

    private static float[] floats(double[] values) {
        float[] floats = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            floats[i] = (float) values[i];
        }
        return floats;
    }
}
