package io.gatun.train;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/// The record of a forward computation, backwards: each op that took part left what writes its gradients down.
/// Unwinding runs these last to first; all of it goes into the plan that holds the forward ops, so memory is freed as
/// the tape unwinds.
///
/// A gradient has the layout of its value's base, so views need no entries: the gradient of a slice is the slice of the
/// gradient. The first that gives a gradient writes, the others add; which bytes nobody writes are cleared.
final class Tape {
    private final Stream stream;
    private final Plan.Recorder plan;
    private final Parameters parameters;
    private final Map<Tensor, Storage> temporaries = new IdentityHashMap<>();
    private final Map<Parameters.Parameter, Storage> parameterStorages = new IdentityHashMap<>();
    private final Map<Tensor, Buffer> buffers = new IdentityHashMap<>();
    private List<Entry> entries = new ArrayList<>();

    /// @param results     whose gradients it reads; skipped when none of them has one
    /// @param operands    what it gives gradients to
    /// @param saved       values that must not have changed since
    /// @param backward    writes the gradients of the operands down
    /// @param derivatives of the result by operands, as layers
    record Entry(String op, List<Tensor> results, List<@Nullable Tensor> operands, List<Saved> saved, Runnable backward,
            List<Derivative> derivatives) {
        /// Says how the gradient of an operand is computed by layers, so that it can have gradients itself.
        Entry derivative(@Nullable Tensor operand, UnaryOperator<Tensor> layers) {
            if (operand != null) {
                derivatives.add(new Derivative(operand, layers));
            }
            return this;
        }
    }

    /// @param layers from the gradient of the result to that of the operand
    record Derivative(Tensor operand, UnaryOperator<Tensor> layers) {}

    private record Saved(Storage storage, int version) {}

    Tape(Stream stream, Plan.Recorder plan, Parameters parameters) {
        this.stream = stream;
        this.plan = plan;
        this.parameters = parameters;
    }

    /// Whether a gradient of this tensor is wanted: it is trained, or something trained went into it.
    boolean wants(@Nullable Tensor x) {
        return x != null && (parameters.find(x) != null || temporaries.containsKey(x.base()));
    }

    boolean wantsAny(@Nullable Tensor... tensors) {
        for (Tensor tensor : tensors) {
            if (wants(tensor)) {
                return true;
            }
        }
        return false;
    }

    /// Leaves an entry.
    ///
    /// @param results  what the op made
    /// @param operands what gradients will be given to
    /// @param saved    what the gradients are computed from
    Entry add(String op, List<Tensor> results, List<@Nullable Tensor> operands, List<@Nullable Tensor> saved,
            Runnable backward) {
        for (Tensor result : results) {
            temporaries.computeIfAbsent(result.base(), base -> new Storage(base, null)).writers++;
        }
        List<Saved> versions = new ArrayList<>();
        for (Tensor tensor : saved) {
            if (wants(tensor)) {
                Storage storage = storage(tensor);
                versions.add(new Saved(storage, storage.version));
            }
        }
        for (Tensor operand : operands) {
            if (wants(operand)) {
                GradientView view = GradientView.of(operand, storage(operand).value);
                if (view.repeats()) {
                    throw new IllegalStateException(op + ": no gradient of a view that repeats elements: " + operand);
                }
                storage(operand).uses.add(view);
            }
        }
        Entry entry = new Entry(op, results, operands, versions, backward, new ArrayList<>());
        entries.add(entry);
        return entry;
    }

    /// Leaves an entry that gives the gradients of a loss.
    void root(Runnable backward) {
        entries.add(new Entry("loss", List.of(), List.of(), List.of(), backward, List.of()));
    }

    /// Lets ops on a value that nothing trained went into leave entries, until [#forget]; false where they do anyway.
    boolean watch(Tensor x) {
        return !wants(x) && temporaries.putIfAbsent(x.base(), new Storage(x.base(), null)) == null;
    }

    /// No gradient of a watched value is wanted any more.
    void forget(Tensor x) {
        temporaries.remove(x.base());
    }

    /// Number of entries.
    int size() {
        return entries.size();
    }

    /// The entries that were left since there were `from`.
    List<Entry> since(int from) {
        return List.copyOf(entries.subList(from, entries.size()));
    }

    /// The values of x's memory were changed in place.
    void changed(@Nullable Tensor x) {
        if (wants(x)) {
            storage(x).version++;
        }
    }

    /// Records what `inner` does on a tape of its own, and unwinds that at once.
    void unwindInner(Runnable inner) {
        List<Entry> outer = entries;
        entries = new ArrayList<>();
        try {
            inner.run();
            unwind();
        } finally {
            entries = outer;
        }
    }

    /// Writes the backward ops of all entries down, last to first.
    void unwind() {
        List<Entry> all = entries;
        for (int i = all.size() - 1; i >= 0; i--) {
            Entry entry = all.get(i);
            if (entry.results.isEmpty() || entry.results.stream().anyMatch(result ->
                    storage(result).gradient != null)) {
                for (Saved saved : entry.saved) {
                    if (saved.storage.version != saved.version) {
                        throw new IllegalStateException(entry.op
                                + ": a value that its gradient needs was changed in place afterwards");
                    }
                }
                entry.backward.run();
            }
            for (Tensor result : entry.results) {
                Storage storage = storage(result);
                if (--storage.writers == 0) {
                    storage.dropGradient();
                }
            }
        }
        all.clear();
    }

    /// The gradient of a result, for reading; null where nobody gave one. Every element has been written.
    @Nullable Tensor gradient(Tensor x) {
        Storage storage = storage(x);
        if (storage.gradient == null) {
            return null;
        }
        storage.complete();
        return storage.view(x);
    }

    /// The gradient of a result that has one, as all results do whose entry has one result.
    Tensor requireGradient(Tensor x) {
        Tensor gradient = gradient(x);
        if (gradient == null) {
            throw new IllegalStateException("no gradient of " + x);
        }
        return gradient;
    }

    /// Where a gradient is to be written; [#finish] must follow once the op that writes it has been written down.
    final class Slot {
        private final Storage storage;
        private final Tensor operand;
        private final Tensor target;
        private final boolean adds;

        private Slot(Tensor operand) {
            this.operand = operand;
            this.storage = storage(operand);
            this.adds = !storage.beginWrite(operand);
            this.target = adds ? plan.allocate(storage.gradient.memory.dtype(), operand.shape())
                    : storage.view(operand);
        }

        /// The operand's shape; strides may be those of the operand.
        Tensor target() {
            return target;
        }

        void finish() {
            if (!adds) {
                return;
            }
            Tensor before = storage.view(operand);
            if (storage.isShared() && GradientView.of(operand, storage.value).covers(storage.value.elements())) {
                storage.replace();
            } else {
                storage.own();
                before = storage.view(operand);
            }
            Tensor old = before;
            Tensor sum = storage.view(operand);
            plan.op(() -> Elementwise.add(stream, sum, old, target), sum, old, target);
        }
    }

    /// A slot for the gradient of an operand; null where none is wanted.
    @Nullable Slot slot(@Nullable Tensor operand) {
        return wants(operand) ? new Slot(operand) : null;
    }

    static @Nullable Tensor target(@Nullable Slot slot) {
        return slot == null ? null : slot.target();
    }

    static void finish(@Nullable Slot... slots) {
        for (Slot slot : slots) {
            if (slot != null) {
                slot.finish();
            }
        }
    }

    /// Gives a gradient that one op writes.
    ///
    /// @param write starts the op
    /// @param reads what the op reads
    void give(@Nullable Tensor operand, Consumer<Tensor> write, @Nullable Tensor... reads) {
        Slot slot = slot(operand);
        if (slot != null) {
            Tensor to = slot.target();
            @Nullable Tensor[] operands = new Tensor[reads.length + 1];
            operands[0] = to;
            System.arraycopy(reads, 0, operands, 1, reads.length);
            plan.op(() -> write.accept(to), operands);
            slot.finish();
        }
    }

    /// Gives a tensor as gradient: as it is where it can be, else a copy, or added.
    void pass(@Nullable Tensor operand, Tensor gradient) {
        if (wants(operand) && !storage(operand).share(operand, gradient)) {
            give(operand, to -> Elementwise.copy(stream, to, gradient), gradient);
        }
    }

    /// Changes the gradient of x in place.
    void rewrite(Tensor x, Consumer<Tensor> change) {
        Storage storage = storage(x);
        storage.complete();
        storage.own();
        Tensor view = storage.view(x);
        plan.op(() -> change.accept(view), view);
    }

    private Storage storage(Tensor x) {
        Parameters.Parameter parameter = parameters.find(x);
        if (parameter != null) {
            return parameterStorages.computeIfAbsent(parameter, p -> new Storage(p.value(), p.gradient()));
        }
        Storage storage = temporaries.get(x.base());
        if (storage == null) {
            throw new IllegalStateException("not on the tape: " + x);
        }
        return storage;
    }

    /// Memory of a gradient, which values may share as long as none of them adds to it.
    private final class Buffer {
        private final Tensor memory;
        private int owners = 1;

        Buffer(Tensor memory) {
            this.memory = memory;
            buffers.put(memory.base(), this);
        }
    }

    /// A base tensor or a parameter, and its gradient.
    private final class Storage {
        private final Tensor value;
        private final @Nullable Tensor fixed;
        private final List<GradientView> uses = new ArrayList<>();
        /// What has been written; null: everything.
        private @Nullable List<GradientView> written = new ArrayList<>();
        private @Nullable Buffer gradient;
        private int writers;
        private int version;

        /// @param fixed where the gradient must go; null: it is a temporary
        Storage(Tensor value, @Nullable Tensor fixed) {
            this.value = value;
            this.fixed = fixed;
        }

        /// Prepares a write; true: the view is written for the first time, false: it is added to.
        boolean beginWrite(Tensor x) {
            GradientView view = GradientView.of(x, value);
            if (gradient == null) {
                gradient = new Buffer(fixed != null ? fixed : plan.allocate(value.dtype(), value.elements()));
                if (fixed != null && parameters.accumulates()) {
                    written = null;
                }
            }
            List<GradientView> parts = written;
            if (parts == null) {
                return false;
            }
            if (parts.isEmpty() && view.covers(value.elements())) {
                written = null;
                return true;
            }
            if (GradientView.areDisjoint(uses) && uses.contains(view)) {
                if (parts.contains(view)) {
                    return false;
                }
                parts.add(view);
                return true;
            }
            complete();
            return false;
        }

        /// Clears what nobody has written.
        void complete() {
            List<GradientView> parts = written;
            if (parts == null) {
                return;
            }
            written = null;
            Tensor all = gradient.memory;
            if (parts.isEmpty()) {
                plan.op(() -> Elementwise.fill(stream, all, 0), all);
            } else if (parts.stream().mapToLong(GradientView::elements).sum() < value.elements()) {
                clearAround(parts);
            }
        }

        /// The parts are disjoint: they are put aside, the whole is cleared, and they come back.
        private void clearAround(List<GradientView> parts) {
            Tensor old = gradient.memory;
            Buffer fresh = new Buffer(fixed != null ? fixed : plan.allocate(old.dtype(), old.elements()));
            Tensor all = fresh.memory;
            List<Tensor> aside = new ArrayList<>();
            for (GradientView part : parts) {
                Tensor from = part.in(old);
                if (fixed == null) {
                    aside.add(from);
                } else {
                    Tensor copy = plan.allocate(old.dtype(), from.shape());
                    plan.op(() -> Elementwise.copy(stream, copy, from), copy, from);
                    aside.add(copy);
                }
            }
            plan.op(() -> Elementwise.fill(stream, all, 0), all);
            for (int i = 0; i < parts.size(); i++) {
                Tensor to = parts.get(i).in(all);
                Tensor from = aside.get(i);
                plan.op(() -> Elementwise.copy(stream, to, from), to, from);
            }
            gradient = fresh;
        }

        boolean isShared() {
            return gradient.owners > 1;
        }

        /// Takes new memory, to be written whole.
        void replace() {
            gradient.owners--;
            gradient = new Buffer(plan.allocate(value.dtype(), value.elements()));
        }

        /// Makes the gradient this storage's alone, before a part of it is changed.
        void own() {
            if (isShared()) {
                Tensor from = gradient.memory;
                replace();
                Tensor to = gradient.memory;
                plan.op(() -> Elementwise.copy(stream, to, from), to, from);
            }
        }

        /// Takes another's gradient as its own, without a copy; false where that cannot be.
        boolean share(Tensor x, Tensor given) {
            if (gradient != null || fixed != null || !GradientView.of(x, value).covers(value.elements())
                    || !x.isContiguous()
                    || !given.isContiguous() || given.dtype() != value.dtype()) {
                return false;
            }
            Buffer known = buffers.get(given.base());
            if (known != null && known.memory.elements() != given.elements()) {
                return false;
            }
            if (known != null) {
                known.owners++;
                gradient = known;
            } else {
                gradient = new Buffer(given.reshape(given.elements()));
            }
            written = null;
            return true;
        }

        Tensor view(Tensor x) {
            return GradientView.of(x, value).in(gradient.memory);
        }

        void dropGradient() {
            if (gradient != null) {
                gradient.owners--;
                gradient = null;
            }
        }
    }
}
