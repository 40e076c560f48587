package io.gatun.bench;

import io.gatun.generate.GenerationConfig;
import io.gatun.generate.GenerationResult;
import io.gatun.generate.LanguageModel;
import io.gatun.models.ModelConfig;
import io.gatun.models.Quantization;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// How fast is a language model, against what its matrix products and its memory allow? Load to first token, prefill of
/// a prompt, decode after it, batch 1. The dtypes take turns, and so do the ceilings.
final class ModelBench {
    private static final int PROMPT = 512;
    private static final int NEW_TOKENS = 33;
    private static final int SHORT_PROMPT = 16;
    private static final int LOADS = 3;
    private static final int WARM_UPS = 2;
    private static final int ROUNDS = 9;
    private static final int TRIAL_ROUNDS = 1;

    private ModelBench() {}

    /// Adds the section `models`, with a peer `models against the peer`, and `output_<dtype>`: the new ids, for a
    /// comparison with other runtimes.
    ///
    /// @param quantization other than NONE: every 16-bit dtype once more with it
    static void run(Path directory, List<DType> dtypes, Quantization quantization, Setup setup, MemoryRate memory,
            Report report) {
        List<Variant> variants = new ArrayList<>();
        int rounds = setup.isTrial() ? TRIAL_ROUNDS : ROUNDS;
        try {
            for (DType dtype : dtypes) {
                variants.add(new Variant(directory, dtype, Quantization.NONE, setup, memory, rounds));
                if (quantization != Quantization.NONE && dtype != DType.F32) {
                    variants.add(new Variant(directory, dtype, quantization, setup, memory, rounds));
                }
            }
            for (int i = 0; i < LOADS; i++) {
                variants.forEach(Variant::load);
            }
            variants.forEach(Variant::open);
            for (int i = -WARM_UPS; i < rounds; i++) {
                int round = i;
                variants.forEach(variant -> variant.round(round));
            }
            report.add("models", variants.stream().flatMap(variant -> variant.rows().stream()).toList());
            report.add("models against the peer", variants.stream().flatMap(v -> v.peerRows().stream()).toList());
            for (Variant variant : variants) {
                report.attach("output_" + variant.name.replace(' ', '_'), variant.output);
                if (variant.peerTrouble != null) {
                    report.attach("skipped: %s by the peer".formatted(variant.name), variant.peerTrouble);
                }
            }
        } finally {
            variants.forEach(Variant::close);
        }
    }

    /// The prompt of every benchmark here and of the peers, which compute it likewise.
    static int[] prompt(int length, int vocabSize) {
        int[] ids = new int[length];
        Arrays.setAll(ids, i -> (int) ((i * 7919L + 1) % vocabSize));
        return ids;
    }

    /// What one variant of the peer took.
    private static final class Theirs {
        private final double[] prefillMillis;
        private final double[] stepMillis;
        private int[] output = {};

        Theirs(int rounds) {
            prefillMillis = new double[rounds];
            stepMillis = new double[rounds];
        }

        void put(int round, TorchPeer.Round theirs) {
            if (round >= 0) {
                prefillMillis[round] = theirs.prefillMillis();
                stepMillis[round] = theirs.stepMillis();
                output = theirs.output();
            }
        }
    }

    /// The model in one dtype and quantization.
    private static final class Variant implements AutoCloseable {
        private final Path directory;
        private final DType dtype;
        private final Quantization quantization;
        private final String name;
        private final Setup setup;
        private final MemoryRate memory;
        private final double[] loadMillis = new double[LOADS];
        private final double[] prefillMillis;
        private final double[] stepMillis;
        private final double[] matmulMillis;
        private final double[] dramRate;
        private final double[] readRate;
        private final Map<String, Theirs> peers = new LinkedHashMap<>();
        private int peerModel;
        /// Why the peer takes no part; null: it does, or was not asked.
        private @Nullable String peerTrouble;
        private int loads;
        private LanguageModel model;
        private ModelCeiling ceiling;
        private int[] prompt;
        private int[] output;

        Variant(Path directory, DType dtype, Quantization quantization, Setup setup, MemoryRate memory, int rounds) {
            this.directory = directory;
            this.dtype = dtype;
            this.quantization = quantization;
            this.name = quantization == Quantization.NONE ? dtype.toString()
                    : dtype + " " + quantization.name().toLowerCase(Locale.ROOT);
            this.setup = setup;
            this.memory = memory;
            prefillMillis = new double[rounds];
            stepMillis = new double[rounds];
            matmulMillis = new double[rounds];
            dramRate = new double[rounds];
            readRate = new double[rounds];
        }

        /// From nothing to the first token of a short prompt; the file is in the page cache.
        void load() {
            long start = System.nanoTime();
            try (LanguageModel fresh = newModel()) {
                fresh.generate(prompt(SHORT_PROMPT, fresh.config().vocabSize()), config(1));
                loadMillis[loads++] = (System.nanoTime() - start) * 1e-6;
            }
        }

        void open() {
            model = newModel();
            ModelConfig config = model.config();
            int length = Math.min(PROMPT, config.contextLength() - NEW_TOKENS);
            if (length < 1) {
                throw GatunException.invalid("%s has a context of %d, expected more than %d", directory,
                        config.contextLength(), NEW_TOKENS);
            }
            prompt = prompt(length, config.vocabSize());
            ceiling = new ModelCeiling(directory, dtype, quantization, setup, length);
            if (hasPeer()) {
                try {
                    peerModel = setup.peer().open(directory, dtype.toString(), prompt, NEW_TOKENS);
                } catch (GatunException e) {
                    giveUpPeer(e);
                }
            }
        }

        /// The peer knows no quantization.
        private boolean hasPeer() {
            return setup.peer() != null && quantization == Quantization.NONE && peerTrouble == null;
        }

        /// Ours is measured all the same.
        private void giveUpPeer(GatunException e) {
            peerTrouble = String.valueOf(e.getMessage());
            peers.clear();
        }

        /// A negative round warms up.
        void round(int round) {
            GenerationResult result = model.generate(prompt, config(NEW_TOKENS));
            if (hasPeer()) {
                try {
                    setup.peer().round(peerModel).forEach((variant, theirs) -> peers.computeIfAbsent(variant,
                            n -> new Theirs(prefillMillis.length)).put(round, theirs));
                } catch (GatunException e) {
                    giveUpPeer(e);
                }
            }
            double matmul = ceiling.matmulNanos() * 1e-6;
            double dram = memory.sample() * 1e-9;
            double read = memory.read(bytesPerToken()) * 1e-9;
            if (round >= 0) {
                output = result.ids();
                prefillMillis[round] = result.timings().prefill().toNanos() * 1e-6;
                stepMillis[round] = result.timings().decode().toNanos() * 1e-6 / result.timings().steps();
                matmulMillis[round] = matmul;
                dramRate[round] = dram;
                readRate[round] = read;
            }
        }

        List<Map<String, Object>> rows() {
            int n = prompt.length;
            double[] perSecond = Arrays.stream(stepMillis).map(ms -> 1e3 / ms).toArray();
            double gigabytes = bytesPerToken() * 1e-9;
            List<Map<String, Object>> rows = new ArrayList<>();
            add(rows, "load to first token", "ms", loadMillis);
            add(rows, "prefill of " + n, "ms", prefillMillis);
            add(rows, "prefill: its matrix products alone", "ms", matmulMillis);
            add(rows, "prefill: rate of those products", "GFLOP/s",
                    Arrays.stream(matmulMillis).map(ms -> ceiling.flops() / ms * 1e-6).toArray());
            add(rows, "prefill: share of that rate", "", ratio(matmulMillis, prefillMillis));
            add(rows, "decode at context " + n, "tokens/s", perSecond);
            add(rows, "decode: bytes per token", "GB", gigabytes);
            add(rows, "memory: read rate, %d MiB".formatted(memory.bytes() >> 20), "GB/s", dramRate);
            add(rows, "memory: read rate, bytes of a token", "GB/s", readRate);
            add(rows, "decode: share of the memory's rate", "",
                    ratio(Arrays.stream(perSecond).map(rate -> rate * gigabytes).toArray(), dramRate));
            return rows;
        }

        /// How we compare, per variant of the peer; ratios are of rounds that ran one after the other.
        List<Map<String, Object>> peerRows() {
            List<Map<String, Object>> rows = new ArrayList<>();
            peers.forEach((name, theirs) -> {
                rows.add(against(name, "prefill of %d, ms".formatted(prompt.length), theirs.prefillMillis,
                        prefillMillis));
                rows.add(against(name, "decode step at context %d, ms".formatted(prompt.length), theirs.stepMillis,
                        stepMillis));
                rows.add(equalIds(name, theirs.output));
            });
            return rows;
        }

        private Map<String, Object> against(String peer, String measure, double[] theirs, double[] ours) {
            Spread ratio = Spread.ofRatios(theirs, ours);
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("dtype", dtype.toString());
            row.put("peer", peer);
            row.put("measure", measure);
            row.put("theirs", Spread.of(theirs).median());
            row.put("ours", Spread.of(ours).median());
            row.put("faster_by", ratio.median());
            row.put("faster_low", ratio.low());
            row.put("faster_high", ratio.high());
            return row;
        }

        /// How many of the first ids are the same; where it is less than all, nothing is known to be wrong: ids part
        /// where a margin is smaller than rounding.
        private Map<String, Object> equalIds(String peer, int[] theirs) {
            int mismatch = Arrays.mismatch(theirs, output);
            Map<String, Object> row = against(peer, "first ids that are equal", new double[] {theirs.length},
                    new double[] {mismatch < 0 ? output.length : mismatch});
            row.replaceAll((name, value) -> name.startsWith("faster") ? Double.NaN : value);
            return row;
        }

        /// Weights, and keys and values of the positions before, on average over the steps.
        private long bytesPerToken() {
            ModelConfig c = model.config();
            double keys = prompt.length + NEW_TOKENS / 2.0;
            return ceiling.weightBytes()
                    + (long) (2L * c.layers() * c.kvHeads() * c.headDim() * c.dtype().bytes() * keys);
        }

        private LanguageModel newModel() {
            return LanguageModel.load(directory, LanguageModel.Options.defaults().withDevice(setup.device())
                    .withDtype(dtype).withQuantization(quantization).withThreads(setup.threads()).withMaxBatch(1));
        }

        private static GenerationConfig config(int newTokens) {
            return GenerationConfig.builder().maxNewTokens(newTokens).ignoreEos(true).build();
        }

        private static double[] ratio(double[] a, double[] b) {
            double[] ratio = new double[a.length];
            Arrays.setAll(ratio, i -> a[i] / b[i]);
            return ratio;
        }

        private void add(List<Map<String, Object>> rows, String measure, String unit, double... values) {
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("dtype", name);
            row.put("measure", measure);
            Spread.of(values).putInto(row);
            row.put("unit", unit);
            rows.add(row);
        }

        @Override
        public void close() {
            if (model != null) {
                model.close();
            }
            if (ceiling != null) {
                ceiling.close();
            }
        }
    }
}
