package io.gatun.models.lora;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.models.ConfigFile;
import io.gatun.runtime.GatunException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;
import org.jspecify.annotations.Nullable;

/// adapter_config.json of a LoRA adapter, as PEFT writes it. Hu et al. 2021, arXiv 2106.09685.
///
/// @param rank          r
/// @param alpha         lora_alpha
/// @param targets       target_modules: ends of module names; or one regular expression of whole names
/// @param targetsAreOne whether `targets` is a regular expression
/// @param rankPattern   ranks of modules, by regular expressions of the ends of their names
/// @param alphaPattern  alphas likewise
/// @param rankStabilised use_rslora: alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023, arXiv 2312.03732)
/// @param fanInFanOut   whether the weights are [in, out], as GPT-2's are
public record LoraConfig(int rank, double alpha, List<String> targets, boolean targetsAreOne,
        Map<String, Integer> rankPattern, Map<String, Double> alphaPattern, boolean rankStabilised,
        boolean fanInFanOut) {
    private static final int MAX_RANK = 1 << 14;

    public LoraConfig {
        if (rank < 1 || rank > MAX_RANK || targets.isEmpty()) {
            throw GatunException.invalid("LoRA: r is %d, target_modules %s: expected 1 to %d, and at least one module",
                    rank, targets, MAX_RANK);
        }
        for (String pattern : targetsAreOne ? targets : List.<String>of()) {
            compiled(pattern);
        }
        rankPattern.keySet().forEach(LoraConfig::compiled);
        alphaPattern.keySet().forEach(LoraConfig::compiled);
    }

    private static Pattern compiled(String pattern) {
        try {
            return Pattern.compile(pattern);
        } catch (PatternSyntaxException e) {
            throw GatunException.invalid("LoRA: '%s' is no regular expression: %s", pattern, e.getDescription());
        }
    }

    /// @throws GatunException when something is missing, or asks for what is not supported; says which field
    public static LoraConfig parse(ConfigFile config) {
        if (!config.requireString("peft_type").equals("LORA")) {
            throw config.wrong("peft_type", "LORA");
        }
        for (String field : List.of("use_dora", "use_qalora", "lora_bias", "use_bdlora")) {
            if (config.getBoolean(field, false)) {
                throw config.wrong(field, "false: it is not supported");
            }
        }
        if (!config.getOneOf("bias", "none", "none", "all", "lora_only").equals("none")) {
            throw config.wrong("bias", "none: biases of adapters are not supported");
        }
        for (String field : List.of("modules_to_save", "layers_to_transform", "layer_replication", "exclude_modules",
                "target_parameters", "trainable_token_indices")) {
            if (config.has(field) && !config.isNull(field)) {
                throw config.wrong(field, "null: it is not supported");
            }
        }
        boolean one = config.isText("target_modules");
        return new LoraConfig(config.requireInt("r", 1, MAX_RANK), config.requireNumber("lora_alpha"),
                one ? List.of(config.requireString("target_modules")) : config.getStrings("target_modules"), one,
                ranks(config), config.numbersByName("alpha_pattern"), config.getBoolean("use_rslora", false),
                config.getBoolean("fan_in_fan_out", false));
    }

    private static Map<String, Integer> ranks(ConfigFile config) {
        Map<String, Integer> ranks = new LinkedHashMap<>();
        config.numbersByName("rank_pattern").forEach((name, value) -> {
            if (value != value.intValue() || value < 1 || value > MAX_RANK) {
                throw config.wrong("rank_pattern", "integers from 1 to " + MAX_RANK);
            }
            ranks.put(name, value.intValue());
        });
        return ranks;
    }

    /// Whether a module gets a pair of matrices.
    ///
    /// @param module `transformer.h.0.attn.c_attn`
    public boolean isTarget(String module) {
        return targetsAreOne ? compiled(targets.getFirst()).matcher(module).matches()
                : targets.stream().anyMatch(end -> module.equals(end) || module.endsWith("." + end));
    }

    /// r of a module.
    public int rankOf(String module) {
        return of(module, rankPattern, rank);
    }

    /// What the product of a module's matrices is multiplied by.
    public float scaleOf(String module) {
        double a = of(module, alphaPattern, alpha);
        int r = rankOf(module);
        return (float) (rankStabilised ? a / Math.sqrt(r) : a / r);
    }

    private static <T> T of(String module, Map<String, T> pattern, T otherwise) {
        for (Map.Entry<String, T> entry : pattern.entrySet()) {
            if (compiled("(.*\\.)?(" + entry.getKey() + ")$").matcher(module).matches()) {
                return entry.getValue();
            }
        }
        return otherwise;
    }

    /// The text of an adapter_config.json.
    ///
    /// @param base directory or name of the model that the adapter belongs to; null: unknown
    public String toJson(@Nullable String base) {
        ObjectNode json = new ObjectMapper().createObjectNode();
        json.put("peft_type", "LORA").put("task_type", "CAUSAL_LM").put("base_model_name_or_path", base)
                .put("r", rank).put("lora_alpha", alpha).put("lora_dropout", 0.0).put("bias", "none")
                .put("fan_in_fan_out", fanInFanOut).put("use_rslora", rankStabilised).put("use_dora", false)
                .put("init_lora_weights", true).put("inference_mode", true);
        if (targetsAreOne) {
            json.put("target_modules", targets.getFirst());
        } else {
            targets.forEach(json.putArray("target_modules")::add);
        }
        ObjectNode ranks = json.putObject("rank_pattern");
        rankPattern.forEach(ranks::put);
        ObjectNode alphas = json.putObject("alpha_pattern");
        alphaPattern.forEach(alphas::put);
        json.putNull("modules_to_save");
        return json.toPrettyString() + "\n";
    }
}
