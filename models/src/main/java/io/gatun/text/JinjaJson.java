package io.gatun.text;

import io.gatun.text.JinjaValues.Undefined;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/// transformers' `tojson`: Python's `json.dumps(value, ensure_ascii=False, indent=None)`, which has a blank behind each
/// comma and colon and does not escape HTML as Jinja2's own filter does.
final class JinjaJson {
    private final StringBuilder out = new StringBuilder();
    private final @Nullable String indent;
    private final String comma;
    private final String colon;
    private final boolean ascii;
    private final boolean sortsKeys;

    private JinjaJson(Map<String, @Nullable Object> named, List<@Nullable Object> arguments) {
        if (!arguments.isEmpty()) {
            throw JinjaException.unsupported("a positional argument of tojson");
        }
        indent = switch (named.get("indent")) {
            case null -> null;
            case String s -> s;
            case Object width -> " ".repeat(Math.clamp(JinjaValues.toLong(width), 0, 100));
        };
        if (named.get("separators") instanceof List<?> separators && separators.size() == 2) {
            comma = JinjaValues.toText(separators.get(0));
            colon = JinjaValues.toText(separators.get(1));
        } else {
            comma = indent == null ? ", " : ",";
            colon = ": ";
        }
        ascii = JinjaValues.isTrue(named.get("ensure_ascii"));
        sortsKeys = JinjaValues.isTrue(named.get("sort_keys"));
    }

    static String write(@Nullable Object value, Map<String, @Nullable Object> named,
            List<@Nullable Object> arguments) {
        JinjaJson json = new JinjaJson(named, arguments);
        json.value(value, 0);
        return json.out.toString();
    }

    private void value(@Nullable Object value, int depth) {
        if (depth > JinjaParser.MAX_DEPTH || out.length() > JinjaRenderer.MAX_OUTPUT) {
            throw JinjaException.invalid("tojson of a value that is nested too deeply or too long");
        }
        switch (value) {
            case null -> out.append("null");
            case Boolean b -> out.append(b);
            case Long l -> out.append(l);
            case Double d -> out.append(Double.isNaN(d) ? "NaN"
                    : Double.isInfinite(d) ? d > 0 ? "Infinity" : "-Infinity" : JinjaValues.floatText(d));
            case String s -> string(s);
            case List<?> list -> {
                out.append('[');
                for (int i = 0; i < list.size(); i++) {
                    separate(i, depth + 1);
                    value(list.get(i), depth + 1);
                }
                close(list.isEmpty(), depth, ']');
            }
            case Map<?, ?> map -> {
                List<@Nullable Object> keys = new ArrayList<>(map.keySet());
                if (sortsKeys) {
                    keys.sort(JinjaValues::order);
                }
                out.append('{');
                for (int i = 0; i < keys.size(); i++) {
                    separate(i, depth + 1);
                    string(key(keys.get(i)));
                    out.append(colon);
                    value(map.get(keys.get(i)), depth + 1);
                }
                close(map.isEmpty(), depth, '}');
            }
            case Undefined undefined -> throw undefined.error();
            default -> throw JinjaException.invalid("tojson of %s", JinjaValues.typeName(value));
        }
    }

    private static String key(@Nullable Object key) {
        return key instanceof Boolean ? key.toString() : Objects.requireNonNullElse(key, "null") instanceof Double d
                ? JinjaValues.floatText(d) : String.valueOf(key);
    }

    private void separate(int i, int depth) {
        out.append(i == 0 ? "" : comma);
        if (indent != null) {
            out.append('\n').repeat(indent, depth);
        }
    }

    private void close(boolean empty, int depth, char bracket) {
        if (indent != null && !empty) {
            out.append('\n').repeat(indent, depth);
        }
        out.append(bracket);
    }

    private void string(String s) {
        out.append('"');
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            switch (c) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\b' -> out.append("\\b");
                case '\f' -> out.append("\\f");
                default -> {
                    if (c < ' ' || ascii && c > '~') {
                        out.append("\\u%04x".formatted((int) c));
                    } else {
                        out.append(c);
                    }
                }
            }
        }
        out.append('"');
    }
}
