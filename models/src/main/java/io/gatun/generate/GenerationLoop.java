package io.gatun.generate;

import io.gatun.models.CausalModel;
import io.gatun.models.KvCache;
import io.gatun.ops.Sampling;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// The one loop for all language models: prefill, then choose and step until every sequence has ended. Sequences that
/// end leave their slot to the last one, so a step never works for nothing. Runs on the engine thread.
final class GenerationLoop {
    private static final long NOT_YET = Long.MIN_VALUE;

    private final CausalModel model;
    private final KvCache cache;
    private final DecodeState state;
    private final Set<Integer> modelEos;
    private final Diagnosis diagnosis;
    private final int[] record;
    private int steps;
    /// Log-probabilities of each slot's model distribution where they were asked for.
    private double @Nullable [][] rowLogprobs;
    private long prefillEnd;

    GenerationLoop(CausalModel model, KvCache cache, DecodeState state, Set<Integer> modelEos, Diagnosis diagnosis) {
        this.model = model;
        this.cache = cache;
        this.state = state;
        this.modelEos = modelEos;
        this.diagnosis = diagnosis;
        this.record = new int[state.maxBatch()];
    }

    /// Carries a request out.
    Request.Outcome run(Request request) {
        long start = System.nanoTime();
        steps = 0;
        prefillEnd = NOT_YET;
        Set<Integer> eos = request.config.eosIds() == null ? modelEos : Set.copyOf(request.config.eosIds());
        List<Request.Finished> finished = new ArrayList<>();
        if (request.config.numBeams() > 1) {
            BeamSearch search = new BeamSearch(model, cache, state, eos, diagnosis, this::firstChosen);
            for (int i = 0; i < request.prompts.size(); i++) {
                finished.addAll(search.run(request, i));
            }
            steps = search.steps();
        } else {
            int size = request.prompts.size();
            for (int from = 0; from < size; from += state.maxBatch()) {
                finished.addAll(runGroup(request, from, Math.min(size, from + state.maxBatch()), eos));
            }
        }
        long end = System.nanoTime();
        if (prefillEnd == NOT_YET) {
            prefillEnd = end;
        }
        return new Request.Outcome(finished, new GenerationResult.Timings(Duration.ofNanos(start - request.submitted),
                Duration.ofNanos(prefillEnd - start), Duration.ofNanos(end - prefillEnd), steps));
    }

    /// The time of the first group or prompt is the request's.
    private void firstChosen() {
        if (prefillEnd == NOT_YET) {
            prefillEnd = System.nanoTime();
        }
    }

    private List<Request.Finished> runGroup(Request request, int from, int to, Set<Integer> eos) {
        List<Sequence> sequences = new ArrayList<>();
        try {
            for (int i = from; i < to; i++) {
                sequences.add(newSequence(request, i));
            }
            generate(request, sequences, eos);
        } finally {
            sequences.forEach(sequence -> cache.release(sequence.pages));
        }
        return sequences.stream().map(s -> new Request.Finished(s.generated(), s.finished, s.prompt.length, 0,
                List.copyOf(s.logprobs))).toList();
    }

    private Sequence newSequence(Request request, int i) {
        int[] prompt = request.prompts.get(i);
        // The last token is chosen but never run, so it needs no place in the context.
        int maxNew = Math.min(request.config.maxNewTokens(), model.config().contextLength() - prompt.length + 1);
        model.reserve(state.stream(), prompt.length + maxNew - 1);
        int[] pages = cache.allocate(KvCache.pagesFor(prompt.length + maxNew - 1));
        return new Sequence(numEqualBefore(request.prompts, i), prompt, request.sinks.get(i), pages, maxNew);
    }

    /// Keys the random draws: a prompt draws what it would draw alone, copies of it draw something else.
    private static int numEqualBefore(List<int[]> prompts, int i) {
        return (int) prompts.subList(0, i).stream().filter(prompt -> Arrays.equals(prompt, prompts.get(i))).count();
    }

    private void generate(Request request, List<Sequence> sequences, Set<Integer> eos) {
        GenerationConfig config = request.config;
        boolean onHost = LogitsProcessors.needsHost(config);
        rowLogprobs = null;
        Sequence[] slots = sequences.toArray(Sequence[]::new);
        int active = slots.length;
        for (int slot = 0; slot < active; slot++) {
            FinishReason reason = request.interrupted();
            if (reason != null) {
                sequences.forEach(s -> s.finished = reason);
                return;
            }
            StepEvent event = StepEvent.begin(true, 1, slots[slot].prompt.length);
            state.prefill(slot, slots[slot], config);
            StepEvent.commit(event);
            if (onHost) {
                state.setChooseOnly(slot, config.isGreedy());
            }
        }
        choose(slots, active, config, eos, onHost);
        firstChosen();
        while (true) {
            state.readRecord(record, active);
            active = deliver(slots, active, config, eos);
            FinishReason reason = request.interrupted();
            if (reason != null) {
                for (int slot = 0; slot < active; slot++) {
                    slots[slot].finished = reason;
                }
                return;
            }
            if (active == 0) {
                return;
            }
            StepEvent event = StepEvent.begin(false, active, active);
            if (onHost) {
                state.forward(active);
                choose(slots, active, config, eos, true);
            } else {
                state.step(active);
            }
            StepEvent.commit(event);
            steps++;
        }
    }

    /// Chooses the next id of each slot, from logits processed on the device or on the host.
    private void choose(Sequence[] slots, int active, GenerationConfig config, Set<Integer> eos, boolean onHost) {
        if (onHost) {
            float[] logits = state.downloadLogits(active);
            int v = model.config().vocabSize();
            rowLogprobs = config.logprobs() >= 0 ? new double[active][] : null;
            for (int slot = 0; slot < active; slot++) {
                float[] row = Arrays.copyOfRange(logits, slot * v, (slot + 1) * v);
                if (rowLogprobs != null) {
                    rowLogprobs[slot] = LogitsProcessors.logSoftmax(row);
                }
                LogitsProcessors.process(row, slots[slot], config, eos);
                System.arraycopy(row, 0, logits, slot * v, v);
            }
            state.uploadLogits(logits, active);
        }
        state.choose(active);
    }

    /// Gives the recorded ids to their sequences; returns how many go on. Sequences that end are replaced by the last.
    private int deliver(Sequence[] slots, int active, GenerationConfig config, Set<Integer> eos) {
        int remaining = active;
        for (int slot = active - 1; slot >= 0; slot--) {
            Sequence sequence = slots[slot];
            int id = record[slot];
            if (id < 0) {
                throw diagnosis.explain(Sampling.Fault.of(id), sequence.prompt);
            }
            sequence.append(id);
            TokenLogprob logprob = rowLogprobs == null ? null
                    : LogitsProcessors.logprob(rowLogprobs[slot], id, config.logprobs());
            if (logprob != null) {
                sequence.logprobs.add(logprob);
            }
            boolean stopped = sequence.sink.accept(id, logprob);
            if (stopped || eos.contains(id) && !config.ignoreEos()) {
                sequence.finished = FinishReason.STOP;
            } else if (sequence.numGenerated() == sequence.maxNewTokens) {
                sequence.finished = FinishReason.LENGTH;
            }
            if (sequence.finished != null) {
                remaining--;
                if (slot != remaining) {
                    state.move(remaining, slot);
                    slots[slot] = slots[remaining];
                }
            }
        }
        return remaining;
    }
}
