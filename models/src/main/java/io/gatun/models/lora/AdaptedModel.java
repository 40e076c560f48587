package io.gatun.models.lora;

import io.gatun.models.CausalModel;
import io.gatun.models.Layers;
import io.gatun.models.Layers.LowRank;
import io.gatun.models.WrappedModel;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/// A language model with LoRA adapters, of which at most one acts at a time. All of them are on the device; the one
/// that is selected is copied there into the place that the layers read, so that forward passes that were written down,
/// and graphs, stay valid. While none is selected the model computes what it computes without adapters.
public final class AdaptedModel extends WrappedModel {
    private final Map<Tensor, LowRank> places = new IdentityHashMap<>();
    private final Map<String, Map<Tensor, LowRank>> byName = new LinkedHashMap<>();
    private @Nullable String selected;
    private boolean selects;

    /// @param arena    owns the adapters
    /// @param adapters by the names that requests select them with
    /// @throws GatunException when an adapter is for another model
    public AdaptedModel(CausalModel base, DeviceArena arena, Stream stream, Map<String, LoraAdapter> adapters) {
        super(base);
        DType dtype = base.config().dtype();
        Map<Tensor, Integer> ranks = new IdentityHashMap<>();
        adapters.forEach((name, adapter) -> {
            List<LoraAdapter.Target> targets = LoraAdapter.targets(adapter.config(), base.weights());
            adapter.requireFits(targets);
            for (LoraAdapter.Target target : targets) {
                LoraAdapter.Matrices m = adapter.modules().get(target.module());
                if (m != null) {
                    ranks.merge(target.weight(), m.rank(), Math::max);
                }
            }
        });
        adapters.forEach((name, adapter) -> {
            Map<Tensor, LowRank> own = new IdentityHashMap<>();
            for (LoraAdapter.Target target : LoraAdapter.targets(adapter.config(), base.weights())) {
                LoraAdapter.Matrices m = adapter.modules().get(target.module());
                if (m != null) {
                    int rank = ranks.get(target.weight());
                    own.put(target.weight(), padded(arena, stream, dtype, m, rank,
                            adapter.config().scaleOf(target.module())));
                    places.computeIfAbsent(target.weight(), weight -> new LowRank(arena.allocate(dtype, rank, m.in()),
                            arena.allocate(dtype, m.out(), rank), 1));
                }
            }
            byName.put(name, own);
        });
        select(stream, null);
    }

    /// The scale goes into `up`; ranks above the adapter's own are 0.
    private static LowRank padded(DeviceArena arena, Stream stream, DType dtype, LoraAdapter.Matrices m, int rank,
            float scale) {
        float[] down = new float[Math.toIntExact(rank * m.in())];
        float[] up = new float[Math.toIntExact(m.out() * rank)];
        System.arraycopy(m.down(), 0, down, 0, m.down().length);
        for (int o = 0; o < m.out(); o++) {
            for (int k = 0; k < m.rank(); k++) {
                up[o * rank + k] = scale * m.up()[o * m.rank() + k];
            }
        }
        LowRank matrices = new LowRank(arena.allocate(dtype, rank, m.in()), arena.allocate(dtype, m.out(), rank), 1);
        matrices.down().copyFrom(stream, down);
        matrices.up().copyFrom(stream, up);
        return matrices;
    }

    /// Names of the adapters.
    public List<String> names() {
        return List.copyOf(byName.keySet());
    }

    /// Lets an adapter act from here on, in order with the stream's work.
    ///
    /// @param name null: none
    /// @throws GatunException when there is no such adapter
    public void select(Stream stream, @Nullable String name) {
        if (selects && Objects.equals(name, selected)) {
            return;
        }
        Map<Tensor, LowRank> own = name == null ? Map.of() : byName.get(name);
        if (own == null) {
            throw GatunException.invalid("no adapter '%s', expected one of %s", name, byName.keySet());
        }
        selects = false; // until all are in place
        places.forEach((weight, place) -> {
            LowRank matrices = own.get(weight);
            if (matrices == null) {
                Elementwise.fill(stream, place.down(), 0);
                Elementwise.fill(stream, place.up(), 0);
            } else {
                Elementwise.copy(stream, place.down(), matrices.down());
                Elementwise.copy(stream, place.up(), matrices.up());
            }
        });
        selected = name;
        selects = true;
    }

    @Override
    protected void prepare(Layers layers) {
        layers.adapt(places);
    }
}
