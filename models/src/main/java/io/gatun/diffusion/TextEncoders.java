package io.gatun.diffusion;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.clip.ClipText;
import io.gatun.models.clip.ClipTextConfig;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.text.ClipTokenizer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// Prompts to what a conditional network reads: the one text encoder of Stable Diffusion 1 and 2, or the two of XL,
/// whose states lie side by side. Radford et al. 2021 (arXiv 2103.00020); Podell et al. 2023 (arXiv 2307.01952).
final class TextEncoders implements AutoCloseable {
    private final Device device;
    private final Stream stream;
    private final boolean isXl;
    private final List<Encoder> encoders = new ArrayList<>();

    /// @param tokenizer null where the network has shapes alone
    /// @param weights   releases them
    private record Encoder(ClipText text, @Nullable ClipTokenizer tokenizer, Runnable weights) {}

    /// @param states [N, S, K]
    /// @param pooled [N, P], XL's; null for the others
    record Encoded(Tensor states, @Nullable Tensor pooled) {}

    private TextEncoders(Device device, Stream stream, boolean isXl) {
        this.device = device;
        this.stream = stream;
        this.isXl = isXl;
    }

    /// @param shapes null: load the weights
    static TextEncoders open(Device device, Stream stream, PipelineFiles files, ImageModel.Options options,
            @Nullable Shapes shapes) {
        TextEncoders all = new TextEncoders(device, stream, files.className().startsWith("StableDiffusionXL"));
        try {
            for (String suffix : all.isXl ? List.of("", "_2") : List.of("")) {
                if (!suffix.isEmpty() || files.has("text_encoder") || !all.isXl) { // XL's refiner has the second alone
                    Path folder = files.folder("text_encoder" + suffix);
                    all.encoders.add(shapes == null
                            ? all.load(folder, files.folder("tokenizer" + suffix), options)
                            : new Encoder(new ClipText(ClipTextConfig.parse(
                                    ConfigFile.read(folder.resolve("config.json"))), WeightLoader.shapes(shapes,
                                            ComponentLoader.dtype(folder, options.dtype()))), null, () -> {}));
                }
            }
            if (all.isXl && shapes == null && !all.encoders.getLast().text.isProjected()) {
                throw GatunException.invalid("%s has no text_projection.weight: expected a"
                        + " CLIPTextModelWithProjection, whose pooled text %s is told", files.folder("text_encoder_2"),
                        files.className());
            }
            return all;
        } catch (RuntimeException e) {
            try {
                all.close();
            } catch (RuntimeException second) {
                e.addSuppressed(second);
            }
            throw e;
        }
    }

    private Encoder load(Path folder, Path tokenizer, ImageModel.Options options) {
        Component<ClipText> component = ComponentLoader.load(device, stream, folder, options.dtype(), ClipText.FAMILY,
                options.progress());
        try {
            return new Encoder(component.network(), ClipTokenizer.open(tokenizer,
                    component.network().config().contextLength()), component::close);
        } catch (RuntimeException e) {
            component.close();
            throw e;
        }
    }

    /// Tokens of a text, S.
    long length() {
        Encoder first = encoders.getFirst();
        return first.tokenizer == null ? first.text.config().contextLength() : first.tokenizer.length();
    }

    /// Width of the states, K.
    long width() {
        return encoders.stream().mapToLong(e -> e.text.config().hiddenSize()).sum();
    }

    /// Width of the pooled text, P; 0 where there is none.
    long pooledWidth() {
        return isXl ? encoders.getLast().text.config().projectionDim() : 0;
    }

    /// The weights of all encoders.
    List<Tensor> weights() {
        return encoders.stream().flatMap(e -> e.text.weights().values().stream()).toList();
    }

    /// Encodes texts into tensors of the arena, in the network's dtype.
    Encoded encode(DeviceArena arena, List<String> texts, DType dtype) {
        Tensor states = arena.allocate(dtype, texts.size(), length(), width());
        Tensor pooled = isXl ? arena.allocate(dtype, texts.size(), pooledWidth()) : null;
        long from = 0;
        for (Encoder encoder : encoders) {
            long to = from + encoder.text.config().hiddenSize();
            Tensor part = states.slice(2, from, to);
            ClipTokenizer tokenizer = Objects.requireNonNull(encoder.tokenizer);
            int[][] ids = texts.stream().map(tokenizer::encode).toArray(int[][]::new);
            try (DeviceArena inputs = device.newArena("prompts")) {
                ClipText.Texts uploaded = encoder.text.upload(stream, inputs, ids);
                try (Plan plan = Plan.of(device, pass(encoder.text, uploaded, part,
                        encoder == encoders.getLast() ? pooled : null))) {
                    plan.run();
                }
            }
            from = to;
        }
        return new Encoded(states, pooled);
    }

    private Consumer<Plan.Recorder> pass(ClipText text, ClipText.Texts texts, Tensor into, @Nullable Tensor pooled) {
        return recorder -> {
            Layers net = new Layers(device, stream, recorder);
            ClipText.States states = text.forward(net, texts);
            Tensor chosen = isXl ? states.hidden().get(text.config().layers() - 1) : states.last();
            net.op(s -> Elementwise.cast(s, into, chosen), into, chosen);
            if (pooled != null) {
                Tensor projected = Objects.requireNonNull(states.projected(), "checked when it was opened");
                net.op(s -> Elementwise.cast(s, pooled, projected), pooled, projected);
            }
        };
    }

    /// Closes everything, whatever fails; the first failure is thrown, with the others suppressed.
    @Override
    public void close() {
        List<Runnable> releases = new ArrayList<>();
        for (Encoder encoder : encoders) {
            if (encoder.tokenizer != null) {
                releases.add(encoder.tokenizer::close);
            }
            releases.add(encoder.weights);
        }
        encoders.clear();
        closeAll(releases);
    }

    private static void closeAll(List<Runnable> releases) {
        RuntimeException first = null;
        for (Runnable release : releases) {
            try {
                release.run();
            } catch (RuntimeException e) {
                if (first == null) {
                    first = e;
                } else {
                    first.addSuppressed(e);
                }
            }
        }
        if (first != null) {
            throw first;
        }
    }
}
