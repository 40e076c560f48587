package io.gatun.models;

import io.gatun.runtime.Device;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import org.jspecify.annotations.Nullable;

/// A language model's forward computation for a fixed number of rows, its temporaries placed in a workspace. [#run]
/// allocates nothing, so it can be captured.
public final class ForwardPass {
    private final Plan plan;
    private final @Nullable Tensor hidden;
    private Observer observer = Observer.NONE;

    /// Is shown the state between layers: `0` the embeddings, `i` the output of block `i - 1`, and `L + 1` the state
    /// after the final norm. A pass up to logits may leave out `L` and `L + 1`: [CausalModel#forwardToLogits].
    public interface Observer {
        Observer NONE = (index, state) -> {};

        /// @param state [N, C], valid during the call
        void layer(int index, Tensor state);
    }

    /// Places a pass for the rows of `batch`, to be run on the stream until the workspace is reset.
    public ForwardPass(Device device, Stream stream, Workspace workspace, CausalModel model, Batch batch,
            KvCache cache) {
        this(device, stream, workspace, model, batch, cache, null);
    }

    /// As above, for a decode step up to its logits.
    ///
    /// @param logits [B, V] f32; null: the states are wanted
    public ForwardPass(Device device, Stream stream, Workspace workspace, CausalModel model, Batch batch,
            KvCache cache, @Nullable Tensor logits) {
        @Nullable Tensor[] last = new Tensor[1];
        this.plan = Plan.within(workspace, recorder -> {
            Layers layers = new Layers(device, stream, recorder, batch.isDecode());
            CausalModel.Tokens tokens = new CausalModel.Tokens(batch.ids(), batch.positions(), batch.sequenceLength());
            Observer shown = (index, state) -> recorder.op(() -> observer.layer(index, state), state);
            PagedAttention attention = new PagedAttention(batch, cache);
            if (logits == null) {
                last[0] = layers.keep(model.forward(layers, tokens, attention, shown));
            } else {
                model.forwardToLogits(layers, logits, tokens, attention, shown);
            }
        });
        this.hidden = last[0];
    }

    /// Runs all layers: appends keys and values to the cache and leaves the final, normalised states in [#hidden], or
    /// the logits.
    public void run(Observer shown) {
        observer = shown;
        plan.run();
    }

    /// The states after the final norm, of a pass without logits. [N, C]
    public Tensor hidden() {
        if (hidden == null) {
            throw new IllegalStateException("this pass leaves logits, not states");
        }
        return hidden;
    }
}
