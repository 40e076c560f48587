package io.gatun.models;

import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// A network's forward computation for a fixed number of rows, its operands placed in a workspace. [#run] allocates
/// nothing, so it can be captured.
public interface ForwardPass {
    /// Runs all layers: appends keys and values to the cache and leaves the final, normalised states in [#hidden].
    void run(Stream stream, Observer observer);

    /// The states after the final norm. [N, C]
    Tensor hidden();

    /// Is shown the state between layers: `0` the embeddings, `i` the output of block `i - 1`, and `L + 1` the state
    /// after the final norm.
    interface Observer {
        Observer NONE = (index, state) -> {};

        /// @param state [N, C], valid during the call
        void layer(int index, Tensor state);
    }
}
