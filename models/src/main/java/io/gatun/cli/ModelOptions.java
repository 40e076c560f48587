package io.gatun.cli;

import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.util.Locale;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/// Options of every command that loads a model.
final class ModelOptions {
    @Option(names = "--model", paramLabel = "DIR", description = "Hugging Face model directory")
    private @Nullable Path model;

    @Option(names = "--device", paramLabel = "NAME", defaultValue = "auto",
            description = "auto, cpu, cuda or cuda:N (default: ${DEFAULT-VALUE})")
    private String device;

    @Option(names = "--dtype", paramLabel = "TYPE", description = "f32, bf16 or f16 (default: the checkpoint's)")
    private @Nullable String dtype;

    @Option(names = "--threads", paramLabel = "N", defaultValue = "0", description = "CPU threads (default: all cores)")
    private int threads;

    @Option(names = "--json", description = "print the result as JSON")
    private boolean json;

    ModelOptions() {}

    Path model() {
        if (model == null) {
            throw GatunException.invalid("--model is missing: pass a Hugging Face model directory");
        }
        return model;
    }

    String device() {
        return device;
    }

    @Nullable DType dtype() {
        if (dtype == null) {
            return null;
        }
        return switch (dtype.toLowerCase(Locale.ROOT)) {
            case "f32", "float32" -> DType.F32;
            case "bf16", "bfloat16" -> DType.BF16;
            case "f16", "float16" -> DType.F16;
            default -> throw GatunException.invalid("--dtype is %s, expected f32, bf16 or f16", dtype);
        };
    }

    int threads() {
        if (threads < 0) {
            throw GatunException.invalid("--threads is %d, expected 0 (all cores) or more", threads);
        }
        return threads;
    }

    boolean json() {
        return json;
    }
}
