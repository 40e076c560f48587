package io.gatun.ops;

import io.gatun.ops.cases.Fill;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.SoftmaxCases;
import io.gatun.ops.cases.SoftmaxCases.Loss;
import io.gatun.ops.cases.SoftmaxCases.Part;
import io.gatun.runtime.DType;
import java.util.EnumSet;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("device")
class SoftmaxTest {
    private static final DType[] FLOATS = {DType.F32, DType.BF16, DType.F16};
    private static final int[] WIDTHS = {1, 3, 31, 33, 127, 257, 1000};
    private static final double INF = Double.POSITIVE_INFINITY;

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void softmax_oddWidths(DType xType) {
        for (DType yType : FLOATS) {
            for (int c : WIDTHS) {
                OpCheck.check(SoftmaxCases.softmax(xType, yType, 3, c));
            }
        }
        OpCheck.check(SoftmaxCases.softmax(xType, DType.F32, 0, 5));
        OpCheck.check(SoftmaxCases.softmax(xType, DType.F32, 257, 127));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void logSoftmax_oddWidths(DType xType) {
        for (DType yType : FLOATS) {
            for (int c : WIDTHS) {
                OpCheck.check(SoftmaxCases.logSoftmax(xType, yType, 3, c));
            }
        }
        OpCheck.check(SoftmaxCases.logSoftmax(xType, DType.F32, 0, 5));
        OpCheck.check(SoftmaxCases.logSoftmax(xType, DType.F32, 257, 127));
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void softmax_specialRows(DType dtype) {
        for (OpCase opCase : new OpCase[] {SoftmaxCases.softmax(dtype, dtype, 3, 33),
            SoftmaxCases.logSoftmax(dtype, dtype, 3, 33)}) {
            OpCheck.check(opCase.with("x", Fill.constant(-INF), "all -inf"));
            OpCheck.check(opCase.with("x", Fill.normal(1).with(0, 2, -INF), "some -inf"));
            OpCheck.check(opCase.with("x", Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
            OpCheck.check(opCase.with("x", Fill.normal(1).with(40, 1000, INF), "an inf"));
            OpCheck.check(opCase.with("x", Fill.normal(2000), "large"));
        }
    }

    @Test
    void softmax_rowAlone() {
        OpCheck.rowAlone(SoftmaxCases.softmax(DType.F32, DType.F32, 9, 127), "y", "x");
        OpCheck.rowAlone(SoftmaxCases.logSoftmax(DType.F16, DType.F32, 9, 127), "y", "x");
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void crossEntropy_oddWidths(DType dtype) {
        Loss all = new Loss(DType.I64, -100, 0.1, EnumSet.allOf(Part.class));
        for (int v : new int[] {1, 2, 3, 31, 33, 127, 257, 1000}) {
            OpCheck.check(SoftmaxCases.crossEntropy(dtype, 7, v, Loss.TRAINING));
            OpCheck.check(SoftmaxCases.crossEntropy(dtype, 4, v, all));
        }
        OpCheck.check(SoftmaxCases.crossEntropy(dtype, 257, 10, all));
        OpCheck.check(SoftmaxCases.crossEntropy(dtype, 3, 5003, all));
    }

    /// Rows of whole vectors, which CUDA keeps in shared memory.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void crossEntropy_wholeVectors(DType dtype) {
        Loss all = new Loss(DType.I64, -100, 0.1, EnumSet.allOf(Part.class));
        OpCheck.check(SoftmaxCases.crossEntropy(dtype, 7, 2056, Loss.TRAINING));
        OpCase opCase = SoftmaxCases.crossEntropy(dtype, 4, 2056, all);
        OpCheck.check(opCase);
        OpCheck.check(opCase.with("logits", Fill.normal(100), "large"));
        OpCheck.thirtyRuns(opCase);
    }

    /// Every choice of what is wanted, no row at all, all weight on the smoothing.
    @Test
    void crossEntropy_parts() {
        for (Part part : Part.values()) {
            for (double smoothing : new double[] {0, 0.25, 1}) {
                OpCheck.check(SoftmaxCases.crossEntropy(DType.F32, 7, 33, new Loss(DType.I32, 3, smoothing,
                        EnumSet.of(part))));
            }
        }
        OpCheck.check(SoftmaxCases.crossEntropy(DType.F32, 5, 33, new Loss(DType.I64, -100, 0, Set.of())));
        OpCheck.check(SoftmaxCases.crossEntropy(DType.F32, 0, 33, Loss.TRAINING));
    }

    @Test
    void crossEntropy_noRowCounts() {
        Loss all = new Loss(DType.I64, -1, 0.1, EnumSet.allOf(Part.class));
        OpCheck.check(SoftmaxCases.crossEntropy(DType.BF16, 7, 33, all).with("targets", Fill.constant(-1), "ignored"));
    }

    /// NaN for the row and the mean, wherever the target lies outside; not for a row that is ignored.
    @Test
    void crossEntropy_specialRows() {
        Loss all = new Loss(DType.I64, -100, 0, EnumSet.allOf(Part.class));
        OpCase opCase = SoftmaxCases.crossEntropy(DType.F32, 7, 33, all);
        for (double bad : new double[] {-1, 33, 0x1p32 + 3, Long.MIN_VALUE}) {
            OpCheck.check(opCase.with("targets", Fill.integers(0, 33).with(4, 100, bad), "target " + bad));
        }
        OpCheck.check(opCase.with("logits", Fill.normal(1).with(40, 1000, Double.NaN), "a NaN"));
        OpCheck.check(opCase.with("logits", Fill.normal(1).with(2 * 33 + 5, 1000, Double.NaN), "a NaN, ignored"));
        OpCheck.check(opCase.with("logits", Fill.normal(1).with(40, 1000, INF), "an inf"));
        OpCheck.check(opCase.with("logits", Fill.normal(1).with(0, 2, -INF), "some -inf")
                .with("targets", Fill.values(1, 0), "in turn"));
        OpCheck.check(opCase.with("logits", Fill.normal(300), "large"));
    }

    @Test
    void crossEntropy_sameBits() {
        OpCheck.thirtyRuns(SoftmaxCases.crossEntropy(DType.F32, 65, 257, new Loss(DType.I64, -100, 0.1,
                EnumSet.allOf(Part.class))));
    }

    @Test
    void crossEntropy_badArguments() {
        OpCase opCase = SoftmaxCases.crossEntropy(DType.BF16, 3, 5, new Loss(DType.I32, -100, 0.1,
                EnumSet.allOf(Part.class)));
        BadArguments.check(opCase);
        BadArguments.refuses(opCase, "dlogits", DType.F32, new int[] {3, 5}, "dlogits");
        BadArguments.refuses(opCase, "targets", DType.I32, new int[] {4}, "targets");
        BadArguments.refuses(opCase, "workspace", DType.U8, new int[] {27}, "workspace");
        BadArguments.refuses(SoftmaxCases.crossEntropy(DType.F32, 3, 5, new Loss(DType.I32, 0, 1.5, Set.of())), "loss",
                DType.F32, new int[] {1}, "label_smoothing");
    }

    @Test
    void softmax_badArguments() {
        BadArguments.check(SoftmaxCases.softmax(DType.F32, DType.F32, 3, 5));
        BadArguments.refuses(SoftmaxCases.softmax(DType.F32, DType.F32, 3, 5), "y", DType.F32, new int[] {3, 4}, "y");
    }

    @Test
    void logSoftmax_badArguments() {
        BadArguments.check(SoftmaxCases.logSoftmax(DType.BF16, DType.F32, 3, 5));
    }
}
