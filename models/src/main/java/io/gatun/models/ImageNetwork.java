package io.gatun.models;

import io.gatun.runtime.Tensor;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// A network that a diffusion pipeline calls once per step: a noisy sample and a time step in, a prediction out.
public interface ImageNetwork {
    /// What one pass reads. Everything is the caller's memory, on the network's device.
    ///
    /// @param sample              [B, H, W, C], the network's dtype, channels last
    /// @param timesteps           [B] f32; with a counter a table [n]
    /// @param counter             [1] i32, the row of the table that all images take; null: row b is of timesteps[b]
    /// @param encoderHiddenStates [B, S, K], the network's dtype: states of the text; null where the network takes none
    /// @param classLabels         see [Labels]; null where the network takes none
    /// @param textEmbeds          [B, P], the network's dtype: pooled text (SDXL); null likewise
    /// @param timeIds             [B, n] f32: sizes and crops (SDXL); null likewise
    /// @param timestepCondition   [B, n], the network's dtype: embedded guidance of distilled networks; null: none
    record Inputs(Tensor sample, Tensor timesteps, @Nullable Tensor counter, @Nullable Tensor encoderHiddenStates,
            @Nullable Tensor classLabels, @Nullable Tensor textEmbeds, @Nullable Tensor timeIds,
            @Nullable Tensor timestepCondition) {
        /// A sample and a time step for each image.
        public static Inputs of(Tensor sample, Tensor timesteps) {
            return new Inputs(sample, timesteps, null, null, null, null, null, null);
        }

        public Inputs withText(@Nullable Tensor states) {
            return new Inputs(sample, timesteps, counter, states, classLabels, textEmbeds, timeIds, timestepCondition);
        }
    }

    /// What class labels are.
    enum Labels {
        /// There are none.
        NONE,
        /// Rows of a table: i32 [B].
        IDS,
        /// Numbers that are embedded as time steps are: f32 [B].
        NUMBERS,
        /// Vectors [B, n] in the network's dtype.
        VECTORS
    }

    /// What class labels this network takes.
    Labels classLabels();

    /// Channels of the sample.
    int inChannels();

    /// Channels of the prediction.
    int outChannels();

    /// Height and width that the network was trained for; empty where its config does not say.
    List<Integer> sampleSize();

    /// Classes that an image can be of; 0 where the network takes none.
    default int numClasses() {
        return 0;
    }

    /// The class that means none, for guidance.
    default int nullClass() {
        return numClasses();
    }

    /// Channels of the text's states; 0 where the network takes none.
    default int encoderDim() {
        return 0;
    }

    /// All weights by their names in the checkpoint.
    Map<String, Tensor> weights();

    /// Writes one pass down.
    ///
    /// @param prediction [B, H, W, outChannels], the sample's dtype, receives the result
    /// @throws io.gatun.runtime.GatunException when an input is missing or has another shape; says which
    void forward(Layers layers, Tensor prediction, Inputs inputs);

    /// The number of weights' elements.
    default long parameterCount() {
        return weights().values().stream().mapToLong(Tensor::elements).sum();
    }
}
