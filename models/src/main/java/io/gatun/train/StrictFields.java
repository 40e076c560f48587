package io.gatun.train;

import io.gatun.models.ConfigFile;
import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.BiFunction;
import org.jspecify.annotations.Nullable;

/// An object of a recipe, all of whose fields are known: one that is not is refused with the name of the nearest.
final class StrictFields {
    private final ConfigFile config;
    private final Set<String> known;
    private final String place;

    /// @param place what messages say before a field: "", or the name of the object with a point
    /// @throws GatunException when there is an unknown field
    StrictFields(ConfigFile config, String place, List<String> known) {
        this.config = config;
        this.place = place;
        this.known = Set.copyOf(known);
        for (String field : config.fields()) {
            if (!this.known.contains(field)) {
                throw GatunException.invalid("%s: unknown field '%s%s'; the nearest that exists is '%s%s'",
                        config.file(), place, field, place, nearest(field, known));
            }
        }
    }

    private static String nearest(String field, List<String> known) {
        String best = known.getFirst();
        double least = Double.POSITIVE_INFINITY;
        for (String name : known) {
            double distance = distance(field, name);
            if (distance < least) {
                least = distance;
                best = name;
            }
        }
        return best;
    }

    /// Insertions, deletions, replacements and swaps of neighbours that turn one name into the other, as a share of the
    /// longer; less where they have words in common.
    private static double distance(String a, String b) {
        int[][] d = new int[a.length() + 1][b.length() + 1];
        for (int i = 0; i <= a.length(); i++) {
            for (int j = 0; j <= b.length(); j++) {
                if (i == 0 || j == 0) {
                    d[i][j] = i + j;
                    continue;
                }
                boolean same = a.charAt(i - 1) == b.charAt(j - 1);
                d[i][j] = Math.min(d[i - 1][j - 1] + (same ? 0 : 1), 1 + Math.min(d[i - 1][j], d[i][j - 1]));
                if (i > 1 && j > 1 && a.charAt(i - 1) == b.charAt(j - 2) && a.charAt(i - 2) == b.charAt(j - 1)) {
                    d[i][j] = Math.min(d[i][j], d[i - 2][j - 2] + 1);
                }
            }
        }
        List<String> words = new ArrayList<>(List.of(a.split("_")));
        int all = words.size() + b.split("_").length;
        words.retainAll(List.of(b.split("_")));
        return (double) d[a.length()][b.length()] / Math.max(a.length(), b.length()) - 2.0 * words.size() / all;
    }

    private String checked(String field) {
        if (!known.contains(field)) {
            throw new IllegalArgumentException(field);
        }
        return field;
    }

    ConfigFile config() {
        return config;
    }

    boolean has(String field) {
        return config.has(checked(field));
    }

    int integer(String field, int min, int otherwise) {
        return config.getInt(checked(field), min, Integer.MAX_VALUE, otherwise);
    }

    /// A number from `min` to `max`, required where `otherwise` is NaN.
    double number(String field, double min, double max, double otherwise) {
        if (!has(field) && !Double.isNaN(otherwise)) {
            return otherwise;
        }
        double value = config.requireNumber(field);
        if (value < min || value > max) {
            throw wrong(field, max == Double.MAX_VALUE ? "a number of at least " + min
                    : "a number from %s to %s".formatted(min, max));
        }
        return value;
    }

    /// From 0 to just below 1.
    double share(String field, double otherwise) {
        double value = number(field, 0, 1, otherwise);
        if (value == 1) {
            throw wrong(field, "a number of at least 0 and below 1");
        }
        return value;
    }

    boolean flag(String field, boolean otherwise) {
        return config.getBoolean(checked(field), otherwise);
    }

    /// One of an enum's constants, in lower case; required where `otherwise` is null.
    <E extends Enum<E>> E oneOf(String field, Class<E> type, @Nullable E otherwise) {
        E[] constants = type.getEnumConstants();
        List<String> names = new ArrayList<>();
        for (E constant : constants) {
            names.add(constant.name().toLowerCase(Locale.ROOT));
        }
        if (otherwise != null && !has(field)) {
            return otherwise;
        }
        String value = config.requireString(checked(field));
        int index = names.indexOf(value);
        if (index < 0) {
            throw wrong(field, String.join(" or ", names));
        }
        return constants[index];
    }

    @Nullable String string(String field) {
        return config.getString(checked(field));
    }

    List<String> strings(String field) {
        return config.getStrings(checked(field));
    }

    List<Double> numbers(String field) {
        return config.getNumbers(checked(field));
    }

    /// An object inside; empty where it is absent.
    StrictFields inner(String field, String... fields) {
        return new StrictFields(config.objectOrEmpty(checked(field)), place + field + ".", List.of(fields));
    }

    /// An object whose keys are the user's own; empty where it is absent.
    <T> Map<String, T> map(String field, BiFunction<ConfigFile, String, T> value) {
        Map<String, T> values = new LinkedHashMap<>();
        ConfigFile inner = config.objectOrEmpty(checked(field));
        for (String key : inner.fields()) {
            values.put(key, value.apply(inner, key));
        }
        return values;
    }

    /// Refuses a field that means nothing here.
    void without(String field, String reason) {
        if (has(field)) {
            throw wrong(field, "no such field: " + reason);
        }
    }

    GatunException wrong(String field, String expected) {
        return config.wrong(field, expected);
    }
}
