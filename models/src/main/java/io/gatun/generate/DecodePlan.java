package io.gatun.generate;

import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.KvCache;
import io.gatun.ops.Sampling;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import org.jspecify.annotations.Nullable;

/// What is prepared for decode steps of one batch size: the workspace that their operands lie in, and the graphs, each
/// captured at its first use.
final class DecodePlan implements AutoCloseable {
    private final Device device;
    private final Stream stream;
    private final Workspace workspace;
    private final ForwardPass pass;
    private final Slots slots;
    private final Tensor logits;
    private final Tensor chosen;
    private @Nullable Graph step;
    private @Nullable Graph forward;
    private @Nullable Graph choose;

    private DecodePlan(Device device, Stream stream, Workspace workspace, ForwardPass pass, Slots slots,
            Tensor logits, Tensor chosen) {
        this.device = device;
        this.stream = stream;
        this.workspace = workspace;
        this.pass = pass;
        this.slots = slots;
        this.logits = logits;
        this.chosen = chosen;
    }

    /// @param queryStart [B + 1] i32: 0, 1, .. B
    /// @param counters   [B, G] i32, zeros
    /// @param logits     [B, V] f32
    /// @param chosen     [B] i32 in the host's record
    static DecodePlan make(Device device, Stream stream, CausalModel model, KvCache cache, Slots slots,
            Tensor queryStart, Tensor counters, Tensor logits, Tensor chosen) {
        Batch batch = new Batch(slots.ids(), slots.positions(), queryStart, slots.pageTable(), counters, 0, true);
        Workspace workspace = device.newWorkspace(
                Workspace.measure(device, w -> new ForwardPass(device, stream, w, model, batch, cache, logits)));
        try {
            if (device.prefersGraphs()) {
                warmUp(device, stream, model, workspace, cache, queryStart, counters, logits);
            }
            return new DecodePlan(device, stream, workspace, new ForwardPass(device, stream, workspace, model, batch,
                    cache, logits), slots, logits, chosen);
        } catch (RuntimeException e) {
            workspace.close();
            throw e;
        }
    }

    /// Runs a step of idle sequences: a capture must find every kernel loaded, every algorithm chosen and every
    /// workspace there.
    private static void warmUp(Device device, Stream stream, CausalModel model, Workspace workspace, KvCache cache,
            Tensor queryStart, Tensor counters, Tensor logits) {
        int b = (int) logits.size(0);
        try (DeviceArena arena = device.newArena("warm-up")) {
            Slots idle = Slots.allocate(arena, b, model.config().contextLength() + 1);
            idle.fillIdle(stream);
            Tensor unused = arena.allocate(DType.F32, logits.shape());
            Tensor nobody = arena.allocate(DType.I32, b);
            Batch batch = new Batch(idle.ids(), idle.positions(), queryStart, idle.pageTable(), counters, 0, true);
            new DecodePlan(device, stream, workspace, new ForwardPass(device, stream, workspace, model, batch, cache,
                    unused), idle, unused, nobody).runStep();
        }
        workspace.reset();
    }

    private void runForward() {
        pass.run(ForwardPass.Observer.NONE);
    }

    private void runChoice() {
        Sampling.choose(stream, slots.ids(), slots.positions(), chosen, slots.tokens(), slots.lengths(),
                slots.promptLengths(), logits, slots.params(), slots.seeds());
    }

    private void runStep() {
        runForward();
        runChoice();
    }

    /// Forward, logits processing, choice.
    void step() {
        Graph graph = step;
        if (graph == null) {
            graph = device.capture(stream, this::runStep);
            step = graph;
        }
        graph.launch();
    }

    /// Forward alone; leaves logits.
    void forward() {
        Graph graph = forward;
        if (graph == null) {
            graph = device.capture(stream, this::runForward);
            forward = graph;
        }
        graph.launch();
    }

    /// The choice alone, from the logits that are there.
    void choose() {
        Graph graph = choose;
        if (graph == null) {
            graph = device.capture(stream, this::runChoice);
            choose = graph;
        }
        graph.launch();
    }

    @Override
    public void close() {
        try (workspace) {
            for (Graph graph : new Graph[] {step, forward, choose}) {
                if (graph != null) {
                    graph.close();
                }
            }
        }
    }
}
