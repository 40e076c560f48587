package io.gatun.text;

import io.gatun.text.JinjaValues.Function;
import io.gatun.text.JinjaValues.Namespace;
import io.gatun.text.JinjaValues.Undefined;
import java.time.Clock;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// What a template may use besides its own text: operators, attributes, tests and the global functions that
/// transformers gives to chat templates (`raise_exception`, `strftime_now`) besides Jinja2's `range`, `dict` and
/// `namespace`. Filters are [JinjaFilters], string methods [JinjaStrings].
final class JinjaBuiltins {
    /// Jinja2's sandbox has the same limit.
    private static final long MAX_RANGE = 100_000;

    private final Map<String, @Nullable Object> globals = new HashMap<>();

    JinjaBuiltins(Clock clock) {
        globals.put("range", (Function) (arguments, named) -> range(arguments));
        globals.put("dict", (Function) (arguments, named) -> new LinkedHashMap<Object, @Nullable Object>(named));
        globals.put("namespace", (Function) (arguments, named) -> {
            Map<String, @Nullable Object> attributes = new HashMap<>();
            for (Object argument : arguments) {
                if (argument instanceof Map<?, ?> map) {
                    map.forEach((key, value) -> attributes.put(JinjaValues.toText(key), value));
                }
            }
            attributes.putAll(named);
            return new Namespace(attributes);
        });
        globals.put("raise_exception", (Function) (arguments, named) -> {
            throw JinjaException.invalid("the template refuses the messages: %s",
                    JinjaValues.text(arguments.isEmpty() ? "" : arguments.getFirst()));
        });
        globals.put("strftime_now", (Function) (arguments, named) -> JinjaStrings.strftime(LocalDateTime.now(clock),
                JinjaValues.toText(argument(arguments, 0, "strftime_now"))));
    }

    Map<String, @Nullable Object> globals() {
        return globals;
    }

    void requireLength(long length) {
        if (length > JinjaRenderer.MAX_OUTPUT) {
            throw JinjaException.invalid("the text grows beyond %d characters", JinjaRenderer.MAX_OUTPUT);
        }
    }

    static @Nullable Object argument(List<@Nullable Object> arguments, int i, String function) {
        if (i >= arguments.size()) {
            throw JinjaException.invalid("%s needs at least %d arguments, got %d", function, i + 1, arguments.size());
        }
        return arguments.get(i);
    }

    private static List<@Nullable Object> range(List<@Nullable Object> arguments) {
        boolean from = arguments.size() > 1;
        long start = from ? JinjaValues.toLong(arguments.get(0)) : 0;
        long stop = JinjaValues.toLong(argument(arguments, from ? 1 : 0, "range"));
        long step = arguments.size() > 2 ? JinjaValues.toLong(arguments.get(2)) : 1;
        if (step == 0) {
            throw JinjaException.invalid("range with step 0");
        }
        List<@Nullable Object> numbers = new ArrayList<>();
        for (long i = start; step > 0 ? i < stop : i > stop; i = Math.addExact(i, step)) {
            if (numbers.size() == MAX_RANGE) {
                throw JinjaException.invalid("range is longer than %d", MAX_RANGE);
            }
            numbers.add(i);
        }
        return numbers;
    }

    /// `value.name`: a method first, then a key.
    @Nullable Object attribute(@Nullable Object value, String name) {
        @Nullable Object method = method(value, name);
        if (method != null) {
            return method;
        }
        return switch (value) {
            case Map<?, ?> map when map.containsKey(name) -> map.get(name);
            case Namespace namespace when namespace.attributes().containsKey(name) -> namespace.attributes().get(name);
            case JinjaValues.Loop loop -> loop.attribute(name);
            case Undefined undefined -> throw undefined.error();
            case null, default -> new Undefined("attribute '" + name + "' of " + JinjaValues.typeName(value));
        };
    }

    /// `value[key]`: a key or position first, then a method.
    @Nullable Object item(@Nullable Object value, @Nullable Object key) {
        if (value instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (value instanceof Map<?, ?> map && map.containsKey(key)) {
            return map.get(key);
        }
        if (value instanceof List<?> list && key instanceof Long index) {
            long i = index < 0 ? index + list.size() : index;
            return i >= 0 && i < list.size() ? list.get((int) i) : new Undefined("item " + index + " of a list");
        }
        if (value instanceof String text && key instanceof Long index) {
            int length = text.codePointCount(0, text.length());
            long i = index < 0 ? index + length : index;
            return i >= 0 && i < length
                    ? Character.toString(text.codePointAt(text.offsetByCodePoints(0, (int) i)))
                    : new Undefined("character " + index + " of a string");
        }
        if (key instanceof String name) {
            return value instanceof Map ? missing(value, name) : attribute(value, name);
        }
        return new Undefined("an item of " + JinjaValues.typeName(value));
    }

    private static Object missing(@Nullable Object value, String name) {
        @Nullable Object method = method(value, name);
        return method != null ? method : new Undefined("key '" + name + "'");
    }

    private static @Nullable Function method(@Nullable Object value, String name) {
        return switch (value) {
            case String text when JinjaStrings.METHODS.contains(name) ->
                (arguments, named) -> JinjaStrings.call(text, name, arguments, named);
            case Map<?, ?> map -> switch (name) {
                case "items" -> (arguments, named) -> pairs(map);
                case "keys" -> (arguments, named) -> new ArrayList<@Nullable Object>(map.keySet());
                case "values" -> (arguments, named) -> new ArrayList<@Nullable Object>(map.values());
                case "get" -> (arguments, named) -> {
                    Object key = argument(arguments, 0, "get");
                    return map.containsKey(key) ? map.get(key) : arguments.size() > 1 ? arguments.get(1) : null;
                };
                default -> null;
            };
            case List<?> list -> switch (name) {
                case "index" -> (arguments, named) -> {
                    for (int i = 0; i < list.size(); i++) {
                        if (JinjaValues.equal(list.get(i), argument(arguments, 0, "index"))) {
                            return (long) i;
                        }
                    }
                    throw JinjaException.invalid("index: the list has no such item");
                };
                case "count" -> (arguments, named) -> list.stream().filter(
                        item -> JinjaValues.equal(item, argument(arguments, 0, "count"))).count();
                default -> null;
            };
            case null, default -> null;
        };
    }

    static List<@Nullable Object> pairs(Map<?, ?> map) {
        List<@Nullable Object> pairs = new ArrayList<>();
        map.forEach((key, value) -> pairs.add(new JinjaValues.Tuple(java.util.Arrays.asList(key, value))));
        return pairs;
    }

    /// Python's slices, of lists and strings.
    @Nullable Object slice(@Nullable Object value, @Nullable Object start, @Nullable Object stop,
            @Nullable Object step) {
        if (value instanceof Undefined || !(value instanceof String || value instanceof List)) {
            throw JinjaException.invalid("cannot slice %s", JinjaValues.typeName(value));
        }
        List<@Nullable Object> items = JinjaValues.items(value);
        long by = step == null ? 1 : JinjaValues.toLong(step);
        if (by == 0) {
            throw JinjaException.invalid("slice with step 0");
        }
        int size = items.size();
        long lowest = by > 0 ? 0 : -1;
        long highest = by > 0 ? size : size - 1;
        long from = start == null ? by > 0 ? lowest : highest : bound(JinjaValues.toLong(start), size, lowest, highest);
        long to = stop == null ? by > 0 ? highest : lowest : bound(JinjaValues.toLong(stop), size, lowest, highest);
        List<@Nullable Object> part = new ArrayList<>();
        for (long i = from; by > 0 ? i < to : i > to; i += Math.clamp(by, -size - 1, size + 1)) {
            part.add(items.get((int) i));
        }
        if (value instanceof String) {
            StringBuilder text = new StringBuilder();
            part.forEach(text::append);
            return text.toString();
        }
        return value instanceof JinjaValues.Tuple ? new JinjaValues.Tuple(part) : part;
    }

    private static long bound(long index, int size, long lowest, long highest) {
        return Math.clamp(index < 0 ? index + size : index, lowest, highest);
    }

    @Nullable Object arithmetic(String operator, @Nullable Object left, @Nullable Object right) {
        if (left instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (right instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (JinjaValues.isNumber(left) && JinjaValues.isNumber(right)) {
            return left instanceof Double || right instanceof Double || operator.equals("/")
                    ? floats(operator, JinjaValues.toDouble(left), JinjaValues.toDouble(right))
                    : integers(operator, JinjaValues.toLong(left), JinjaValues.toLong(right));
        }
        if (operator.equals("+") && left instanceof String a && right instanceof String b) {
            requireLength((long) a.length() + b.length());
            return a + b;
        }
        if (operator.equals("+") && left instanceof List<?> a && right instanceof List<?> b
                && a instanceof JinjaValues.Tuple == b instanceof JinjaValues.Tuple) {
            requireLength((long) a.size() + b.size());
            List<@Nullable Object> both = new ArrayList<>(a);
            both.addAll(b);
            return a instanceof JinjaValues.Tuple ? new JinjaValues.Tuple(both) : both;
        }
        if (operator.equals("*") && left instanceof String text && right instanceof Long times) {
            requireLength(Math.multiplyExact(text.length(), Math.max(times, 0)));
            return text.repeat((int) Math.max(times, 0));
        }
        if (operator.equals("*") && left instanceof Long times && right instanceof String) {
            return arithmetic(operator, right, times);
        }
        if (operator.equals("%") && left instanceof String format) {
            return JinjaStrings.format(format, right instanceof JinjaValues.Tuple tuple ? tuple
                    : java.util.Collections.singletonList(right));
        }
        throw JinjaException.invalid("cannot compute %s %s %s", JinjaValues.typeName(left), operator,
                JinjaValues.typeName(right));
    }

    private static Object integers(String operator, long a, long b) {
        return switch (operator) {
            case "+" -> Math.addExact(a, b);
            case "-" -> Math.subtractExact(a, b);
            case "*" -> Math.multiplyExact(a, b);
            case "//" -> Math.floorDiv(a, b);
            case "%" -> Math.floorMod(a, b);
            default -> {
                if (b < 0) {
                    yield Math.pow(a, b);
                }
                double power = Math.pow(a, b);
                if (Math.abs(power) > 1L << 53) {
                    throw JinjaException.unsupported("an integer power beyond 2^53");
                }
                yield (long) power;
            }
        };
    }

    private static Object floats(String operator, double a, double b) {
        if (b == 0 && ("/".equals(operator) || "//".equals(operator) || "%".equals(operator))) {
            throw JinjaException.invalid("division by zero");
        }
        return switch (operator) {
            case "+" -> a + b;
            case "-" -> a - b;
            case "*" -> a * b;
            case "/" -> a / b;
            case "//" -> Math.floor(a / b);
            case "%" -> a - b * Math.floor(a / b);
            default -> Math.pow(a, b);
        };
    }

    boolean test(String name, @Nullable Object value, List<@Nullable Object> arguments) {
        return switch (name) {
            case "defined" -> !(value instanceof Undefined);
            case "undefined" -> value instanceof Undefined;
            case "none" -> value == null;
            case "boolean" -> value instanceof Boolean;
            case "true" -> Boolean.TRUE.equals(value);
            case "false" -> Boolean.FALSE.equals(value);
            case "integer" -> value instanceof Long;
            case "float" -> value instanceof Double;
            case "number" -> JinjaValues.isNumber(value);
            case "string" -> value instanceof String;
            case "mapping" -> value instanceof Map;
            case "sequence" -> value instanceof String || value instanceof List || value instanceof Map
                    || value instanceof Undefined;
            case "iterable" -> value instanceof String || value instanceof List || value instanceof Map
                    || value instanceof Undefined;
            case "callable" -> value instanceof Function;
            case "odd" -> Math.floorMod(JinjaValues.toLong(value), 2L) == 1;
            case "even" -> Math.floorMod(JinjaValues.toLong(value), 2L) == 0;
            case "divisibleby" -> Math.floorMod(JinjaValues.toLong(value),
                    JinjaValues.toLong(argument(arguments, 0, name))) == 0;
            case "lower" -> JinjaStrings.isLower(JinjaValues.text(value));
            case "upper" -> JinjaStrings.isUpper(JinjaValues.text(value));
            case "eq", "equalto", "==" -> JinjaValues.equal(value, argument(arguments, 0, name));
            case "ne", "!=" -> !JinjaValues.equal(value, argument(arguments, 0, name));
            case "lt", "lessthan" -> JinjaValues.order(value, argument(arguments, 0, name)) < 0;
            case "le" -> JinjaValues.order(value, argument(arguments, 0, name)) <= 0;
            case "gt", "greaterthan" -> JinjaValues.order(value, argument(arguments, 0, name)) > 0;
            case "ge" -> JinjaValues.order(value, argument(arguments, 0, name)) >= 0;
            case "in" -> JinjaValues.contains(argument(arguments, 0, name), value);
            default -> throw JinjaException.unsupported("test '%s'", name);
        };
    }

    @Nullable Object filter(String name, @Nullable Object value, List<@Nullable Object> arguments,
            Map<String, @Nullable Object> named) {
        return new JinjaFilters(this, arguments, named).apply(name, value);
    }
}
