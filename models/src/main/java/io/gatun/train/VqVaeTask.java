package io.gatun.train;

import io.gatun.io.SafetensorsWriter;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.vae.VqModel;
import io.gatun.models.vae.VqModelConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import io.gatun.train.Recipe.Reconstruction;
import io.gatun.train.data.ImageSet;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/// An autoencoder whose latents are rows of a codebook: [VqVaeLoss]. Its pixels are -1 to 1.
final class VqVaeTask extends ImageTask {
    private static final List<String> FIELDS = List.of("_diffusers_version", "act_fn", "block_out_channels",
            "down_block_types", "force_upcast", "in_channels", "latent_channels", "layers_per_block",
            "lookup_from_codebook", "mid_block_add_attention", "norm_num_groups", "norm_type", "num_vq_embeddings",
            "out_channels", "sample_size", "scaling_factor", "up_block_types", "vq_embed_dim");
    private static final int SAMPLES = 8;

    private final ConfigFile config;
    private final VqVaeLoss loss;
    private final VqModel judged;
    private final Tensor images;
    private final Tensor terms;
    private final Tensor codes;
    private final long[] uses;

    private VqVaeTask(ImageTraining training, ConfigFile config, double commitment) {
        super(training);
        VqModelConfig parsed = VqModelConfig.parse(config);
        this.config = config;
        this.loss = new VqVaeLoss(commitment);
        this.judged = new VqModel(parsed, training.evaluated());
        this.images = newImages(DType.F32);
        this.terms = trainer().input(DType.F32, 2);
        long low = training.data().train().size() / parsed.shape().reduction();
        this.codes = trainer().input(DType.I32, batchSize() * low * low);
        this.uses = new long[parsed.numCodes()];
        VqModel model = new VqModel(parsed, training.trained());
        trainer().loss(net -> {
            VqVaeLoss.Terms found = loss.of(net, model, images);
            return net.add(found.reconstruction(), net.add(found.codebook(), found.commitment()));
        });
    }

    static VqVaeTask open(Request request, Recipe.VqVae recipe) {
        ConfigFile config = ImageTraining.config(recipe.model(), Map.entry("_class_name", "VQModel"), FIELDS);
        if (recipe.reconstruction() != Reconstruction.MSE) {
            throw GatunException.invalid("reconstruction is bce, expected mse: a VQModel's pixels are -1 to"
                    + " 1");
        }
        VqModelConfig parsed = VqModelConfig.parse(config);
        int size = config.requireInt("sample_size", 1, 1 << 14);
        if (size % parsed.shape().reduction() != 0) {
            throw config.wrong("sample_size", "a multiple of %d".formatted(parsed.shape().reduction()));
        }
        if (parsed.shape().inChannels() != parsed.shape().outChannels()) {
            throw config.wrong("out_channels", "in_channels, %d".formatted(parsed.shape().inChannels()));
        }
        ImageData data = ImageData.open(request.data(), size, parsed.shape().inChannels());
        ImageTraining.Networks networks = new ImageTraining.Networks(loader -> new VqModel(parsed, loader),
                ImageTraining.directory(recipe.model()), Initialiser::torch);
        return ImageTraining.open(request, data, networks,
                training -> new VqVaeTask(training, config, recipe.commitmentCost()));
    }

    @Override
    void upload(ImageSet set, int[] chosen, long first) {
        uploadRows(images, set.batch(chosen, -1, 1), chosen.length);
    }

    @Override
    void recordEvaluation(Layers net, int rows) {
        VqVaeLoss.Terms found = loss.of(net, judged, images.slice(0, 0, rows));
        net.copyInto(terms.slice(0, 0, 1), found.reconstruction());
        net.copyInto(terms.slice(0, 1, 2), net.add(found.codebook(), found.commitment()));
        net.copyInto(codes.slice(0, 0, found.ids().size(0)), found.ids());
    }

    @Override
    Map<String, Double> evaluated(int[] chosen) {
        float[] found = terms.toFloats(stream());
        long perImage = codes.size(0) / batchSize();
        for (long id : codes.slice(0, 0, chosen.length * perImage).toLongs(stream())) {
            if (id >= 0) {
                uses[(int) id]++;
            }
        }
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("eval_loss", (double) found[0] + found[1]);
        figures.put("eval_reconstruction", (double) found[0]);
        return figures;
    }

    /// `eval_code_perplexity` is e to the entropy of the codes: 1 where all latents are one code, at best their number.
    @Override
    public Map<String, Double> evaluate() {
        Arrays.fill(uses, 0);
        Map<String, Double> figures = super.evaluate();
        double all = Arrays.stream(uses).sum();
        double entropy = 0;
        for (long n : uses) {
            entropy -= n == 0 ? 0 : n / all * Math.log(n / all);
        }
        figures.put("eval_code_perplexity", Math.exp(entropy));
        return figures;
    }

    /// What becomes of the pictures that were uploaded.
    private Drawing drawing() {
        return new Drawing(net -> loss.of(net, judged, images.slice(0, 0, samples())).decoded());
    }

    private int samples() {
        return Math.min(SAMPLES, Math.min(batchSize(), training().data().heldOut().count()));
    }

    @Override
    void prepareSamples() {
        drawing().close();
    }

    /// Held-out pictures, each beside what becomes of it.
    @Override
    public void sample(Path folder, String name) {
        ImageSet set = training().data().heldOut();
        int count = samples();
        int[] chosen = IntStream.range(0, count).toArray();
        float[] originals = set.batch(chosen, -1, 1);
        uploadRows(images, originals, count);
        float[] made;
        try (Drawing drawing = drawing()) {
            made = drawing.pixels();
        }
        int length = originals.length / count;
        float[] pairs = new float[2 * originals.length];
        for (int i = 0; i < count; i++) {
            System.arraycopy(originals, i * length, pairs, 2 * i * length, length);
            System.arraycopy(made, i * length, pairs, (2 * i + 1) * length, length);
        }
        SampleGrid.write(folder.resolve(name + ".png"), pairs, 2 * count, set.size(), set.size(), -1, 1);
    }

    @Override
    public void writeModel(Path directory) throws IOException {
        Files.writeString(directory.resolve("config.json"), config.json() + "\n");
        SafetensorsWriter.write(directory.resolve("diffusion_pytorch_model.safetensors"), weights(),
                Map.of("format", "pt"));
    }
}
