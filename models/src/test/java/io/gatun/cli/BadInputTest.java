package io.gatun.cli;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Is every bad input answered by one clear line that names the problem, and by the right exit code?
@Tag("device")
class BadInputTest {
    private static final String GPT2 = GoldenCase.GPT2.model().toString();
    private static final String TOKENIZER = """
            {"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": null, "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}}""";

    @TempDir
    private Path directory;

    private final ModelDirectory gpt2 = ModelDirectory.of(GoldenCase.GPT2);

    private static Captured generate(Object model, String... more) {
        List<String> args = new ArrayList<>(List.of("generate", "--device", TestDevice.NAME, "--threads", "1",
                "--ids-only", "--max-new-tokens", "3", "--greedy", "--model", model.toString()));
        args.addAll(more.length > 0 ? Arrays.asList(more) : List.of("--ids", "1,2,3"));
        return Captured.run(args.toArray(String[]::new));
    }

    private Path copyOfModel() throws IOException {
        for (String name : List.of("config.json", "model.safetensors")) {
            Files.copy(GoldenCase.GPT2.model().resolve(name), directory.resolve(name));
        }
        return directory;
    }

    @Test
    void goodInput() {
        Captured.run("generate", "--device", TestDevice.NAME, "--ids-only", "--greedy", "--ignore-eos",
                "--max-new-tokens", "24", "--model", GPT2, "--ids", ids(GoldenCase.GPT2.prompts()[0]))
                .assertPrinted(ids(GoldenCase.GPT2.ids("greedy_tokens")[0]) + "\n");
    }

    private static String ids(int[] ids) {
        return Arrays.toString(ids).replaceAll("[\\[\\] ]", "");
    }

    @Test
    void model_missing() {
        Captured.run("generate", "--prompt", "x").assertFailed(2, "the demo model shakespeare is not there",
                "io.gatun:gatun-demo-models", "--model DIR");
        Captured.run("forward", "--inputs", "x", "--out", "y").assertFailed(2, "--model is missing",
                "Hugging Face model directory");
    }

    @Test
    void model_noDirectory() {
        generate(directory.resolve("nowhere")).assertFailed(2, "no directory", "nowhere", "config.json");
    }

    @Test
    void model_isAdapter() {
        ModelDirectory.writeText(directory.resolve("adapter_config.json"), "{}");
        generate(directory).assertFailed(2, "holds a LoRA adapter, not a model", "--adapter DIR");
    }

    @Test
    void model_drawsImages() {
        ModelDirectory.writeText(directory.resolve("model_index.json"), "{}");
        Captured.run("generate", "--model", directory.toString()).assertFailed(2, "is a pipeline of diffusers",
                "expected a model of type gpt2 or llama", "gatun sample");
    }

    @Test
    void model_isFile() {
        generate(GoldenCase.GPT2.model().resolve("config.json"))
                .assertFailed(2, "config.json is a file, not a directory:");
    }

    @Test
    void model_emptyDirectory() {
        generate(directory).assertFailed(2, "neither model_index.json nor config.json",
                "expected a Hugging Face model directory");
    }

    @ParameterizedTest
    @ValueSource(strings = {"model_type", "n_embd", "n_head", "n_layer", "n_positions", "vocab_size",
        "layer_norm_epsilon", "activation_function"})
    void config_missingField(String field) {
        gpt2.config().remove(field);
        generate(gpt2.write(directory)).assertFailed(2, "config.json", "'" + field + "' is missing");
    }

    @ParameterizedTest
    @CsvSource({"activation_function, softplus, gelu_new", "model_type, mamba, gpt2 or llama",
        "n_head, '\"four\"', an integer", "n_head, 5, a divisor of n_embd (64)", "vocab_size, 0, an integer from 1",
        "n_layer, 18446744073709551620, an integer from 1", "vocab_size, 257.5, an integer", "n_embd, true, an integer",
        "layer_norm_epsilon, '\"small\"', a number"})
    void config_wrongValue(String field, String value, String expected) throws IOException {
        String json = gpt2.config().toString().replaceAll("\"" + field + "\":[^,}]*",
                "\"" + field + "\":" + (value.matches("[a-z]{5,}") ? '"' + value + '"' : value));
        gpt2.write(directory);
        ModelDirectory.writeText(directory.resolve("config.json"), json);
        generate(directory).assertFailed(2, "config.json", "'" + field + "'", value.replace("\"", ""), expected);
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "{", "[]", "nothing", "{\"a\": }"})
    void config_notJson(String text) {
        gpt2.write(directory);
        ModelDirectory.writeText(directory.resolve("config.json"), text);
        generate(directory).assertFailed(2, "config.json", "JSON");
    }

    @Test
    void config_quantized() {
        ObjectNode quantization = gpt2.config().putObject("quantization_config");
        quantization.put("quant_method", "gptq").put("bits", 4);
        generate(gpt2.write(directory)).assertFailed(2, "quantization_config", "gptq", "not supported");
    }

    @Test
    void generationConfig_damaged() {
        gpt2.write(directory);
        ModelDirectory.writeText(directory.resolve("generation_config.json"), "{\"eos_token_id\": \"end\"}");
        generate(directory).assertFailed(2, "generation_config.json", "eos_token_id", "an integer or a list");
    }

    @Test
    void weights_wrongShape() {
        gpt2.with("transformer.h.1.ln_1.weight", new float[63], 63);
        generate(gpt2.write(directory)).assertFailed(2, "transformer.h.1.ln_1.weight", "[63]", "[64]");
    }

    /// A square matrix would hide this, so does the right number of elements.
    @Test
    void weights_transposed() {
        ModelDirectory.Weight weight = gpt2.weight("transformer.h.0.mlp.c_fc.weight");
        gpt2.with("transformer.h.0.mlp.c_fc.weight", weight.values(), 256, 64);
        generate(gpt2.write(directory)).assertFailed(2, "transformer.h.0.mlp.c_fc.weight", "[256, 64]", "[64, 256]");
    }

    @Test
    void weights_missing() {
        gpt2.without("transformer.h.2.mlp.c_proj.bias");
        generate(gpt2.write(directory)).assertFailed(2, "missing 1 weights", "h.2.mlp.c_proj.bias");
    }

    @Test
    void weights_unexpected() {
        gpt2.with("transformer.h.4.ln_1.bias", new float[64], 64).with("adapter", new float[1], 1);
        generate(gpt2.write(directory)).assertFailed(2, "unexpected 2 weights", "adapter", "transformer.h.4.ln_1.bias");
    }

    @Test
    void weights_truncated() throws IOException {
        Path file = copyOfModel().resolve("model.safetensors");
        try (RandomAccessFile weights = new RandomAccessFile(file.toFile(), "rw")) {
            weights.setLength(weights.length() - 1000);
        }
        generate(directory).assertFailed(2, "model.safetensors", "bytes");
    }

    @ParameterizedTest
    @ValueSource(longs = {1L << 62, -1, Long.MIN_VALUE, 100_000_001, 1L << 20})
    void weights_headerLength(long bytes) throws IOException {
        copyOfModel();
        Files.write(directory.resolve("model.safetensors"),
                ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN).putLong(bytes).put((byte) '{').array());
        generate(directory).assertFailed(2, "model.safetensors", "header");
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 7, 8})
    void weights_almostEmptyFile(int bytes) throws IOException {
        copyOfModel();
        Files.write(directory.resolve("model.safetensors"), new byte[bytes]);
        generate(directory).assertFailed(2, "model.safetensors");
    }

    @ParameterizedTest
    @ValueSource(strings = {"pytorch_model.bin", "model.ckpt"})
    void weights_pickle(String name) throws IOException {
        Files.move(copyOfModel().resolve("model.safetensors"), directory.resolve(name));
        generate(directory).assertFailed(2, name, "does not open pickle files", "safetensors");
    }

    @Test
    void weights_shardMissing() throws IOException {
        gpt2.writeShards(directory, 3);
        Files.delete(directory.resolve("model-00002-of-00003.safetensors"));
        generate(directory).assertFailed(2, "model-00002-of-00003.safetensors");
    }

    @Test
    void weights_shardOutsideFolder() throws IOException {
        gpt2.writeShards(directory, 2);
        Path index = directory.resolve("model.safetensors.index.json");
        Files.writeString(index, Files.readString(index).replace("model-00002", "../model-00002"));
        generate(directory).assertFailed(2, "../model-00002-of-00002.safetensors", "plain name");
    }

    @Test
    void weights_nan() {
        gpt2.weight("transformer.h.2.mlp.c_fc.weight").values()[7] = Float.NaN;
        gpt2.weight("transformer.h.3.mlp.c_fc.weight").values()[7] = Float.NaN;
        Path model = gpt2.write(directory);
        for (String[] mode : new String[][] {{}, {"--beams", "2"}, {"--no-repeat-ngram-size", "2"}}) {
            List<String> args = new ArrayList<>(List.of("--ids", "1,2,3"));
            Collections.addAll(args, mode);
            generate(model, args.toArray(String[]::new)).assertFailed(1, "generation failed",
                    "weight 'transformer.h.2.mlp.c_fc.weight'", "1 values that are NaN or infinite");
        }
    }

    @Test
    void weights_overflow() {
        for (String name : List.of("weight", "bias")) {
            float[] values = gpt2.weight("transformer.h.1.mlp.c_proj." + name).values();
            for (int i = 0; i < values.length; i++) {
                values[i] *= 1e38f;
            }
        }
        generate(gpt2.write(directory)).assertFailed(1, "generation failed", "all weights are finite",
                "layer 1 is the first whose output is not finite");
    }

    @Test
    void ids_outOfRange() {
        generate(GPT2, "--ids", "1,257").assertFailed(2, "id 257", "0 to 256");
        generate(GPT2, "--ids", "-1").assertFailed(2, "id -1", "0 to 256");
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "1,,2", "one", "1;2", "99999999999", "1.5"})
    void ids_notIntegers(String ids) {
        generate(GPT2, "--ids", ids).assertFailed(2, "--ids is '" + ids + "'", "integers separated by commas");
    }

    @Test
    void prompt_longerThanContext() {
        generate(GPT2, "--ids", String.join(",", Collections.nCopies(65, "1"))).assertFailed(2, "65 tokens",
                "context is 64: shorten the prompt, or choose a model with a longer context");
    }

    /// Nothing of it is printed before the model has taken it.
    @Test
    void prompt_refusedOrFailing() {
        gpt2.weight("transformer.h.2.mlp.c_fc.weight").values()[7] = Float.NaN;
        ModelDirectory.writeText(gpt2.write(directory).resolve("tokenizer.json"), TOKENIZER);
        String[] args = {"generate", "--device", TestDevice.NAME, "--model", directory.toString(), "--prompt", "a"};
        Captured.run(args).assertFailed(1, "gatun: generation failed");
        args[args.length - 1] = "a ".repeat(65);
        Captured.run(args).assertFailed(2, "gatun: the prompt has 65 tokens");
    }

    @Test
    void prompt_missing() {
        Captured.run("generate", "--model", GPT2).assertFailed(2, "the prompt is missing", "--prompt TEXT",
                "--prompt-file FILE", "--ids 1,2,3");
    }

    @Test
    void prompt_empty() throws IOException {
        ModelDirectory.writeText(copyOfModel().resolve("tokenizer.json"), TOKENIZER);
        Path file = Files.writeString(directory.resolve("empty.txt"), "");
        generate(directory, "--prompt", "").assertFailed(2, "the prompt is empty", "--prompt TEXT", "--ids 1,2,3");
        generate(directory, "--prompt-file", file.toString()).assertFailed(2, "the prompt is empty", "--prompt TEXT");
        generate(directory, "--prompt", " ").assertFailed(2, "the tokenizer knows nothing of the prompt");
    }

    @Test
    void prompt_withoutTokenizer() {
        generate(GPT2, "--prompt", "Once").assertFailed(2, "no tokenizer.json", "--ids");
        Captured.run("generate", "--device", TestDevice.NAME, "--model", GPT2, "--ids", "1")
                .assertFailed(2, "no tokenizer.json", "--ids-only");
    }

    @ParameterizedTest
    @CsvSource({"--top-k, -1, top-k is -1", "--top-p, 1.5, top-p is 1.5", "--top-p, 0, top-p is 0.0",
        "--top-p, NaN, top-p is NaN", "--temperature, -0.5, temperature is -0.5",
        "--temperature, NaN, temperature is NaN", "--temperature, Infinity, temperature is Infinity",
        "--min-p, 2, min-p is 2.0", "--typical-p, 0, typical-p is 0.0",
        "--repetition-penalty, 0, repetition-penalty is 0.0", "--presence-penalty, NaN, presence-penalty is NaN",
        "--max-new-tokens, 0, max-new-tokens is 0", "--min-new-tokens, -1, min-new-tokens is -1",
        "--no-repeat-ngram-size, -2, no-repeat-ngram-size is -2", "--beams, 0, beams is 0",
        "--threads, -1, --threads is -1", "--dtype, f64, --dtype is f64", "--device, tpu, device 'tpu'",
        "--top-k, many, is not an integer", "--seed, many, is not an integer",
        "--quantization, int4, expected none or fp8 but was 'int4'", "--stop, '', stop is"})
    void option_outOfRange(String option, String value, String expected) {
        List<String> args = new ArrayList<>(List.of("generate", "--model", GPT2, "--ids", "1", "--ids-only"));
        Collections.addAll(args, option, value);
        Captured.run(args.toArray(String[]::new)).assertFailed(2, expected);
    }

    @Test
    void option_unknown() {
        generate(GPT2, "--ids", "1", "--frobnicate").assertFailed(2, "gatun generate has no option '--frobnicate'",
                "gatun generate --help");
        generate(GPT2, "--promt", "x").assertFailed(2, "no option '--promt'", "expected perhaps --prompt");
        generate(GPT2, "more").assertFailed(2, "gatun generate has no argument 'more': gatun generate --help");
        Captured.run().assertFailed(2, "a command is missing", "generate");
    }

    @Test
    void command_unknown() {
        Captured.run("genrate", "--prompt", "x").assertFailed(2, "gatun has no command 'genrate'",
                "expected perhaps generate");
        Captured.run("frobnicate").assertFailed(2, "gatun has no command 'frobnicate'", "gatun --help");
    }

    @Test
    void lengthPenalty_withoutBeams() {
        generate(GPT2, "--ids", "1", "--length-penalty", "2").assertFailed(2, "--length-penalty without --beams");
    }

    @Test
    void option_exclusive() {
        generate(GPT2, "--ids", "1", "--prompt", "x").assertFailed(2, "--ids", "--prompt", "mutually exclusive");
    }

    @ParameterizedTest
    @CsvSource({"--temperature, 0.5", "--top-k, 3", "--top-p, 0.9", "--min-p, 0.1", "--typical-p, 0.5"})
    void option_ofDrawsWhereNothingIsDrawn(String option, String value) {
        generate(GPT2, "--ids", "1", option, value).assertFailed(2, "both --greedy and " + option, "one of them");
        Captured.run("generate", "--model", GPT2, "--ids", "1", "--ids-only", "--beams", "2", option, value)
                .assertFailed(2, "both --beams and " + option, "one of them");
    }

    @Test
    void device_cudaWithoutDriver() {
        Assumptions.assumeFalse(Files.exists(Path.of("/usr/lib/x86_64-linux-gnu/libcuda.so.1"))
                || Files.exists(Path.of("/usr/lib64/libcuda.so.1")), "this machine has the driver");
        Assumptions.assumeTrue(TestDevice.isCpu(), "the stand-ins need no driver");
        for (String device : List.of("cuda", "cuda:1")) {
            Captured.run("generate", "--model", GPT2, "--ids", "1", "--ids-only", "--device", device)
                    .assertFailed(2, "device '" + device + "' is not available", "libcuda.so.1", "R580", "searched",
                            "/usr/local/cuda/lib64", "--device cpu");
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "{", "{\"model\": {}}", "{\"version\": \"1.0\", \"model\": {\"type\": \"Nothing\"}}"})
    void tokenizer_damaged(String text) throws IOException {
        ModelDirectory.writeText(copyOfModel().resolve("tokenizer.json"), text);
        generate(directory, "--prompt", "x").assertFailed(2, "tokenizer.json");
    }

    @Test
    void promptFile_notUtf8() throws IOException {
        Path file = Files.write(directory.resolve("prompt.txt"), new byte[] {'a', (byte) 0xc3, 'b'});
        generate(GPT2, "--prompt-file", file.toString()).assertFailed(2, "--prompt-file", "prompt.txt",
                "is not valid UTF-8");
        Captured.run(new byte[] {(byte) 0xff}, "generate", "--model", GPT2, "--prompt-file", "-")
                .assertFailed(2, "--prompt-file -", "is not valid UTF-8");
    }

    @Test
    void promptFile_missing() {
        generate(GPT2, "--prompt-file", directory.resolve("none.txt").toString()).assertFailed(2, "--prompt-file",
                "none.txt");
    }

    @Test
    void forward_inputs() {
        Path out = directory.resolve("out.safetensors");
        Captured.run("forward", "--model", GPT2, "--out", out.toString()).assertFailed(2, "--inputs");
        Captured.run("forward", "--model", GPT2, "--inputs", directory.resolve("none").toString(), "--out",
                out.toString()).assertFailed(2, "none", "no such file");
        Captured.run("forward", "--model", GPT2, "--inputs", GPT2 + "/model.safetensors", "--out", out.toString())
                .assertFailed(2, "has no tensor 'ids'");
    }
}
