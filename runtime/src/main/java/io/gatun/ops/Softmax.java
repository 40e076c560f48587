package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Softmax and log-softmax of rows [..., C]; the dtypes of `x` and `y` may differ, `y` may be `x`.
public final class Softmax {
    private Softmax() {}

    /// `y = exp(x - max x) / sum(exp(x - max x))` over the last dimension. A row of -inf gives zeros.
    public static void softmax(Stream stream, Tensor y, Tensor x) {
        stream.enter("softmax");
        try {
            stream.check(Gatun.gt_softmax(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = x - max x - log(sum(exp(x - max x)))` over the last dimension. A row of -inf gives -inf.
    public static void logSoftmax(Stream stream, Tensor y, Tensor x) {
        stream.enter("log_softmax");
        try {
            stream.check(Gatun.gt_log_softmax(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }
}
