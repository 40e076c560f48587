package io.gatun.diffusion;

import java.util.function.IntToDoubleFunction;

/// Classifier-free guidance: the model runs on 2 B images, the unconditional ones first, and `e = u + w (c - u)`.
/// Ho and Salimans 2022, arXiv 2207.12598.
///
/// @param scale   w of each call
/// @param rescale how much of the deviation of c the result gets back, 0 to 1. Lin et al. 2023, arXiv 2305.08891
public record Guidance(IntToDoubleFunction scale, double rescale) {
    /// The same w in all calls.
    public static Guidance of(double scale) {
        return new Guidance(call -> scale, 0);
    }
}
