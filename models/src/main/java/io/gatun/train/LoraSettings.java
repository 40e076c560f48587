package io.gatun.train;

import java.util.List;
import java.util.Map;

/// Low-rank adapters, under the names of PEFT's LoraConfig. Hu et al. 2021, arXiv 2106.09685.
///
/// @param r             rank
/// @param loraAlpha     the product of the factors is scaled by loraAlpha / r
/// @param targetModules ends of the names of the layers that get an adapter; empty: those that PEFT chooses for the
///                      family
/// @param useRslora     scaled by loraAlpha / sqrt(r) instead. Kalajdzievski 2023, arXiv 2312.03732
/// @param rankPattern   another r for layers whose names end in a pattern
/// @param alphaPattern  another loraAlpha for those
public record LoraSettings(int r, double loraAlpha, List<String> targetModules, boolean useRslora,
        Map<String, Integer> rankPattern, Map<String, Double> alphaPattern) {
    public LoraSettings {
        targetModules = List.copyOf(targetModules);
        rankPattern = Map.copyOf(rankPattern);
        alphaPattern = Map.copyOf(alphaPattern);
    }
}
