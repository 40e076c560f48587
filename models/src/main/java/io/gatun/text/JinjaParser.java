package io.gatun.text;

import io.gatun.text.JinjaLexer.Kind;
import io.gatun.text.JinjaLexer.Token;
import io.gatun.text.JinjaNode.*;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Statements of a template. Expressions are [JinjaExpressions]. Template inheritance and inclusion are refused: a chat
/// template is one file. Source: `jinja2/parser.py`.
final class JinjaParser {
    /// Nested statements and expressions: deeper than any template that a person wrote, shallower than the stack.
    static final int MAX_DEPTH = 100;

    private final JinjaExpressions in;
    private int depth;

    private JinjaParser(List<Token> tokens) {
        this.in = new JinjaExpressions(tokens);
    }

    static List<Statement> parse(String template) {
        JinjaParser parser = new JinjaParser(JinjaLexer.tokens(template));
        try {
            return parser.body(Set.of());
        } catch (JinjaException e) {
            throw e.at(parser.in.line());
        }
    }

    /// Statements up to a block whose name is in `ends`; the position is then behind that name.
    private List<Statement> body(Set<String> ends) {
        if (++depth > MAX_DEPTH) {
            throw JinjaException.invalid("blocks are nested deeper than %d", MAX_DEPTH);
        }
        List<Statement> statements = new ArrayList<>();
        while (true) {
            Token token = in.next();
            switch (token.kind()) {
                case TEXT -> statements.add(new Text(token.text(), token.line()));
                case PRINT_BEGIN -> {
                    statements.add(new Print(in.tuple(), token.line()));
                    in.expect(Kind.PRINT_END);
                }
                case BLOCK_BEGIN -> {
                    String name = in.name();
                    if (ends.contains(name)) {
                        depth--;
                        ending = name;
                        return statements;
                    }
                    statements.add(statement(name, token.line()));
                }
                default -> {
                    if (ends.isEmpty()) {
                        return statements;
                    }
                    throw JinjaException.invalid("the template ends where %s was expected", String.join(" or ", ends));
                }
            }
        }
    }

    /// The name of the block at which the last [#body] stopped.
    private String ending = "";

    private List<Statement> bodyUntil(String end) {
        in.expect(Kind.BLOCK_END);
        List<Statement> body = body(Set.of(end));
        in.expect(Kind.BLOCK_END);
        return body;
    }

    private Statement statement(String name, int line) {
        return switch (name) {
            case "if" -> ifStatement(line);
            case "for" -> forStatement(line);
            case "set" -> setStatement(line);
            case "macro" -> macro(line);
            case "call" -> callBlock(line);
            case "filter" -> {
                List<Call> filters = new ArrayList<>();
                do {
                    filters.add(in.namedCall());
                } while (in.skip("|"));
                yield new FilterBlock(filters, bodyUntil("endfilter"), line);
            }
            case "with" -> with(line);
            case "generation" -> new Scoped(List.of(), bodyUntil("endgeneration"), line);
            case "break", "continue" -> {
                in.expect(Kind.BLOCK_END);
                yield new Jump(name.equals("break"), line);
            }
            case "include", "import", "from", "extends", "block", "do", "autoescape", "trans" ->
                throw JinjaException.unsupported("{%% %s %%}", name);
            default -> throw JinjaException.invalid("unexpected {%% %s %%}", name);
        };
    }

    private Statement ifStatement(int line) {
        Expression condition = in.tuple();
        in.expect(Kind.BLOCK_END);
        List<Statement> then = body(Set.of("elif", "else", "endif"));
        List<Statement> otherwise = switch (ending) {
            case "elif" -> {
                // The chain of elif is as deep as it is long.
                if (++depth > MAX_DEPTH) {
                    throw JinjaException.invalid("more than %d elif", MAX_DEPTH);
                }
                List<Statement> chain = List.of(ifStatement(in.line()));
                depth--;
                yield chain;
            }
            case "else" -> bodyUntil("endif");
            default -> {
                in.expect(Kind.BLOCK_END);
                yield List.of();
            }
        };
        return new If(condition, then, otherwise, line);
    }

    private Statement forStatement(int line) {
        Target target = target(true);
        in.expectName("in");
        Expression items = in.tupleWithoutConditional();
        Expression filter = in.skipName("if") ? in.expression() : null;
        if (in.skipName("recursive")) {
            throw JinjaException.unsupported("a recursive loop");
        }
        in.expect(Kind.BLOCK_END);
        List<Statement> body = body(Set.of("else", "endfor"));
        List<Statement> otherwise = List.of();
        if (ending.equals("else")) {
            otherwise = bodyUntil("endfor");
        } else {
            in.expect(Kind.BLOCK_END);
        }
        return new For(target, items, filter, body, otherwise, line);
    }

    private Statement setStatement(int line) {
        Target target = target(true);
        if (in.skip("=")) {
            Expression value = in.tuple();
            in.expect(Kind.BLOCK_END);
            return new JinjaNode.Set(target, value, line);
        }
        List<Call> filters = new ArrayList<>();
        while (in.skip("|")) {
            filters.add(in.namedCall());
        }
        return new SetBlock(target, bodyUntil("endset"), filters, line);
    }

    private Target target(boolean several) {
        Target first = oneTarget();
        if (!several || !in.peek().is(",")) {
            return first;
        }
        List<Target> parts = new ArrayList<>(List.of(first));
        while (in.skip(",") && (in.peek().is("(") || in.peek().kind() == Kind.NAME && !in.peek().isName("in"))) {
            parts.add(oneTarget());
        }
        return new TupleTarget(parts);
    }

    private Target oneTarget() {
        if (in.skip("(")) {
            Target inner = target(true);
            in.expect(")");
            return inner;
        }
        String name = in.name();
        return in.skip(".") ? new AttributeTarget(name, in.name()) : new NameTarget(name);
    }

    private Statement macro(int line) {
        String name = in.name();
        in.expect("(");
        return macro(name, parameters(), "endmacro", line);
    }

    private Macro macro(String name, Map<String, @Nullable Expression> parameters, String end, int line) {
        List<@Nullable Expression> defaults = new ArrayList<>(parameters.values());
        return new Macro(name, List.copyOf(parameters.keySet()), defaults, bodyUntil(end), line);
    }

    /// `a, b=1)`, behind the parenthesis.
    private Map<String, @Nullable Expression> parameters() {
        Map<String, @Nullable Expression> parameters = new LinkedHashMap<>();
        while (!in.skip(")")) {
            if (!parameters.isEmpty()) {
                in.expect(",");
            }
            String parameter = in.name();
            parameters.put(parameter, in.skip("=") ? in.expression() : null);
        }
        return parameters;
    }

    private Statement callBlock(int line) {
        Map<String, @Nullable Expression> parameters = in.skip("(") ? parameters() : Map.of();
        Expression call = in.expression();
        if (!(call instanceof Call)) {
            throw JinjaException.invalid("{%% call %%} needs a call");
        }
        return new CallBlock(call, macro("caller", parameters, "endcall", line), line);
    }

    private Statement with(int line) {
        List<JinjaNode.Set> variables = new ArrayList<>();
        while (in.peek().kind() != Kind.BLOCK_END) {
            if (!variables.isEmpty()) {
                in.expect(",");
            }
            Target target = target(false);
            in.expect("=");
            variables.add(new JinjaNode.Set(target, in.expression(), line));
        }
        return new Scoped(variables, bodyUntil("endwith"), line);
    }
}
