package io.gatun.cli;

import io.gatun.models.Quantization;
import picocli.CommandLine.Option;

/// What the matrices of a language model become when it is loaded.
final class QuantizationOption {
    @Option(names = "--quantization", paramLabel = "NAME", defaultValue = "none",
            description = "none, or fp8: the matrices of a language model's blocks become e4m3 with a scale per output"
                    + " channel; wants dtype bf16 or f16 (default: ${DEFAULT-VALUE})")
    private Quantization value;

    QuantizationOption() {}

    Quantization value() {
        return value;
    }
}
