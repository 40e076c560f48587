package io.gatun.text;

import java.math.BigDecimal;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/// Values of a template and what Python does with them: truth, equality, order, `str` and `repr`.
///
/// None is null, bool Boolean, int Long, float Double, str String, list List, tuple [Tuple], dict Map (ordered),
/// besides [Undefined], [Namespace] and [Function]. Lists and maps are never changed by a template.
final class JinjaValues {
    private JinjaValues() {}

    /// A name or attribute that is not there: empty as text, a list and a condition, an error everywhere else.
    record Undefined(String what) {
        JinjaException error() {
            return JinjaException.invalid("%s is undefined", what);
        }
    }

    /// The mutable object of `namespace(...)`.
    record Namespace(Map<String, @Nullable Object> attributes) {}

    /// The variable `loop` in the iteration over item `i`.
    record Loop(List<@Nullable Object> items, int i) {
        @Nullable Object attribute(String name) {
            int size = items.size();
            return switch (name) {
                case "index" -> i + 1L;
                case "index0" -> (long) i;
                case "revindex" -> (long) size - i;
                case "revindex0" -> size - i - 1L;
                case "first" -> i == 0;
                case "last" -> i == size - 1;
                case "length" -> (long) size;
                case "previtem" -> i > 0 ? items.get(i - 1) : new Undefined("the item before the first");
                case "nextitem" -> i + 1 < size ? items.get(i + 1) : new Undefined("the item after the last");
                case "cycle" -> (Function) (arguments, named) -> arguments.get(i % arguments.size());
                default -> throw JinjaException.unsupported("loop.%s", name);
            };
        }
    }

    /// A macro, a global function or a bound method.
    @FunctionalInterface
    interface Function {
        @Nullable Object call(List<@Nullable Object> arguments, Map<String, @Nullable Object> named);
    }

    static final class Tuple extends AbstractList<@Nullable Object> {
        private final List<@Nullable Object> items;

        Tuple(List<@Nullable Object> items) {
            this.items = items;
        }

        @Override
        public @Nullable Object get(int index) {
            return items.get(index);
        }

        @Override
        public int size() {
            return items.size();
        }
    }

    static boolean isTrue(@Nullable Object value) {
        return switch (value) {
            case null -> false;
            case Boolean b -> b;
            case Long l -> l != 0;
            case Double d -> d != 0;
            case String s -> !s.isEmpty();
            case List<?> l -> !l.isEmpty();
            case Map<?, ?> m -> !m.isEmpty();
            case Undefined _ -> false;
            default -> true;
        };
    }

    /// Python's `==`: numbers by value (True is 1), lists and tuples differ.
    static boolean equal(@Nullable Object a, @Nullable Object b) {
        if (isNumber(a) && isNumber(b)) {
            return a instanceof Double || b instanceof Double ? toDouble(a) == toDouble(b) : toLong(a) == toLong(b);
        }
        if (a instanceof Undefined && b instanceof Undefined) {
            return true;
        }
        if (a instanceof List<?> x && b instanceof List<?> y) {
            if (x instanceof Tuple != y instanceof Tuple || x.size() != y.size()) {
                return false;
            }
            for (int i = 0; i < x.size(); i++) {
                if (!equal(x.get(i), y.get(i))) {
                    return false;
                }
            }
            return true;
        }
        if (a instanceof Map<?, ?> x && b instanceof Map<?, ?> y) {
            return x.size() == y.size() && x.keySet().stream().allMatch(
                    key -> y.containsKey(key) && equal(x.get(key), y.get(key)));
        }
        return Objects.equals(a, b);
    }

    /// Python's `<` as a sign; numbers, strings (by code point) and lists.
    static int order(@Nullable Object a, @Nullable Object b) {
        if (isNumber(a) && isNumber(b)) {
            return a instanceof Double || b instanceof Double ? Double.compare(toDouble(a), toDouble(b))
                    : Long.compare(toLong(a), toLong(b));
        }
        if (a instanceof String x && b instanceof String y) {
            return java.util.Arrays.compare(x.codePoints().toArray(), y.codePoints().toArray());
        }
        if (a instanceof List<?> x && b instanceof List<?> y) {
            for (int i = 0; i < Math.min(x.size(), y.size()); i++) {
                if (!equal(x.get(i), y.get(i))) {
                    return order(x.get(i), y.get(i));
                }
            }
            return Integer.compare(x.size(), y.size());
        }
        throw JinjaException.invalid("cannot compare %s with %s", typeName(a), typeName(b));
    }

    static boolean contains(@Nullable Object container, @Nullable Object item) {
        return switch (container) {
            case String s when item instanceof String part -> s.contains(part);
            case List<?> l -> l.stream().anyMatch(element -> equal(element, item));
            case Map<?, ?> m -> m.containsKey(item);
            case Undefined _ -> false;
            case null, default -> throw JinjaException.invalid("cannot look for %s in %s", typeName(item),
                    typeName(container));
        };
    }

    /// What a loop or a filter walks: the items of a list, the characters of a string, the keys of a map.
    static List<@Nullable Object> items(@Nullable Object value) {
        return switch (value) {
            case List<?> l -> new ArrayList<>(l);
            case Map<?, ?> m -> new ArrayList<>(m.keySet());
            case String s -> new ArrayList<>(s.codePoints().mapToObj(Character::toString).toList());
            case Undefined _ -> new ArrayList<>();
            case null, default -> throw JinjaException.invalid("cannot iterate over %s", typeName(value));
        };
    }

    static long length(@Nullable Object value) {
        return switch (value) {
            case String s -> s.codePointCount(0, s.length());
            case List<?> l -> l.size();
            case Map<?, ?> m -> m.size();
            case Undefined _ -> 0;
            case null, default -> throw JinjaException.invalid("%s has no length", typeName(value));
        };
    }

    /// Python's `str`.
    static String text(@Nullable Object value) {
        return switch (value) {
            case String s -> s;
            case Undefined _ -> "";
            case null, default -> representation(value, 0);
        };
    }

    private static String representation(@Nullable Object value, int depth) {
        if (depth > JinjaParser.MAX_DEPTH) {
            throw JinjaException.invalid("a value is nested deeper than %d", JinjaParser.MAX_DEPTH);
        }
        StringBuilder text = new StringBuilder();
        switch (value) {
            case null -> text.append("None");
            case Boolean b -> text.append(b ? "True" : "False");
            case Long l -> text.append(l);
            case Double d -> text.append(floatText(d));
            case String s -> quote(s, text);
            case Undefined _ -> text.append("Undefined");
            case List<?> list -> {
                boolean tuple = list instanceof Tuple;
                text.append(tuple ? '(' : '[');
                for (int i = 0; i < list.size(); i++) {
                    text.append(i == 0 ? "" : ", ").append(representation(list.get(i), depth + 1));
                }
                text.append(tuple && list.size() == 1 ? ",)" : tuple ? ")" : "]");
            }
            case Map<?, ?> map -> {
                text.append('{');
                map.forEach((key, item) -> text.append(text.length() == 1 ? "" : ", ")
                        .append(representation(key, depth + 1)).append(": ").append(representation(item, depth + 1)));
                text.append('}');
            }
            default -> throw JinjaException.invalid("cannot print %s", typeName(value));
        }
        return text.toString();
    }

    private static void quote(String s, StringBuilder text) {
        char quote = s.contains("'") && !s.contains("\"") ? '"' : '\'';
        text.append(quote);
        s.codePoints().forEach(c -> {
            switch (c) {
                case '\n' -> text.append("\\n");
                case '\r' -> text.append("\\r");
                case '\t' -> text.append("\\t");
                case '\\' -> text.append("\\\\");
                default -> {
                    if (c == quote) {
                        text.append('\\').append(quote);
                    } else if (c < ' ' || c == 0x7F) {
                        text.append("\\x%02x".formatted(c));
                    } else {
                        text.appendCodePoint(c);
                    }
                }
            }
        });
        text.append(quote);
    }

    /// Python's `repr` of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16.
    static String floatText(double d) {
        if (Double.isNaN(d)) {
            return "nan";
        }
        if (Double.isInfinite(d)) {
            return d > 0 ? "inf" : "-inf";
        }
        if (d == 0) {
            return 1 / d < 0 ? "-0.0" : "0.0";
        }
        BigDecimal decimal = new BigDecimal(Double.toString(d)).stripTrailingZeros();
        int exponent = decimal.precision() - decimal.scale() - 1;
        if (exponent < -4 || exponent >= 16) {
            String digits = decimal.unscaledValue().abs().toString();
            return (d < 0 ? "-" : "") + digits.charAt(0) + (digits.length() > 1 ? "." + digits.substring(1) : "")
                    + "e%s%02d".formatted(exponent < 0 ? "-" : "+", Math.abs(exponent));
        }
        String plain = decimal.toPlainString();
        return plain.contains(".") ? plain : plain + ".0";
    }

    static boolean isNumber(@Nullable Object value) {
        return value instanceof Long || value instanceof Double || value instanceof Boolean;
    }

    static double toDouble(@Nullable Object value) {
        return value instanceof Double d ? d : toLong(value);
    }

    static long toLong(@Nullable Object value) {
        return switch (value) {
            case Long l -> l;
            case Boolean b -> b ? 1 : 0;
            case Undefined undefined -> throw undefined.error();
            case null, default -> throw JinjaException.invalid("expected an integer, found %s", typeName(value));
        };
    }

    static String toText(@Nullable Object value) {
        return switch (value) {
            case String s -> s;
            case Undefined undefined -> throw undefined.error();
            case null, default -> throw JinjaException.invalid("expected a string, found %s", typeName(value));
        };
    }

    static String typeName(@Nullable Object value) {
        return switch (value) {
            case null -> "None";
            case Boolean _ -> "a boolean";
            case Long _ -> "an integer";
            case Double _ -> "a float";
            case String _ -> "a string";
            case Tuple _ -> "a tuple";
            case List<?> _ -> "a list";
            case Map<?, ?> _ -> "a mapping";
            case Undefined undefined -> undefined.what() + ", which is undefined";
            case Namespace _ -> "a namespace";
            case Loop _ -> "a loop";
            default -> "a function";
        };
    }
}
