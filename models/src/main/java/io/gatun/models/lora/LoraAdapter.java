package io.gatun.models.lora;

import io.gatun.io.SafetensorsFile;
import io.gatun.models.ConfigFile;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.regex.Pattern;

/// A LoRA adapter's matrices on the host, in the layout of a PEFT directory: `adapter_config.json` and
/// `adapter_model.safetensors` with `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r].
///
/// @param config  its adapter_config.json
/// @param modules by module name, `transformer.h.0.attn.c_attn`
public record LoraAdapter(LoraConfig config, Map<String, Matrices> modules) {
    private static final String PREFIX = "base_model.model.";
    private static final String DOWN = ".lora_A.weight";
    private static final String UP = ".lora_B.weight";
    /// What layers of a language model look for adapters of; lookups and logits do not.
    private static final Pattern IN_A_LAYER = Pattern.compile("(^|\\.)(h|layers)\\.\\d+\\.");

    /// The matrices of a module, row by row.
    ///
    /// @param down [r, in]
    /// @param up   [out, r]
    public record Matrices(int rank, long in, long out, float[] down, float[] up) {}

    /// What an adapter adds to: a matrix of the base model.
    ///
    /// @param layout of the weight
    public record Target(String module, Tensor weight, WeightLayout layout) {
        public long in() {
            return weight.size(layout == WeightLayout.OUT_IN ? 1 : 0);
        }

        public long out() {
            return weight.size(layout == WeightLayout.OUT_IN ? 0 : 1);
        }
    }

    /// Reads a directory.
    ///
    /// @throws GatunException when a file is missing or damaged, or the adapter is of a kind that is not supported
    public static LoraAdapter read(Path directory) {
        Path file = directory.resolve("adapter_model.safetensors");
        if (!Files.isRegularFile(directory.resolve("adapter_config.json")) || !Files.isRegularFile(file)) {
            throw GatunException.invalid("no adapter in %s: expected adapter_config.json and adapter_model.safetensors",
                    directory);
        }
        LoraConfig config = LoraConfig.parse(ConfigFile.read(directory.resolve("adapter_config.json")));
        Map<String, Matrices> modules = new LinkedHashMap<>();
        try (SafetensorsFile tensors = SafetensorsFile.open(file)) {
            for (String name : new TreeSet<>(tensors.names())) {
                String module = name.startsWith(PREFIX) && (name.endsWith(DOWN) || name.endsWith(UP))
                        ? name.substring(PREFIX.length(), name.length() - DOWN.length()) : "";
                if (module.isEmpty() || !tensors.names().contains(PREFIX + module + DOWN)
                        || !tensors.names().contains(PREFIX + module + UP)) {
                    throw GatunException.invalid("%s: tensor '%s', expected pairs of %s<module>%s and %s", file, name,
                            PREFIX, DOWN, UP);
                }
                if (name.endsWith(DOWN)) {
                    modules.put(module, matrices(tensors, file, module, config.rankOf(module)));
                }
            }
        }
        if (modules.isEmpty()) {
            throw GatunException.invalid("%s holds no tensors", file);
        }
        return new LoraAdapter(config, modules);
    }

    private static Matrices matrices(SafetensorsFile tensors, Path file, String module, int rank) {
        long[] down = tensors.info(PREFIX + module + DOWN).shape();
        long[] up = tensors.info(PREFIX + module + UP).shape();
        if (down.length != 2 || up.length != 2 || down[0] != rank || up[1] != rank) {
            throw GatunException.invalid("%s: '%s' has lora_A %s and lora_B %s, expected [%d, in] and [out, %d]", file,
                    module, Arrays.toString(down), Arrays.toString(up), rank, rank);
        }
        return new Matrices(rank, down[1], up[0], tensors.floats(PREFIX + module + DOWN),
                tensors.floats(PREFIX + module + UP));
    }

    /// The names that a PEFT file has for a module: lora_A, lora_B.
    public static List<String> tensorNames(String module) {
        return List.of(PREFIX + module + DOWN, PREFIX + module + UP);
    }

    /// The matrices of a base model that a config names, by its weights' names in the checkpoint.
    ///
    /// @throws GatunException when it names none: the adapter is for another model; or an embedding or a head
    public static List<Target> targets(LoraConfig config, Map<String, Tensor> weights) {
        List<Target> targets = new ArrayList<>();
        WeightLayout layout = config.fanInFanOut() ? WeightLayout.IN_OUT : WeightLayout.OUT_IN;
        weights.forEach((name, weight) -> {
            String module = name.replaceFirst("\\.weight$", "");
            if (weight.rank() == 2 && !module.equals(name) && config.isTarget(module)) {
                if (!IN_A_LAYER.matcher(module).find()) {
                    throw GatunException.invalid("the adapter's target_modules %s name '%s', expected matrices of"
                            + " layers alone: adapters of embeddings and heads are not supported", config.targets(),
                            module);
                }
                targets.add(new Target(module, weight, layout));
            }
        });
        if (targets.isEmpty()) {
            throw GatunException.invalid("the adapter's target_modules %s name no matrix of this model,"
                    + " which has %s: is"
                    + " the adapter for another model?", config.targets(), weights.keySet().stream().limit(6).toList());
        }
        return targets;
    }

    /// Checks that this adapter belongs to a model.
    ///
    /// @throws GatunException when a module is missing in the model, or has another shape; says which
    public void requireFits(List<Target> targets) {
        Map<String, Target> byModule = new LinkedHashMap<>();
        targets.forEach(target -> byModule.put(target.module, target));
        modules.forEach((module, m) -> {
            Target target = byModule.get(module);
            if (target == null) {
                throw GatunException.invalid("the adapter has matrices of '%s', which this model does not have: is the"
                        + " adapter for another model?", module);
            }
            if (m.in != target.in() || m.out != target.out()) {
                throw GatunException.invalid("the adapter's matrices of '%s' are for %d -> %d, the model has %d ->"
                        + " %d%s: is"
                        + " the adapter for another model?", module, m.in, m.out, target.in(), target.out(),
                        m.in == target.out() && m.out == target.in() ? " (fan_in_fan_out may be wrong)" : "");
            }
        });
    }

    /// `weight + scale up down`, or with `sign` -1 what takes it out again, in the weight's layout; row by row.
    ///
    /// @param weight [out, in], or [in, out] where the config says fan_in_fan_out
    public float[] merged(String module, float[] weight, int sign) {
        Matrices m = modules.get(module);
        if (m == null) {
            return weight.clone();
        }
        double scale = sign * (double) config.scaleOf(module);
        float[] sum = new float[weight.length];
        for (int o = 0; o < m.out; o++) {
            for (int i = 0; i < m.in; i++) {
                double product = 0;
                for (int k = 0; k < m.rank; k++) {
                    product += (double) m.up[o * m.rank + k] * m.down[(int) (k * m.in + i)];
                }
                int at = (int) (config.fanInFanOut() ? i * m.out + o : o * m.in + i);
                sum[at] = (float) (weight[at] + scale * product);
            }
        }
        return sum;
    }
}
