package io.gatun.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import io.gatun.runtime.GatunException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.TreeSet;

/// A recipe as it was written, and in a form in which two can be compared: the order of the fields, spaces, and the way
/// a number is written do not count.
///
/// @param file what messages call it
/// @param json the text
/// @param fields `optimizer.learning_rate` and its value, of all but those that do not change what is learned
public record RecipeText(Path file, String json, SortedMap<String, String> fields) {
    private static final ObjectMapper MAPPER = JsonMapper.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION).build();

    /// How often something is looked at or kept, what of the weights is written, and how samples are drawn.
    private static final Set<String> WITHOUT_EFFECT = Set.of("logging_steps", "eval_steps", "save_steps",
            "sample_steps", "save_total_limit", "export_dtype", "export_discriminator", "export_encoder",
            "num_inference_steps", "guidance_scale", "scheduler.clip_sample");
    private static final int DIFFERENCES = 3; // as many are named in a message

    /// @throws GatunException when it is no JSON, or a field occurs twice
    static RecipeText of(Path file, String json) {
        SortedMap<String, String> fields = new TreeMap<>();
        try {
            flatten("", MAPPER.readTree(json), fields);
        } catch (JsonProcessingException e) {
            throw GatunException.invalid("%s is not valid JSON: %s (line %d, column %d)", file,
                    e.getOriginalMessage(), e.getLocation().getLineNr(), e.getLocation().getColumnNr());
        }
        fields.keySet().removeAll(WITHOUT_EFFECT);
        return new RecipeText(file, json, fields);
    }

    private static void flatten(String name, JsonNode node, SortedMap<String, String> fields) {
        if (node.isObject() && !node.isEmpty()) {
            node.properties().forEach(field -> flatten(name.isEmpty() ? field.getKey() : name + "." + field.getKey(),
                    field.getValue(), fields));
        } else if (node.isArray() && !node.isEmpty()) {
            for (int i = 0; i < node.size(); i++) {
                flatten("%s[%d]".formatted(name, i), node.get(i), fields);
            }
        } else {
            fields.put(name, node.isNumber() ? number(node.asDouble()) : node.toString());
        }
    }

    private static String number(double value) {
        return value == (long) value ? Long.toString((long) value) : Double.toString(value);
    }

    /// SHA-256 of the fields, in hexadecimal.
    public String hash() {
        StringBuilder text = new StringBuilder();
        fields.forEach((name, value) -> text.append(name).append('=').append(value).append('\n'));
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256")
                    .digest(text.toString().getBytes(StandardCharsets.UTF_8)));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java has it
        }
    }

    /// In what another recipe is different: `optimizer.learning_rate is 0.001 there, 0.002 here`. Empty where they say
    /// the same.
    public String differences(RecipeText there) {
        Set<String> names = new TreeSet<>(fields.keySet());
        names.addAll(there.fields.keySet());
        List<String> different = new ArrayList<>();
        for (String name : names) {
            String here = fields.getOrDefault(name, "absent");
            String other = there.fields.getOrDefault(name, "absent");
            if (!here.equals(other)) {
                different.add("%s is %s there, %s here".formatted(name, other, here));
            }
        }
        int more = different.size() - DIFFERENCES;
        return String.join("; ", different.subList(0, Math.min(different.size(), DIFFERENCES)))
                + (more > 0 ? "; and %d more".formatted(more) : "");
    }
}
