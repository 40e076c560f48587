package io.gatun.text;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParseException;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// A small JSON text as Java values: Map (ordered), List, String, Boolean, Long, Double (also for integers beyond 64
/// bits, such as transformers' `model_max_length` of 1e30) and null. Jackson limits depth and lengths.
final class Json {
    private Json() {}

    static @Nullable Object read(String json) throws IOException {
        try (JsonParser in = new JsonFactory().createParser(json)) {
            in.nextToken();
            @Nullable Object value = value(in);
            if (in.nextToken() != null) {
                throw new JsonParseException(in, "text after the end of the value");
            }
            return value;
        }
    }

    private static @Nullable Object value(JsonParser in) throws IOException {
        JsonToken token = in.currentToken();
        return switch (token) {
            case null -> throw new JsonParseException(in, "the text is empty");
            case START_OBJECT -> {
                Map<String, @Nullable Object> map = new LinkedHashMap<>();
                while (in.nextToken() == JsonToken.FIELD_NAME) {
                    String name = in.currentName();
                    in.nextToken();
                    map.put(name, value(in));
                }
                yield map;
            }
            case START_ARRAY -> {
                List<@Nullable Object> list = new ArrayList<>();
                while (in.nextToken() != JsonToken.END_ARRAY) {
                    list.add(value(in));
                }
                yield list;
            }
            case VALUE_NUMBER_INT -> switch (in.getNumberType()) {
                case INT, LONG -> (Object) in.getLongValue();
                default -> in.getDoubleValue();
            };
            case VALUE_NUMBER_FLOAT -> in.getDoubleValue();
            case VALUE_TRUE -> true;
            case VALUE_FALSE -> false;
            case VALUE_NULL -> null;
            default -> in.getText();
        };
    }
}
