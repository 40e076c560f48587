package io.gatun.runtime;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// The ops of a computation, written down once and run any number of times, and the memory of their temporaries. Where
/// two temporaries are never needed at the same time they share memory, so a plan needs about as much as the widest
/// moment of the computation.
///
/// ```java
/// Consumer<Plan.Recorder> mlp = r -> {
///     Tensor inner = r.allocate(DType.F32, n, f);
///     r.op(() -> device.matmul(stream, inner, x, up, null, OUT_IN), inner, x, up);
///     r.op(() -> Elementwise.silu(stream, inner, inner), inner);
///     r.op(() -> device.matmul(stream, y, inner, down, null, OUT_IN), y, inner, down);
/// };
/// long bytes = Plan.measure(device, mlp);
/// try (Plan plan = Plan.of(device, mlp)) {
///     plan.run();    // again and again, or inside Device.capture
/// }
/// ```
///
/// The recorder is called twice, first with tensors that have no memory, to learn how long each temporary is needed:
/// it must do the same both times, and may build views but not run ops. What goes in and comes out are the caller's
/// tensors. One thread at a time. `close()` twice is fine.
public final class Plan implements AutoCloseable {
    private static final long ALIGNMENT = 256;

    private final Runnable[] ops; // an array: an iterator would be garbage of each run
    private final long bytes;
    private final Runnable free;
    private final Leaks.Tracked tracked;
    private boolean closed;

    private Plan(Runnable[] ops, long bytes, @Nullable Runnable free) {
        this.ops = ops;
        this.bytes = bytes;
        this.free = free == null ? () -> {} : free;
        this.tracked = free == null ? Leaks.untracked() : Leaks.track(this, "plan");
        tracked.bytes(bytes);
    }

    /// Writes the ops down and allocates what their temporaries need.
    ///
    /// @throws OutOfDeviceMemoryException when the device has not enough memory
    public static Plan of(Device device, Consumer<Recorder> work) {
        Placement placement = placement(device, work);
        long address = device.allocate(placement.bytes);
        Lifetime lifetime = new Lifetime(device, "plan");
        Runnable free = () -> Endings.all(lifetime::close, () -> device.free(address, placement.bytes));
        try {
            return new Plan(Recorder.ops(lifetime, placement, address, work), placement.bytes, free);
        } catch (RuntimeException e) {
            free.run();
            throw e;
        }
    }

    /// As [#of], with the temporaries in a slab: the plan can be run until the workspace is reset or closed. With a
    /// workspace that measures, the plan has no memory and cannot be run.
    public static Plan within(Workspace workspace, Consumer<Recorder> work) {
        Placement placement = placement(workspace.device(), work);
        Tensor slab = workspace.allocate(DType.U8, placement.bytes);
        if (workspace.isMeasuring()) {
            Plan measured = new Plan(new Runnable[0], placement.bytes, null);
            measured.closed = true;
            return measured;
        }
        return new Plan(Recorder.ops(slab.lifetime(), placement, slab.address(), work), placement.bytes,
                null);
    }

    /// Bytes of device memory that a plan of these ops would allocate. Allocates nothing.
    public static long measure(Device device, Consumer<Recorder> work) {
        return placement(device, work).bytes;
    }

    private static Placement placement(Device device, Consumer<Recorder> work) {
        Lifetime lifetime = Lifetime.measuring(device);
        try {
            Recorder recorder = new Recorder(lifetime, null, ALIGNMENT);
            work.accept(recorder);
            return Placement.of(recorder.temporaries);
        } finally {
            lifetime.closeInOrder();
        }
    }

    /// Bytes of device memory that the temporaries share.
    public long bytes() {
        return bytes;
    }

    /// The number of ops.
    public int size() {
        return ops.length;
    }

    /// Gives all ops to their streams, in order.
    public void run() {
        if (closed) {
            throw new IllegalStateException("plan: it is closed");
        }
        for (Runnable op : ops) {
            op.run();
        }
    }

    @Override
    public void close() {
        if (!closed) {
            closed = true;
            Endings.all(free, tracked::closed);
        }
    }

    /// What the ops are written down with.
    public static final class Recorder {
        private final Lifetime lifetime;
        private final @Nullable Placement placement;
        private final List<Runnable> ops = new ArrayList<>();
        private final List<Temporary> temporaries = new ArrayList<>();
        private final TreeMap<Long, Temporary> byAddress = new TreeMap<>();
        private final long base;
        private long next;
        private int allocated;

        private Recorder(Lifetime lifetime, @Nullable Placement placement, long base) {
            this.lifetime = lifetime;
            this.placement = placement;
            this.base = base;
            this.next = base;
        }

        private static Runnable[] ops(Lifetime lifetime, Placement placement, long address,
                Consumer<Recorder> work) {
            Recorder recorder = new Recorder(lifetime, placement, address);
            work.accept(recorder);
            recorder.requireWhole();
            return recorder.ops.toArray(Runnable[]::new);
        }

        /// A contiguous temporary of uncleared memory, aligned to 256 bytes. It can be used by the ops that are written
        /// down from here on, and its memory serves others after the last that names it.
        public Tensor allocate(DType dtype, long... shape) {
            long size = Math.max(ALIGNMENT, (Tensor.bytes(dtype, shape) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
            if (placement != null) {
                return Tensor.contiguous(lifetime, base + placement.offset(allocated++, size), dtype, shape);
            }
            Temporary temporary = new Temporary(size, ops.size());
            temporaries.add(temporary);
            byAddress.put(next, temporary);
            Tensor tensor = Tensor.contiguous(lifetime, next, dtype, shape);
            next += size;
            return tensor;
        }

        /// Lets a temporary, or what a view looks at, keep its memory to the end of the plan and beyond, until the next
        /// run: for results.
        public Tensor keep(Tensor tensor) {
            if (placement == null && tensor.lifetime() == lifetime) {
                byAddress.floorEntry(tensor.address()).getValue().last = Integer.MAX_VALUE;
            }
            return tensor;
        }

        /// Writes an op down.
        ///
        /// @param run      starts it
        /// @param operands every tensor that it reads or writes; views count for what they look at, null is left out
        public void op(Runnable run, @Nullable Tensor... operands) {
            for (Tensor operand : operands) {
                if (operand != null && operand.lifetime() == lifetime && placement == null) {
                    Map.Entry<Long, Temporary> entry = byAddress.floorEntry(operand.address());
                    entry.getValue().last = Math.max(entry.getValue().last, ops.size());
                }
            }
            ops.add(run);
        }

        private void requireWhole() {
            if (placement != null && allocated != placement.offsets.length) {
                throw new IllegalStateException("plan: %d temporaries were measured,"
                        + " %d are allocated: the recorder must"
                        .formatted(placement.offsets.length, allocated) + " do the same each time");
            }
        }
    }

    /// How much memory, from which op to which.
    private static final class Temporary {
        private final long bytes;
        private final int first;
        private int last;
        private long offset;

        Temporary(long bytes, int first) {
            this.bytes = bytes;
            this.first = first;
            this.last = first;
        }

        boolean meets(Temporary other) {
            return first <= other.last && other.first <= last;
        }
    }

    /// Where each temporary lies: the largest first, each at the lowest place that is free as long as it is needed.
    private record Placement(long[] offsets, long[] sizes, long bytes) {
        static Placement of(List<Temporary> temporaries) {
            List<Temporary> largestFirst = new ArrayList<>(temporaries);
            largestFirst.sort((a, b) -> Long.compare(b.bytes, a.bytes));
            List<Temporary> placed = new ArrayList<>(); // ascending by offset
            long bytes = 0;
            for (Temporary t : largestFirst) {
                long offset = 0;
                for (Temporary other : placed) {
                    if (t.meets(other)) {
                        if (other.offset - offset >= t.bytes) {
                            break;
                        }
                        offset = Math.max(offset, other.offset + other.bytes);
                    }
                }
                t.offset = offset;
                int at = placed.size();
                while (at > 0 && placed.get(at - 1).offset > offset) {
                    at--;
                }
                placed.add(at, t);
                bytes = Math.max(bytes, offset + t.bytes);
            }
            return new Placement(temporaries.stream().mapToLong(t -> t.offset).toArray(),
                    temporaries.stream().mapToLong(t -> t.bytes).toArray(), bytes);
        }

        long offset(int index, long size) {
            if (index >= offsets.length || sizes[index] != size) {
                throw new IllegalStateException("plan: temporary %d of %d bytes was not measured: the recorder must do"
                        .formatted(index, size) + " the same each time");
            }
            return offsets[index];
        }
    }
}
