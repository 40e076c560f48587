package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Sampling;
import io.gatun.runtime.DType;
import java.util.Map;

/// Cases of [Sampling].
public final class SamplingCases {
    private static final int FIELDS = Sampling.FIELDS;
    /// Records of faults: minus the codes of the ABI, spelt out here as the oracle's own.
    private static final long NAN = -2;
    private static final long NO_TOKEN = -3;
    private static final long FULL = -4;

    private SamplingCases() {}

    /// A row of a `params` tensor.
    public record Params(double temperature, int topK, double topP, double minP, double repetition, double presence,
            double frequency) {
        public static final Params PLAIN = new Params(1, 0, 1, 0, 1, 0, 0);
        public static final Params GREEDY = new Params(0, 0, 1, 0, 1, 0, 0);

        public static Params temperature(double t) {
            return new Params(t, 0, 1, 0, 1, 0, 0);
        }

        public static Params topK(int k) {
            return new Params(1, k, 1, 0, 1, 0, 0);
        }

        public static Params topP(double p) {
            return new Params(1, 0, p, 0, 1, 0, 0);
        }

        public static Params minP(double p) {
            return new Params(1, 0, 1, p, 1, 0, 0);
        }

        public static Params repetition(double penalty) {
            return new Params(1, 0, 1, 0, penalty, 0, 0);
        }

        /// As the device holds them: one row of FIELDS for each.
        public static double[] rows(Params... params) {
            double[] rows = new double[params.length * FIELDS];
            for (int i = 0; i < params.length; i++) {
                Params p = params[i];
                double[] row = {p.temperature, p.topK, p.topP, p.minP, p.repetition, p.presence, p.frequency};
                System.arraycopy(row, 0, rows, i * FIELDS, row.length);
            }
            return rows;
        }
    }

    public static OpCase argmax(DType dtype, int b, int v) {
        return OpCase.of("argmax", dtype, "B=%d V=%d", b, v)
                .out("ids", DType.I32, CONTIGUOUS, b)
                .in("logits", dtype, ROWS, Fill.normal(3), b, v)
                .build((s, t) -> Sampling.argmax(s, t.get("ids"), t.get("logits")), (in, out, round) -> {
                    for (int row = 0; row < b; row++) {
                        out.get("ids")[row] = LogitsRow.of(in, "logits", row, v).argmax();
                    }
                });
    }

    /// A batch with one row per `params`, room for M tokens, of which about half are set: two thirds prompt.
    public static OpCase processLogits(int v, int m, Params... params) {
        int b = params.length;
        return state(OpCase.of("process_logits", DType.F32, "B=%d V=%d M=%d", b, v, m)
                .inOut("logits", DType.F32, ROWS, Fill.normal(3), b, v), b, v, m, false, params)
                .build((s, t) -> Sampling.processLogits(s, t.get("logits"), t.get("tokens"), t.get("lengths"),
                        t.get("prompt_lengths"), t.get("params")), (in, out, round) -> {
                            for (int row = 0; row < b; row++) {
                                if (in.longs("lengths")[row] > 0) {
                                    LogitsRow logits = LogitsRow.of(in, "logits", row, v);
                                    logits.process(round, in, row, m);
                                    logits.copyTo(out.get("logits"), row * v);
                                }
                            }
                        });
    }

    /// As [#processLogits]; sequence numbers are 0, 1, 2, ...
    public static OpCase sample(int v, int m, long seed, Params... params) {
        int b = params.length;
        return state(OpCase.of("sample", DType.F32, "B=%d V=%d M=%d", b, v, m)
                .inOut("ids", DType.I32, CONTIGUOUS, Fill.constant(0), b)
                .inOut("positions", DType.I32, CONTIGUOUS, Fill.constant(0), b)
                .inOut("record", DType.I32, CONTIGUOUS, Fill.constant(0), b), b, v, m, true, params)
                .in("logits", DType.F32, ROWS, Fill.normal(3), b, v)
                .in("seeds", DType.I64, CONTIGUOUS, (random, i) -> i % 2 == 0 ? seed : i / 2, b, 2)
                .build((s, t) -> Sampling.sample(s, t.get("ids"), t.get("positions"), t.get("record"), t.get("tokens"),
                        t.get("lengths"), t.get("prompt_lengths"), t.get("logits"), t.get("params"), t.get("seeds")),
                        (in, out, round) -> {
                            for (int row = 0; row < b; row++) {
                                if (in.longs("lengths")[row] > 0 && in.longs("positions")[row] >= 0) {
                                    sampleRow(in, out, LogitsRow.of(in, "logits", row, v), row, m);
                                }
                            }
                        });
    }

    /// Both in one.
    public static OpCase choose(int v, int m, long seed, Params... params) {
        int b = params.length;
        return state(OpCase.of("choose", DType.F32, "B=%d V=%d M=%d", b, v, m)
                .inOut("ids", DType.I32, CONTIGUOUS, Fill.constant(0), b)
                .inOut("positions", DType.I32, CONTIGUOUS, Fill.constant(0), b)
                .inOut("record", DType.I32, CONTIGUOUS, Fill.constant(0), b)
                .inOut("logits", DType.F32, ROWS, Fill.normal(3), b, v), b, v, m, true, params)
                .in("seeds", DType.I64, CONTIGUOUS, (random, i) -> i % 2 == 0 ? seed : i / 2, b, 2)
                .build((s, t) -> Sampling.choose(s, t.get("ids"), t.get("positions"), t.get("record"), t.get("tokens"),
                        t.get("lengths"), t.get("prompt_lengths"), t.get("logits"), t.get("params"), t.get("seeds")),
                        (in, out, round) -> {
                            for (int row = 0; row < b; row++) {
                                if (in.longs("lengths")[row] > 0) {
                                    LogitsRow logits = LogitsRow.of(in, "logits", row, v);
                                    logits.process(round, in, row, m);
                                    logits.copyTo(out.get("logits"), row * v);
                                    sampleRow(in, out, logits, row, m);
                                }
                            }
                        });
    }

    private static OpCaseBuilder state(OpCaseBuilder c, int b, int v, int m, boolean advances, Params... params) {
        Fill lengths = Fill.constant((m + 1) / 2);
        c = advances ? c.inOut("tokens", DType.I32, CONTIGUOUS, Fill.integers(0, v), b, m).touching(b)
                .inOut("lengths", DType.I32, CONTIGUOUS, lengths, b)
                : c.in("tokens", DType.I32, CONTIGUOUS, Fill.integers(0, v), b, m).in("lengths", DType.I32, CONTIGUOUS,
                        lengths, b);
        return c.in("prompt_lengths", DType.I32, CONTIGUOUS, Fill.constant((m + 1) / 3), b)
                .in("params", DType.F32, CONTIGUOUS, Fill.values(Params.rows(params)), b, FIELDS);
    }

    private static void sampleRow(HostValues in, Map<String, double[]> out, LogitsRow logits, int row, int m) {
        int length = (int) in.longs("lengths")[row];
        long result = length >= m ? FULL : choose(in, logits, row, length);
        out.get("record")[row] = result;
        out.get("ids")[row] = Math.max(result, -1);
        out.get("positions")[row] = result >= 0 ? length : -1;
        out.get("lengths")[row] = result >= 0 ? length + 1 : -length;
        if (result >= 0) {
            out.get("tokens")[row * m + length] = result;
        }
    }

    /// An id or a fault.
    private static long choose(HostValues in, LogitsRow logits, int row, int length) {
        int best = logits.argmax();
        if (best < 0) {
            return NAN;
        }
        if (logits.at(best) == Double.NEGATIVE_INFINITY) {
            return NO_TOKEN;
        }
        if (in.floats("params")[row * FIELDS] == 0) {
            return best;
        }
        long[] seeds = in.longs("seeds");
        int step = length - (int) in.longs("prompt_lengths")[row];
        return logits.draw(Philox.uniform(seeds[2 * row], (int) seeds[2 * row + 1], step, 0));
    }
}
