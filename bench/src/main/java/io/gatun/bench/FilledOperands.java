package io.gatun.bench;

import io.gatun.ops.Elementwise;
import io.gatun.ops.cases.HostArray;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SplittableRandom;

/// The contiguous operands of a case with the values that its tests draw. Of large operands only the first million
/// elements are drawn; the device repeats them, so that gigabytes are ready in a moment and still no zeros.
final class FilledOperands {
    static final int DRAWN = 1 << 20;

    private FilledOperands() {}

    /// By name, with `workspace` where the case needs one.
    static Map<String, Tensor> of(OpCase opCase, DeviceArena arena, Stream stream, long seed) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        for (Operand operand : opCase.operands()) {
            long[] shape = Arrays.stream(operand.shape()).asLongStream().toArray();
            Tensor tensor = arena.allocate(operand.dtype(), shape);
            fill(stream, tensor.reshape(tensor.elements()), operand,
                    new SplittableRandom(seed * 31 + operand.name().hashCode()));
            tensors.put(operand.name(), tensor);
        }
        long bytes = opCase.workspace().bytes(stream, tensors);
        if (bytes > 0) {
            tensors.put("workspace", arena.allocate(DType.U8, bytes));
        }
        return tensors;
    }

    /// What is only written is left as it is.
    private static void fill(Stream stream, Tensor tensor, Operand operand, SplittableRandom random) {
        int n = (int) Math.min(tensor.elements(), DRAWN);
        if (!operand.isRead()) {
            return;
        }
        if (!HostArray.areFloats(operand.dtype())) {
            tensor.copyFrom(stream, integers(operand, Math.toIntExact(tensor.elements()), random));
            return;
        }
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = (float) operand.fill().at(random, i);
            if (n < tensor.elements() && !Float.isFinite(values[i])) { // where it would mean something else elsewhere
                values[i] = (float) random.nextGaussian();
            }
        }
        tensor.slice(0, 0, n).copyFrom(stream, values);
        repeat(stream, tensor, n);
    }

    private static long[] integers(Operand operand, int n, SplittableRandom random) {
        long[] values = new long[n];
        for (int i = 0; i < n; i++) {
            values[i] = (long) operand.fill().at(random, i);
        }
        return values;
    }

    /// Fills a tensor [N] with copies of its first elements.
    static void repeat(Stream stream, Tensor tensor, long first) {
        for (long at = first; at < tensor.elements(); at *= 2) {
            long n = Math.min(at, tensor.elements() - at);
            Elementwise.copy(stream, tensor.slice(0, at, at + n), tensor.slice(0, 0, n));
        }
    }

    /// Normal values, which the device repeats where there are many.
    static void random(Stream stream, Tensor tensor, double deviation) {
        Tensor flat = tensor.reshape(tensor.elements());
        int n = (int) Math.min(flat.elements(), DRAWN);
        flat.slice(0, 0, n).copyFrom(stream, RandomFloats.normal(n, deviation));
        repeat(stream, flat, n);
    }
}
