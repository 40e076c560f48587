package io.gatun.ops.cases;

import io.gatun.ops.cases.Operand.Role;
import io.gatun.ops.cases.Operand.Strides;
import io.gatun.runtime.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/// Puts an [OpCase] together.
public final class OpCaseBuilder {
    private final String op;
    private final DType dtype;
    private final String sizes;
    private final List<Operand> operands = new ArrayList<>();
    private final List<OpCase.Alias> aliases = new ArrayList<>();
    private OpCase.Workspace workspace = (stream, tensors) -> 0;
    private Accuracy accuracy = Accuracy.ROUNDED;
    private long flops;

    OpCaseBuilder(String op, DType dtype, String sizes) {
        this.op = op;
        this.dtype = dtype;
        this.sizes = sizes;
    }

    public OpCaseBuilder out(String name, DType type, Strides strides, int... shape) {
        return add(name, Role.OUT, type, strides, Fill.constant(0), shape);
    }

    public OpCaseBuilder in(String name, DType type, Strides strides, Fill fill, int... shape) {
        return add(name, Role.IN, type, strides, fill, shape);
    }

    public OpCaseBuilder inOut(String name, DType type, Strides strides, Fill fill, int... shape) {
        return add(name, Role.IN_OUT, type, strides, fill, shape);
    }

    /// Of the operand added last only this many elements are read or written.
    public OpCaseBuilder touching(long elements) {
        Operand o = operands.removeLast();
        operands.add(new Operand(o.name(), o.role(), o.dtype(), o.shape(), o.strides(), o.fill(), elements));
        return this;
    }

    public OpCaseBuilder aliasing(String written, String read) {
        aliases.add(new OpCase.Alias(written, read));
        return this;
    }

    public OpCaseBuilder workspace(OpCase.Workspace query) {
        workspace = query;
        return this;
    }

    public OpCaseBuilder accuracy(Accuracy rule) {
        accuracy = rule;
        return this;
    }

    public OpCaseBuilder flops(long number) {
        flops = number;
        return this;
    }

    public OpCase build(OpCase.Call call, OpCase.Reference reference) {
        return new OpCase(op, dtype, sizes, List.copyOf(operands), List.copyOf(aliases), call, workspace, reference,
                accuracy, flops);
    }

    private OpCaseBuilder add(String name, Role role, DType type, Strides strides, Fill fill, int[] shape) {
        long elements = Arrays.stream(shape).asLongStream().reduce(1, Math::multiplyExact);
        operands.add(new Operand(name, role, type, shape.clone(), strides, fill, elements));
        return this;
    }
}
