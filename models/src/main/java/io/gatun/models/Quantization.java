package io.gatun.models;

/// What the matrices of a language model's blocks become when it is loaded. Embeddings, norms, biases and the head stay
/// as they are.
public enum Quantization {
    NONE,
    /// e4m3 with an f32 scale per output channel. Many rows, as of a prompt, are multiplied in e4m3 too, with a scale
    /// per row that is found on the fly; the few rows of decode steps stay bf16 or f16. Micikevicius et al. 2022, arXiv
    /// 2209.05433.
    FP8
}
