package io.gatun.text;

import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// A parsed template: what [JinjaParser] builds and [JinjaRenderer] walks.
interface JinjaNode {
    sealed interface Statement extends JinjaNode {
        int line();
    }

    record Text(String text, int line) implements Statement {}

    record Print(Expression value, int line) implements Statement {}

    record If(Expression condition, List<Statement> then, List<Statement> otherwise, int line) implements Statement {}

    record For(Target target, Expression items, @Nullable Expression filter, List<Statement> body,
            List<Statement> otherwise, int line) implements Statement {}

    record Set(Target target, Expression value, int line) implements Statement {}

    /// `{% set x %}body{% endset %}`, with the filters behind the name.
    record SetBlock(Target target, List<Statement> body, List<Call> filters, int line) implements Statement {}

    record Macro(String name, List<String> parameters, List<@Nullable Expression> defaults, List<Statement> body,
            int line) implements Statement {}

    /// `{% call f(x) %}body{% endcall %}`: the macro finds the body as `caller()`.
    record CallBlock(Expression call, Macro caller, int line) implements Statement {}

    record FilterBlock(List<Call> filters, List<Statement> body, int line) implements Statement {}

    /// `{% with %}` and `{% generation %}`: a body in a scope of its own.
    record Scoped(List<Set> variables, List<Statement> body, int line) implements Statement {}

    /// `{% break %}` or `{% continue %}`.
    record Jump(boolean leavesLoop, int line) implements Statement {}

    /// A name, an attribute of a namespace (`ns.x`), or several names.
    sealed interface Target {}

    record NameTarget(String name) implements Target {}

    record AttributeTarget(String namespace, String attribute) implements Target {}

    record TupleTarget(List<Target> parts) implements Target {}

    sealed interface Expression extends JinjaNode {}

    record Constant(@Nullable Object value) implements Expression {}

    record Name(String name) implements Expression {}

    record ListLiteral(List<Expression> items) implements Expression {}

    record TupleLiteral(List<Expression> items) implements Expression {}

    record DictLiteral(List<Expression> keys, List<Expression> values) implements Expression {}

    record Attribute(Expression object, String name) implements Expression {}

    record Item(Expression object, Expression key) implements Expression {}

    record Slice(Expression object, @Nullable Expression start, @Nullable Expression stop, @Nullable Expression step)
            implements Expression {}

    /// A call of a value, and the arguments of a filter or test (whose `callee` is then only a name).
    record Call(Expression callee, List<Expression> arguments, Map<String, Expression> named) implements Expression {}

    record Filter(Expression value, Call filter) implements Expression {}

    record Test(Expression value, Call test, boolean negated) implements Expression {}

    record Not(Expression value) implements Expression {}

    record And(Expression left, Expression right) implements Expression {}

    record Or(Expression left, Expression right) implements Expression {}

    /// `a < b <= c`.
    record Compare(Expression first, List<String> operators, List<Expression> rest) implements Expression {}

    record Concat(List<Expression> parts) implements Expression {}

    record Arithmetic(String operator, Expression left, Expression right) implements Expression {}

    record Sign(boolean negative, Expression value) implements Expression {}

    record Conditional(Expression condition, Expression then, @Nullable Expression otherwise) implements Expression {}
}
