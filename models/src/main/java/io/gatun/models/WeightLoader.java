package io.gatun.models;

import io.gatun.io.Checkpoint;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Upload;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.IntConsumer;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/// Reads a family's weights from a checkpoint by their Hugging Face names, with or without the model's prefix, and
/// keeps account of what was missing and what was left over. Without a checkpoint ([#shapes]) it hands out tensors that
/// have shapes and no memory, to count parameters and to plan memory from a config alone; and over given tensors
/// ([#trained]) it hands out those, which training changes.
public final class WeightLoader {
    private final @Nullable Checkpoint checkpoint;
    private final @Nullable DeviceArena arena;
    private final @Nullable Stream stream;
    private final @Nullable Shapes shapes;
    private final @Nullable Upload upload;
    private final DType dtype;
    private final List<String> prefixes;
    private final Map<String, Tensor> loaded = new LinkedHashMap<>();
    private final List<String> missing = new ArrayList<>();
    private final Set<String> used = new TreeSet<>();
    private final IntConsumer progress;
    private final List<Consumer<Stream>> derivations = new ArrayList<>();
    private final @Nullable Map<String, Tensor> trained;
    private final @Nullable WeightQuantizer quantizer;
    private final Map<String, WeightLayout> matrices = new LinkedHashMap<>();

    /// @param prefixes name prefixes that may stand before every name, tried in order; include "" where none may
    /// @param progress told the number of tensors loaded so far
    /// @param upload   carries the weights where the device does not address host memory; null where it does
    public WeightLoader(Checkpoint checkpoint, DeviceArena arena, Stream stream, @Nullable Upload upload, DType dtype,
            List<String> prefixes, IntConsumer progress) {
        this(checkpoint, arena, stream, upload, dtype, prefixes, progress, null);
    }

    /// @param quantizer takes the matrices; null: they are loaded like other weights
    WeightLoader(Checkpoint checkpoint, DeviceArena arena, Stream stream, @Nullable Upload upload, DType dtype,
            List<String> prefixes, IntConsumer progress, @Nullable WeightQuantizer quantizer) {
        this.checkpoint = checkpoint;
        this.arena = arena;
        this.stream = stream;
        this.upload = upload;
        this.dtype = dtype;
        this.prefixes = prefixes;
        this.progress = progress;
        this.shapes = null;
        this.trained = null;
        this.quantizer = quantizer;
    }

    private WeightLoader(@Nullable Shapes shapes, @Nullable Map<String, Tensor> trained, @Nullable DeviceArena arena,
            @Nullable Stream stream, DType dtype, List<String> prefixes) {
        this.checkpoint = null;
        this.arena = arena;
        this.stream = stream;
        this.upload = null;
        this.dtype = dtype;
        this.prefixes = prefixes;
        this.progress = count -> {};
        this.shapes = shapes;
        this.trained = trained;
        this.quantizer = null;
    }

    /// A loader for which every required weight is there, without memory; optional ones are absent.
    public static WeightLoader shapes(Shapes shapes, DType dtype) {
        return new WeightLoader(shapes, null, null, null, dtype, List.of(""));
    }

    /// A loader of tensors that are there already and will change.
    ///
    /// @param weights  by their names in the checkpoint
    /// @param arena    owns tables that the config determines
    /// @param prefixes as for a checkpoint
    public static WeightLoader trained(Map<String, Tensor> weights, DeviceArena arena, Stream stream, DType dtype,
            List<String> prefixes) {
        return new WeightLoader(null, weights, arena, stream, dtype, prefixes);
    }

    /// Whether weights will change, so that nothing may be derived from them once and for all.
    public boolean isTrained() {
        return trained != null;
    }

    /// The weights so far.
    public Map<String, Tensor> loaded() {
        return loaded;
    }

    /// The dtype of the weights.
    public DType dtype() {
        return dtype;
    }

    /// A weight that must be there. One that is not is remembered for [#finish], which names all of them at once.
    ///
    /// @throws GatunException when it has another shape
    public Tensor require(String name, long... shape) {
        if (shapes != null) {
            Tensor tensor = shapes.of(dtype, shape);
            loaded.put(name, tensor);
            return tensor;
        }
        Tensor tensor = optional(name, shape);
        if (tensor == null) {
            missing.add(name);
            return arena.allocate(dtype, 0);
        }
        return tensor;
    }

    /// As [#require], for the matrix of a linear layer, which a [Quantization] applies to.
    ///
    /// @param shape [F, C] or [C, F] by `layout`
    public Tensor matrix(WeightLayout layout, String name, long... shape) {
        matrices.put(name, layout);
        String full = quantizer == null ? null : fullName(name);
        if (quantizer == null || full == null) {
            return require(name, shape);
        }
        return account(full, quantizer.load(full, layout, shape));
    }

    /// The matrices that were asked for, by name without a prefix.
    Map<String, WeightLayout> matrices() {
        return matrices;
    }

    /// As [#require], for a weight that had other names in older files: the first is today's.
    public Tensor requireAny(List<String> names, long... shape) {
        for (String name : names) {
            Tensor tensor = optional(name, shape);
            if (tensor != null) {
                return tensor;
            }
        }
        return require(names.getFirst(), shape);
    }

    /// A weight that may be absent.
    public @Nullable Tensor optional(String name, long... shape) {
        if (trained != null) {
            for (String prefix : prefixes) {
                Tensor tensor = given(trained, prefix + name, shape);
                if (tensor != null) {
                    return tensor;
                }
            }
            return null;
        }
        if (checkpoint == null) {
            return null;
        }
        String full = fullName(name);
        return full == null ? null : account(full, (upload == null ? checkpoint.load(full, arena, stream, dtype, shape)
                : checkpoint.load(full, arena, upload, dtype, shape)).frozen());
    }

    /// The name with the prefix that the checkpoint has it under; null: it has none.
    private @Nullable String fullName(String name) {
        return prefixes.stream().map(prefix -> prefix + name).filter(checkpoint.names()::contains).findFirst()
                .orElse(null);
    }

    private Tensor account(String full, Tensor tensor) {
        loaded.put(full, tensor);
        used.add(full);
        progress.accept(loaded.size());
        return tensor;
    }

    private @Nullable Tensor given(Map<String, Tensor> weights, String name, long... shape) {
        Tensor tensor = weights.get(name);
        if (tensor != null) {
            if (!Arrays.equals(tensor.shape(), shape)) {
                throw GatunException.invalid("weight '%s' is %s, expected %s", name, tensor, Arrays.toString(shape));
            }
            loaded.put(name, tensor);
        }
        return tensor;
    }

    /// A weight that a flag says is there or not.
    public @Nullable Tensor when(boolean wanted, String name, long... shape) {
        return wanted ? require(name, shape) : null;
    }

    /// A table that the config determines and no checkpoint holds; it is no parameter.
    public Tensor computed(float[] values, long... shape) {
        if (shapes != null) {
            return shapes.of(dtype, shape);
        }
        Tensor tensor = arena.allocate(dtype, shape);
        tensor.copyFrom(stream, values);
        return tensor.frozen();
    }

    /// A table that ops make of weights once all of them are on the device; it is no parameter.
    ///
    /// @param make gives the ops that fill the tensor to the stream
    public Tensor derived(BiConsumer<Stream, Tensor> make, long... shape) {
        if (shapes != null) {
            return shapes.of(dtype, shape);
        }
        if (trained != null) {
            throw new IllegalStateException("a table derived from weights that change");
        }
        Tensor tensor = arena.allocate(dtype, shape);
        derivations.add(s -> make.accept(s, tensor));
        return tensor.frozen();
    }

    /// Fills what was [derived][#derived]; to be called when all weights are on the device.
    void derive() {
        derivations.forEach(derivation -> derivation.accept(stream));
        derivations.clear();
    }

    /// Ends the reading.
    ///
    /// @param droppable names of buffers that older files carry and no model needs
    /// @return all weights by their name in the file
    /// @throws GatunException that names missing and left-over weights
    public Map<String, Tensor> finish(Predicate<String> droppable) {
        if (checkpoint == null) {
            if (!missing.isEmpty()) {
                throw GatunException.invalid("the weights do not fit the config:%s", list(" missing", missing));
            }
            return loaded;
        }
        List<String> extra = checkpoint.names().stream().filter(name -> !used.contains(name) && !droppable.test(name))
                .sorted().toList();
        if (!missing.isEmpty() || !extra.isEmpty()) {
            throw GatunException.invalid("%s does not fit its config.json:%s%s", checkpoint, list(" missing", missing),
                    list(" unexpected", extra));
        }
        return loaded;
    }

    private static String list(String what, List<String> names) {
        if (names.isEmpty()) {
            return "";
        }
        String shown = String.join(", ", names.subList(0, Math.min(5, names.size())));
        return "%s %d weights (%s%s)".formatted(what, names.size(), shown, names.size() > 5 ? ", ..." : "");
    }
}
