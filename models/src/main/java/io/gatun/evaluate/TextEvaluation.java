package io.gatun.evaluate;

import io.gatun.models.CausalModel;
import io.gatun.models.CausalModel.Tokens;
import io.gatun.models.ForwardPass;
import io.gatun.models.Layers;
import io.gatun.models.WholeSequences;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.function.BiConsumer;

/// How well a language model predicts a text. The text is cut into windows as long as the model's context; each token
/// is predicted from those before it in its window, and the first token of the text is not.
public final class TextEvaluation {
    /// Tokens of a pass, about: what bounds its memory.
    private static final int ROWS = 2048;

    private TextEvaluation() {}

    /// @param predicted tokens
    /// @param nats      sum of the negative logarithms of their probabilities
    public record Result(long predicted, double nats) {
        /// Of a token.
        public double loss() {
            return nats / predicted;
        }

        /// `e^loss`
        public double perplexity() {
            return Math.exp(loss());
        }

        /// Where so many tokens stand for so many bytes of UTF-8.
        public double bitsPerByte(long tokens, long bytes) {
            return loss() * tokens / bytes / Math.log(2);
        }
    }

    /// @param length   tokens of a window, at most the model's context
    /// @param progress told how many tokens were predicted, of how many
    /// @throws GatunException when there are fewer than two ids, or one that the model does not know
    public static Result of(Device device, Stream stream, CausalModel model, int[] ids, int length,
            BiConsumer<Integer, Integer> progress) {
        check(model, ids, length);
        int t = Math.min(length, ids.length - 1);
        int windows = (ids.length - 1 + t - 1) / t;
        int batch = Math.clamp(ROWS / t, 1, windows);
        model.reserve(stream, t);
        double nats = 0;
        try (DeviceArena arena = device.newArena("evaluation")) {
            Tensor tokens = arena.allocate(DType.I32, (long) batch * t);
            Tensor targets = arena.allocate(DType.I32, (long) batch * t);
            Tensor positions = arena.allocate(DType.I32, (long) batch * t);
            Tensor loss = arena.allocate(DType.F32, 1);
            int[] places = new int[batch * t];
            Arrays.setAll(places, i -> i % t);
            positions.copyFrom(stream, places);
            try (Plan plan = Plan.of(device, recorder -> {
                Layers net = new Layers(device, stream, recorder);
                Tensor hidden = model.forward(net, new Tokens(tokens, positions, t), new WholeSequences(batch),
                        ForwardPass.Observer.NONE);                                             // [N, C]
                Tensor logits = net.linear(hidden, model.headWeight(), null);                   // [N, V]
                net.copyInto(loss, net.crossEntropy(logits, targets, 0));
            })) {
                for (int from = 0; from < ids.length - 1; from += batch * t) {
                    int counted = Math.min(batch * t, ids.length - 1 - from);
                    int[] in = new int[batch * t];
                    int[] out = new int[batch * t];
                    Arrays.fill(out, Layers.IGNORED);
                    System.arraycopy(ids, from, in, 0, counted);
                    System.arraycopy(ids, from + 1, out, 0, counted);
                    tokens.copyFrom(stream, in);
                    targets.copyFrom(stream, out);
                    plan.run();
                    nats += (double) loss.toFloats(stream)[0] * counted;
                    progress.accept(from + counted, ids.length - 1);
                }
            }
        }
        return new Result(ids.length - 1, nats);
    }

    private static void check(CausalModel model, int[] ids, int length) {
        if (length < 1 || length > model.config().contextLength()) {
            throw GatunException.invalid("windows of %d tokens, expected 1 to %d, the model's context", length,
                    model.config().contextLength());
        }
        if (ids.length < 2) {
            throw GatunException.invalid("the text has %d tokens, expected 2 or more", ids.length);
        }
        for (int id : ids) {
            if (id < 0 || id >= model.config().vocabSize()) {
                throw GatunException.invalid("the tokenizer gave the id %d, the model knows 0 to %d", id,
                        model.config().vocabSize() - 1);
            }
        }
    }
}
