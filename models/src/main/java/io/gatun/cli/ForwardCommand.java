package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.FullForward;
import io.gatun.models.ModelConfig;
import io.gatun.models.ModelLoader;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `gatun forward`: a model's raw function on tensors in files.
@Command(name = "forward", mixinStandardHelpOptions = true,
        description = "Runs the model on recorded inputs: ids [B, T] to logits [B, T, V] and hidden.* [B, T, C].")
final class ForwardCommand implements Runnable {
    @Mixin
    private ModelOptions options;

    @Option(names = "--inputs", required = true, paramLabel = "FILE",
            description = "safetensors with ids (or input_ids)")
    private Path inputs;

    @Option(names = "--out", required = true, paramLabel = "FILE", description = "safetensors to write")
    private Path out;

    ForwardCommand() {}

    @Override
    public void run() {
        long[] shape;
        long[] ids;
        try (SafetensorsFile file = SafetensorsFile.open(inputs)) {
            String name = file.names().contains("ids") ? "ids" : "input_ids";
            if (!file.names().contains(name)) {
                throw GatunException.invalid("%s has no tensor 'ids' or 'input_ids'; it has %s", inputs, file.names());
            }
            shape = file.info(name).shape();
            ids = file.longs(name);
        }
        if (shape.length != 1 && shape.length != 2 || ids.length == 0) {
            throw GatunException.invalid("%s: ids have shape %s, expected [B, T]", inputs, Arrays.toString(shape));
        }
        int batch = shape.length == 1 ? 1 : (int) shape[0];
        int length = ids.length / batch;
        try (Device device = Device.open(options.device(), new Device.Options(options.threads()));
                Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, options.model(), options.dtype(),
                        n -> {})) {
            ModelConfig config = model.network().config();
            Map<String, float[]> all = new LinkedHashMap<>();
            for (int b = 0; b < batch; b++) {
                int[] row = toIds(ids, b * length, length, config.vocabSize());
                int at = b;
                FullForward.run(device, stream, model.network(), row).forEach((name, values) -> {
                    float[] joined = all.computeIfAbsent(name, n -> new float[Math.multiplyExact(values.length,
                            batch)]);
                    System.arraycopy(values, 0, joined, at * values.length, values.length);
                });
            }
            write(all, batch, length);
        }
    }

    private static int[] toIds(long[] ids, int from, int length, int vocabSize) {
        int[] row = new int[length];
        for (int i = 0; i < length; i++) {
            long id = ids[from + i];
            if (id < 0 || id >= vocabSize) {
                throw GatunException.invalid("ids: id %d, expected 0 to %d (vocab_size %d)", id, vocabSize - 1,
                        vocabSize);
            }
            row[i] = (int) id;
        }
        return row;
    }

    private void write(Map<String, float[]> values, int batch, int length) {
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        values.forEach((name, data) -> tensors.put(name,
                TensorSource.of(data, batch, length, data.length / ((long) batch * length))));
        SafetensorsWriter.write(out, tensors, Map.of());
    }
}
