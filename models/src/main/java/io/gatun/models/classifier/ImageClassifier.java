package io.gatun.models.classifier;

import io.gatun.models.Activation;
import io.gatun.models.ComponentLoader;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/// A small convolutional classifier in the manner of LeNet: 5 x 5 convolutions, ReLU and max pools, then two linear
/// layers. LeCun, Bottou, Bengio and Haffner 1998.
public final class ImageClassifier {
    /// Opens a directory of `model_type` gatun_classifier.
    public static final ComponentLoader.Family<ImageClassifier> FAMILY = new ComponentLoader.Family<>() {
        @Override
        public ImageClassifier create(ConfigFile config, WeightLoader loader) {
            return new ImageClassifier(ImageClassifierConfig.parse(config), loader);
        }

        @Override
        public List<String> prefixes() {
            return List.of("");
        }
    };

    private final ImageClassifierConfig config;
    private final List<Layer> convolutions;
    private final Layer hidden;
    private final Layer head;
    private final Map<String, Tensor> all;

    /// @param weight conv1.weight, conv2.weight, ... [F, C, 5, 5]; fc1.weight [hidden, C h w]; fc2.weight [K, hidden]
    /// @param bias   of the same name [F]
    private record Layer(Tensor weight, Tensor bias) {
        static Layer load(WeightLoader w, String name, long... shape) {
            return new Layer(w.require(name + ".weight", shape), w.require(name + ".bias", shape[0]));
        }
    }

    public ImageClassifier(ImageClassifierConfig config, WeightLoader w) {
        this.config = config;
        this.convolutions = new ArrayList<>();
        long in = config.imageChannels();
        for (int i = 0; i < config.channels().size(); i++) {
            long out = config.channels().get(i);
            convolutions.add(Layer.load(w, "conv" + (i + 1), out, in, 5, 5));
            in = out;
        }
        this.hidden = Layer.load(w, "fc1", config.hiddenSize(), in * config.lowest() * config.lowest());
        this.head = Layer.load(w, "fc2", config.classes(), config.hiddenSize());
        this.all = w.finish(name -> false);
    }

    public ImageClassifierConfig config() {
        return config;
    }

    /// Every weight by name.
    public Map<String, Tensor> weights() {
        return all;
    }

    /// @param logits [B, K]
    /// @param features [B, hidden], what the logits are made of
    public record Output(Tensor logits, Tensor features) {}

    /// @param image [B, H, W, channels]
    public Output forward(Layers net, Tensor image) {
        Tensor x = image;
        for (Layer l : convolutions) {
            x = net.activation(net.conv(x, l.weight, l.bias, Geometry.same(5)), Activation.RELU); // [B, H, W, F]
            x = net.maxPool(x, 2);                                                              // [B, H/2, W/2, F]
        }
        Tensor flat = net.copy(x.permute(0, 3, 1, 2)).reshape(x.size(0), x.elements() / x.size(0)); // [B, C h w]
        Tensor features = net.activation(net.linearRowwise(flat, hidden.weight, hidden.bias), Activation.RELU);
        return new Output(net.linearRowwise(features, head.weight, head.bias), features);       // [B, K], [B, hidden]
    }
}
