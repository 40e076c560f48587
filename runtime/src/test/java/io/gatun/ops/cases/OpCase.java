package io.gatun.ops.cases;

import io.gatun.ops.cases.Operand.Role;
import io.gatun.runtime.DType;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/// One op with one set of sizes: operands, how their values are made, the reference, the call, and what it costs.
/// Correctness tests and the kernel benchmark both run it, on any device. [Placement] puts the operands on a device.
///
/// @param op        the op's name in the ABI without `gt_`, such as `rmsnorm`
/// @param dtype     dtype of the op's main operand
/// @param sizes     dimensions and options, such as `N=3 C=127 RESIDUAL`
/// @param aliases   operands that may share one tensor
/// @param flops     floating-point operations as papers count them; 0 where bytes alone matter
public record OpCase(String op, DType dtype, String sizes, List<Operand> operands, List<Alias> aliases, Call call,
        Workspace workspace, Reference reference, Accuracy accuracy, long flops) {

    /// The op's call; an operand that the case leaves out is null.
    @FunctionalInterface
    public interface Call {
        void run(Stream stream, Map<String, Tensor> operands);
    }

    /// Bytes of workspace for operands that have been placed; it then comes as operand `workspace`.
    @FunctionalInterface
    public interface Workspace {
        long bytes(Stream stream, Map<String, Tensor> operands);
    }

    /// Computes all written operands. `out` holds an array of the right size for each, for [Role#IN_OUT] with the
    /// values before.
    @FunctionalInterface
    public interface Reference {
        void compute(HostValues in, Map<String, double[]> out, Rounding round);
    }

    /// A written operand that may be the very tensor of a read one.
    public record Alias(String written, String read) {}

    /// What an integer element holds before an op writes it; no op writes this number.
    static final long UNWRITTEN = -777;

    public static OpCaseBuilder of(String op, DType dtype, String sizes, Object... sizeValues) {
        return new OpCaseBuilder(op, dtype, sizes.formatted(sizeValues));
    }

    /// Gives the work to the stream.
    public void run(Stream stream, Map<String, Tensor> tensors) {
        call.run(stream, tensors);
    }

    /// Bytes that must pass between memory and processor at least once.
    public long bytesMoved() {
        long bytes = 0;
        for (Operand o : operands) {
            bytes += o.touched() * o.dtype().bytes() * (o.role() == Role.IN_OUT ? 2 : 1);
        }
        return bytes;
    }

    /// Values of all operands; those that are only written hold NaN or [#UNWRITTEN].
    public HostValues values(long seed) {
        HostValues values = new HostValues();
        for (Operand o : operands) {
            var random = new SplittableRandom(seed * 31 + o.name().hashCode());
            int n = o.elements();
            if (HostArray.areFloats(o.dtype())) {
                float[] array = new float[n];
                for (int i = 0; i < n; i++) {
                    array[i] = o.isRead() ? (float) Rounding.nearest(o.dtype(), o.fill().at(random, i)) : Float.NaN;
                }
                values.put(o.name(), HostArray.of(array));
            } else {
                long[] array = new long[n];
                for (int i = 0; i < n; i++) {
                    array[i] = o.isRead() ? (long) o.fill().at(random, i) : UNWRITTEN;
                }
                values.put(o.name(), HostArray.of(array));
            }
        }
        return values;
    }

    /// What the written operands should hold afterwards.
    public Map<String, double[]> expected(HostValues in, Rounding round) {
        Map<String, double[]> out = new LinkedHashMap<>();
        for (Operand o : operands) {
            if (o.isWritten()) {
                HostArray before = in.array(o.name());
                double[] array = new double[o.elements()];
                for (int i = 0; i < array.length; i++) {
                    array[i] = before.at(i);
                }
                out.put(o.name(), array);
            }
        }
        reference.compute(in, out, round);
        return out;
    }

    /// The same case with other values in one operand.
    public OpCase with(String operand, Fill fill, String note) {
        List<Operand> changed = operands.stream().map(o -> o.name().equals(operand) ? o.filledWith(fill) : o).toList();
        return new OpCase(op, dtype, sizes + " " + note, changed, aliases, call, workspace, reference, accuracy,
                flops);
    }

    /// `rmsnorm bf16 N=3 C=127`
    @Override
    public String toString() {
        return op + " " + dtype + " " + sizes;
    }
}
