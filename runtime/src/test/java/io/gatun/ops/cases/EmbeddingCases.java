package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Embedding;
import io.gatun.runtime.DType;
import java.util.Arrays;

/// Cases of [Embedding].
public final class EmbeddingCases {
    private EmbeddingCases() {}

    /// N rows of C from a table of V.
    ///
    /// @param m rows of the position table; 0: none
    public static OpCase embedding(DType dtype, DType ids, int n, int c, int v, int m) {
        OpCaseBuilder b = OpCase.of("embedding", dtype, "N=%d C=%d V=%d M=%d ids %s", n, c, v, m, ids)
                .out("y", dtype, ROWS, n, c)
                .in("ids", ids, CONTIGUOUS, Fill.integers(0, v), n)
                .in("table", dtype, ROWS, Fill.normal(1), v, c)
                .touching((long) n * c);
        if (m > 0) {
            b.in("positions", DType.I32, CONTIGUOUS, Fill.integers(0, m), n)
                    .in("position_table", dtype, ROWS, Fill.normal(1), m, c)
                    .touching((long) n * c);
        }
        return b.build((s, t) -> Embedding.embedding(s, t.get("y"), t.get("ids"), t.get("table"), t.get("positions"),
                t.get("position_table")), (in, out, round) -> {
                    for (int i = 0; i < n * c; i++) {
                        double y = at(in, "table", in.longs("ids")[i / c], v, i % c, c);
                        if (m > 0) {
                            y += at(in, "position_table", in.longs("positions")[i / c], m, i % c, c);
                        }
                        out.get("y")[i] = round.store(dtype, y);
                    }
                });
    }

    /// The gradient of a table [V, C] from N rows.
    public static OpCase embeddingBackward(DType dtype, DType ids, int n, int c, int v) {
        return OpCase.of("embedding_backward", dtype, "N=%d C=%d V=%d ids %s", n, c, v, ids)
                .out("dtable", DType.F32, ROWS, v, c)
                .in("dy", dtype, ROWS, Fill.normal(1), n, c)
                .in("ids", ids, CONTIGUOUS, Fill.integers(0, v), n)
                .workspace((s, t) -> Embedding.embeddingBackwardWorkspaceBytes(s, t.get("dtable"), t.get("ids")))
                .build((s, t) -> Embedding.embeddingBackward(s, t.get("dtable"), t.get("dy"), t.get("ids"),
                        t.get("workspace")), (in, out, round) -> {
                            double[] dtable = out.get("dtable");
                            Arrays.fill(dtable, 0);
                            for (int i = 0; i < n * c; i++) {
                                long id = in.longs("ids")[i / c];
                                if (id >= 0 && id < v) {
                                    int at = (int) id * c + i % c;
                                    dtable[at] = round.f32(dtable[at] + in.floats("dy")[i]);
                                }
                            }
                        });
    }

    private static double at(HostValues in, String table, long row, int rows, int column, int columns) {
        return row < 0 || row >= rows ? Double.NaN : in.floats(table)[(int) row * columns + column];
    }
}
