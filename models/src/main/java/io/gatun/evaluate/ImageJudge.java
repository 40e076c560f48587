package io.gatun.evaluate;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.Layers;
import io.gatun.models.classifier.ImageClassifier;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Arrays;

/// A classifier that says what is on pictures. One thread at a time.
public final class ImageJudge implements AutoCloseable {
    /// Pictures that are judged at a time.
    public static final int BATCH = 64;
    /// Of red, green and blue in grey, ITU-R BT.601.
    private static final float[] GREY = {0.299f, 0.587f, 0.114f};

    private final Device device;
    private final Stream stream;
    private final DeviceArena arena;
    private final Component<ImageClassifier> classifier;
    private final Tensor images;
    private final Tensor logits;
    private final Tensor features;
    private final Plan plan;

    /// What it found.
    ///
    /// @param labels      the most probable class of each picture; -1 where the network gave NaN
    /// @param confidences its probability
    /// @param losses      negative logarithms of each class's probability, [n, K]
    /// @param features    [n, D]
    public record Verdict(int[] labels, double[] confidences, double[] losses, float[] features) {}

    /// Opens a classifier as `gatun train` writes it, computing in f32.
    ///
    /// @throws io.gatun.runtime.GatunException when it cannot be loaded
    public ImageJudge(Path directory, String device, int threads) {
        this.device = Device.open(device, new Device.Options(threads));
        try {
            this.stream = this.device.newStream();
            this.arena = this.device.newArena("judge");
            this.classifier = ComponentLoader.load(this.device, stream, directory, DType.F32, ImageClassifier.FAMILY,
                    count -> {});
            this.images = arena.allocate(DType.F32, BATCH, size(), size(), channels());
            this.logits = arena.allocate(DType.F32, BATCH, classes());
            this.features = arena.allocate(DType.F32, BATCH, classifier.network().config().hiddenSize());
            this.plan = Plan.of(this.device, recorder -> {
                Layers net = new Layers(this.device, stream, recorder);
                ImageClassifier.Output output = classifier.network().forward(net, images);
                net.copyInto(logits, output.logits());
                net.copyInto(features, output.features());
            });
        } catch (RuntimeException e) {
            this.device.close();
            throw e;
        }
    }

    /// Height and width of what it sees.
    public int size() {
        return classifier.network().config().imageSize();
    }

    /// 1 or 3
    public int channels() {
        return classifier.network().config().imageChannels();
    }

    /// K
    public int classes() {
        return classifier.network().config().classes();
    }

    /// D
    public int featureSize() {
        return classifier.network().config().hiddenSize();
    }

    /// Judges at most [#BATCH] pictures.
    ///
    /// @param pixels [n, size, size, channels], 0 to 1
    public Verdict judge(float[] pixels) {
        int n = pixels.length / (size() * size() * channels());
        images.copyFrom(stream, Arrays.copyOf(pixels, (int) images.elements()));
        plan.run();
        float[] found = logits.toFloats(stream);
        int[] labels = new int[n];
        double[] confidences = new double[n];
        double[] losses = new double[n * classes()];
        for (int i = 0; i < n; i++) {
            int at = i * classes();
            double largest = Double.NEGATIVE_INFINITY;
            double all = 0;
            for (int k = 0; k < classes(); k++) {
                largest = Math.max(largest, found[at + k]);
            }
            for (int k = 0; k < classes(); k++) {
                all += Math.exp(found[at + k] - largest);
            }
            labels[i] = -1;
            for (int k = 0; k < classes(); k++) {
                losses[at + k] = Math.log(all) + largest - found[at + k];
                if (labels[i] < 0 && found[at + k] == largest) {
                    labels[i] = k;
                    confidences[i] = 1 / all;
                }
            }
        }
        return new Verdict(labels, confidences, losses, Arrays.copyOf(features.toFloats(stream), n * featureSize()));
    }

    /// A picture of bytes as what the network sees: cut to its middle or bordered with black, grey where need be.
    ///
    /// @param rgb    [count, height, width, 3]
    /// @param index  of the picture
    /// @param pixels receives [size, size, channels]
    /// @param at     from this place on
    public void convert(byte[] rgb, int height, int width, int index, float[] pixels, int at) {
        int top = (size() - height) / 2;
        int left = (size() - width) / 2;
        for (int y = 0; y < size(); y++) {
            for (int x = 0; x < size(); x++) {
                int fromY = y - top;
                int fromX = x - left;
                boolean inside = fromY >= 0 && fromY < height && fromX >= 0 && fromX < width;
                int from = inside ? ((index * height + fromY) * width + fromX) * 3 : 0;
                float grey = 0;
                for (int c = 0; c < 3; c++) {
                    float value = inside ? (rgb[from + c] & 0xff) / 255f : 0;
                    grey += GREY[c] * value;
                    if (channels() == 3) {
                        pixels[at + (y * size() + x) * 3 + c] = value;
                    }
                }
                if (channels() == 1) {
                    pixels[at + y * size() + x] = grey;
                }
            }
        }
    }

    @Override
    public void close() {
        try (device; stream; arena; classifier; plan) {
            // the plan, the weights, the arena, the stream, the device
        }
    }
}
