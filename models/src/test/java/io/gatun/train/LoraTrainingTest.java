package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.Layers.LowRank;
import io.gatun.models.ModelLoader;
import io.gatun.models.TestDevice;
import io.gatun.models.lora.LoraAdapter;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Does an adapter that PEFT wrote train on here as it did with PEFT, while the base model stays as it is?
@Tag("device")
class LoraTrainingTest {
    private static final GoldenCase GOLDEN = new GoldenCase("train/lora_gpt2");

    @Test
    void train_adapterOfPeft() {
        LoraAdapter adapter = LoraAdapter.read(GOLDEN.directory().resolve("adapter_init"));
        long[] ids = GOLDEN.longs("ids");
        long[] size = GOLDEN.shape("ids");
        float[] losses = GOLDEN.floats("losses");
        int batch = (int) (size[1] * size[2]);
        List<Parameters.Shape> shapes = new ArrayList<>();
        Map<String, float[]> values = new HashMap<>();
        adapter.modules().forEach((module, m) -> {
            List<String> names = LoraAdapter.tensorNames(module);
            shapes.add(new Parameters.Shape(names.get(0), new long[] {m.rank(), m.in()}, true));
            shapes.add(new Parameters.Shape(names.get(1), new long[] {m.out(), m.rank()}, true));
            values.put(names.get(0), m.down());
            values.put(names.get(1), m.up());
        });
        try (Device device = Device.open(TestDevice.NAME); Stream loading = device.newStream();
                ModelLoader.Result base = ModelLoader.load(device, loading, GOLDEN.model(), DType.F32, count -> {});
                Trainer trainer = new Trainer(device, shapes, new UpdateRule.Adam(0.9f, 0.999f, 1e-8f, 0, true),
                        new float[] {0.01f}, Trainer.Options.defaults())) {
            loading.synchronize();
            Map<String, float[]> before = new HashMap<>();
            base.network().weights().forEach((name, weight) -> before.put(name, weight.toFloats(loading)));
            trainer.set(values);
            Map<Tensor, LowRank> adapters = new IdentityHashMap<>();
            for (LoraAdapter.Target target : LoraAdapter.targets(adapter.config(), base.network().weights())) {
                List<String> names = LoraAdapter.tensorNames(target.module());
                adapters.put(target.weight(), new LowRank(trainer.parameters().get(names.get(0)).value(),
                        trainer.parameters().get(names.get(1)).value(), adapter.config().scaleOf(target.module())));
            }
            LanguageLoss loss = new LanguageLoss(trainer, (int) size[1], (int) size[2]);
            trainer.loss(net -> {
                net.adapt(adapters);
                return loss.of(net, base.network());
            });
            for (int step = 0; step < losses.length; step++) {
                loss.setBatch(trainer.stream(), Arrays.copyOfRange(ids, step * batch, (step + 1) * batch));
                trainer.step();
                assertEquals(losses[step], trainer.result().loss(), Math.abs(losses[step]) * 1e-4,
                        "loss of step " + step);
            }
            compareWithFinal(trainer);
            base.network().weights().forEach((name, weight) ->
                    assertArrayEquals(before.get(name), weight.toFloats(loading), name));
        }
    }

    private static void compareWithFinal(Trainer trainer) {
        JsonNode hints = GoldenCase.json(GOLDEN.directory().resolve("case.json")).required("tolerance")
                .required("weights_hint");
        try (SafetensorsFile expected = SafetensorsFile.open(
                GOLDEN.directory().resolve("adapter_final/adapter_model.safetensors"))) {
            assertEquals(expected.names().size(), trainer.parameters().all().size());
            for (Parameters.Parameter p : trainer.parameters().all()) {
                String hint = p.name().replace(".weight", ".default.weight");
                assertArrayEquals(expected.floats(p.name()), p.master().toFloats(trainer.stream()),
                        (float) hints.required(hint).asDouble(), p.name());
            }
        }
    }
}
