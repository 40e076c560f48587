package io.gatun.text;

import io.gatun.text.JinjaValues.Undefined;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/// Jinja2's filters, as far as chat templates use them, and transformers' `tojson`; one object per application, which
/// holds the arguments.
record JinjaFilters(JinjaBuiltins builtins, List<@Nullable Object> arguments, Map<String, @Nullable Object> named) {
    @Nullable Object apply(String name, @Nullable Object value) {
        return switch (name) {
            case "trim" -> JinjaStrings.strip(JinjaValues.text(value), argument(0, "chars"), true, true);
            case "upper" -> JinjaValues.text(value).toUpperCase(Locale.ROOT);
            case "lower" -> JinjaValues.text(value).toLowerCase(Locale.ROOT);
            case "title" -> titleOfWords(JinjaValues.text(value));
            case "capitalize" -> JinjaStrings.capitalize(JinjaValues.text(value));
            case "string" -> JinjaValues.text(value);
            case "safe" -> value;
            case "replace" -> JinjaStrings.replace(JinjaValues.text(value), JinjaValues.text(required(0, "old")),
                    JinjaValues.text(required(1, "new")), count());
            case "indent" -> indent(JinjaValues.text(value));
            case "e", "escape" -> JinjaValues.text(value).replace("&", "&amp;").replace("<", "&lt;")
                    .replace(">", "&gt;").replace("'", "&#39;").replace("\"", "&#34;");
            case "format" -> JinjaStrings.format(JinjaValues.toText(value), arguments);
            case "length", "count" -> JinjaValues.length(value);
            case "default", "d" -> value instanceof Undefined
                    || JinjaValues.isTrue(argument(1, "boolean")) && !JinjaValues.isTrue(value)
                            ? arguments.isEmpty() && !named.containsKey("default_value") ? ""
                                    : argument(0, "default_value")
                            : value;
            case "first" -> {
                List<@Nullable Object> items = JinjaValues.items(value);
                yield items.isEmpty() ? new Undefined("the first item of an empty sequence") : items.getFirst();
            }
            case "last" -> {
                List<@Nullable Object> items = JinjaValues.items(value);
                yield items.isEmpty() ? new Undefined("the last item of an empty sequence") : items.getLast();
            }
            case "list" -> JinjaValues.items(value);
            case "items" -> switch (value) {
                case Undefined _ -> new ArrayList<>();
                case Map<?, ?> map -> JinjaBuiltins.pairs(map);
                case null, default -> throw JinjaException.invalid("items of %s", JinjaValues.typeName(value));
            };
            case "dictsort" -> dictSort(value);
            case "join" -> join(value);
            case "map" -> map(JinjaValues.items(value));
            case "select" -> select(value, argumentTest(0), true);
            case "reject" -> select(value, argumentTest(0), false);
            case "selectattr" -> select(value, attributeTest(), true);
            case "rejectattr" -> select(value, attributeTest(), false);
            case "sort" -> sort(JinjaValues.items(value));
            case "unique" -> unique(JinjaValues.items(value));
            case "reverse" -> reverse(value);
            case "min" -> JinjaValues.items(value).stream().min(JinjaValues::order).orElse(null);
            case "max" -> JinjaValues.items(value).stream().max(JinjaValues::order).orElse(null);
            case "sum" -> {
                @Nullable Object sum = 0L;
                for (Object item : JinjaValues.items(value)) {
                    sum = builtins.arithmetic("+", sum, item);
                }
                yield sum;
            }
            case "abs" -> JinjaValues.toDouble(value) < 0 ? builtins.arithmetic("-", 0L, value) : value;
            case "int" -> integer(value);
            case "float" -> floating(value);
            case "tojson" -> JinjaJson.write(value, named, arguments);
            default -> throw JinjaException.unsupported("filter '%s'", name);
        };
    }

    /// A positional argument, or the named one; null where neither is given.
    private @Nullable Object argument(int position, String name) {
        return position < arguments.size() ? arguments.get(position) : named.get(name);
    }

    private @Nullable Object required(int position, String name) {
        if (position >= arguments.size() && !named.containsKey(name)) {
            throw JinjaException.invalid("a filter needs the argument %s", name);
        }
        return argument(position, name);
    }

    private long count() {
        Object count = argument(2, "count");
        return count == null ? -1 : JinjaValues.toLong(count);
    }

    /// Jinja2's own: words begin after blanks, `-`, `(`, `{`, `[` and `<`, unlike Python's `str.title`.
    private static String titleOfWords(String text) {
        StringBuilder title = new StringBuilder();
        boolean begins = true;
        for (int c : text.codePoints().toArray()) {
            String one = Character.toString(c);
            title.append(begins ? one.toUpperCase(Locale.ROOT) : one.toLowerCase(Locale.ROOT));
            begins = Character.isWhitespace(c) || "-({[<".indexOf(c) >= 0;
        }
        return title.toString();
    }

    private String indent(String text) {
        Object width = argument(0, "width");
        String by = width instanceof String s ? s
                : " ".repeat(Math.clamp(width == null ? 4 : JinjaValues.toLong(width), 0, 1000));
        boolean first = JinjaValues.isTrue(argument(1, "first"));
        boolean blank = JinjaValues.isTrue(argument(2, "blank"));
        StringBuilder out = new StringBuilder();
        String[] lines = text.split("\n", -1);
        for (int i = 0; i < lines.length; i++) {
            boolean indents = i == 0 ? first : blank || !lines[i].isEmpty();
            out.append(i == 0 ? "" : "\n").append(indents ? by : "").append(lines[i]);
            builtins.requireLength(out.length());
        }
        return out.toString();
    }

    private Object dictSort(@Nullable Object value) {
        if (!(value instanceof Map<?, ?> map) || !arguments.isEmpty() || !named.isEmpty()) {
            throw JinjaException.unsupported("dictsort of %s with arguments", JinjaValues.typeName(value));
        }
        List<@Nullable Object> pairs = JinjaBuiltins.pairs(map);
        pairs.sort(Comparator.comparing(pair -> folded(((List<?>) pair).get(0)), JinjaValues::order));
        return pairs;
    }

    private static @Nullable Object folded(@Nullable Object value) {
        return value instanceof String s ? s.toLowerCase(Locale.ROOT) : value;
    }

    private String join(@Nullable Object value) {
        Object separator = argument(0, "d");
        List<@Nullable Object> texts = new ArrayList<>();
        for (Object item : JinjaValues.items(value)) {
            Object attribute = argument(1, "attribute");
            texts.add(JinjaValues.text(attribute == null ? item : attributeOf(item, attribute)));
        }
        return JinjaStrings.join(separator == null ? "" : JinjaValues.text(separator), texts);
    }

    private Object map(List<@Nullable Object> items) {
        List<@Nullable Object> mapped = new ArrayList<>();
        for (Object item : items) {
            if (named.containsKey("attribute")) {
                Object found = attributeOf(item, named.get("attribute"));
                mapped.add(found instanceof Undefined && named.containsKey("default") ? named.get("default") : found);
            } else {
                mapped.add(builtins.filter(JinjaValues.toText(required(0, "filter")), item,
                        arguments.subList(1, arguments.size()), named));
            }
        }
        return mapped;
    }

    /// `a.b.0` walks attributes and positions.
    private @Nullable Object attributeOf(@Nullable Object item, @Nullable Object attribute) {
        @Nullable Object found = item;
        for (String part : JinjaValues.text(attribute).split("\\.")) {
            found = builtins.item(found, part.matches("[0-9]{1,9}") ? (Object) Long.parseLong(part) : part);
        }
        return found;
    }

    private Predicate<@Nullable Object> argumentTest(int position) {
        if (position >= arguments.size()) {
            return JinjaValues::isTrue;
        }
        String name = JinjaValues.toText(arguments.get(position));
        List<@Nullable Object> rest = arguments.subList(position + 1, arguments.size());
        return item -> builtins.test(name, item, rest);
    }

    private Predicate<@Nullable Object> attributeTest() {
        Object attribute = required(0, "attribute");
        Predicate<@Nullable Object> test = argumentTest(1);
        return item -> test.test(attributeOf(item, attribute));
    }

    private static List<@Nullable Object> select(@Nullable Object value, Predicate<@Nullable Object> test,
            boolean keeps) {
        List<@Nullable Object> selected = new ArrayList<>();
        for (Object item : JinjaValues.items(value)) {
            if (test.test(item) == keeps) {
                selected.add(item);
            }
        }
        return selected;
    }

    private Object sort(List<@Nullable Object> items) {
        boolean caseSensitive = JinjaValues.isTrue(argument(1, "case_sensitive"));
        Object attribute = argument(2, "attribute");
        Comparator<@Nullable Object> order = (a, b) -> {
            Object x = attribute == null ? a : attributeOf(a, attribute);
            Object y = attribute == null ? b : attributeOf(b, attribute);
            return caseSensitive ? JinjaValues.order(x, y) : JinjaValues.order(folded(x), folded(y));
        };
        items.sort(JinjaValues.isTrue(argument(0, "reverse")) ? Collections.reverseOrder(order) : order);
        return items;
    }

    private static Object unique(List<@Nullable Object> items) {
        Map<@Nullable Object, @Nullable Object> seen = new LinkedHashMap<>();
        items.forEach(item -> seen.putIfAbsent(folded(item), item));
        return new ArrayList<>(seen.values());
    }

    private static Object reverse(@Nullable Object value) {
        List<@Nullable Object> items = JinjaValues.items(value).reversed();
        return value instanceof String s ? new StringBuilder(s).reverse().toString() : new ArrayList<>(items);
    }

    private @Nullable Object integer(@Nullable Object value) {
        Object otherwise = arguments.isEmpty() && !named.containsKey("default") ? (Object) 0L : argument(0, "default");
        return switch (value) {
            case Long _, Boolean _ -> JinjaValues.toLong(value);
            case Double d -> Double.isFinite(d) ? (Object) d.longValue() : otherwise;
            case String s -> {
                try {
                    yield (long) Double.parseDouble(s.strip());
                } catch (NumberFormatException e) {
                    yield otherwise;
                }
            }
            case null, default -> otherwise;
        };
    }

    private @Nullable Object floating(@Nullable Object value) {
        Object otherwise = arguments.isEmpty() && !named.containsKey("default") ? (Object) 0.0
                : argument(0, "default");
        if (JinjaValues.isNumber(value)) {
            return JinjaValues.toDouble(value);
        }
        try {
            return value instanceof String s ? (Object) Double.parseDouble(s.strip()) : otherwise;
        } catch (NumberFormatException e) {
            return otherwise;
        }
    }
}
