package io.gatun.bench;

import io.gatun.ops.Elementwise;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.Operand.Role;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/// Copies of a case's operands that no cache holds together, taken in turns. A case that moves little, or whose
/// operands the op changes in place and must find as they were, has one set, which caches may hold, as in a decode
/// step.
final class RotatingOperands {
    private static final long HOT_BYTES = 256 << 10;
    private static final int MAX_COPIES = 512;
    private static final long SEED = 1;
    /// They need not find what they change as it was: they overwrite it, or move it a little, whatever it is.
    private static final Set<String> REPEATABLE = Set.of("kv_append", "adamw", "sgd", "rmsprop", "ema",
            "diffusion_step");

    private final Stream stream;
    private final List<Map<String, Tensor>> copies = new ArrayList<>();
    /// What operands that the op changes in place and reads held at first.
    private final Map<String, Tensor> initial = new HashMap<>();
    private final boolean cold;
    private int next;

    /// @param coldBytes what all copies together should at least take
    RotatingOperands(OpCase opCase, DeviceArena arena, Stream stream, long coldBytes) {
        this.stream = stream;
        Map<String, Tensor> first = FilledOperands.of(opCase, arena, stream, SEED);
        copies.add(first);
        for (Operand operand : opCase.operands()) {
            if (operand.role() == Role.IN_OUT && !REPEATABLE.contains(opCase.op())) {
                initial.put(operand.name(), copy(arena, first.get(operand.name())));
            }
        }
        long bytes = opCase.bytesMoved();
        if (initial.isEmpty() && bytes >= HOT_BYTES) {
            for (long i = 1; i < Math.min(MAX_COPIES, coldBytes / bytes + 1); i++) {
                copies.add(copyAll(arena, first));
            }
        }
        cold = initial.isEmpty() && (copies.size() > 1 || bytes >= coldBytes);
    }

    private Map<String, Tensor> copyAll(DeviceArena arena, Map<String, Tensor> tensors) {
        Map<String, Tensor> all = new HashMap<>();
        tensors.forEach((name, tensor) -> all.put(name, name.equals("workspace") ? tensor : copy(arena, tensor)));
        return all;
    }

    private Tensor copy(DeviceArena arena, Tensor tensor) {
        Tensor copy = arena.allocate(tensor.dtype(), tensor.shape());
        Elementwise.copy(stream, copy, tensor);
        return copy;
    }

    int size() {
        return copies.size();
    }

    /// Whether each call finds its operands in memory, in no cache.
    boolean isCold() {
        return cold;
    }

    /// Whether the op changes operands in place, so that they must be restored before each call.
    boolean isChanged() {
        return !initial.isEmpty();
    }

    Map<String, Tensor> next() {
        Map<String, Tensor> operands = copies.get(next);
        next = (next + 1) % copies.size();
        return operands;
    }

    /// Gives operands that an earlier call changed their first values.
    void restore(Map<String, Tensor> operands) {
        initial.forEach((name, values) -> Elementwise.copy(stream, operands.get(name), values));
    }
}
