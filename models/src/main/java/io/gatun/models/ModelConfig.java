package io.gatun.models;

import io.gatun.runtime.DType;

/// What generation needs to know of a language model, whatever its family.
///
/// @param family        `gpt2`, `llama`: config.json's model_type
/// @param vocabSize     V
/// @param hiddenSize    C
/// @param contextLength positions the model can hold, prompt and output together
/// @param layers        L
/// @param heads         H, query heads
/// @param kvHeads       G, key and value heads; divides H
/// @param headDim       D
/// @param dtype         what weights and activations are computed in
public record ModelConfig(String family, int vocabSize, int hiddenSize, int contextLength, int layers, int heads,
        int kvHeads, int headDim, DType dtype) {}
