package io.gatun.train;

import io.gatun.io.SafetensorsWriter;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.classifier.ImageClassifier;
import io.gatun.models.classifier.ImageClassifierConfig;
import io.gatun.ops.Sampling;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import io.gatun.train.data.ImageSet;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// Classes of pictures: cross-entropy. The network sees pixels from 0 to 1.
final class ClassifierTask extends ImageTask {
    private static final List<String> FIELDS = List.of("channels", "hidden_size", "num_labels", "image_channels",
            "image_size");

    private final String json;
    private final float smoothing;
    private final ImageClassifier network;
    private final ImageClassifier judged;
    private final Tensor images;
    private final Tensor targets;
    private final Tensor loss;
    private final Tensor found;

    private ClassifierTask(ImageTraining training, ConfigFile config, double smoothing) {
        super(training);
        ImageClassifierConfig parsed = ImageClassifierConfig.parse(config);
        this.json = config.json();
        this.smoothing = (float) smoothing;
        this.network = new ImageClassifier(parsed, training.trained());
        this.judged = new ImageClassifier(parsed, training.evaluated());
        this.images = newImages(DType.F32);
        this.targets = trainer().input(DType.I32, batchSize());
        this.loss = trainer().input(DType.F32, 1);
        this.found = trainer().input(DType.I32, batchSize());
        DType dtype = training.settings().dtype();
        trainer().loss(net -> net.crossEntropy(network.forward(net, net.cast(images, dtype)).logits(), targets,
                this.smoothing));
    }

    static ClassifierTask open(Request request, Recipe.Classifier recipe) {
        ConfigFile sized = ImageTraining.config(recipe.model(), Map.entry("model_type",
                ImageClassifierConfig.MODEL_TYPE), FIELDS).withDefaults(Map.of("image_channels", 1));
        ImageData data = ImageData.open(request.data(), sized.requireInt("image_size", 1, 1 << 16),
                sized.requireInt("image_channels", 1, 3));
        ConfigFile config = sized.withDefaults(Map.of("num_labels", Math.max(2, data.train().classes().size())));
        ImageClassifierConfig parsed = ImageClassifierConfig.parse(config);
        data.requireClasses(parsed.classes(), "num_labels");
        ImageTraining.Networks networks = new ImageTraining.Networks(loader -> new ImageClassifier(parsed, loader),
                ImageTraining.directory(recipe.model()), Initialiser::torch);
        return ImageTraining.open(request, data, networks,
                training -> new ClassifierTask(training, config, recipe.labelSmoothing()));
    }

    @Override
    void upload(ImageSet set, int[] chosen, long first) {
        uploadRows(images, set.batch(chosen, 0, 1), chosen.length);
        targets.slice(0, 0, chosen.length).copyFrom(stream(), set.batchLabels(chosen));
    }

    @Override
    void recordEvaluation(Layers net, int rows) {
        Tensor pixels = net.cast(images.slice(0, 0, rows), training().evaluatedDtype());
        Tensor logits = judged.forward(net, pixels).logits();                                   // [rows, K]
        net.copyInto(loss, net.crossEntropy(logits, targets.slice(0, 0, rows), 0));
        Tensor ids = found.slice(0, 0, rows);
        net.op(stream -> Sampling.argmax(stream, ids, logits), ids, logits);
    }

    @Override
    Map<String, Double> evaluated(int[] chosen) {
        long[] ids = found.slice(0, 0, chosen.length).toLongs(stream());
        int right = 0;
        for (int i = 0; i < ids.length; i++) {
            right += ids[i] == training().data().heldOut().label(chosen[i]) ? 1 : 0;
        }
        Map<String, Double> figures = new LinkedHashMap<>();
        figures.put("eval_loss", (double) loss.toFloats(stream())[0]);
        figures.put("eval_accuracy", (double) right / ids.length);
        return figures;
    }

    /// There are none.
    @Override
    void prepareSamples() {}

    @Override
    public void writeModel(Path directory) throws IOException {
        Files.writeString(directory.resolve("config.json"), json + "\n");
        SafetensorsWriter.write(directory.resolve("model.safetensors"), weights(), Map.of("format", "pt"));
    }
}
