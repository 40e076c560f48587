package io.gatun.bench;

import io.gatun.models.CausalModel;
import io.gatun.models.ConfigFile;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.LanguageFamily;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.train.Initialiser;
import io.gatun.train.LanguageLoss;
import io.gatun.train.Parameters;
import io.gatun.train.Trainer;
import io.gatun.train.UpdateRule;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;

/// How fast is a training step: forward, backward, clipping and AdamW, of a GPT and of a U-Net? Dtypes and the peer
/// take turns.
///
/// A token costs a GPT `6 N + 6 L C T` operations: forward and backward, N parameters that are multiplied with (all but
/// the table of positions), and L layers of causal attention over T tokens, of which a query sees half.
final class TrainingBench {
    private static final int WARM_UPS = 2;
    private static final int ROUNDS = 9;
    private static final int TRIAL_ROUNDS = 1;
    /// While the peer compiles: what is known if that takes too long.
    private static final int ROUNDS_ALONE = 3;
    /// On a GPU, of which the host waits for the last.
    private static final int STEPS = 4;

    /// @param config config.json, for us and for the peer
    /// @param length of sequences; 0: images
    record Task(String name, String config, int batch, int length) {
        boolean isText() {
            return length > 0;
        }
    }

    /// GPT-2's vocabulary made a multiple of 128, as those who train it do.
    private static final Task GPT_124M = gpt("gpt124m", 50304, 768, 12, 12, 8, 1024);
    private static final Task TINY_GPT_124M = gpt("gpt124m", 96, 32, 1, 2, 2, 16);
    private static final Task GPT = gpt("gpt", 65, 384, 6, 6, 8, 256);
    private static final Task TINY_GPT = gpt("gpt", 65, 32, 1, 2, 2, 16);

    private static final Task UNET = new Task("unet", """
            {"_class_name": "UNet2DModel", "sample_size": 32, "in_channels": 1, "out_channels": 1,
                    "layers_per_block": 1,
             "block_out_channels": [48, 96, 128], "norm_num_groups": 16, "attention_head_dim": 32,
             "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
             "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]}""", 16, 0);
    private static final Task TINY_UNET = new Task("unet", """
            {"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
             "block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 8,
             "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}""", 2,
             0);

    private TrainingBench() {}

    private static Task gpt(String name, int vocabulary, int width, int layers, int heads, int batch, int length) {
        return new Task(name, """
                {"model_type": "gpt2", "vocab_size": %d, "n_embd": %d, "n_layer": %d, "n_head": %d, "n_positions": %d,
                 "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}""".formatted(vocabulary, width, layers,
                        heads, length), batch, length);
    }

    /// Adds the section `training`, with a peer `training against the peer`.
    static void run(List<DType> dtypes, List<Task> tasks, Setup setup, Report report) {
        int rounds = setup.isTrial() ? TRIAL_ROUNDS : ROUNDS;
        List<Variant> variants = new ArrayList<>();
        try (ProductRate products = setup.isCpu() ? null : new ProductRate(setup, dtypes)) {
            for (Task task : tasks) {
                for (DType dtype : dtypes) {
                    variants.forEach(Variant::awaitPeer); // it hears one request at a time
                    variants.add(new Variant(task, dtype, setup, rounds));
                }
            }
            for (int i = -WARM_UPS; i < Math.min(ROUNDS_ALONE, rounds); i++) {
                int round = i;
                if (products != null) {
                    products.sample();
                }
                variants.forEach(variant -> variant.ownRound(round));
            }
            report.add("training", variants.stream().map(v -> v.row(products)).toList());
            report.save();
            variants.forEach(Variant::awaitPeer);
            for (int i = -WARM_UPS; i < rounds; i++) {
                int round = i;
                if (products != null) {
                    products.sample();
                }
                variants.forEach(variant -> variant.round(round));
            }
            report.add("training", variants.stream().map(v -> v.row(products)).toList());
            report.add("training against the peer", variants.stream().flatMap(v -> v.peerRows().stream()).toList());
            report.add("product rates of training", products == null ? List.of() : products.rows());
            variants.forEach(v -> v.skipped().forEach((variant, reason) -> report.attach(
                    "skipped: %s %s, %s".formatted(v.task.name, v.dtype, variant), reason)));
        } finally {
            variants.forEach(Variant::close);
        }
    }

    /// Of `gpt124m`, `gpt` and `unet` those whose names contain `only`; the large one on a GPU, elsewhere where it is
    /// asked for by its name.
    static List<Task> tasks(String only, Setup setup) {
        List<Task> all = setup.isTrial() ? List.of(TINY_GPT_124M, TINY_GPT, TINY_UNET) : List.of(GPT_124M, GPT, UNET);
        return all.stream().filter(task -> task.name.contains(only)
                && (!setup.isCpu() || !task.name.equals(GPT_124M.name) || only.equals(GPT_124M.name))).toList();
    }

    /// Has the peer compile its steps, so that it finds that in its cache later.
    static void preparePeer(List<DType> dtypes, List<Task> tasks, Setup setup) {
        TorchPeer peer = Objects.requireNonNull(setup.peer());
        for (Task task : tasks) {
            for (DType dtype : dtypes) {
                peer.beginTraining(task.name, written(task.config), dtype.toString(), task.batch, task.length);
                System.err.printf("%s %s: %s%n", task.name, dtype, peer.awaitTraining());
            }
        }
    }

    private static Path written(String config) {
        try {
            Path file = Files.createTempFile("gatun-bench", ".json");
            file.toFile().deleteOnExit();
            return Files.writeString(file, config);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /// One task and dtype.
    private static final class Variant implements AutoCloseable {
        private final Task task;
        private final DType dtype;
        private final double[] millis;
        private final PeerMillis theirs;
        private final @Nullable TorchPeer peer;
        private final Device device;
        private final Trainer trainer;
        private final ConfigFile config;
        private final int steps;
        private int measured;
        private TorchPeer.@Nullable Training peerTraining;

        Variant(Task task, DType dtype, Setup setup, int rounds) {
            this.task = task;
            this.dtype = dtype;
            this.millis = new double[rounds];
            this.theirs = new PeerMillis(millis);
            this.peer = setup.peer();
            this.steps = setup.isCpu() || setup.isTrial() ? 1 : STEPS;
            beginPeer();
            this.device = setup.open();
            this.config = ConfigFile.parse(task.name, task.config);
            boolean text = task.isText();
            List<Parameters.Shape> shapes = Parameters.of(device, text ? LanguageFamily.GPT2.prefix() : "", loader -> {
                if (text) {
                    LanguageFamily.GPT2.declare(config, loader);
                } else {
                    ImageNetworkLoader.create(config, loader);
                }
            });
            this.trainer = new Trainer(device, shapes, UpdateRule.Adam.decoupled(0.01f), new float[] {1e-4f},
                    new Trainer.Options(dtype, 1, 1, 0, false, 0, 0));
            if (text) {
                trainer.set(new Initialiser(1).language(shapes, 0.02, LanguageFamily.GPT2.layers(config)));
                language(config);
            } else {
                trainer.set(new Initialiser(1).torch(shapes));
                denoising(config);
            }
        }

        /// It compiles while ours is built.
        private void beginPeer() {
            if (peer != null) {
                try {
                    peer.beginTraining(task.name, written(task.config), dtype.toString(), task.batch, task.length);
                } catch (GatunException e) {
                    giveUpPeer(e);
                }
            }
        }

        void awaitPeer() {
            if (peer != null && peerTraining == null) {
                try {
                    peerTraining = peer.awaitTraining();
                } catch (GatunException e) {
                    giveUpPeer(e);
                }
            }
        }

        /// Ours is measured all the same.
        private void giveUpPeer(GatunException e) {
            theirs.forget();
            peerTraining = new TorchPeer.Training(-1, Map.of("all", String.valueOf(e.getMessage())));
        }

        private WeightLoader loader(List<String> prefixes) {
            return WeightLoader.trained(trainer.parameters().weights(), trainer.arena(), trainer.stream(), dtype,
                    prefixes);
        }

        private void language(ConfigFile config) {
            CausalModel model = LanguageFamily.GPT2.build(config, dtype, loader(LanguageFamily.GPT2.prefixes()),
                    trainer.arena());
            LanguageLoss loss = new LanguageLoss(trainer, task.batch, task.length);
            long[] ids = new SplittableRandom(1).longs((long) task.batch * task.length, 0,
                    model.config().vocabSize()).toArray();
            loss.setBatch(trainer.stream(), ids);
            trainer.loss(net -> loss.of(net, model));
        }

        private void denoising(ConfigFile config) {
            ImageNetwork network = ImageNetworkLoader.create(config, loader(List.of("")));
            long size = network.sampleSize().getFirst();
            Tensor sample = random(2, task.batch, size, size, network.inChannels());
            Tensor noise = random(3, task.batch, size, size, network.outChannels());
            Tensor times = trainer.input(DType.F32, task.batch);
            times.copyFrom(trainer.stream(), floats(4, task.batch, 0, 999));
            trainer.loss(net -> {
                Tensor out = net.allocate(dtype, noise.shape());
                network.forward(net, out, ImageNetwork.Inputs.of(net.cast(sample, dtype), times));
                return net.meanSquaredError(out, noise);
            });
        }

        private Tensor random(long seed, long... shape) {
            Tensor tensor = trainer.input(DType.F32, shape);
            tensor.copyFrom(trainer.stream(), floats(seed, (int) tensor.elements(), -1.7, 1.7));
            return tensor;
        }

        private static float[] floats(long seed, int n, double low, double high) {
            SplittableRandom random = new SplittableRandom(seed);
            float[] values = new float[n];
            for (int i = 0; i < n; i++) {
                values[i] = (float) random.nextDouble(low, high);
            }
            return values;
        }

        /// A negative round warms up.
        void round(int round) {
            ownRound(round);
            TorchPeer.Training theirRun = peerTraining;
            if (peer != null && theirRun != null && theirRun.number() >= 0) {
                try {
                    theirs.add(round, peer.trainingSteps(theirRun.number(), steps));
                } catch (GatunException e) {
                    giveUpPeer(e);
                }
            }
        }

        void ownRound(int round) {
            Stream stream = trainer.stream();
            long start = System.nanoTime();
            for (int i = 0; i < steps; i++) {
                trainer.step();
            }
            trainer.result();
            double ms = (System.nanoTime() - start) * 1e-6 / steps;
            stream.synchronize();
            if (round >= 0) {
                millis[round] = ms;
                measured = Math.max(measured, round + 1);
            }
        }

        Map<String, String> skipped() {
            return peerTraining == null ? Map.of() : peerTraining.skipped();
        }

        Map<String, Object> row(@Nullable ProductRate products) {
            Map<String, Object> row = named();
            Spread spread = Spread.of(Arrays.copyOf(millis, measured));
            spread.putInto(row);
            row.put("unit", "ms");
            double perSecond = 1e3 / spread.median();
            double flops = task.isText() ? flopsPerToken() * task.batch * task.length * perSecond : Double.NaN;
            row.put("tokens_per_s", task.isText() ? task.batch * task.length * perSecond : Double.NaN);
            row.put("tflop_per_s", flops * 1e-12);
            row.put("product_share", products == null ? Double.NaN : flops / products.median(dtype));
            row.put("parameters", trainer.parameters().count());
            row.put("temporaries_MiB", trainer.passBytes() / 1048576.0);
            return row;
        }

        private double flopsPerToken() {
            long width = size("n_embd");
            double multiplied = trainer.parameters().count() - width * size("n_positions");
            return 6 * multiplied + 6.0 * size("n_layer") * width * task.length;
        }

        private long size(String field) {
            return config.requireInt(field, 1, Integer.MAX_VALUE);
        }

        List<Map<String, Object>> peerRows() {
            return theirs.rows(named());
        }

        private Map<String, Object> named() {
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("task", task.name);
            row.put("dtype", dtype.toString());
            row.put("batch", task.batch);
            return row;
        }

        @Override
        public void close() {
            try (device) {
                trainer.close();
            }
        }
    }
}
