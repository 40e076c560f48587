package io.gatun.bench;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.runtime.GatunException;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// PyTorch in a process of its own, which does what we do on the same device when it is asked to:
/// `bench/peers/torch_peer.py`. One line of JSON is a request, one is its answer, so that the two can take turns.
final class TorchPeer implements AutoCloseable {
    private static final ObjectMapper JSON = new ObjectMapper();

    private final List<String> command;
    private final String description;
    private Process process;
    private BufferedWriter requests;
    private BufferedReader answers;

    /// What it can do with a case: nothing, or one or more variants, such as one per attention backend.
    ///
    /// @param skipped variants that it tried in vain, and why
    record Kernel(List<String> variants, Map<String, String> skipped) {}

    /// One generation by one variant.
    record Round(double prefillMillis, double stepMillis, int[] output) {}

    /// @param python  the interpreter, which has torch
    /// @param device  `cpu`, `cuda` or `cuda:N`
    /// @param threads CPU threads
    /// @throws GatunException when there is no such interpreter, or it has no torch
    TorchPeer(String python, String device, int threads) {
        Path script = Path.of(System.getProperty("gatun.home", "."), "bench/peers/torch_peer.py");
        command = List.of(python, script.toString(), device, Integer.toString(threads));
        process = start();
        requests = process.outputWriter(StandardCharsets.UTF_8);
        answers = process.inputReader(StandardCharsets.UTF_8);
        description = ask("hello", Map.of()).required("peer").asText();
    }

    private Process start() {
        try {
            return new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        } catch (IOException e) {
            throw GatunException.invalid("--peer %s: %s", command.getFirst(), e.getMessage());
        }
    }

    /// Starts anew, after a failure that may have left the device unusable to that process. What was opened is gone.
    void restart() {
        process.destroyForcibly();
        process = start();
        requests = process.outputWriter(StandardCharsets.UTF_8);
        answers = process.inputReader(StandardCharsets.UTF_8);
    }

    String description() {
        return description;
    }

    /// Bytes read and written per second by the library's own copy, for so many in all.
    double copyRate(long bytes) {
        return ask("copy", Map.of("bytes", bytes)).required("rate").asDouble();
    }

    /// Makes the operands of a case and whatever repeats need; replaces the case before.
    ///
    /// @param copies of the operands, taken in turns
    /// @param calls  in a repeat
    Kernel prepare(OpCase opCase, int copies, int calls) {
        Map<String, Object> request = new LinkedHashMap<>();
        request.put("op", opCase.op());
        request.put("dtype", opCase.dtype().toString());
        request.put("sizes", opCase.sizes());
        Map<String, Object> operands = new LinkedHashMap<>();
        for (Operand o : opCase.operands()) {
            operands.put(o.name(), Map.of("dtype", o.dtype().toString(), "shape", o.shape()));
        }
        request.put("operands", operands);
        request.put("copies", copies);
        request.put("calls", calls);
        JsonNode answer = ask("kernel", request);
        List<String> variants = new ArrayList<>();
        answer.required("variants").forEach(name -> variants.add(name.asText()));
        return new Kernel(variants, reasons(answer));
    }

    private static Map<String, String> reasons(JsonNode answer) {
        Map<String, String> skipped = new LinkedHashMap<>();
        answer.required("skipped").properties().forEach(e -> skipped.put(e.getKey(), e.getValue().asText()));
        return skipped;
    }

    /// Nanoseconds of a call, by variant.
    Map<String, Double> repeat() {
        Map<String, Double> nanos = new LinkedHashMap<>();
        ask("repeat", Map.of()).required("nanos").properties()
                .forEach(e -> nanos.put(e.getKey(), e.getValue().asDouble()));
        return nanos;
    }

    /// Frees what [#prepare] made.
    void forget() {
        ask("forget", Map.of());
    }

    /// Opens a checkpoint for generations of `newTokens` after `prompt`; returns its number.
    int open(Path checkpoint, String dtype, int[] prompt, int newTokens) {
        return ask("model", Map.of("path", checkpoint.toString(), "dtype", dtype, "prompt", prompt, "new", newTokens))
                .required("model").asInt();
    }

    /// A generation by each variant.
    Map<String, Round> round(int model) {
        Map<String, Round> rounds = new LinkedHashMap<>();
        ask("round", Map.of("model", model)).required("rounds").properties().forEach(e -> {
            JsonNode r = e.getValue();
            int[] output = new int[r.required("output").size()];
            for (int i = 0; i < output.length; i++) {
                output[i] = r.required("output").get(i).asInt();
            }
            rounds.put(e.getKey(), new Round(r.required("prefill_ms").asDouble(), r.required("step_ms").asDouble(),
                    output));
        });
        return rounds;
    }

    /// Opens a denoising network for passes over so many images; returns its number.
    int openImageNetwork(Path checkpoint, String dtype, int images) {
        return ask("image_network", Map.of("path", checkpoint.toString(), "dtype", dtype, "batch", images))
                .required("network").asInt();
    }

    /// Milliseconds of a pass, by variant.
    Map<String, Double> pass(int network) {
        Map<String, Double> millis = new LinkedHashMap<>();
        ask("image_pass", Map.of("network", network)).required("millis").properties()
                .forEach(e -> millis.put(e.getKey(), e.getValue().asDouble()));
        return millis;
    }

    /// A training step that the peer has made.
    ///
    /// @param skipped variants that it tried in vain, and why
    record Training(int number, Map<String, String> skipped) {}

    /// Has a training step made, and compiled; the peer is asked nothing else before [#awaitTraining].
    ///
    /// @param task   `gpt124m`, `gpt` or `unet`
    /// @param config file with the model's config.json
    /// @param length of sequences
    void beginTraining(String task, Path config, String dtype, int batch, int length) {
        send("training", Map.of("task", task, "config", config.toString(), "dtype", dtype, "batch", batch,
                "length", length));
    }

    Training awaitTraining() {
        JsonNode answer = receive("training");
        return new Training(answer.required("training").asInt(), reasons(answer));
    }

    /// Milliseconds of a training step, the mean of so many, by variant.
    Map<String, Double> trainingSteps(int training, int steps) {
        Map<String, Double> millis = new LinkedHashMap<>();
        ask("training_steps", Map.of("training", training, "steps", steps)).required("millis").properties()
                .forEach(e -> millis.put(e.getKey(), e.getValue().asDouble()));
        return millis;
    }

    private JsonNode ask(String what, Map<String, ?> with) {
        send(what, with);
        return receive(what);
    }

    private void send(String what, Map<String, ?> with) {
        Map<String, Object> request = new LinkedHashMap<>(with);
        request.put("do", what);
        try {
            requests.write(JSON.writeValueAsString(request));
            requests.newLine();
            requests.flush();
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, "the peer does not listen: " + e, e);
        }
    }

    private JsonNode receive(String what) {
        try {
            String line = answers.readLine();
            if (line == null) {
                throw new GatunException(GatunException.Status.INTERNAL,
                        "the peer ended at '%s'; its last words are above".formatted(what), null);
            }
            JsonNode answer = JSON.readTree(line);
            if (answer.has("error")) {
                throw new GatunException(GatunException.Status.INTERNAL,
                        "the peer failed at '%s': %s".formatted(what, answer.get("error").asText()), null);
            }
            return answer;
        } catch (JsonProcessingException e) {
            throw new GatunException(GatunException.Status.INTERNAL, "the peer's answer is no JSON: " + e, e);
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, "the peer does not answer: " + e, e);
        }
    }

    @Override
    public void close() {
        process.destroy();
    }
}
