package io.gatun.cli;

import io.gatun.models.Quantization;
import io.gatun.runtime.GatunException;
import java.util.Locale;
import picocli.CommandLine.Option;

/// What the matrices of a language model become when it is loaded.
final class QuantizationOption {
    @Option(names = "--quantization", paramLabel = "NAME", defaultValue = "none",
            description = "none, or fp8: the matrices of a language model's blocks become e4m3 with a scale per output"
                    + " channel; wants dtype bf16 or f16 (default: ${DEFAULT-VALUE})")
    private String name;

    QuantizationOption() {}

    Quantization value() {
        return switch (name.toLowerCase(Locale.ROOT)) {
            case "none" -> Quantization.NONE;
            case "fp8" -> Quantization.FP8;
            default -> throw GatunException.invalid("--quantization is %s, expected none or fp8", name);
        };
    }
}
