package io.gatun.ops.cases;

import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// The operands of a case on a device, each with guard bands around it and, where it is strided, in between. Guards of
/// operands that are only read hold NaN, so that reading them shows; but a number where the layout is contiguous, so
/// that a bad index does not give a NaN by chance. Other guards hold a number that no op writes, in e4m3 NaN.
public final class Placement {
    /// Elements; a multiple of the arena's alignment in bytes, so that the first element behind it is aligned too.
    private static final int FRONT_GUARD = 256;
    private static final int BACK_GUARD = 128;

    private final OpCase opCase;
    private final Stream stream;
    private final Map<String, Tensor> tensors = new LinkedHashMap<>();
    private final List<Block> blocks = new ArrayList<>();

    /// An operand's memory and where in it the elements are.
    private record Block(Operand operand, Tensor memory, int first, int[] elementAt, HostArray before) {}

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

    /// What the operands hold, and where something was written that no written operand covers (null: nowhere).
    public record Contents(HostValues values, @Nullable String strayWrite) {}

    /// What is on the device now.
    public Contents read() {
        HostValues values = new HostValues();
        String strayWrite = null;
        for (Block block : blocks) {
            HostArray now = download(block.memory, stream);
            HostArray elements = now.gather(block.elementAt);
            Tensor tensor = tensors.get(block.operand.name());
            tensors.forEach((name, other) -> {
                if (other == tensor) {
                    values.put(name, elements);
                }
            });
            strayWrite = strayWrite == null ? strayWrite(block, now) : strayWrite;
        }
        return new Contents(values, strayWrite);
    }

    private @Nullable String strayWrite(Block block, HostArray now) {
        Tensor tensor = tensors.get(block.operand.name());
        boolean[] covered = new boolean[now.size()];
        if (opCase.operands().stream().anyMatch(o -> o.isWritten() && tensors.get(o.name()) == tensor)) {
            for (int at : block.elementAt) {
                covered[at] = true;
            }
        }
        for (int i = 0; i < covered.length; i++) {
            if (!covered[i] && now.bits(i) != block.before.bits(i)) {
                return "%s: memory that is not to be written holds %s, expected %s, %d elements after the first"
                        .formatted(block.operand.name(), now.at(i), block.before.at(i), i - block.first);
            }
        }
        return null;
    }

    private void place(Operand operand, DeviceArena arena, Layout layout, HostValues values) {
        long[] stride = layout.strides(operand);
        int first = FRONT_GUARD + layout.offset();
        int[] elementAt = positions(operand.shape(), stride, first);
        int end = first;
        for (int at : elementAt) {
            end = Math.max(end, at + 1);
        }
        Tensor memory = arena.allocate(operand.dtype(), end + BACK_GUARD);
        boolean poisoned = operand.isWritten() ? operand.dtype() == DType.F8_E4M3 : layout != Layout.CONTIGUOUS;
        upload(memory, elementAt, values.array(operand.name()), poisoned ? Float.NaN : OpCase.UNWRITTEN);
        tensors.put(operand.name(), memory.slice(0, first, end + BACK_GUARD).strided(operand.longShape(), stride));
        blocks.add(new Block(operand, memory, first, elementAt, download(memory, stream)));
    }

    private void upload(Tensor memory, int[] elementAt, HostArray elements, float floatGuard) {
        int size = Math.toIntExact(memory.elements());
        switch (memory.dtype()) {
            case F32, BF16, F16, F8_E4M3 -> {
                float[] all = new float[size];
                Arrays.fill(all, floatGuard);
                for (int i = 0; i < elementAt.length; i++) {
                    all[elementAt[i]] = elements.floats()[i];
                }
                memory.copyFrom(stream, all);
            }
            case I32, I64 -> {
                long[] all = new long[size];
                Arrays.fill(all, OpCase.UNWRITTEN);
                for (int i = 0; i < elementAt.length; i++) {
                    all[elementAt[i]] = elements.longs()[i];
                }
                memory.copyFrom(stream, all);
            }
            case U8 -> {
                byte[] all = new byte[size];
                Arrays.fill(all, (byte) OpCase.UNWRITTEN);
                for (int i = 0; i < elementAt.length; i++) {
                    all[elementAt[i]] = (byte) elements.longs()[i];
                }
                memory.copyFrom(stream, MemorySegment.ofArray(all));
            }
        }
    }

    private static HostArray download(Tensor memory, Stream stream) {
        return HostArray.areFloats(memory.dtype()) ? HostArray.of(memory.toFloats(stream))
                : HostArray.of(memory.toLongs(stream));
    }

    /// Of each element, row-major, where it lies.
    private static int[] positions(int[] shape, long[] stride, int first) {
        int[] at = {first};
        for (int d = 0; d < shape.length; d++) {
            int[] finer = new int[at.length * shape[d]];
            for (int i = 0; i < at.length; i++) {
                for (int k = 0; k < shape[d]; k++) {
                    finer[i * shape[d] + k] = Math.toIntExact(at[i] + k * stride[d]);
                }
            }
            at = finer;
        }
        return at;
    }
}
