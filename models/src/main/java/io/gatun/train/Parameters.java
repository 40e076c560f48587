package io.gatun.train;

import io.gatun.models.WeightLoader;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// What is trained: named tensors that lie side by side in one slab, and their gradients in another, so that an
/// optimiser step is one kernel over all of them, and a gradient norm one reduction.
///
/// Values are f32. Where a model computes in bf16 or f16, it reads a copy in that dtype, which each step rewrites from
/// the f32 values. Gradients are f32. What weight decay applies to lies first.
///
/// The memory is that of the arena.
public final class Parameters {
    /// Between parameters, so that each begins at a whole vector; these elements stay 0.
    private static final long ALIGNMENT = 64;

    private final List<Parameter> list;
    private final TreeMap<Long, Parameter> byOffset = new TreeMap<>();
    private final Tensor master;
    private final Tensor values;
    private final Tensor gradients;
    private final long decayed;
    private boolean accumulates;

    /// One of them.
    ///
    /// @param name     in the checkpoint
    /// @param master   its f32 values
    /// @param value    what the model reads: master, or its copy in another dtype
    /// @param gradient f32
    /// @param decays   whether weight decay applies
    public record Parameter(String name, Tensor master, Tensor value, Tensor gradient, boolean decays) {}

    /// What a parameter will be.
    ///
    /// @param decays whether weight decay applies
    public record Shape(String name, long[] shape, boolean decays) {}

    /// Allocates, and clears all values and gradients.
    ///
    /// @param dtype what the model computes in
    public Parameters(DeviceArena arena, Stream stream, DType dtype, List<Shape> shapes) {
        if (shapes.isEmpty()) {
            throw GatunException.invalid("no parameters: expected at least one to train");
        }
        List<Shape> ordered = new ArrayList<>(shapes.stream().filter(Shape::decays).toList());
        long decayedEnd = elements(ordered);
        ordered.addAll(shapes.stream().filter(shape -> !shape.decays()).toList());
        long all = elements(ordered);
        this.decayed = decayedEnd;
        this.master = arena.allocate(DType.F32, all);
        this.values = dtype == DType.F32 ? master : arena.allocate(dtype, all);
        this.gradients = arena.allocate(DType.F32, all);
        for (Tensor slab : dtype == DType.F32 ? List.of(master, gradients) : List.of(master, values, gradients)) {
            Elementwise.fill(stream, slab, 0);
        }
        List<Parameter> made = new ArrayList<>();
        long at = 0;
        for (Shape shape : ordered) {
            long n = elements(shape.shape);
            Parameter parameter = new Parameter(shape.name, part(master, at, n, shape), part(values, at, n, shape),
                    part(gradients, at, n, shape), shape.decays);
            made.add(parameter);
            byOffset.put(at, parameter);
            at += aligned(n);
        }
        this.list = Collections.unmodifiableList(made);
    }

    private static Tensor part(Tensor slab, long at, long n, Shape shape) {
        return slab.slice(0, at, at + n).reshape(shape.shape);
    }

    private static long elements(List<Shape> shapes) {
        return shapes.stream().mapToLong(shape -> aligned(elements(shape.shape))).sum();
    }

    private static long elements(long[] shape) {
        long n = 1;
        for (long d : shape) {
            n *= d;
        }
        return n;
    }

    private static long aligned(long n) {
        return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }

    /// The parameters that a model asks its loader for, in its order, but for running statistics. Matrices and kernels
    /// decay; vectors (biases, norms) do not.
    ///
    /// @param model  builds the model with the loader it is given
    /// @param prefix stands before every name in the checkpoint
    public static List<Shape> of(Device device, String prefix, Consumer<WeightLoader> model) {
        try (Shapes memoryless = new Shapes(device)) {
            WeightLoader loader = WeightLoader.shapes(memoryless, DType.F32);
            model.accept(loader);
            return loader.loaded().entrySet().stream().filter(e -> !isStatistic(e.getKey())).map(e ->
                    new Shape(prefix + e.getKey(), e.getValue().shape(),
                    e.getValue().rank() > 1)).toList();
        }
    }

    /// Whether a name is that of a running statistic, which is in the checkpoint, but is not trained.
    public static boolean isStatistic(String name) {
        return name.endsWith(".running_mean") || name.endsWith(".running_var");
    }

    /// All of them, decayed ones first.
    public List<Parameter> all() {
        return list;
    }

    /// The parameter of a name.
    ///
    /// @throws GatunException when there is none
    public Parameter get(String name) {
        return list.stream().filter(p -> p.name.equals(name)).findFirst()
                .orElseThrow(() -> GatunException.invalid("no parameter '%s'; there are %s", name,
                        list.stream().map(Parameter::name).toList()));
    }

    /// What a model is built with: its weights by name, as tensors that training changes.
    public Map<String, Tensor> weights() {
        Map<String, Tensor> weights = new LinkedHashMap<>();
        list.forEach(parameter -> weights.put(parameter.name, parameter.value));
        return weights;
    }

    /// Number of trained elements.
    public long count() {
        return list.stream().mapToLong(parameter -> parameter.master.elements()).sum();
    }

    /// Bytes of the values: in f32, and of the copy in the model's dtype where that is another.
    long valueBytes() {
        return master.elements() * (Float.BYTES + (values == master ? 0 : values.dtype().bytes()));
    }

    /// Bytes of the gradients.
    long gradientBytes() {
        return gradients.elements() * Float.BYTES;
    }

    /// The f32 values of all, padded. [n]
    Tensor master() {
        return master;
    }

    /// The copy in the model's dtype; null where that is f32. [n]
    @Nullable Tensor low() {
        return values == master ? null : values;
    }

    /// The gradients of all. [n]
    Tensor gradients() {
        return gradients;
    }

    /// How many elements at the beginning weight decay applies to.
    long decayed() {
        return decayed;
    }

    /// Whether gradients are added to what is there, so that several passes make one step; they are cleared in between.
    boolean accumulates() {
        return accumulates;
    }

    void accumulates(boolean add) {
        accumulates = add;
    }

    /// The parameter that a tensor is, or is a view of; null where it is none.
    @Nullable Parameter find(Tensor x) {
        return x.base() == values.base() && x.dtype() == values.dtype() ? byOffset.floorEntry(x.offset()).getValue()
                : null;
    }

    /// Rewrites the copy in the model's dtype, after the f32 values were set.
    void refresh(Stream stream) {
        if (values != master) {
            Elementwise.cast(stream, values, master);
        }
    }
}
