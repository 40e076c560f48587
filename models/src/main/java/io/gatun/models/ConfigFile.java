package io.gatun.models;

import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.json.JsonReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// A JSON file of a model directory, or an object inside it. Fields are read with messages that name file, field, what
/// was expected and what was found; unknown fields are ignored.
public final class ConfigFile {
    /// Python writes infinities as `Infinity`, which is no JSON.
    private static final ObjectMapper MAPPER = JsonMapper.builder()
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .enable(JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS).build();
    private static final long MAX_BYTES = 64L << 20;

    private final Path file;
    private final String prefix;
    private final JsonNode node;

    private ConfigFile(Path file, String prefix, JsonNode node) {
        this.file = file;
        this.prefix = prefix;
        this.node = node;
    }

    /// @throws GatunException when the file is missing, too large or not a JSON object
    public static ConfigFile read(Path file) {
        if (!Files.isRegularFile(file)) {
            throw GatunException.invalid("no file %s", file);
        }
        try {
            if (Files.size(file) > MAX_BYTES) {
                throw GatunException.invalid("%s has %d bytes, expected a JSON file of at most %d", file,
                        Files.size(file), MAX_BYTES);
            }
            return object(file, MAPPER.readTree(file.toFile()));
        } catch (JsonProcessingException e) {
            throw notJson(file, e);
        } catch (IOException e) {
            throw GatunException.invalid("cannot read %s: %s", file, IoReason.of(e));
        }
    }

    private static ConfigFile object(Path file, @Nullable JsonNode node) {
        if (node == null || !node.isObject()) {
            throw GatunException.invalid("%s: expected a JSON object", file);
        }
        return new ConfigFile(file, "", node);
    }

    private static GatunException notJson(Path file, JsonProcessingException e) {
        JsonLocation at = e.getLocation();
        return GatunException.invalid("%s is not valid JSON: %s%s", file, e.getOriginalMessage(),
                at == null ? "" : " (line %d, column %d)".formatted(at.getLineNr(), at.getColumnNr()));
    }

    /// As [#read], of text that is no file.
    ///
    /// @param name what messages call it
    public static ConfigFile parse(String name, String json) {
        Path file = Path.of(name);
        try {
            return object(file, MAPPER.readTree(json));
        } catch (JsonProcessingException e) {
            throw notJson(file, e);
        }
    }

    /// As [#read]; null where there is no such file.
    public static @Nullable ConfigFile readIfPresent(Path file) {
        return Files.exists(file) ? read(file) : null;
    }

    /// The same with a field set to another value.
    public ConfigFile with(String field, boolean value) {
        return new ConfigFile(file, prefix, ((ObjectNode) node.deepCopy()).put(field, value));
    }

    /// The same with these fields where they are absent or null.
    public ConfigFile withDefaults(Map<String, ?> fields) {
        ObjectNode completed = node.deepCopy();
        fields.forEach((field, value) -> {
            if (!has(field)) {
                completed.set(field, MAPPER.valueToTree(value));
            }
        });
        return new ConfigFile(file, prefix, completed);
    }

    public Path file() {
        return file;
    }

    /// The names of all fields, in their order.
    public List<String> fields() {
        List<String> names = new ArrayList<>();
        node.fieldNames().forEachRemaining(names::add);
        return names;
    }

    /// The object as JSON text.
    public String json() {
        return node.toPrettyString();
    }

    /// Whether the field is there and not null.
    public boolean has(String field) {
        return node.hasNonNull(field);
    }

    /// Whether the field is an object.
    public boolean isObject(String field) {
        return has(field) && node.get(field).isObject();
    }

    /// Whether the field is a text.
    public boolean isText(String field) {
        return has(field) && node.get(field).isTextual();
    }

    /// The numbers of an object, by their names; none where it is absent or null.
    public Map<String, Double> numbersByName(String field) {
        Map<String, Double> values = new LinkedHashMap<>();
        ConfigFile object = object(field);
        if (object != null) {
            object.node.fieldNames().forEachRemaining(name -> values.put(name, object.requireNumber(name)));
        }
        return values;
    }

    /// Whether the field is there and says null, which is not always what its absence means.
    public boolean isNull(String field) {
        return node.has(field) && node.get(field).isNull();
    }

    /// An object inside this one; null where it is absent or null.
    public @Nullable ConfigFile object(String field) {
        if (!has(field)) {
            return null;
        }
        JsonNode value = node.get(field);
        if (!value.isObject()) {
            throw wrong(field, "an object");
        }
        return new ConfigFile(file, prefix + field + ".", value);
    }

    /// As [#object(String)]; an empty object where it is absent.
    public ConfigFile objectOrEmpty(String field) {
        ConfigFile inner = object(field);
        return inner != null ? inner : new ConfigFile(file, prefix + field + ".", MAPPER.createObjectNode());
    }

    public int requireInt(String field, int min, int max) {
        JsonNode value = require(field, "an integer");
        if (!value.isIntegralNumber() || !value.canConvertToLong() || value.asLong() < min || value.asLong() > max) {
            throw wrong(field, "an integer from %d to %d".formatted(min, max));
        }
        return value.asInt();
    }

    public int getInt(String field, int min, int max, int otherwise) {
        return has(field) ? requireInt(field, min, max) : otherwise;
    }

    public double requireNumber(String field) {
        JsonNode value = require(field, "a number");
        if (!value.isNumber() || !Double.isFinite(value.asDouble())) {
            throw wrong(field, value.isNumber() ? "a finite number" : "a number");
        }
        return value.asDouble();
    }

    /// A number that may be infinite.
    public double getNumberOrInfinity(String field, double otherwise) {
        if (!has(field)) {
            return otherwise;
        }
        JsonNode value = node.get(field);
        if (!value.isNumber() || Double.isNaN(value.asDouble())) {
            throw wrong(field, "a number");
        }
        return value.asDouble();
    }

    /// A finite number above zero.
    public double requirePositive(String field) {
        double value = requireNumber(field);
        if (!(value > 0)) {
            throw wrong(field, "a finite number above 0");
        }
        return value;
    }

    public double getNumber(String field, double otherwise) {
        return has(field) ? requireNumber(field) : otherwise;
    }

    public boolean getBoolean(String field, boolean otherwise) {
        if (!has(field)) {
            return otherwise;
        }
        if (!node.get(field).isBoolean()) {
            throw wrong(field, "true or false");
        }
        return node.get(field).asBoolean();
    }

    public String requireString(String field) {
        JsonNode value = require(field, "a string");
        if (!value.isTextual()) {
            throw wrong(field, "a string");
        }
        return value.asText();
    }

    public @Nullable String getString(String field) {
        return has(field) ? requireString(field) : null;
    }

    /// An integer or a list of integers, as `eos_token_id` comes; empty where absent or null.
    public List<Integer> getInts(String field) {
        List<Integer> values = new ArrayList<>();
        if (has(field)) {
            JsonNode value = node.get(field);
            for (JsonNode item : value.isArray() ? value : List.of(value)) {
                if (!item.isInt()) {
                    throw wrong(field, "an integer or a list of integers");
                }
                values.add(item.asInt());
            }
        }
        return values;
    }

    /// An integer, or a list whose items are integers or lists of integers: `transformer_layers_per_block`. A plain
    /// integer is a list of itself; empty where absent or null.
    public List<List<Integer>> getIntLists(String field) {
        List<List<Integer>> values = new ArrayList<>();
        if (has(field)) {
            JsonNode value = node.get(field);
            for (JsonNode item : value.isArray() ? value : List.of(value)) {
                List<Integer> inner = new ArrayList<>();
                for (JsonNode number : item.isArray() ? item : List.of(item)) {
                    if (!number.isInt()) {
                        throw wrong(field, "an integer, or a list of integers and of lists of integers");
                    }
                    inner.add(number.asInt());
                }
                values.add(inner);
            }
        }
        return values;
    }

    /// One truth value for all of `number` places or a list with one for each.
    public List<Boolean> getBooleans(String field, int number, boolean otherwise) {
        if (!has(field) || !node.get(field).isArray()) {
            return Collections.nCopies(number, getBoolean(field, otherwise));
        }
        List<Boolean> values = new ArrayList<>();
        for (JsonNode item : node.get(field)) {
            if (item.isBoolean()) {
                values.add(item.asBoolean());
            }
        }
        if (values.size() != number || node.get(field).size() != number) {
            throw wrong(field, "true, false, or a list of %d of them".formatted(number));
        }
        return values;
    }

    /// A list of strings; empty where absent or null.
    public List<String> getStrings(String field) {
        List<String> values = new ArrayList<>();
        if (has(field)) {
            if (!node.get(field).isArray()) {
                throw wrong(field, "a list of strings");
            }
            for (JsonNode item : node.get(field)) {
                if (!item.isTextual()) {
                    throw wrong(field, "a list of strings");
                }
                values.add(item.asText());
            }
        }
        return values;
    }

    /// A list of strings of which some may be null, as model_index.json has them.
    public List<@Nullable String> getStringsOrNulls(String field) {
        List<@Nullable String> values = new ArrayList<>();
        if (has(field)) {
            if (!node.get(field).isArray()) {
                throw wrong(field, "a list of strings");
            }
            for (JsonNode item : node.get(field)) {
                values.add(item.isTextual() ? item.asText() : null);
            }
        }
        return values;
    }

    /// A list of numbers; empty where absent or null.
    public List<Double> getNumbers(String field) {
        List<Double> values = new ArrayList<>();
        if (has(field)) {
            if (!node.get(field).isArray()) {
                throw wrong(field, "a list of numbers");
            }
            for (JsonNode item : node.get(field)) {
                if (!item.isNumber() || !Double.isFinite(item.asDouble())) {
                    throw wrong(field, "a list of numbers");
                }
                values.add(item.asDouble());
            }
        }
        return values;
    }

    /// One of several names; `otherwise` where the field is absent or null.
    public String getOneOf(String field, String otherwise, String... names) {
        if (!has(field)) {
            return otherwise;
        }
        String value = requireString(field);
        if (!List.of(names).contains(value)) {
            throw wrong(field, String.join(" or ", names));
        }
        return value;
    }

    /// An exception that says what a field holds and what it should.
    public GatunException wrong(String field, String expected) {
        return GatunException.invalid("%s: field '%s%s' is %s, expected %s", file, prefix, field, node.get(field),
                expected);
    }

    private JsonNode require(String field, String expected) {
        if (!has(field)) {
            throw GatunException.invalid("%s: field '%s%s' is missing, expected %s", file, prefix, field, expected);
        }
        return node.get(field);
    }
}
