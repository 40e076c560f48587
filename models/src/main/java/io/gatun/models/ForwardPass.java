package io.gatun.models;

import io.gatun.runtime.Device;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;

/// A language model's forward computation for a fixed number of rows, its temporaries placed in a workspace. [#run]
/// allocates nothing, so it can be captured.
public final class ForwardPass {
    private final Plan plan;
    private final Tensor hidden;
    private Observer observer = Observer.NONE;

    /// Is shown the state between layers: `0` the embeddings, `i` the output of block `i - 1`, and `L + 1` the state
    /// after the final norm.
    public interface Observer {
        Observer NONE = (index, state) -> {};

        /// @param state [N, C], valid during the call
        void layer(int index, Tensor state);
    }

    /// Places a pass for the rows of `batch`, to be run on the stream until the workspace is reset.
    public ForwardPass(Device device, Stream stream, Workspace workspace, CausalModel model, Batch batch,
            KvCache cache) {
        Tensor[] last = new Tensor[1];
        this.plan = Plan.within(workspace, recorder -> {
            Layers layers = new Layers(device, stream, recorder, batch.isDecode());
            last[0] = layers.keep(model.forward(layers, new CausalModel.Tokens(batch.ids(), batch.positions(),
                    batch.sequenceLength()), new PagedAttention(batch, cache),
                    (index, state) -> recorder.op(() -> observer.layer(index, state), state)));
        });
        this.hidden = last[0];
    }

    /// Runs all layers: appends keys and values to the cache and leaves the final, normalised states in [#hidden].
    public void run(Observer shown) {
        observer = shown;
        plan.run();
    }

    /// The states after the final norm. [N, C]
    public Tensor hidden() {
        return hidden;
    }
}
