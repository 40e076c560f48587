package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.gatun.generate.LanguageModel.Options;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.Forward;
import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Do small trained models write the text that transformers and llama2.c write? The models are other people's work and
/// not in this repository: see `-Dgatun.assets`.
@Tag("device")
class TrainedModelsTest {
    private static Path asset(String name) {
        Path folder = Path.of(System.getProperty("gatun.assets", "../../shared/assets")).resolve(name);
        Assumptions.assumeTrue(Files.isDirectory(folder), "skipped: no " + folder + " (-Dgatun.assets)");
        return folder;
    }

    private static LanguageModel load(Path folder) {
        return LanguageModel.load(folder.resolve("model"),
                Options.defaults().withDevice(TestDevice.NAME).withDtype(DType.F32).withThreads(2).withMaxBatch(3));
    }

    @ParameterizedTest
    @CsvSource({"tinystories-656k, 100", "stories260k, 80"})
    void generate_recordedPrompts(String name, int maxNewTokens) {
        Path folder = asset(name);
        try (LanguageModel model = load(folder);
                SafetensorsFile io = SafetensorsFile.open(folder.resolve("io.safetensors"))) {
            int p = 0;
            for (JsonNode recorded : GoldenCase.json(folder.resolve("case.json")).get("prompts")) {
                String prompt = recorded.get("prompt").asText();
                int[] promptIds = ids(recorded.get("prompt_ids"));
                assertArrayEquals(promptIds, model.tokenizer().encode(prompt), prompt);
                GenerationResult result = model.generate(prompt,
                        GenerationConfig.builder().maxNewTokens(maxNewTokens).build());
                assertArrayEquals(ids(recorded.get("generated_ids")), result.ids(), prompt);
                assertEquals(recorded.get("text").asText(), prompt + result.text());
                boolean ended = result.ids().length < maxNewTokens;
                assertEquals(ended ? FinishReason.STOP : FinishReason.LENGTH, result.finishReason());
                float[] logits = Forward.logits(folder.resolve("model"), promptIds);
                float[] expected = io.floats("p" + p++ + ".prompt_last_logits");
                for (int i = 0; i < expected.length; i++) {
                    assertEquals(expected[i], logits[logits.length - expected.length + i], 1e-4);
                }
            }
            assertEquals(3, p);
        }
    }

    private static int[] ids(JsonNode list) {
        return StreamSupport.stream(list.spliterator(), false).mapToInt(JsonNode::asInt).toArray();
    }

    /// The 464 bytes that llama2.c publishes for this model: 200 tokens after the start token.
    @Test
    void generate_publishedText() throws IOException {
        Path folder = asset("stories260k");
        byte[] expected = Files.readAllBytes(asset("stories260k_llama2c").resolve("expected_greedy.txt"));
        GenerationConfig config = GenerationConfig.builder().maxNewTokens(200).build();
        try (LanguageModel model = load(folder)) {
            GenerationResult result = model.generate(new int[] {1}, config);
            assertEquals(464, expected.length);
            assertEquals(new String(expected, StandardCharsets.UTF_8), result.text());
            StringBuilder streamed = new StringBuilder();
            try (TokenStream stream = model.stream("", config)) {
                stream.forEach(token -> streamed.append(token.text()));
            }
            assertEquals(result.text(), streamed.toString());
            try (SafetensorsFile io = SafetensorsFile.open(folder.resolve("io.safetensors"))) {
                int[] published = Arrays.stream(io.longs("published_ids")).mapToInt(Math::toIntExact).toArray();
                assertArrayEquals(published, java.util.stream.IntStream.concat(java.util.stream.IntStream.of(1),
                        Arrays.stream(result.ids())).toArray());
            }
        }
    }

    /// In the dtype that the file is stored in, half precision, it still begins the same story.
    @Test
    void generate_storedDtype() {
        Path folder = asset("tinystories-656k");
        try (LanguageModel model = Small.load(folder.resolve("model"))) {
            assertEquals(DType.BF16, model.config().dtype());
            String text = model.generate("Once upon a time there was a ",
                    GenerationConfig.builder().maxNewTokens(5).build()).text();
            assertTrue(text.startsWith("little girl named"), text);
        }
    }
}
