package io.gatun.models;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.GenerationConfig;
import io.gatun.generate.GenerationResult;
import io.gatun.generate.LanguageModel;
import io.gatun.io.Checkpoint;
import io.gatun.models.lora.AdaptedModel;
import io.gatun.models.lora.LoraAdapter;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/// Are the matrices of a model that is loaded with [Quantization#FP8] what they should be, and does it still compute
/// nearly what it computed without?
@Tag("device")
class QuantizationTest {
    private static final int STEPS = 6;
    private static final double LARGEST = 448;
    /// Of the logits of the first prompt, root mean square: what PyTorch finds between bf16 and bf16 with the matrices
    /// and the rows that they multiply rounded to `float8_e4m3fn`. Random weights amplify rounding.
    private static final double DIFFERENCE_GPT2 = 0.105;
    private static final double DIFFERENCE_LLAMA = 0.255;
    /// Of a log-probability, between rows that are rounded and rows that are not.
    private static final double STEP_DIFFERENCE = 0.5;
    private static final double SMALLEST_SCALE = 1e-30 / LARGEST;

    static List<GoldenCase> cases() {
        return List.of(GoldenCase.GPT2, GoldenCase.LLAMA);
    }

    private static ModelLoader.Result load(Device device, Stream stream, Path directory, Quantization quantization) {
        return ModelLoader.load(device, stream, directory, DType.BF16, quantization, n -> {});
    }

    @ParameterizedTest
    @MethodSource("cases")
    void load_matricesAreNearestToThoseOfTheFile(GoldenCase golden) throws IOException {
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(1)); Stream stream = device.newStream();
                ModelLoader.Result model = load(device, stream, golden.model(), Quantization.FP8);
                Checkpoint file = Checkpoint.open(golden.model(), "model")) {
            Map<String, Tensor> weights = model.network().weights();
            int quantized = 0;
            long bytes = 0;
            for (String name : file.names()) {
                Tensor weight = weights.get(name);
                if (weight == null) {
                    continue; // a buffer
                }
                boolean isMatrix = name.contains(".c_") && !name.endsWith("bias") || name.contains("_proj.weight");
                assertEquals(isMatrix ? DType.F8_E4M3 : DType.BF16, weight.dtype(), name);
                bytes += weight.elements() * weight.dtype().bytes();
                if (isMatrix) {
                    boolean outIn = golden == GoldenCase.LLAMA;
                    Tensor scale = weights.get(name + "_scale");
                    assertNotNull(scale, name);
                    requireNearest(name, file.floats(name), outIn, weight, stream, scale.toFloats(stream));
                    bytes += scale.elements() * Float.BYTES;
                    quantized++;
                }
            }
            assertEquals(model.network().config().layers() * (golden == GoldenCase.LLAMA ? 7 : 4), quantized);
            assertEquals(bytes, model.weightBytes());
        }
    }

    /// Large models do not wait with all of their matrices: here each has a turn of its own.
    @Test
    void load_inTurns() {
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(1)); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test");
                Checkpoint file = Checkpoint.open(GoldenCase.GPT2.model(), "model");
                WeightQuantizer turns = new WeightQuantizer(file, arena, stream, 1);
                WeightQuantizer together = new WeightQuantizer(file, arena, stream)) {
            Map<String, Tensor> found = new LinkedHashMap<>();
            Map<String, Tensor> expected = new LinkedHashMap<>();
            for (String name : file.names()) {
                if (name.contains(".c_") && name.endsWith(".weight")) {
                    long[] shape = file.info(name).shape();
                    found.put(name, turns.load(name, WeightLayout.IN_OUT, shape));
                    expected.put(name, together.load(name, WeightLayout.IN_OUT, shape));
                }
            }
            assertEquals(together.finish(), turns.finish());
            expected.forEach((name, weight) -> {
                assertArrayEquals(weight.permute(1, 0).toFloats(stream), found.get(name).permute(1, 0).toFloats(stream),
                        name);
                assertArrayEquals(together.scalesByName().get(name + "_scale").toFloats(stream),
                        turns.scalesByName().get(name + "_scale").toFloats(stream), name);
            });
            assertTrue(expected.size() > 1, "no matrices");
        }
    }

    /// @param stored as the file has it: [F, C], or [C, F]
    private static void requireNearest(String name, float[] stored, boolean outIn, Tensor weight, Stream stream,
            float[] scale) {
        int f = scale.length;
        int c = stored.length / f;
        float[] codes = (outIn ? weight : weight.permute(1, 0)).toFloats(stream);                    // [F, C]
        for (int row = 0; row < f; row++) {
            double largest = 0;
            for (int i = 0; i < c; i++) {
                largest = Math.max(largest, Math.abs(stored[outIn ? row * c + i : i * f + row]));
            }
            double expected = Math.max(largest / LARGEST, SMALLEST_SCALE);
            assertEquals(expected, scale[row], expected * 1e-6, name + " scale " + row);
            for (int i = 0; i < c; i++) {
                float value = stored[outIn ? row * c + i : i * f + row];
                double error = Math.abs(value - (double) codes[row * c + i] * scale[row]);
                // half a step of 3 bits of mantissa, or of the smallest steps of e4m3
                double allowed = Math.max(Math.abs(value) / 16, scale[row] * 0x1p-10) * (1 + 1e-5);
                assertTrue(error <= allowed, "%s [%d, %d]: %g became %g * %g".formatted(name, row, i, value,
                        codes[row * c + i], scale[row]));
            }
        }
    }

    /// Of whole sequences, whose rows are quantised too.
    @ParameterizedTest
    @MethodSource("cases")
    void forward_isNearlyThatWithoutQuantization(GoldenCase golden) {
        int[] ids = golden.prompts()[0];
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2)); Stream stream = device.newStream();
                ModelLoader.Result plain = load(device, stream, golden.model(), Quantization.NONE);
                ModelLoader.Result quantized = load(device, stream, golden.model(), Quantization.FP8)) {
            float[] expected = FullForward.run(device, stream, plain.network(), ids).get("logits");
            float[] found = FullForward.run(device, stream, quantized.network(), ids).get("logits");
            double size = rootMeanSquare(expected, new float[expected.length]);
            double difference = rootMeanSquare(expected, found) / size;
            double theirs = golden == GoldenCase.GPT2 ? DIFFERENCE_GPT2 : DIFFERENCE_LLAMA;
            assertEquals(theirs, difference, theirs / 3, golden + ": relative difference");
        }
    }

    private static double rootMeanSquare(float[] a, float[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
        }
        return Math.sqrt(sum / a.length);
    }

    @ParameterizedTest
    @MethodSource("cases")
    void generate_sameIdsAloneAndTogether_asWholeSequences(GoldenCase golden) {
        requireSteps(golden.model(), List.of(golden.prompts()));
    }

    /// Norm and product of such a step are one kernel on devices with graphs.
    @ParameterizedTest
    @EnumSource
    void generate_wide(LanguageFamily family, @TempDir Path folder) throws IOException {
        requireSteps(WideModel.write(folder.resolve("wide"), family, WideModel.weights(family)),
                List.of(new int[] {3, 1, 4}, new int[] {1, 5}, new int[] {9}));
    }

    private static void requireSteps(Path directory, List<int[]> prompts) {
        GenerationConfig config = GenerationConfig.builder().maxNewTokens(STEPS).ignoreEos(true).logprobs(1).build();
        LanguageModel.Options options = LanguageModel.Options.defaults().withDevice(TestDevice.NAME).withThreads(1)
                .withDtype(DType.BF16).withMaxBatch(4).withQuantization(Quantization.FP8);
        try (LanguageModel model = LanguageModel.load(directory, options);
                Device device = Device.open(TestDevice.NAME, new Device.Options(1)); Stream stream = device.newStream();
                ModelLoader.Result loaded = load(device, stream, directory, Quantization.FP8)) {
            List<GenerationResult> together = model.generateAll(prompts, config);
            for (int i = 0; i < prompts.size(); i++) {
                int[] prompt = prompts.get(i);
                GenerationResult alone = model.generate(prompt, config);
                assertArrayEquals(alone.ids(), together.get(i).ids(), directory + " prompt " + i);
                assertEquals(STEPS, alone.ids().length);
                int[] whole = Arrays.copyOf(prompt, prompt.length + STEPS);
                System.arraycopy(alone.ids(), 0, whole, prompt.length, STEPS);
                float[] logits = FullForward.run(device, stream, loaded.network(), whole).get("logits");
                int v = logits.length / whole.length;
                for (int step = 0; step < STEPS; step++) {
                    int from = (prompt.length + step - 1) * v;
                    float[] row = Arrays.copyOfRange(logits, from, from + v);
                    assertEquals(logProbability(row, alone.ids()[step]), alone.logprobs().get(step).logprob(),
                            STEP_DIFFERENCE, directory + " prompt " + i + " step " + step);
                }
            }
        }
    }

    private static double logProbability(float[] logits, int id) {
        double sum = 0;
        for (float logit : logits) {
            sum += Math.exp(logit);
        }
        return logits[id] - Math.log(sum);
    }

    /// What is not finite makes its channel's scale NaN, which the error names.
    @Test
    void generate_namesTheScaleOfWhatIsNotFinite(@TempDir Path folder) {
        ModelDirectory bad = ModelDirectory.of(GoldenCase.GPT2);
        String name = "transformer.h.2.mlp.c_fc.weight";
        bad.weight(name).values()[1] = Float.NaN;
        bad.write(folder);
        try (LanguageModel model = LanguageModel.load(folder, LanguageModel.Options.defaults()
                .withDevice(TestDevice.NAME).withThreads(1).withDtype(DType.BF16).withMaxBatch(1)
                .withQuantization(Quantization.FP8))) {
            GatunException e = assertThrows(GatunException.class, () -> model.generate(GoldenCase.GPT2.prompts()[0],
                    GenerationConfig.greedy()));
            assertTrue(e.getMessage().contains("weight '" + name + "_scale'")
                    && e.getMessage().contains("1 values that are NaN or infinite"), e.getMessage());
        }
    }

    /// An adapter adds to matrices in e4m3 what it adds to others.
    @Test
    void generate_withAdapter() {
        GoldenCase golden = new GoldenCase("train/lora_gpt2");
        int[] ids = Arrays.stream(golden.longs("ids")).limit(8).mapToInt(Math::toIntExact).toArray();
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2)); Stream stream = device.newStream()) {
            float[][] changes = new float[2][];
            for (Quantization quantization : Quantization.values()) {
                try (ModelLoader.Result model = load(device, stream, golden.model(), quantization)) {
                    AdaptedModel adapted = new AdaptedModel(model.network(), model.arena(), stream, Map.of("final",
                            LoraAdapter.read(golden.directory().resolve("adapter_final"))));
                    float[] without = FullForward.run(device, stream, adapted, ids).get("logits");
                    adapted.select(stream, "final");
                    float[] with = FullForward.run(device, stream, adapted, ids).get("logits");
                    for (int i = 0; i < with.length; i++) {
                        with[i] -= without[i];
                    }
                    changes[quantization.ordinal()] = with;
                }
            }
            double size = rootMeanSquare(changes[0], new float[changes[0].length]);
            double difference = rootMeanSquare(changes[0], changes[1]) / size;
            assertTrue(difference < 0.3, "relative difference of what the adapter changes: " + difference);
        }
    }

    @Test
    void load_refusesFloats() {
        try (Device device = Device.open(TestDevice.NAME); Stream stream = device.newStream()) {
            for (DType dtype : Arrays.asList(DType.F32, null)) {
                GatunException e = assertThrows(GatunException.class, () -> ModelLoader.load(device, stream,
                        GoldenCase.GPT2.model(), dtype, Quantization.FP8, n -> {}));
                assertEquals("quantization fp8 computes in bf16 or f16, %s f32: pass dtype bf16".formatted(
                        dtype == null ? "the checkpoint is stored in" : "dtype is"), e.getMessage());
            }
        }
    }
}
