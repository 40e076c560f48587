package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.gatun.generate.GenerationConfig.EarlyStopping;
import io.gatun.models.GoldenCase;
import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Does beam search find the sequences and scores of transformers? `beams.json` was written by transformers 5.18:
///
/// ```python
/// model = GPT2LMHeadModel.from_pretrained(golden, dtype=torch.float64)     # LlamaForCausalLM
/// out = model.generate(torch.tensor([prompt]), num_beams=num_beams, max_new_tokens=14, do_sample=False,
///     length_penalty=length_penalty, early_stopping=early_stopping, eos_token_id=eos or None, pad_token_id=0,
///     num_return_sequences=min(num_beams, 3), return_dict_in_generate=True, output_scores=True)
/// # per sequence: out.sequences without the prompt and the padding, out.sequences_scores
/// ```
///
/// The end tokens are ids that a free search runs into, so that about half of the cases end early.
@Tag("device")
class BeamSearchTest {
    private static final double SCORE_TOLERANCE = 1e-4;

    @ParameterizedTest
    @ValueSource(strings = {"gpt2/gpt2_tiny", "llama/llama_tiny_llama3rope"})
    void generate_likeTransformers(String name) {
        List<String> failures = new ArrayList<>();
        int cases = 0;
        try (LanguageModel model = Small.load(new GoldenCase(name).model(), 4)) {
            for (JsonNode recorded : GoldenCase.json(GoldenCase.resource("beams/beams.json"))) {
                if (recorded.get("model").asText().equals(name)) {
                    cases++;
                    check(model, recorded, failures);
                }
            }
        }
        assertEquals(81, cases);
        assertTrue(failures.isEmpty(), () -> failures.size() + " wrong: " + String.join("\n", failures));
    }

    private static void check(LanguageModel model, JsonNode recorded, List<String> failures) {
        JsonNode sequences = recorded.get("sequences");
        GenerationConfig config = GenerationConfig.builder().numBeams(recorded.get("num_beams").asInt())
                .numReturnSequences(sequences.size()).maxNewTokens(recorded.get("max_new_tokens").asInt())
                .lengthPenalty((float) recorded.get("length_penalty").asDouble())
                .earlyStopping(switch (recorded.get("early_stopping").asText()) {
                    case "true" -> EarlyStopping.FIRST;
                    case "false" -> EarlyStopping.HEURISTIC;
                    default -> EarlyStopping.NEVER;
                }).eosIds(ids(recorded.get("eos"))).build();
        int[] prompt = ids(recorded.get("prompt")).stream().mapToInt(Integer::intValue).toArray();
        List<GenerationResult> results = model.generateAll(List.of(prompt), config);
        for (int i = 0; i < sequences.size(); i++) {
            List<Integer> expected = ids(sequences.get(i).get("ids"));
            double score = sequences.get(i).get("score").asDouble();
            List<Integer> actual = java.util.Arrays.stream(results.get(i).ids()).boxed().toList();
            if (!expected.equals(actual) || Math.abs(score - results.get(i).score()) > SCORE_TOLERANCE) {
                failures.add("%s rank %d: %s %s".formatted(recorded, i, actual, results.get(i).score()));
                return;
            }
        }
    }

    private static List<Integer> ids(JsonNode list) {
        return StreamSupport.stream(list.spliterator(), false).map(JsonNode::asInt).toList();
    }

    /// Pages are shared between beams: across several pages, and again and again, nothing is lost or leaked.
    @Test
    void generate_longBeamsRepeat() {
        GenerationConfig config = GenerationConfig.builder().numBeams(4).numReturnSequences(4).maxNewTokens(150)
                .ignoreEos(true).build();
        try (LanguageModel model = Small.load(GoldenCase.LLAMA.model(), 4)) {
            int[] prompt = GoldenCase.LLAMA.prompts()[0];
            List<GenerationResult> first = model.generateAll(List.of(prompt), config);
            long memory = model.counters().allocatedBytes();
            for (int round = 0; round < 3; round++) {
                List<GenerationResult> again = model.generateAll(List.of(prompt), config);
                for (int i = 0; i < 4; i++) {
                    assertArrayEquals(first.get(i).ids(), again.get(i).ids());
                    assertEquals(first.get(i).score(), again.get(i).score());
                    assertEquals(150, again.get(i).ids().length);
                    assertTrue(i == 0 || again.get(i).score() <= again.get(i - 1).score());
                }
            }
            assertEquals(memory, model.counters().allocatedBytes());
        }
    }

    /// Several prompts in one call: the best of each, in order.
    @Test
    void generate_severalPrompts() {
        GenerationConfig config = GenerationConfig.builder().numBeams(3).numReturnSequences(2).maxNewTokens(6)
                .ignoreEos(true).build();
        try (LanguageModel model = Small.load(GoldenCase.GPT2.model())) {
            List<int[]> prompts = List.of(new int[] {1, 7, 42}, GoldenCase.GPT2.prompts()[0]);
            List<GenerationResult> together = model.generateAll(prompts, config);
            assertEquals(4, together.size());
            for (int p = 0; p < 2; p++) {
                List<GenerationResult> alone = model.generateAll(List.of(prompts.get(p)), config);
                for (int i = 0; i < 2; i++) {
                    assertArrayEquals(alone.get(i).ids(), together.get(2 * p + i).ids());
                    assertEquals(prompts.get(p).length, together.get(2 * p + i).promptTokens());
                }
            }
        }
    }

    @Test
    void generate_moreBeamsThanBatch() {
        try (LanguageModel model = Small.load(GoldenCase.GPT2.model(), 2)) {
            GatunException e = assertThrows(GatunException.class, () -> model.generate(new int[] {1},
                    GenerationConfig.builder().numBeams(3).build()));
            assertTrue(e.getMessage().contains("beams is 3, expected at most 2"), e.getMessage());
            assertEquals(1, model.generate(new int[] {1},
                    GenerationConfig.builder().numBeams(2).maxNewTokens(1).build()).ids().length);
        }
    }
}
