package io.gatun.ops.cases;

import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// The operands of a case on a device, each with guard bands around it and, where it is strided, in between. Guards
/// hold NaN, or a number that no op writes.
public final class Placement {
    private static final int GUARD = 128;
    private static final int ALIGNMENT_IN_ELEMENTS = 256;

    private final OpCase opCase;
    private final Stream stream;
    private final Map<String, Tensor> tensors = new LinkedHashMap<>();
    private final List<Block> blocks = new ArrayList<>();

    /// An operand's memory and where in it the elements are.
    private record Block(Operand operand, Tensor memory, int[] elementAt, HostValues before) {}

    /// Puts `values` on the stream's device.
    ///
    /// @param alias operands that share one tensor; null: none do
    public Placement(OpCase opCase, DeviceArena arena, Stream stream, Layout layout, HostValues values,
            OpCase.@Nullable Alias alias) {
        this.opCase = opCase;
        this.stream = stream;
        for (Operand operand : opCase.operands()) {
            if (alias == null || !operand.name().equals(alias.written())) {
                place(operand, arena, layout, values);
            }
        }
        if (alias != null) {
            tensors.put(alias.written(), tensors.get(alias.read()));
        }
        long workspaceBytes = opCase.workspace().bytes(stream, tensors);
        if (workspaceBytes > 0) {
            tensors.put("workspace", arena.allocate(DType.U8, workspaceBytes));
        }
    }

    /// Contiguous operands, for a benchmark.
    public Placement(OpCase opCase, DeviceArena arena, Stream stream, long seed) {
        this(opCase, arena, stream, Layout.CONTIGUOUS, opCase.values(seed), null);
    }

    /// By operand name; the map may be changed to run the op on other tensors.
    public Map<String, Tensor> tensors() {
        return tensors;
    }

    public void run() {
        opCase.run(stream, tensors);
    }

    /// What the operands hold now.
    public HostValues read() {
        HostValues values = new HostValues();
        for (Block block : blocks) {
            HostValues now = download(block.memory, stream);
            int[] at = block.elementAt;
            if (block.operand.dtype().isFloat()) {
                float[] array = new float[at.length];
                for (int i = 0; i < at.length; i++) {
                    array[i] = now.floats(MEMORY)[at[i]];
                }
                put(values, block, array);
            } else {
                long[] array = new long[at.length];
                for (int i = 0; i < at.length; i++) {
                    array[i] = now.longs(MEMORY)[at[i]];
                }
                put(values, block, array);
            }
        }
        return values;
    }

    /// Where something was written that no written operand covers, or null.
    public @Nullable String strayWrite() {
        for (Block block : blocks) {
            HostValues now = download(block.memory, stream);
            boolean written = opCase.operands().stream()
                    .anyMatch(o -> o.isWritten() && tensors.get(o.name()) == tensors.get(block.operand.name()));
            boolean[] covered = new boolean[now.size(MEMORY)];
            for (int at : block.elementAt) {
                covered[at] = written;
            }
            for (int i = 0; i < covered.length; i++) {
                if (!covered[i] && now.bits(MEMORY, i) != block.before.bits(MEMORY, i)) {
                    return "%s: element %d of its memory was overwritten with %s, its own are %d..%d".formatted(
                            block.operand.name(), i, now.at(MEMORY, i), block.elementAt[0],
                            block.elementAt[block.elementAt.length - 1]);
                }
            }
        }
        return null;
    }

    private static final String MEMORY = "memory";

    private void put(HostValues values, Block block, Object array) {
        Tensor tensor = tensors.get(block.operand.name());
        tensors.forEach((name, other) -> {
            if (other == tensor) {
                values.put(name, array);
            }
        });
    }

    private void place(Operand operand, DeviceArena arena, Layout layout, HostValues values) {
        long[] stride = layout.strides(operand);
        int[] elementAt = positions(operand.shape(), stride, ALIGNMENT_IN_ELEMENTS + layout.offset());
        int end = ALIGNMENT_IN_ELEMENTS + layout.offset();
        for (int at : elementAt) {
            end = Math.max(end, at + 1);
        }
        Tensor memory = arena.allocate(operand.dtype(), end + GUARD);
        upload(memory, elementAt, operand.name(), values);
        tensors.put(operand.name(), memory.slice(0, ALIGNMENT_IN_ELEMENTS + layout.offset(), end + GUARD)
                .strided(operand.longShape(), stride));
        blocks.add(new Block(operand, memory, elementAt, download(memory, stream)));
    }

    private void upload(Tensor memory, int[] elementAt, String name, HostValues values) {
        int size = Math.toIntExact(memory.elements());
        switch (memory.dtype()) {
            case F32, BF16, F16 -> {
                float[] all = new float[size];
                java.util.Arrays.fill(all, Float.NaN);
                for (int i = 0; i < elementAt.length; i++) {
                    all[elementAt[i]] = values.floats(name)[i];
                }
                memory.copyFrom(stream, all);
            }
            case I32, I64 -> {
                long[] all = new long[size];
                java.util.Arrays.fill(all, OpCase.UNWRITTEN);
                for (int i = 0; i < elementAt.length; i++) {
                    all[elementAt[i]] = values.longs(name)[i];
                }
                memory.copyFrom(stream, all);
            }
            case U8 -> {
                byte[] all = new byte[size];
                java.util.Arrays.fill(all, (byte) OpCase.UNWRITTEN);
                for (int i = 0; i < elementAt.length; i++) {
                    all[elementAt[i]] = (byte) values.longs(name)[i];
                }
                memory.copyFrom(stream, MemorySegment.ofArray(all));
            }
        }
    }

    private static HostValues download(Tensor memory, Stream stream) {
        HostValues values = new HostValues();
        values.put(MEMORY, memory.dtype().isFloat() ? memory.toFloats(stream) : memory.toLongs(stream));
        return values;
    }

    /// Of each element, row-major, where it lies.
    private static int[] positions(int[] shape, long[] stride, int first) {
        int n = 1;
        for (int d : shape) {
            n *= d;
        }
        int[] at = new int[n];
        for (int i = 0; i < n; i++) {
            long position = first;
            for (int d = shape.length - 1, rest = i; d >= 0; d--) {
                position += rest % shape[d] * stride[d];
                rest /= shape[d];
            }
            at[i] = Math.toIntExact(position);
        }
        return at;
    }
}
