package io.gatun.text;

import io.gatun.text.JinjaLexer.Kind;
import io.gatun.text.JinjaLexer.Token;
import io.gatun.text.JinjaNode.*;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/// Expressions of a template, and the position in its tokens. Each method is one level of precedence, loosest first, as
/// in `jinja2/parser.py`.
final class JinjaExpressions {
    private final List<Token> tokens;
    private int at;
    private int depth;

    JinjaExpressions(List<Token> tokens) {
        this.tokens = tokens;
    }

    int line() {
        return peek().line();
    }

    Token peek() {
        return tokens.get(at);
    }

    Token next() {
        Token token = tokens.get(at);
        if (token.kind() != Kind.END) {
            at++;
        }
        return token;
    }

    boolean skip(String operator) {
        if (peek().is(operator)) {
            at++;
            return true;
        }
        return false;
    }

    boolean skipName(String name) {
        if (peek().isName(name)) {
            at++;
            return true;
        }
        return false;
    }

    void expect(String operator) {
        if (!skip(operator)) {
            throw unexpected("'" + operator + "'");
        }
    }

    void expectName(String name) {
        if (!skipName(name)) {
            throw unexpected("'" + name + "'");
        }
    }

    void expect(Kind kind) {
        if (peek().kind() != kind) {
            throw unexpected(kind == Kind.BLOCK_END ? "%}" : "}}");
        }
        at++;
    }

    String name() {
        if (peek().kind() != Kind.NAME) {
            throw unexpected("a name");
        }
        return next().text();
    }

    private JinjaException unexpected(String wanted) {
        Token found = peek();
        String text = switch (found.kind()) {
            case BLOCK_END -> "%}";
            case PRINT_END -> "}}";
            case END -> "the end of the template";
            default -> "'" + found.text() + "'";
        };
        return JinjaException.invalid("expected %s, found %s", wanted, text).at(found.line());
    }

    /// An expression, or several with commas between them, which are a tuple.
    Expression tuple() {
        return tuple(this::expression);
    }

    /// The items of a loop: an `if` behind them is the loop's filter.
    Expression tupleWithoutConditional() {
        return tuple(this::or);
    }

    private Expression tuple(Supplier<Expression> element) {
        Expression first = element.get();
        if (!peek().is(",")) {
            return first;
        }
        List<Expression> items = new ArrayList<>(List.of(first));
        while (skip(",") && !endsTuple()) {
            items.add(element.get());
        }
        return new TupleLiteral(items);
    }

    private boolean endsTuple() {
        Token token = peek();
        return token.kind() == Kind.BLOCK_END || token.kind() == Kind.PRINT_END || token.is(")") || token.is("]");
    }

    Expression expression() {
        if (++depth > JinjaParser.MAX_DEPTH) {
            throw JinjaException.invalid("expressions are nested deeper than %d", JinjaParser.MAX_DEPTH);
        }
        Expression value = or();
        while (skipName("if")) {
            Expression condition = or();
            value = new Conditional(condition, value, skipName("else") ? expression() : null);
        }
        depth--;
        return value;
    }

    private Expression or() {
        Expression left = and();
        while (skipName("or")) {
            left = new Or(left, and());
        }
        return left;
    }

    private Expression and() {
        Expression left = not();
        while (skipName("and")) {
            left = new And(left, not());
        }
        return left;
    }

    private Expression not() {
        boolean negated = false;
        boolean any = false;
        while (skipName("not")) {
            negated = !negated;
            any = true;
        }
        Expression value = compare();
        return negated ? new Not(value) : any ? new Not(new Not(value)) : value;
    }

    private Expression compare() {
        Expression first = sum();
        List<String> operators = new ArrayList<>();
        List<Expression> rest = new ArrayList<>();
        while (true) {
            Token token = peek();
            if (token.kind() == Kind.OPERATOR && List.of("==", "!=", "<", "<=", ">", ">=").contains(token.text())) {
                operators.add(next().text());
            } else if (skipName("in")) {
                operators.add("in");
            } else if (token.isName("not") && tokens.get(at + 1).isName("in")) {
                at += 2;
                operators.add("not in");
            } else {
                return rest.isEmpty() ? first : new Compare(first, operators, rest);
            }
            rest.add(sum());
        }
    }

    private Expression sum() {
        Expression left = concat();
        while (peek().is("+") || peek().is("-")) {
            left = new Arithmetic(next().text(), left, concat());
        }
        return left;
    }

    private Expression concat() {
        Expression first = product();
        if (!peek().is("~")) {
            return first;
        }
        List<Expression> parts = new ArrayList<>(List.of(first));
        while (skip("~")) {
            parts.add(product());
        }
        return new Concat(parts);
    }

    private Expression product() {
        Expression left = power();
        while (peek().is("*") || peek().is("/") || peek().is("//") || peek().is("%")) {
            left = new Arithmetic(next().text(), left, power());
        }
        return left;
    }

    private Expression power() {
        Expression left = unary(true);
        while (skip("**")) {
            left = new Arithmetic("**", left, unary(true));
        }
        return left;
    }

    private Expression unary(boolean withFilters) {
        Expression value;
        if (peek().is("-") || peek().is("+")) {
            if (++depth > JinjaParser.MAX_DEPTH) {
                throw JinjaException.invalid("expressions are nested deeper than %d", JinjaParser.MAX_DEPTH);
            }
            boolean negative = next().is("-");
            value = new Sign(negative, unary(false));
            depth--;
        } else {
            value = primary();
        }
        value = postfix(value);
        return withFilters ? filters(value) : value;
    }

    private Expression postfix(Expression start) {
        Expression value = start;
        while (true) {
            if (skip(".")) {
                value = peek().kind() == Kind.INTEGER ? new Item(value, integer()) : new Attribute(value, name());
            } else if (skip("[")) {
                value = subscript(value);
            } else if (skip("(")) {
                value = call(value);
            } else {
                return value;
            }
        }
    }

    private Expression filters(Expression start) {
        Expression value = start;
        while (true) {
            if (skip("|")) {
                value = new Filter(value, namedCall());
            } else if (skipName("is")) {
                boolean negated = skipName("not");
                value = new Test(value, test(), negated);
            } else if (skip("(")) {
                value = call(value);
            } else {
                return value;
            }
        }
    }

    /// A filter: `name` or `name(arguments)`.
    Call namedCall() {
        Name name = new Name(name());
        return skip("(") ? call(name) : new Call(name, List.of(), Map.of());
    }

    /// A test: `name`, `name(arguments)` or `name argument`.
    private Call test() {
        Name name = new Name(name());
        if (skip("(")) {
            return call(name);
        }
        Token token = peek();
        boolean argument = switch (token.kind()) {
            case NAME -> !List.of("else", "or", "and", "if", "is", "in", "not").contains(token.text());
            case STRING, INTEGER, FLOAT -> true;
            default -> token.is("[") || token.is("{");
        };
        return new Call(name, argument ? List.of(postfix(primary())) : List.of(), Map.of());
    }

    /// Behind the opening parenthesis.
    private Call call(Expression callee) {
        List<Expression> arguments = new ArrayList<>();
        Map<String, Expression> named = new LinkedHashMap<>();
        for (boolean first = true; !skip(")"); first = false) {
            if (!first) {
                expect(",");
                if (skip(")")) {
                    break;
                }
            }
            if (peek().is("*") || peek().is("**")) {
                throw JinjaException.unsupported("unpacking arguments with %s", peek().text());
            }
            if (peek().kind() == Kind.NAME && tokens.get(at + 1).is("=")) {
                String parameter = name();
                expect("=");
                named.put(parameter, expression());
            } else {
                arguments.add(expression());
            }
        }
        return new Call(callee, arguments, named);
    }

    /// Behind the opening bracket.
    private Expression subscript(Expression object) {
        Expression start = peek().is(":") ? null : expression();
        if (skip("]")) {
            return new Item(object, java.util.Objects.requireNonNull(start));
        }
        expect(":");
        Expression stop = peek().is(":") || peek().is("]") ? null : expression();
        Expression step = skip(":") && !peek().is("]") ? expression() : null;
        expect("]");
        return new Slice(object, start, stop, step);
    }

    private Constant integer() {
        try {
            return new Constant(Long.parseLong(next().text()));
        } catch (NumberFormatException e) {
            throw JinjaException.unsupported("an integer beyond 64 bits");
        }
    }

    private Expression primary() {
        Token token = peek();
        switch (token.kind()) {
            case NAME:
                at++;
                return switch (token.text()) {
                    case "true", "True" -> new Constant(true);
                    case "false", "False" -> new Constant(false);
                    case "none", "None" -> new Constant(null);
                    default -> new Name(token.text());
                };
            case STRING:
                StringBuilder text = new StringBuilder();
                while (peek().kind() == Kind.STRING) {
                    text.append(next().text());
                }
                return new Constant(text.toString());
            case INTEGER:
                return integer();
            case FLOAT:
                return new Constant(Double.parseDouble(next().text()));
            default:
                if (skip("(")) {
                    Expression inner = peek().is(")") ? new TupleLiteral(List.of()) : tuple();
                    expect(")");
                    return inner;
                }
                if (skip("[")) {
                    return new ListLiteral(list());
                }
                if (skip("{")) {
                    return dict();
                }
                throw unexpected("an expression");
        }
    }

    private List<Expression> list() {
        List<Expression> items = new ArrayList<>();
        while (!skip("]")) {
            if (!items.isEmpty()) {
                expect(",");
                if (skip("]")) {
                    break;
                }
            }
            items.add(expression());
        }
        return items;
    }

    private Expression dict() {
        List<Expression> keys = new ArrayList<>();
        List<Expression> values = new ArrayList<>();
        while (!skip("}")) {
            if (!keys.isEmpty()) {
                expect(",");
                if (skip("}")) {
                    break;
                }
            }
            keys.add(expression());
            expect(":");
            values.add(expression());
        }
        return new DictLiteral(keys, values);
    }
}
