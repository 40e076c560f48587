package io.gatun.text;

import java.time.LocalDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.IntPredicate;
import org.jspecify.annotations.Nullable;

/// Python's string methods, `%` formatting and `strftime`, as far as chat templates use them.
final class JinjaStrings {
    static final Set<String> METHODS = Set.of("strip", "lstrip", "rstrip", "startswith", "endswith", "split", "rsplit",
            "splitlines", "upper", "lower", "title", "capitalize", "replace", "join", "find", "rfind", "count",
            "removeprefix", "removesuffix", "isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower");

    private JinjaStrings() {}

    static @Nullable Object call(String text, String method, List<@Nullable Object> arguments,
            Map<String, @Nullable Object> named) {
        if (!named.isEmpty() && !method.endsWith("split")) {
            throw JinjaException.unsupported("a named argument of %s", method);
        }
        Object first = arguments.isEmpty() ? null : arguments.getFirst();
        return switch (method) {
            case "strip" -> strip(text, first, true, true);
            case "lstrip" -> strip(text, first, true, false);
            case "rstrip" -> strip(text, first, false, true);
            case "startswith" -> affixes(first).stream().anyMatch(text::startsWith);
            case "endswith" -> affixes(first).stream().anyMatch(text::endsWith);
            case "split", "rsplit" -> {
                Object separator = named.containsKey("sep") ? named.get("sep") : first;
                Object limit = named.containsKey("maxsplit") ? named.get("maxsplit")
                        : arguments.size() > 1 ? arguments.get(1) : (Object) (-1L);
                long most = JinjaValues.toLong(limit);
                yield split(text, separator == null ? null : JinjaValues.toText(separator),
                        most < 0 ? Long.MAX_VALUE : most, method.equals("rsplit"));
            }
            case "splitlines" -> new ArrayList<@Nullable Object>(text.lines().toList());
            case "upper" -> text.toUpperCase(Locale.ROOT);
            case "lower" -> text.toLowerCase(Locale.ROOT);
            case "title" -> title(text);
            case "capitalize" -> capitalize(text);
            case "replace" -> replace(text, JinjaValues.toText(first),
                    JinjaValues.toText(JinjaBuiltins.argument(arguments, 1, method)),
                    arguments.size() > 2 ? JinjaValues.toLong(arguments.get(2)) : -1);
            case "join" -> join(text, JinjaValues.items(JinjaBuiltins.argument(arguments, 0, method)));
            case "find" -> position(text, text.indexOf(JinjaValues.toText(first)));
            case "rfind" -> position(text, text.lastIndexOf(JinjaValues.toText(first)));
            case "count" -> count(text, JinjaValues.toText(first));
            case "removeprefix" -> text.startsWith(JinjaValues.toText(first))
                    ? text.substring(JinjaValues.toText(first).length()) : text;
            case "removesuffix" -> text.endsWith(JinjaValues.toText(first))
                    ? text.substring(0, text.length() - JinjaValues.toText(first).length()) : text;
            case "isdigit" -> all(text, Character::isDigit);
            case "isalpha" -> all(text, Character::isLetter);
            case "isalnum" -> all(text, Character::isLetterOrDigit);
            case "isspace" -> all(text, JinjaStrings::isSpace);
            case "isupper" -> isUpper(text);
            default -> isLower(text);
        };
    }

    /// Python's `str.isspace`: Java's whitespace, the no-break spaces and NEL.
    private static boolean isSpace(int c) {
        return Character.isWhitespace(c) || Character.isSpaceChar(c) || c == 0x85;
    }

    static String strip(String text, @Nullable Object characters, boolean left, boolean right) {
        String set = characters == null ? null : JinjaValues.toText(characters);
        IntPredicate stripped = set == null ? JinjaStrings::isSpace : c -> set.indexOf(c) >= 0;
        int start = 0;
        int end = text.length();
        while (left && start < end && stripped.test(text.codePointAt(start))) {
            start += Character.charCount(text.codePointAt(start));
        }
        while (right && start < end && stripped.test(text.codePointBefore(end))) {
            end -= Character.charCount(text.codePointBefore(end));
        }
        return text.substring(start, end);
    }

    private static List<String> affixes(@Nullable Object value) {
        return value instanceof JinjaValues.Tuple tuple ? tuple.stream().map(JinjaValues::toText).toList()
                : List.of(JinjaValues.toText(value));
    }

    private static List<@Nullable Object> split(String text, @Nullable String separator, long most, boolean fromRight) {
        if (separator != null && separator.isEmpty()) {
            throw JinjaException.invalid("split with an empty separator");
        }
        List<@Nullable Object> parts = new ArrayList<>();
        String rest = separator == null ? strip(text, null, !fromRight, fromRight) : text;
        while (parts.size() < most) {
            int at = separator == null ? space(rest, fromRight)
                    : fromRight ? rest.lastIndexOf(separator) : rest.indexOf(separator);
            if (at < 0) {
                break;
            }
            int width = separator == null ? Character.charCount(rest.codePointAt(at)) : separator.length();
            String before = rest.substring(0, at);
            String after = rest.substring(at + width);
            if (fromRight) {
                parts.addFirst(after);
                rest = separator == null ? strip(before, null, false, true) : before;
            } else {
                parts.add(before);
                rest = separator == null ? strip(after, null, true, false) : after;
            }
        }
        if (separator == null) {
            rest = parts.size() < most ? strip(rest, null, true, true) : rest;
            if (rest.isEmpty()) {
                return parts;
            }
        }
        if (fromRight) {
            parts.addFirst(rest);
        } else {
            parts.add(rest);
        }
        return parts;
    }

    private static int space(String text, boolean fromRight) {
        int[] spaces = java.util.stream.IntStream.range(0, text.length()).filter(i -> isSpace(text.charAt(i))).limit(
                fromRight ? Long.MAX_VALUE : 1).toArray();
        return spaces.length == 0 ? -1 : spaces[spaces.length - 1];
    }

    static String title(String text) {
        StringBuilder title = new StringBuilder();
        boolean inWord = false;
        for (int c : text.codePoints().toArray()) {
            String one = Character.toString(c);
            title.append(inWord ? one.toLowerCase(Locale.ROOT) : Character.toString(Character.toTitleCase(c)));
            inWord = Character.isLetter(c);
        }
        return title.toString();
    }

    static String capitalize(String text) {
        if (text.isEmpty()) {
            return text;
        }
        int first = text.offsetByCodePoints(0, 1);
        return Character.toString(Character.toTitleCase(text.codePointAt(0)))
                + text.substring(first).toLowerCase(Locale.ROOT);
    }

    static String replace(String text, String old, String replacement, long most) {
        StringBuilder out = new StringBuilder();
        int at = 0;
        for (long n = 0; most < 0 || n < most; n++) {
            int found = text.indexOf(old, old.isEmpty() && n > 0 ? at + 1 : at);
            if (found < 0 || found > text.length() || old.isEmpty() && n > text.length()) {
                break;
            }
            out.append(text, at, found).append(replacement);
            if (out.length() > JinjaRenderer.MAX_OUTPUT) {
                throw JinjaException.invalid("the text grows beyond %d characters", JinjaRenderer.MAX_OUTPUT);
            }
            at = found + old.length();
        }
        return out.append(text, at, text.length()).toString();
    }

    static String join(String separator, List<@Nullable Object> items) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < items.size(); i++) {
            text.append(i == 0 ? "" : separator).append(JinjaValues.toText(items.get(i)));
            if (text.length() > JinjaRenderer.MAX_OUTPUT) {
                throw JinjaException.invalid("the text grows beyond %d characters", JinjaRenderer.MAX_OUTPUT);
            }
        }
        return text.toString();
    }

    private static long position(String text, int index) {
        return index < 0 ? -1 : text.codePointCount(0, index);
    }

    private static long count(String text, String part) {
        if (part.isEmpty()) {
            return text.codePointCount(0, text.length()) + 1L;
        }
        long count = 0;
        for (int at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length())) {
            count++;
        }
        return count;
    }

    private static boolean all(String text, IntPredicate test) {
        return !text.isEmpty() && text.codePoints().allMatch(test);
    }

    static boolean isUpper(String text) {
        return text.codePoints().anyMatch(Character::isUpperCase)
                && text.codePoints().noneMatch(Character::isLowerCase);
    }

    static boolean isLower(String text) {
        return text.codePoints().anyMatch(Character::isLowerCase)
                && text.codePoints().noneMatch(Character::isUpperCase);
    }

    /// `%s`, `%d` and `%%` without flags; anything else is refused.
    static String format(String format, List<@Nullable Object> arguments) {
        StringBuilder text = new StringBuilder();
        int used = 0;
        for (int i = 0; i < format.length(); i++) {
            char c = format.charAt(i);
            if (c != '%') {
                text.append(c);
                continue;
            }
            char conversion = ++i < format.length() ? format.charAt(i) : ' ';
            switch (conversion) {
                case '%' -> text.append('%');
                case 's' -> text.append(JinjaValues.text(JinjaBuiltins.argument(arguments, used++, "%")));
                case 'd' -> text.append(JinjaValues.toLong(JinjaBuiltins.argument(arguments, used++, "%")));
                default -> throw JinjaException.unsupported("format %%%s", conversion);
            }
        }
        if (used < arguments.size()) {
            throw JinjaException.invalid("a format uses %d of %d arguments", used, arguments.size());
        }
        return text.toString();
    }

    /// C's `strftime` in the C locale.
    static String strftime(LocalDateTime time, String format) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < format.length(); i++) {
            char c = format.charAt(i);
            if (c != '%') {
                text.append(c);
                continue;
            }
            char conversion = ++i < format.length() ? format.charAt(i) : ' ';
            boolean unpadded = conversion == '-';
            if (unpadded) {
                conversion = ++i < format.length() ? format.charAt(i) : ' ';
            }
            String pattern = switch (conversion) {
                case 'd' -> unpadded ? "d" : "dd";
                case 'm' -> unpadded ? "M" : "MM";
                case 'y' -> "uu";
                case 'Y' -> "uuuu";
                case 'b' -> "MMM";
                case 'B' -> "MMMM";
                case 'a' -> "EEE";
                case 'A' -> "EEEE";
                case 'H' -> unpadded ? "H" : "HH";
                case 'I' -> unpadded ? "h" : "hh";
                case 'M' -> unpadded ? "m" : "mm";
                case 'S' -> unpadded ? "s" : "ss";
                case 'p' -> "a";
                case 'j' -> unpadded ? "D" : "DDD";
                case 'F' -> "uuuu-MM-dd";
                case 'T' -> "HH:mm:ss";
                case '%' -> "'%'";
                default -> throw JinjaException.unsupported("strftime_now with %%%s", conversion);
            };
            text.append(DateTimeFormatter.ofPattern(pattern, Locale.US).format(time));
        }
        return text.toString();
    }
}
