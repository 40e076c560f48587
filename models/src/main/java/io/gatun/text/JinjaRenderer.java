package io.gatun.text;

import io.gatun.text.JinjaNode.*;
import io.gatun.text.JinjaValues.Function;
import io.gatun.text.JinjaValues.Namespace;
import io.gatun.text.JinjaValues.Undefined;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Runs a parsed template once. Templates come from strangers: the work, the depth and the output are limited, and a
/// template reaches nothing but its variables.
///
/// Scopes are Jinja2's: a loop iteration, a macro and `with` have their own, `if` has none, and an assignment inside
/// does not reach outside except through a namespace.
final class JinjaRenderer {
    /// Characters of the output and of any string on the way.
    static final int MAX_OUTPUT = 1 << 22;
    /// Characters of all strings that are made, and 16 for each list item; most of them are garbage at once.
    private static final long MAX_MADE = 1L << 28;
    private static final long MAX_STEPS = 5_000_000;
    /// Fits a thread with a stack of 512 KB; on a smaller one [ChatTemplate] reports the overflow.
    private static final int MAX_DEPTH = 400;

    private final JinjaBuiltins builtins;
    private long steps;
    private int depth;
    private long made;

    JinjaRenderer(JinjaBuiltins builtins) {
        this.builtins = builtins;
    }

    private static final class Scope {
        final @Nullable Scope outer;
        final Map<String, @Nullable Object> variables = new HashMap<>();

        Scope(@Nullable Scope outer) {
            this.outer = outer;
        }

        @Nullable Object find(String name) {
            for (Scope scope = this; scope != null; scope = scope.outer) {
                if (scope.variables.containsKey(name)) {
                    return scope.variables.get(name);
                }
            }
            return new Undefined("'" + name + "'");
        }
    }

    /// Why a body ended early.
    private enum Flow { NEXT, BREAK, CONTINUE }

    String render(List<Statement> template, Map<String, @Nullable Object> variables) {
        Scope globals = new Scope(null);
        globals.variables.putAll(builtins.globals());
        globals.variables.putAll(variables);
        StringBuilder out = new StringBuilder();
        if (run(template, new Scope(globals), out) != Flow.NEXT) {
            throw JinjaException.invalid("break or continue outside a loop");
        }
        return out.toString();
    }

    private Flow run(List<Statement> statements, Scope scope, StringBuilder out) {
        for (Statement statement : statements) {
            try {
                enter();
                Flow flow = run(statement, scope, out);
                depth--;
                if (flow != Flow.NEXT) {
                    return flow;
                }
            } catch (JinjaException e) {
                throw e.at(statement.line());
            } catch (ArithmeticException e) {
                throw JinjaException.invalid("arithmetic: %s", e.getMessage()).at(statement.line());
            }
        }
        return Flow.NEXT;
    }

    private void step() {
        if (++steps > MAX_STEPS) {
            throw JinjaException.invalid("rendering takes more than %d steps", MAX_STEPS);
        }
    }

    private void enter() {
        step();
        if (++depth > MAX_DEPTH) {
            throw JinjaException.invalid("expressions, blocks and macro calls are nested deeper than %d", MAX_DEPTH);
        }
    }

    private Flow run(Statement statement, Scope scope, StringBuilder out) {
        switch (statement) {
            case Text text -> write(text.text(), out);
            case Print print -> write(JinjaValues.text(value(print.value(), scope)), out);
            case If branch -> {
                return run(JinjaValues.isTrue(value(branch.condition(), scope)) ? branch.then() : branch.otherwise(),
                        scope, out);
            }
            case For loop -> {
                return loop(loop, scope, out);
            }
            case JinjaNode.Set set -> assign(set.target(), value(set.value(), scope), scope);
            case SetBlock set -> assign(set.target(), filtered(captured(set.body(), scope), set.filters(), scope),
                    scope);
            case Macro macro -> scope.variables.put(macro.name(), function(macro, scope, null));
            case CallBlock block -> {
                Call call = (Call) block.call();
                Function caller = function(block.caller(), scope, null);
                Map<String, @Nullable Object> named = named(call, scope);
                named.put("caller", caller);
                write(JinjaValues.text(call(value(call.callee(), scope), values(call.arguments(), scope), named)), out);
            }
            case FilterBlock block -> write(JinjaValues.text(
                    filtered(captured(block.body(), scope), block.filters(), scope)), out);
            case Scoped scoped -> {
                Scope inner = new Scope(scope);
                for (JinjaNode.Set set : scoped.variables()) {
                    assign(set.target(), value(set.value(), scope), inner);
                }
                return run(scoped.body(), inner, out);
            }
            case Jump jump -> {
                return jump.leavesLoop() ? Flow.BREAK : Flow.CONTINUE;
            }
        }
        return Flow.NEXT;
    }

    private void write(String text, StringBuilder out) {
        builtins.requireLength((long) out.length() + text.length());
        out.append(text);
    }

    private String captured(List<Statement> body, Scope scope) {
        StringBuilder out = new StringBuilder();
        run(body, new Scope(scope), out);
        return out.toString();
    }

    private @Nullable Object filtered(String text, List<Call> filters, Scope scope) {
        @Nullable Object value = text;
        for (Call filter : filters) {
            value = filter(value, filter, scope);
        }
        return value;
    }

    private Flow loop(For loop, Scope scope, StringBuilder out) {
        List<@Nullable Object> items = JinjaValues.items(value(loop.items(), scope));
        if (loop.filter() != null) {
            List<@Nullable Object> kept = new ArrayList<>();
            for (Object item : items) {
                Scope inner = new Scope(scope);
                assign(loop.target(), item, inner);
                if (JinjaValues.isTrue(value(loop.filter(), inner))) {
                    kept.add(item);
                }
            }
            items = kept;
        }
        if (items.isEmpty()) {
            return run(loop.otherwise(), new Scope(scope), out);
        }
        for (int i = 0; i < items.size(); i++) {
            step();
            Scope inner = new Scope(scope);
            inner.variables.put("loop", new JinjaValues.Loop(items, i));
            assign(loop.target(), items.get(i), inner);
            if (run(loop.body(), inner, out) == Flow.BREAK) {
                break;
            }
        }
        return Flow.NEXT;
    }

    private void assign(Target target, @Nullable Object value, Scope scope) {
        switch (target) {
            case NameTarget name -> scope.variables.put(name.name(), value);
            case AttributeTarget attribute -> {
                if (!(scope.find(attribute.namespace()) instanceof Namespace namespace)) {
                    throw JinjaException.invalid("cannot assign to %s.%s: %s is no namespace", attribute.namespace(),
                            attribute.attribute(), attribute.namespace());
                }
                namespace.attributes().put(attribute.attribute(), value);
            }
            case TupleTarget tuple -> {
                List<@Nullable Object> items = JinjaValues.items(value);
                if (items.size() != tuple.parts().size()) {
                    throw JinjaException.invalid("cannot assign %d values to %d names", items.size(),
                            tuple.parts().size());
                }
                for (int i = 0; i < items.size(); i++) {
                    assign(tuple.parts().get(i), items.get(i), scope);
                }
            }
        }
    }

    private Function function(Macro macro, Scope scope, @Nullable Function caller) {
        return (arguments, named) -> {
            List<String> parameters = macro.parameters();
            if (arguments.size() > parameters.size()) {
                throw JinjaException.invalid("macro %s takes %d arguments, got %d", macro.name(), parameters.size(),
                        arguments.size());
            }
            Scope inner = new Scope(scope);
            for (int i = 0; i < parameters.size(); i++) {
                String parameter = parameters.get(i);
                Expression otherwise = macro.defaults().get(i);
                @Nullable Object value;
                if (i < arguments.size()) {
                    value = arguments.get(i);
                } else if (named.containsKey(parameter)) {
                    value = named.get(parameter);
                } else {
                    value = otherwise == null ? new Undefined("parameter '" + parameter + "' of macro " + macro.name())
                            : value(otherwise, inner);
                }
                inner.variables.put(parameter, value);
            }
            for (Map.Entry<String, @Nullable Object> argument : named.entrySet()) {
                if (argument.getKey().equals("caller")) {
                    inner.variables.put("caller", argument.getValue());
                } else if (!parameters.contains(argument.getKey())) {
                    throw JinjaException.invalid("macro %s has no parameter %s", macro.name(), argument.getKey());
                }
            }
            return captured(macro.body(), inner);
        };
    }

    private @Nullable Object value(Expression expression, Scope scope) {
        enter();
        @Nullable Object value = evaluate(expression, scope);
        depth--;
        if (expression instanceof Filter || expression instanceof Call || expression instanceof Slice
                || expression instanceof Arithmetic || expression instanceof Concat) {
            made += switch (value) {
                case String text -> text.length();
                case List<?> list -> 16L * list.size();
                case null, default -> 0;
            };
            if (made > MAX_MADE) {
                throw JinjaException.invalid("rendering makes more than %d characters", MAX_MADE);
            }
        }
        return value;
    }

    private @Nullable Object evaluate(Expression expression, Scope scope) {
        return switch (expression) {
            case Constant constant -> constant.value();
            case Name name -> scope.find(name.name());
            case ListLiteral list -> values(list.items(), scope);
            case TupleLiteral tuple -> new JinjaValues.Tuple(values(tuple.items(), scope));
            case DictLiteral dict -> {
                Map<@Nullable Object, @Nullable Object> map = new LinkedHashMap<>();
                for (int i = 0; i < dict.keys().size(); i++) {
                    map.put(value(dict.keys().get(i), scope), value(dict.values().get(i), scope));
                }
                yield map;
            }
            case Attribute attribute -> builtins.attribute(value(attribute.object(), scope), attribute.name());
            case Item item -> builtins.item(value(item.object(), scope), value(item.key(), scope));
            case Slice slice -> builtins.slice(value(slice.object(), scope), optional(slice.start(), scope),
                    optional(slice.stop(), scope), optional(slice.step(), scope));
            case Call call -> call(value(call.callee(), scope), values(call.arguments(), scope), named(call, scope));
            case Filter filter -> filter(value(filter.value(), scope), filter.filter(), scope);
            case Test test -> builtins.test(((Name) test.test().callee()).name(), value(test.value(), scope),
                    values(test.test().arguments(), scope)) != test.negated();
            case Not not -> !JinjaValues.isTrue(value(not.value(), scope));
            case And and -> {
                Object left = value(and.left(), scope);
                yield JinjaValues.isTrue(left) ? value(and.right(), scope) : left;
            }
            case Or or -> {
                Object left = value(or.left(), scope);
                yield JinjaValues.isTrue(left) ? left : value(or.right(), scope);
            }
            case Compare compare -> compare(compare, scope);
            case Concat concat -> {
                StringBuilder text = new StringBuilder();
                for (Expression part : concat.parts()) {
                    text.append(JinjaValues.text(value(part, scope)));
                    builtins.requireLength(text.length());
                }
                yield text.toString();
            }
            case Arithmetic arithmetic -> builtins.arithmetic(arithmetic.operator(), value(arithmetic.left(), scope),
                    value(arithmetic.right(), scope));
            case Sign sign -> {
                Object number = value(sign.value(), scope);
                yield sign.negative() ? builtins.arithmetic("-", number instanceof Double ? -0.0 : (Object) 0L, number)
                        : builtins.arithmetic("+", 0L, number);
            }
            case Conditional conditional -> {
                if (JinjaValues.isTrue(value(conditional.condition(), scope))) {
                    yield value(conditional.then(), scope);
                }
                yield conditional.otherwise() == null ? new Undefined("an if without else whose condition is false")
                        : value(conditional.otherwise(), scope);
            }
        };
    }

    private @Nullable Object optional(@Nullable Expression expression, Scope scope) {
        return expression == null ? null : value(expression, scope);
    }

    private List<@Nullable Object> values(List<Expression> expressions, Scope scope) {
        List<@Nullable Object> values = new ArrayList<>(expressions.size());
        for (Expression expression : expressions) {
            values.add(value(expression, scope));
        }
        return values;
    }

    private Map<String, @Nullable Object> named(Call call, Scope scope) {
        Map<String, @Nullable Object> named = new LinkedHashMap<>();
        call.named().forEach((name, expression) -> named.put(name, value(expression, scope)));
        return named;
    }

    private static @Nullable Object call(@Nullable Object callee, List<@Nullable Object> arguments,
            Map<String, @Nullable Object> named) {
        return switch (callee) {
            case Function function -> function.call(arguments, named);
            case Undefined undefined -> throw undefined.error();
            case null, default -> throw JinjaException.invalid("%s cannot be called", JinjaValues.typeName(callee));
        };
    }

    private @Nullable Object filter(@Nullable Object value, Call filter, Scope scope) {
        return builtins.filter(((Name) filter.callee()).name(), value, values(filter.arguments(), scope),
                named(filter, scope));
    }

    private boolean compare(Compare compare, Scope scope) {
        Object left = value(compare.first(), scope);
        for (int i = 0; i < compare.operators().size(); i++) {
            Object right = value(compare.rest().get(i), scope);
            boolean holds = switch (compare.operators().get(i)) {
                case "==" -> JinjaValues.equal(left, right);
                case "!=" -> !JinjaValues.equal(left, right);
                case "in" -> JinjaValues.contains(right, left);
                case "not in" -> !JinjaValues.contains(right, left);
                case "<" -> JinjaValues.order(left, right) < 0;
                case "<=" -> JinjaValues.order(left, right) <= 0;
                case ">" -> JinjaValues.order(left, right) > 0;
                default -> JinjaValues.order(left, right) >= 0;
            };
            if (!holds) {
                return false;
            }
            left = right;
        }
        return true;
    }
}
