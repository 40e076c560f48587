package io.gatun.models.unet;

import io.gatun.models.ConfigFile;
import io.gatun.models.ImageNetwork;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.unet.UNetBlock.Side;
import io.gatun.models.unet.UNetLayout.BlockLayout;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// A U-Net: down through ever smaller images, up again, and at each level what came down joins what goes up.
/// Ronneberger, Fischer and Brox 2015 (arXiv 1505.04597); Ho, Jain and Abbeel 2020; Rombach et al. 2022.
///
/// UNet2DModel and UNet2DConditionModel differ in their configs and in what may be in a block; the pass is the same.
public final class UNet implements ImageNetwork {
    private final UNetLayout layout;
    private final List<Integer> sampleSize;
    private final int encoderDim;
    private final UNetWeights weights;

    private UNet(UNetLayout layout, List<Integer> sampleSize, int encoderDim, WeightLoader loader) {
        this.layout = layout;
        this.sampleSize = sampleSize;
        this.encoderDim = encoderDim;
        this.weights = UNetWeights.load(layout, loader);
    }

    /// A UNet2DModel. With [WeightLoader#shapes] it has no memory: for counting parameters and measuring plans.
    public static UNet unet2d(ConfigFile config, WeightLoader loader) {
        UNet2DConfig parsed = UNet2DConfig.parse(config);
        return new UNet(parsed.layout(), parsed.sampleSize(), 0, loader);
    }

    /// A UNet2DConditionModel, likewise.
    public static UNet unet2dCondition(ConfigFile config, WeightLoader loader) {
        UNet2DConditionConfig parsed = UNet2DConditionConfig.parse(config);
        return new UNet(parsed.layout(), parsed.sampleSize(), parsed.encoderDim(), loader);
    }

    @Override
    public Labels classLabels() {
        return switch (layout.time().classKind()) {
            case NONE -> Labels.NONE;
            case TABLE -> Labels.IDS;
            case TIMESTEP -> Labels.NUMBERS;
            case IDENTITY, PROJECTION, SIMPLE_PROJECTION -> Labels.VECTORS;
        };
    }

    @Override
    public int inChannels() {
        return layout.inChannels();
    }

    @Override
    public int outChannels() {
        return layout.outChannels();
    }

    @Override
    public List<Integer> sampleSize() {
        return sampleSize;
    }

    @Override
    public int numClasses() {
        return classLabels() == Labels.IDS ? layout.time().classes() : 0;
    }

    /// A network that was trained to be guided has learnt its last class as none.
    @Override
    public int nullClass() {
        return numClasses() - 1;
    }

    @Override
    public int encoderDim() {
        return encoderDim;
    }

    @Override
    public Map<String, Tensor> weights() {
        return weights.all();
    }

    @Override
    public void forward(Layers l, Tensor prediction, Inputs in) {
        check(prediction, in);
        Tensor text = in.encoderHiddenStates();
        Tensor time = weights.time().forward(l, in);                                                 // [B, E]
        Tensor x = layout.centerInput() ? center(l, in.sample()) : in.sample();                      // [B, H, W, C]
        Skips skips = new Skips(l, layout, in.sample());
        Tensor h = skips.push(x.size(1), x.size(2));
        l.convInto(h, x, weights.convIn(), weights.convInBias(), Geometry.same(layout.convIn()), ActivationKind.NONE);
        for (UNetBlock block : weights.down()) {
            for (int i = 0; i < block.layers(); i++) {
                Tensor from = h;
                h = skips.push(from.size(1), from.size(2));
                block.layerInto(l, h, i, from, time, text);                                          // [B, H, W, C]
            }
            if (block.resamples()) {
                Tensor from = h;
                h = skips.push(block.halved(from.size(1)), block.halved(from.size(2)));
                block.halveInto(l, h, from, time);                                                   // [B, H/2, W/2, C]
            }
        }
        middle(l, skips.besideTop(), h, time, text);
        Tensor last = null;
        for (UNetBlock block : weights.up()) {
            for (int i = 0; i < block.layers(); i++) {
                Tensor joined = skips.pop();                                                         // [B, H, W, C + S]
                boolean ends = i == block.layers() - 1;
                last = !ends || !block.resamples() && !skips.isEmpty() ? skips.besideTop()
                        : l.allocate(x.dtype(), x.size(0), joined.size(1), joined.size(2),
                                block.layout().outChannels());
                block.layerInto(l, last, i, joined, time, text);                                     // [B, H, W, C]
            }
            if (block.resamples()) {
                block.doubleInto(l, skips.besideTop(), last, time);                                  // [B, 2H, 2W, C]
            }
        }
        h = l.groupNorm(last, weights.normOut(), weights.normOutBias(), layout.resnet().groups(), layout.resnet().eps(),
                ActivationKind.SILU);                                                                // [B, H, W, C]
        l.convInto(prediction, h, weights.convOut(), weights.convOutBias(), Geometry.same(layout.convOut()),
                ActivationKind.NONE);                                                                // [B, H, W, out]
    }

    /// `2 x - 1`, as `x (1 + 1) + (-1)`.
    private static Tensor center(Layers l, Tensor x) {
        Tensor scale = l.allocate(x.dtype(), x.size(0), x.size(3));
        Tensor shift = l.allocate(x.dtype(), x.size(0), x.size(3));
        l.op(stream -> Elementwise.fill(stream, scale, 1), scale);
        l.op(stream -> Elementwise.fill(stream, shift, -1), shift);
        return l.modulate(x, scale, shift);
    }

    /// y, x [B, H, W, C]
    private void middle(Layers l, Tensor y, Tensor x, Tensor time, @Nullable Tensor text) {
        UNetBlock mid = weights.mid();
        if (mid == null) {
            l.copyInto(y, x);
            return;
        }
        Tensor h = x;
        for (int i = 0; i < mid.layers(); i++) {
            Tensor out = i == mid.layers() - 1 ? y : l.allocate(x.dtype(), x.shape());
            mid.layerInto(l, out, i, h, time, text);                                                 // [B, H, W, C]
            h = out;
        }
    }

    private void check(Tensor prediction, Inputs in) {
        Tensor x = in.sample();
        if (x.rank() != 4 || x.size(3) != layout.inChannels()) {
            throw GatunException.invalid("sample is %s, expected [B, H, W, %d] (in_channels)",
                    Arrays.toString(x.shape()), layout.inChannels());
        }
        long[] wanted = {x.size(0), x.size(1), x.size(2), layout.outChannels()};
        if (!Arrays.equals(prediction.shape(), wanted)) {
            throw GatunException.invalid("prediction is %s, expected %s", Arrays.toString(prediction.shape()),
                    Arrays.toString(wanted));
        }
        Tensor text = in.encoderHiddenStates();
        if (encoderDim > 0 && text != null && (text.rank() != 3 || text.size(0) != x.size(0)
                || text.size(2) != encoderDim)) {
            throw GatunException.invalid("encoder_hidden_states are %s, expected [%d, S, %d] (cross_attention_dim)",
                    Arrays.toString(text.shape()), x.size(0), encoderDim);
        }
        long factor = 1L << layout.down().stream().filter(b -> b.resampler() != UNetLayout.Resampler.NONE).count();
        if (encoderDim == 0 && (x.size(1) % factor != 0 || x.size(2) % factor != 0)) {
            throw GatunException.invalid("sample is %d x %d, expected multiples of %d: a UNet2DModel has no other"
                    + " sizes", x.size(1), x.size(2), factor);
        }
    }

    /// What comes down waits here for what goes up: each skip connection is written into the right part of the tensor
    /// that the up path reads, whose left part the up path writes. Nothing is concatenated; only the results of
    /// convolutions, which the libraries want dense, are copied there ([Layers#convInto]).
    private static final class Skips {
        private final Layers layers;
        private final Tensor sample;
        private final List<long[]> channels;
        private final List<Tensor> joined = new ArrayList<>();
        private int pushed;

        Skips(Layers layers, UNetLayout layout, Tensor sample) {
            this.layers = layers;
            this.sample = sample;
            this.channels = channels(layout);
        }

        /// For each skip connection, first to last: channels that come from below, and its own.
        private static List<long[]> channels(UNetLayout layout) {
            List<Integer> own = new ArrayList<>(List.of(layout.down().getFirst().inChannels().getFirst()));
            for (BlockLayout block : layout.down()) {
                int number = block.layers() + (block.resampler() == UNetLayout.Resampler.NONE ? 0 : 1);
                for (int i = 0; i < number; i++) {
                    own.add(block.outChannels());
                }
            }
            List<Integer> together = layout.up().stream().flatMap(b -> b.inChannels().stream()).toList().reversed();
            List<long[]> both = new ArrayList<>();
            for (int i = 0; i < own.size(); i++) {
                both.add(new long[] {together.get(i) - own.get(i), own.get(i)});
            }
            return both;
        }

        /// The next skip connection, to be written: [B, height, width, C].
        Tensor push(long height, long width) {
            long[] c = channels.get(pushed++);
            Tensor both = layers.allocate(sample.dtype(), sample.size(0), height, width, c[0] + c[1]);
            joined.add(both);
            return both.slice(3, c[0], c[0] + c[1]);
        }

        /// The place of what comes from below, beside the last skip connection.
        Tensor besideTop() {
            return joined.getLast().slice(3, 0, channels.get(joined.size() - 1)[0]);
        }

        /// What came from below and the last skip connection, together.
        Tensor pop() {
            return joined.removeLast();
        }

        boolean isEmpty() {
            return joined.isEmpty();
        }
    }
}
