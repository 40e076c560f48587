package io.gatun.bench;

import io.gatun.models.Layers;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// How fast is one pass of a denoising network, at the size it was trained for, for one and for several images, or the
/// decoding of latents by an autoencoder? Dtypes, batch sizes and the peer take turns.
final class ImageBench {
    private static final int[] BATCHES = {1, 4};
    /// Autoencoders decode image by image.
    private static final int[] ONE = {1};
    private static final int WARM_UPS = 2;
    private static final int ROUNDS = 9;
    private static final int TRIAL_ROUNDS = 1;

    private ImageBench() {}

    /// Adds the section `images`, with a peer `images against the peer`.
    static void run(Path directory, List<DType> dtypes, Setup setup, Report report) {
        List<Variant> variants = new ArrayList<>();
        int rounds = setup.isTrial() ? TRIAL_ROUNDS : ROUNDS;
        try {
            for (DType dtype : dtypes) {
                for (int batch : ImagePass.isAutoencoder(directory) ? ONE : BATCHES) {
                    variants.add(new Variant(directory, dtype, batch, setup, rounds));
                }
            }
            for (int i = -WARM_UPS; i < rounds; i++) {
                int round = i;
                variants.forEach(variant -> variant.round(round));
            }
            report.add("images", variants.stream().map(Variant::row).toList());
            report.add("images against the peer", variants.stream().flatMap(v -> v.peerRows().stream()).toList());
        } finally {
            variants.forEach(Variant::close);
        }
    }

    /// One dtype and batch size.
    private static final class Variant implements AutoCloseable {
        private final DType dtype;
        private final int batch;
        private final double[] millis;
        private final PeerMillis theirs;
        private final @Nullable TorchPeer peer;
        private final int peerModel;
        private final Deque<Runnable> opened = new ArrayDeque<>();
        private final Stream stream;
        private final Plan plan;
        private final @Nullable Graph graph;

        Variant(Path directory, DType dtype, int batch, Setup setup, int rounds) {
            this.dtype = dtype;
            this.batch = batch;
            this.millis = new double[rounds];
            this.theirs = new PeerMillis(millis);
            this.peer = setup.peer();
            try {
                Device device = setup.open();
                opened.push(device::close);
                Stream own = device.newStream();
                stream = own;
                DeviceArena arena = device.newArena("inputs");
                opened.push(arena::close);
                ImagePass pass = ImagePass.open(device, own, directory, dtype, batch, arena, opened);
                plan = Plan.of(device, r -> pass.recorder().accept(new Layers(device, own, r)));
                opened.push(plan::close);
                plan.run();
                own.synchronize();
                graph = device.prefersGraphs() ? device.capture(own, plan::run) : null;
                if (graph != null) {
                    opened.push(graph::close);
                }
                peerModel = peer == null ? -1 : peer.openImageNetwork(directory, dtype.toString(), batch);
            } catch (RuntimeException e) {
                close();
                throw e;
            }
        }

        /// A negative round warms up.
        void round(int round) {
            long start = System.nanoTime();
            if (graph != null) {
                graph.launch();
            } else {
                plan.run();
            }
            stream.synchronize();
            double ms = (System.nanoTime() - start) * 1e-6;
            if (round >= 0) {
                millis[round] = ms;
            }
            if (peer != null) {
                theirs.add(round, peer.pass(peerModel));
            }
        }

        Map<String, Object> row() {
            Map<String, Object> row = named();
            Spread.of(millis).putInto(row);
            row.put("unit", "ms");
            row.put("temporaries_MiB", plan.bytes() / 1048576.0);
            return row;
        }

        List<Map<String, Object>> peerRows() {
            return theirs.rows(named());
        }

        private Map<String, Object> named() {
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("dtype", dtype.toString());
            row.put("images", batch);
            return row;
        }

        /// The last that was opened first.
        @Override
        public void close() {
            while (!opened.isEmpty()) {
                opened.pop().run();
            }
        }
    }
}
