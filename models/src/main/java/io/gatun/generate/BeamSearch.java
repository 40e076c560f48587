package io.gatun.generate;

import io.gatun.generate.GenerationConfig.EarlyStopping;
import io.gatun.models.CausalModel;
import io.gatun.models.KvCache;
import io.gatun.ops.Sampling;
import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Set;

/// Beam search as Hugging Face transformers does it: each step keeps the (n_eos + 1) x beams best continuations by the
/// sum of log-probabilities; those that end among the first `beams` become candidates with score sum / length^penalty,
/// the others go on. Beams share the pages of their common past; a page that is about to be written is copied first.
/// Decisions are made on the host: the logits of each step are copied, and counted.
final class BeamSearch {
    private final CausalModel model;
    private final KvCache cache;
    private final DecodeState state;
    private final Set<Integer> eos;
    private final Diagnosis diagnosis;
    private final Runnable firstChosen;
    private int steps;

    /// @param firstChosen told when the first tokens of a prompt were chosen
    BeamSearch(CausalModel model, KvCache cache, DecodeState state, Set<Integer> eos, Diagnosis diagnosis,
            Runnable firstChosen) {
        this.model = model;
        this.cache = cache;
        this.state = state;
        this.eos = eos;
        this.diagnosis = diagnosis;
        this.firstChosen = firstChosen;
    }

    int steps() {
        return steps;
    }

    /// An open hypothesis in a slot.
    private record Beam(int[] ids, double score, int[] pages) {}

    /// A continuation of a beam by one id.
    private record Candidate(int beam, int id, double score) {}

    private record Hypothesis(int[] ids, double score, FinishReason reason) {}

    /// The best sequences for one prompt of a request, best first.
    List<Request.Finished> run(Request request, int index) {
        GenerationConfig config = request.config;
        int[] prompt = request.prompts.get(index);
        int numBeams = config.numBeams();
        if (numBeams > state.maxBatch()) {
            throw GatunException.invalid("beams is %d, expected at most %d, the batch size the model was loaded with",
                    numBeams, state.maxBatch());
        }
        FinishReason interrupted = request.interrupted();
        if (interrupted != null) {
            return List.of(new Request.Finished(new int[0], interrupted, prompt.length, 0, List.of()));
        }
        int maxNew = Math.min(config.maxNewTokens(), model.config().contextLength() - prompt.length + 1);
        model.reserve(state.stream(), prompt.length + maxNew - 1);
        List<Beam> beams = new ArrayList<>();
        try {
            beams.add(new Beam(prompt, 0, cache.allocate(KvCache.pagesFor(prompt.length))));
            Sequence sequence = new Sequence(index, prompt, (id, logprob) -> false, beams.getFirst().pages(), maxNew);
            state.prefill(0, sequence, config);
            List<Hypothesis> done = search(request, beams, prompt.length, maxNew);
            return done.subList(0, Math.min(config.numReturnSequences(), done.size())).stream()
                    .map(h -> new Request.Finished(Arrays.copyOfRange(h.ids, prompt.length, h.ids.length), h.reason,
                            prompt.length, h.score, List.of())).toList();
        } finally {
            beams.forEach(beam -> cache.release(beam.pages));
        }
    }

    private List<Hypothesis> search(Request request, List<Beam> beams, int promptLength, int maxNew) {
        GenerationConfig config = request.config;
        int numBeams = config.numBeams();
        List<Hypothesis> done = new ArrayList<>();
        for (int generated = 0; generated < maxNew; generated++) {
            List<Candidate> best = best(beams, config, promptLength, maxNew, (eos.size() + 1) * numBeams);
            if (generated == 0) {
                firstChosen.run();
            }
            int length = generated + 1;
            List<Candidate> open = new ArrayList<>();
            for (int rank = 0; rank < best.size(); rank++) {
                Candidate c = best.get(rank);
                boolean ends = eos.contains(c.id) && !config.ignoreEos();
                if (ends && rank < numBeams) {
                    done.add(new Hypothesis(append(beams.get(c.beam).ids, c.id), normalised(c.score, length, config),
                            FinishReason.STOP));
                } else if (!ends && open.size() < numBeams) {
                    open.add(c);
                }
            }
            keepBest(done, numBeams);
            FinishReason interrupted = request.interrupted();
            boolean last = generated == maxNew - 1 || interrupted != null;
            if (last || open.isEmpty() || isSettled(done, open.getFirst().score, length, maxNew, config)) {
                for (Candidate c : open) {
                    if (last) {
                        done.add(new Hypothesis(append(beams.get(c.beam).ids, c.id),
                                normalised(c.score, length, config),
                                interrupted == null ? FinishReason.LENGTH : interrupted));
                    }
                }
                keepBest(done, numBeams);
                return done;
            }
            advance(beams, open);
        }
        return done;
    }

    /// The best continuations over all beams, best first; ties go to the lower beam, then the lower id.
    private List<Candidate> best(List<Beam> beams, GenerationConfig config, int promptLength, int maxNew, int count) {
        int v = model.config().vocabSize();
        float[] logits = state.downloadLogits(beams.size());
        List<Candidate> candidates = new ArrayList<>();
        for (int b = 0; b < beams.size(); b++) {
            int[] prompt = Arrays.copyOf(beams.get(b).ids, promptLength);
            Sequence past = new Sequence(b, prompt, (id, logprob) -> false, new int[0], maxNew);
            for (int i = promptLength; i < beams.get(b).ids.length; i++) {
                past.append(beams.get(b).ids[i]);
            }
            double[] logp = LogitsProcessors.logSoftmax(Arrays.copyOfRange(logits, b * v, (b + 1) * v));
            if (Double.isNaN(logp[0])) {
                throw diagnosis.explain(Sampling.Fault.NAN, prompt);
            }
            float[] row = new float[v];
            for (int i = 0; i < v; i++) {
                row[i] = (float) logp[i];
            }
            LogitsProcessors.process(row, past, config, eos);
            for (int id : largest(row, count)) {
                candidates.add(new Candidate(b, id, beams.get(b).score + row[id]));
            }
        }
        candidates.sort(Comparator.comparingDouble(Candidate::score).reversed().thenComparingInt(Candidate::beam)
                .thenComparingInt(Candidate::id));
        return candidates.subList(0, Math.min(count, candidates.size()));
    }

    private static int[] largest(float[] row, int count) {
        int[] ids = new int[Math.min(count, row.length)];
        int n = 0;
        for (int id = 0; id < row.length; id++) {
            if (n < ids.length || row[id] > row[ids[n - 1]]) {
                int at = n < ids.length ? n++ : n - 1;
                while (at > 0 && row[id] > row[ids[at - 1]]) {
                    ids[at] = ids[at - 1];
                    at--;
                }
                ids[at] = id;
            }
        }
        return Arrays.copyOf(ids, n);
    }

    private static double normalised(double score, int length, GenerationConfig config) {
        return score / Math.pow(length, config.lengthPenalty());
    }

    private static int[] append(int[] ids, int id) {
        int[] longer = Arrays.copyOf(ids, ids.length + 1);
        longer[ids.length] = id;
        return longer;
    }

    private static void keepBest(List<Hypothesis> done, int count) {
        done.sort(Comparator.comparingDouble(Hypothesis::score).reversed());
        while (done.size() > count) {
            done.removeLast();
        }
    }

    /// Whether no open beam can replace a candidate, by the chosen notion.
    private static boolean isSettled(List<Hypothesis> done, double bestOpen, int length, int maxNew,
            GenerationConfig config) {
        if (done.size() < config.numBeams()) {
            return false;
        }
        if (config.earlyStopping() == EarlyStopping.FIRST) {
            return true;
        }
        boolean longerIsBetter = config.earlyStopping() == EarlyStopping.NEVER && config.lengthPenalty() > 0;
        double attainable = normalised(bestOpen, longerIsBetter ? maxNew : length, config);
        return done.getLast().score >= attainable;
    }

    /// Makes the chosen continuations the open beams, and runs the next step.
    private void advance(List<Beam> beams, List<Candidate> open) {
        List<Beam> next = new ArrayList<>();
        for (Candidate c : open) {
            Beam parent = beams.get(c.beam);
            for (int page : parent.pages) {
                cache.share(page);
            }
            next.add(new Beam(append(parent.ids, c.id), c.score, parent.pages));
        }
        beams.forEach(beam -> cache.release(beam.pages));
        beams.clear();
        beams.addAll(next);
        for (int slot = 0; slot < beams.size(); slot++) {
            beams.set(slot, withWritablePage(beams.get(slot)));
            Beam beam = beams.get(slot);
            state.setPages(slot, beam.pages);
            state.setInput(slot, beam.ids[beam.ids.length - 1], beam.ids.length - 1);
        }
        state.forward(beams.size());
        steps++;
    }

    /// The beam with a page of its own for its last position.
    private Beam withWritablePage(Beam beam) {
        int[] pages = beam.pages;
        int last = KvCache.pagesFor(beam.ids.length) - 1;
        if (last == pages.length) {
            pages = append(pages, cache.allocate(1)[0]);
        } else if (cache.isShared(pages[last])) {
            int[] own = pages.clone();
            own[last] = cache.allocate(1)[0];
            cache.copyPage(state.stream(), pages[last], own[last]);
            cache.release(pages[last]);
            pages = own;
        }
        return new Beam(beam.ids, beam.score, pages);
    }
}
