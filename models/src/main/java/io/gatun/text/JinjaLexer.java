package io.gatun.text;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/// Splits a template into text and the tokens inside its tags, with the whitespace rules of Jinja2 3.1 under
/// `trim_blocks=True, lstrip_blocks=True`: the first newline after a block or comment goes, and so do the blanks before
/// one that stands first on its line; `-` strips all whitespace on its side, `+` none. One newline at the end of the
/// template goes. Source: `jinja2/lexer.py`.
final class JinjaLexer {
    enum Kind { TEXT, PRINT_BEGIN, PRINT_END, BLOCK_BEGIN, BLOCK_END, NAME, STRING, INTEGER, FLOAT, OPERATOR, END }

    record Token(Kind kind, String text, int line) {
        boolean is(String operator) {
            return kind == Kind.OPERATOR && text.equals(operator);
        }

        boolean isName(String name) {
            return kind == Kind.NAME && text.equals(name);
        }
    }

    private static final List<String> OPERATORS = List.of("==", "!=", ">=", "<=", "//", "**", "+", "-", "*", "/", "%",
            "~", ">", "<", "=", "(", ")", "[", "]", "{", "}", ".", ":", ",", "|");

    private final String source;
    private final List<Token> tokens = new ArrayList<>();
    private int at;
    private int line = 1;
    /// Whether the text that follows begins on a fresh line, as far as stripping blanks before a block goes.
    private boolean freshLine = true;

    private JinjaLexer(String source) {
        this.source = source;
    }

    static List<Token> tokens(String template) {
        String source = template.replace("\r\n", "\n").replace('\r', '\n');
        if (source.endsWith("\n")) {
            source = source.substring(0, source.length() - 1);
        }
        JinjaLexer lexer = new JinjaLexer(source);
        lexer.template();
        lexer.add(Kind.END, "");
        return lexer.tokens;
    }

    private void template() {
        while (at < source.length()) {
            int tag = nextTag(at);
            text(at, tag);
            if (tag == source.length()) {
                return;
            }
            moveTo(tag);
            switch (source.charAt(tag + 1)) {
                case '#' -> comment();
                case '%' -> block();
                default -> {
                    begin(Kind.PRINT_BEGIN);
                    expression("}}", Kind.PRINT_END);
                }
            }
        }
    }

    private int nextTag(int from) {
        for (int i = from; i + 1 < source.length(); i++) {
            if (source.charAt(i) == '{' && "{%#".indexOf(source.charAt(i + 1)) >= 0) {
                return i;
            }
        }
        return source.length();
    }

    /// The text before the tag at `end`, stripped as the tag asks.
    private void text(int start, int end) {
        String text = source.substring(start, end);
        boolean tag = end < source.length();
        char sign = tag && end + 2 < source.length() ? source.charAt(end + 2) : ' ';
        if (tag && sign == '-') {
            text = text.stripTrailing();
        } else if (tag && sign != '+' && source.charAt(end + 1) != '{') {
            int lineStart = text.lastIndexOf('\n') + 1;
            if ((lineStart > 0 || freshLine) && text.substring(lineStart).isBlank()) {
                text = text.substring(0, lineStart);
            }
        }
        if (!text.isEmpty()) {
            add(Kind.TEXT, text);
        }
        line += count(start, end);
        at = end;
    }

    private void comment() {
        int end = source.indexOf("#}", at + 2);
        if (end < 0) {
            throw JinjaException.invalid("a comment is not closed with #}").at(line);
        }
        boolean strips = end > at + 2 && source.charAt(end - 1) == '-';
        boolean keeps = end > at + 2 && source.charAt(end - 1) == '+';
        finishTag(end + 2, strips, !keeps);
    }

    private void block() {
        int inside = at + 2 + (at + 2 < source.length() && "-+".indexOf(source.charAt(at + 2)) >= 0 ? 1 : 0);
        int name = skipBlanks(inside);
        if (source.startsWith("raw", name) && endOfRawTag(name + 3) >= 0) {
            raw(name + 3);
            return;
        }
        begin(Kind.BLOCK_BEGIN);
        expression("%}", Kind.BLOCK_END);
    }

    /// `{% raw %}...{% endraw %}`; `from` is behind the word raw.
    private void raw(int from) {
        int start = endOfRawTag(from);
        if (source.charAt(start - 3) == '-') {
            start = skipBlanks(start);
        }
        for (int tag = source.indexOf("{%", start); tag >= 0; tag = source.indexOf("{%", tag + 2)) {
            int inside = tag + 2 + (tag + 2 < source.length() && "-+".indexOf(source.charAt(tag + 2)) >= 0 ? 1 : 0);
            int name = skipBlanks(inside);
            int end = source.startsWith("endraw", name) ? endOfRawTag(name + 6) : -1;
            if (end >= 0) {
                freshLine = source.charAt(start - 1) == '\n';
                moveTo(start);
                text(start, tag);
                char sign = source.charAt(end - 3);
                finishTag(end, sign == '-', sign != '+');
                return;
            }
        }
        throw JinjaException.invalid("{%% raw %%} is not closed with {%% endraw %%}").at(line);
    }

    /// Behind `%}` when only blanks and a sign are before it, else -1.
    private int endOfRawTag(int from) {
        int end = skipBlanks(from);
        if (end < source.length() && "-+".indexOf(source.charAt(end)) >= 0) {
            end++;
        }
        return source.startsWith("%}", end) ? end + 2 : -1;
    }

    private void begin(Kind kind) {
        add(kind, "");
        at += 2;
        String signs = kind == Kind.PRINT_BEGIN ? "-" : "-+";
        if (at < source.length() && signs.indexOf(source.charAt(at)) >= 0) {
            at++;
        }
    }

    private void expression(String close, Kind end) {
        Deque<Character> open = new ArrayDeque<>();
        while (true) {
            moveTo(skipBlanks(at));
            if (at >= source.length()) {
                throw JinjaException.invalid("a tag is not closed with %s", close).at(line);
            }
            if (open.isEmpty()) {
                boolean strips = source.startsWith("-" + close, at);
                boolean keeps = end == Kind.BLOCK_END && source.startsWith("+" + close, at);
                if (strips || keeps || source.startsWith(close, at)) {
                    add(end, "");
                    finishTag(at + 2 + (strips || keeps ? 1 : 0), strips, end == Kind.BLOCK_END && !keeps);
                    return;
                }
            }
            token(open);
        }
    }

    private void token(Deque<Character> open) {
        char c = source.charAt(at);
        if (c == '"' || c == '\'') {
            string(c);
        } else if (c >= '0' && c <= '9') {
            number();
        } else if (Character.isUnicodeIdentifierStart(c) || c == '_') {
            int end = at;
            while (end < source.length() && Character.isUnicodeIdentifierPart(source.charAt(end))) {
                end++;
            }
            add(Kind.NAME, source.substring(at, end));
            at = end;
        } else {
            String operator = OPERATORS.stream().filter(o -> source.startsWith(o, at)).findFirst().orElseThrow(
                    () -> JinjaException.invalid("unexpected character '%s'", c).at(line));
            balance(open, c);
            add(Kind.OPERATOR, operator);
            at += operator.length();
        }
    }

    private void balance(Deque<Character> open, char c) {
        int opening = "([{".indexOf(c);
        if (opening >= 0) {
            open.push(")]}".charAt(opening));
        } else if (")]}".indexOf(c) >= 0 && (open.isEmpty() || open.pop() != c)) {
            throw JinjaException.invalid("unexpected '%s'", c).at(line);
        }
    }

    private void number() {
        int end = at;
        boolean isFloat = false;
        while (end < source.length() && (isDigit(end) || source.charAt(end) == '_')) {
            end++;
        }
        if (end + 1 < source.length() && source.charAt(end) == '.' && isDigit(end + 1)) {
            isFloat = true;
            for (end++; end < source.length() && isDigit(end);) {
                end++;
            }
        }
        int exponent = end + 1;
        if (exponent < source.length() && "+-".indexOf(source.charAt(exponent)) >= 0) {
            exponent++;
        }
        if (end < source.length() && "eE".indexOf(source.charAt(end)) >= 0 && exponent < source.length()
                && isDigit(exponent)) {
            isFloat = true;
            for (end = exponent; end < source.length() && isDigit(end);) {
                end++;
            }
        }
        add(isFloat ? Kind.FLOAT : Kind.INTEGER, source.substring(at, end).replace("_", ""));
        at = end;
    }

    private boolean isDigit(int i) {
        return source.charAt(i) >= '0' && source.charAt(i) <= '9';
    }

    private void string(char quote) {
        StringBuilder text = new StringBuilder();
        int i = at + 1;
        while (i < source.length() && source.charAt(i) != quote) {
            char c = source.charAt(i++);
            if (c != '\\' || i == source.length()) {
                text.append(c);
                continue;
            }
            char escaped = source.charAt(i++);
            int digits = switch (escaped) {
                case 'x' -> 2;
                case 'u' -> 4;
                case 'U' -> 8;
                default -> 0;
            };
            if (digits > 0) {
                text.appendCodePoint(hex(i, digits));
                i += digits;
            } else {
                text.append(unescaped(escaped));
            }
        }
        if (i >= source.length()) {
            throw JinjaException.invalid("a string is not closed with %s", quote).at(line);
        }
        add(Kind.STRING, text.toString());
        moveTo(i + 1);
    }

    /// Python's escapes; an unknown one stays as it is written.
    private static String unescaped(char c) {
        return switch (c) {
            case 'n' -> "\n";
            case 't' -> "\t";
            case 'r' -> "\r";
            case 'b' -> "\b";
            case 'f' -> "\f";
            case 'a' -> "\u0007";
            case 'v' -> "\u000B";
            case '0' -> "\0";
            case '\n' -> "";
            case '\\', '\'', '"' -> String.valueOf(c);
            default -> "\\" + c;
        };
    }

    private int hex(int from, int digits) {
        try {
            int value = Integer.parseInt(source, from, from + digits, 16);
            if (Character.isValidCodePoint(value)) {
                return value;
            }
        } catch (NumberFormatException | IndexOutOfBoundsException e) {
            // Reported below, like a value beyond Unicode.
        }
        throw JinjaException.invalid("a character escape needs %d hexadecimal digits", digits).at(line);
    }

    private void finishTag(int end, boolean strips, boolean trimsNewline) {
        int next = end;
        if (strips) {
            next = skipBlanks(end);
        } else if (trimsNewline && end < source.length() && source.charAt(end) == '\n') {
            next = end + 1;
        }
        freshLine = source.charAt(next - 1) == '\n';
        moveTo(next);
    }

    private int skipBlanks(int from) {
        int i = from;
        while (i < source.length() && Character.isWhitespace(source.charAt(i))) {
            i++;
        }
        return i;
    }

    private void moveTo(int next) {
        line += count(at, next);
        at = next;
    }

    private int count(int from, int to) {
        int newlines = 0;
        for (int i = from; i < to; i++) {
            newlines += source.charAt(i) == '\n' ? 1 : 0;
        }
        return newlines;
    }

    private void add(Kind kind, String text) {
        tokens.add(new Token(kind, text, line));
    }
}
