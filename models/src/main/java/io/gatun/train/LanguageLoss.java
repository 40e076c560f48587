package io.gatun.train;

import io.gatun.models.CausalModel;
import io.gatun.models.CausalModel.Tokens;
import io.gatun.models.ForwardPass;
import io.gatun.models.Layers;
import io.gatun.models.WholeSequences;
import io.gatun.runtime.DType;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Predict the next token: the mean cross-entropy over all tokens of B sequences of T, but for the last of each, that
/// has no next.
public final class LanguageLoss {
    private final int batch;
    private final int length;
    private final Tensor ids;
    private final Tensor positions;
    private final Tensor targets;

    /// Makes the inputs of a batch.
    ///
    /// @param length T
    public LanguageLoss(Trainer trainer, int batch, int length) {
        this.batch = batch;
        this.length = length;
        this.ids = trainer.input(DType.I32, (long) batch * length);
        this.positions = trainer.input(DType.I32, (long) batch * length);
        this.targets = trainer.input(DType.I32, (long) batch * length);
        int[] places = new int[batch * length];
        for (int i = 0; i < places.length; i++) {
            places[i] = i % length;
        }
        positions.copyFrom(trainer.stream(), places);
    }

    /// Uploads B sequences of T tokens, each predicting its own next ones.
    ///
    /// @param tokens [B, T], row by row
    public void setBatch(Stream stream, long[] tokens) {
        long[] next = new long[tokens.length];
        for (int i = 0; i < tokens.length; i++) {
            next[i] = i % length == length - 1 ? Layers.IGNORED : tokens[i + 1];
        }
        setBatch(stream, tokens, next);
    }

    /// Uploads B sequences of T tokens and what is to follow each.
    ///
    /// @param next [B, T], [Layers#IGNORED] where nothing is predicted
    public void setBatch(Stream stream, long[] tokens, long[] next) {
        ids.copyFrom(stream, tokens);
        targets.copyFrom(stream, next);
    }

    /// Writes the loss down; f32 [1].
    public Tensor of(Layers net, CausalModel model) {
        return of(net, model, 0);
    }

    /// As above.
    ///
    /// @param smoothing share of the target's probability that goes to all tokens
    public Tensor of(Layers net, CausalModel model, float smoothing) {
        model.reserve(net.stream(), length);
        Tensor hidden = model.forward(net, new Tokens(ids, positions, length), new WholeSequences(batch),
                ForwardPass.Observer.NONE);                                                         // [N, C]
        return net.crossEntropy(net.logits(hidden, model.headWeight()), targets, smoothing);         // [N, V]
    }
}
