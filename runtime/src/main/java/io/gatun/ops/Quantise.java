package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Vector quantisation: van den Oord, Vinyals and Kavukcuoglu 2017, arXiv 1711.00937. [Embedding] reads the rows that
/// the ids choose.
public final class Quantise {
    private Quantise() {}

    /// `ids[n] = argmin_k sum_c (x[n,c] - codebook[k,c])^2`, the lowest k among equals; -1 for a row with a NaN.
    ///
    /// @param ids      [N] i32
    /// @param x        [N, C] f32, bf16 or f16
    /// @param codebook [K, C] x's dtype
    public static void nearestCode(Stream stream, Tensor ids, Tensor x, Tensor codebook) {
        stream.enter("nearest_code");
        try {
            stream.check(Gatun.gt_nearest_code(stream.descriptor(), ids.on(stream), x.on(stream),
                    codebook.on(stream)));
        } finally {
            stream.exit();
        }
    }
}
