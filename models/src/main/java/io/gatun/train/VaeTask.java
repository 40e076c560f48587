package io.gatun.train;

import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.gan.VaeDecoder;
import io.gatun.models.gan.VaeDecoderConfig;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import io.gatun.train.Recipe.Reconstruction;
import io.gatun.train.data.ImageSet;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// A variational autoencoder: [VaeLoss].
final class VaeTask extends ImageTask {
    private static final List<String> FIELDS = List.of("decoder", "latent_size", "widths", "image_channels",
            "image_size", "activation");
    private static final int SAMPLES = 64;

    private final String json;
    private final Recipe.Vae recipe;
    private final VaeDecoderConfig config;
    private final VaeLoss.Networks judged;
    private final Tensor images;
    private final Tensor seeds;
    private final Tensor samples;
    private final Tensor terms;

    private VaeTask(ImageTraining training, Recipe.Vae recipe, ConfigFile file) {
        super(training);
        this.json = file.json();
        this.recipe = recipe;
        this.config = VaeDecoderConfig.parse(file);
        VaeLoss.Networks networks = VaeLoss.Networks.load(config, training.trained());
        this.judged = VaeLoss.Networks.load(config, training.evaluated());
        this.images = newImages(DType.F32);
        this.seeds = trainer().input(DType.I64, batchSize(), 2);
        this.samples = trainer().input(DType.I64, SAMPLES, 2);
        uploadSeeds(samples, -SAMPLES, SAMPLES);
        this.terms = trainer().input(DType.F32, 2);
        VaeLoss loss = new VaeLoss(recipe.reconstruction(), recipe.beta());
        DType dtype = training.settings().dtype();
        trainer().loss(net -> {
            VaeLoss.Terms both = loss.of(net, networks, images, normals(net, seeds, batchSize(), dtype));
            return net.add(both.reconstruction(), both.divergence());
        });
    }

    static VaeTask open(Request request, Recipe.Vae recipe) {
        ConfigFile config = ImageTraining.config(recipe.model(), Map.entry("model_type", VaeDecoderConfig.MODEL_TYPE),
                FIELDS);
        VaeDecoderConfig parsed = VaeDecoderConfig.parse(config);
        ImageData data = ImageData.open(request.data(), parsed.imageSize(), parsed.imageChannels());
        ImageTraining.Networks networks = new ImageTraining.Networks(loader -> VaeLoss.Networks.load(parsed, loader),
                ImageTraining.directory(recipe.model()), Initialiser::torch);
        return ImageTraining.open(request, data, networks, training -> new VaeTask(training, recipe, config));
    }

    /// The normals of the first rows of seeds. [rows, Z]
    private Tensor normals(Layers net, Tensor all, int rows, DType dtype) {
        Tensor eps = net.allocate(dtype, rows, config.latentSize());
        Tensor of = all.slice(0, 0, rows);
        net.op(stream -> Noise.normal(stream, eps.reshape(rows, 1, 1, config.latentSize()), of, 0), eps, of);
        return eps;
    }

    @Override
    void upload(ImageSet set, int[] chosen, long first) {
        uploadRows(images, set.batch(chosen, 0, 1), chosen.length);
        uploadSeeds(seeds, first, chosen.length);
    }

    @Override
    void recordEvaluation(Layers net, int rows) {
        VaeLoss.Terms found = new VaeLoss(recipe.reconstruction(), 1).of(net, judged, images.slice(0, 0, rows),
                normals(net, seeds, rows, training().evaluatedDtype()));
        net.copyInto(terms.slice(0, 0, 1), found.reconstruction());
        net.copyInto(terms.slice(0, 1, 2), found.divergence());
    }

    /// `eval_negative_elbo` is that of a Bernoulli likelihood, in nats.
    @Override
    Map<String, Double> evaluated(int[] chosen) {
        float[] found = terms.toFloats(stream());
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("eval_loss", found[0] + recipe.beta() * found[1]);
        figures.put("eval_reconstruction", (double) found[0]);
        figures.put("eval_kl", (double) found[1]);
        if (recipe.reconstruction() == Reconstruction.BCE) {
            figures.put("eval_negative_elbo", (double) found[0] + found[1]);
        }
        return figures;
    }

    /// Pictures of latents that are always the same.
    private Drawing drawing() {
        return new Drawing(net -> judged.decoder().forward(net, normals(net, samples, SAMPLES,
                training().evaluatedDtype())));
    }

    @Override
    void prepareSamples() {
        drawing().close();
    }

    @Override
    public void sample(Path folder, String name) {
        try (Drawing drawing = drawing()) {
            SampleGrid.write(folder.resolve(name + ".png"), drawing.pixels(), SAMPLES, config.imageSize(),
                    config.imageSize(), 0, 1);
        }
    }

    @Override
    public void writeModel(Path directory) throws IOException {
        Files.writeString(directory.resolve("config.json"), json + "\n");
        Map<String, TensorSource> tensors = weights();
        if (!recipe.exportEncoder()) {
            tensors.keySet().removeIf(VaeDecoder::isOfEncoder);
        }
        SafetensorsWriter.write(directory.resolve("model.safetensors"), tensors, Map.of("format", "pt"));
    }
}
