package io.gatun.generate;

import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.KvCache;
import io.gatun.models.ModelConfig;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Sampling;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Graph;
import io.gatun.runtime.HostRecord;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// The sequences of a batch as the device sees them, in slots 0 .. B-1, and the work on them: prefill of one slot, a
/// decode step of the first B. The sampled id of a step is the input of the next without leaving the device; the host
/// reads a record of 4 B bytes.
final class DecodeState implements AutoCloseable {
    /// Prompt rows per pass. Fixed, so that a prompt is cut in the same places whatever else runs.
    private static final int PREFILL_ROWS = 512;

    private final Device device;
    private final Stream stream;
    private final CausalModel model;
    private final KvCache cache;
    private final int maxBatch;
    private final DeviceArena arena;
    private final Slots all;
    private final Slots[] slots;
    private final Tensor queryStart;
    private final Tensor logits;
    private final Tensor[] logitRows;
    private final HostRecord record;
    private final @Nullable Plan[] plans;
    private final float[] params = new float[Sampling.FIELDS];
    private @Nullable Workspace prefillWorkspace;

    /// State tensors of some slots, one behind the other.
    private record Slots(Tensor tokens, Tensor lengths, Tensor promptLengths, Tensor ids, Tensor positions,
            Tensor params, Tensor seeds, Tensor pageTable) {
        Slots slice(int from, int to) {
            return new Slots(tokens.slice(0, from, to), lengths.slice(0, from, to), promptLengths.slice(0, from, to),
                    ids.slice(0, from, to), positions.slice(0, from, to), params.slice(0, from, to),
                    seeds.slice(0, from, to), pageTable.slice(0, from, to));
        }

        Tensor[] tensors() {
            return new Tensor[] {tokens, lengths, promptLengths, ids, positions, params, seeds, pageTable};
        }
    }

    /// What is prepared for a batch size: the graphs, and the workspace their operands lie in.
    private record Plan(Workspace workspace, Tensor logits, Graph step, Graph forward,
            Graph choose) implements AutoCloseable {
        @Override
        public void close() {
            step.close();
            forward.close();
            choose.close();
            workspace.close();
        }
    }

    DecodeState(Device device, Stream stream, CausalModel model, KvCache cache, int maxBatch) {
        this.device = device;
        this.stream = stream;
        this.model = model;
        this.cache = cache;
        this.maxBatch = maxBatch;
        this.arena = device.newArena("decode state");
        ModelConfig c = model.config();
        int maxTokens = c.contextLength() + 1;
        this.all = new Slots(arena.allocate(DType.I32, maxBatch, maxTokens), arena.allocate(DType.I32, maxBatch),
                arena.allocate(DType.I32, maxBatch), arena.allocate(DType.I32, maxBatch),
                arena.allocate(DType.I32, maxBatch), arena.allocate(DType.F32, maxBatch, Sampling.FIELDS),
                arena.allocate(DType.I64, maxBatch, 2),
                arena.allocate(DType.I32, maxBatch, KvCache.pagesFor(maxTokens)));
        this.slots = new Slots[maxBatch];
        for (int i = 0; i < maxBatch; i++) {
            slots[i] = all.slice(i, i + 1);
        }
        this.logits = arena.allocate(DType.F32, maxBatch, c.vocabSize());
        this.logitRows = new Tensor[maxBatch];
        for (int i = 0; i < maxBatch; i++) {
            logitRows[i] = logits.slice(0, i, i + 1);
        }
        this.record = arena.allocateRecord(maxBatch);
        this.queryStart = arena.allocate(DType.I32, maxBatch + 1);
        int[] starts = new int[maxBatch + 1];
        Arrays.setAll(starts, i -> i);
        queryStart.copyFrom(stream, starts);
        this.plans = new Plan[maxBatch + 1];
    }

    Stream stream() {
        return stream;
    }

    int maxBatch() {
        return maxBatch;
    }

    /// Runs the prompt of a slot and leaves the logits of its last token.
    void prefill(int slot, Sequence sequence, GenerationConfig config) {
        int[] prompt = sequence.prompt;
        setPages(slot, sequence.pages);
        for (int from = 0; from < prompt.length; from += PREFILL_ROWS) {
            int to = Math.min(prompt.length, from + PREFILL_ROWS);
            prefillRows(slot, prompt, from, to, to == prompt.length);
        }
        Slots s = slots[slot];
        int[] tokens = Arrays.copyOf(prompt, (int) all.tokens().size(1));
        s.tokens().copyFrom(stream, tokens);
        s.lengths().copyFrom(stream, prompt.length);
        s.promptLengths().copyFrom(stream, prompt.length);
        s.ids().copyFrom(stream, prompt[prompt.length - 1]);
        s.positions().copyFrom(stream, prompt.length - 1L);
        s.seeds().copyFrom(stream, config.seed(), sequence.drawIndex);
        setParams(slot, config);
    }

    private void prefillRows(int slot, int[] prompt, int from, int to, boolean last) {
        Rows rows = new Rows(prompt.length, from, to, slot);
        long bytes = Workspace.measure(device, rows::place);
        Workspace workspace = prefillWorkspace;
        if (workspace == null || workspace.bytes() < bytes) {
            prefillWorkspace = null;
            if (workspace != null) {
                workspace.close();
            }
            workspace = device.newWorkspace(bytes);
            prefillWorkspace = workspace;
        }
        try {
            ForwardPass pass = rows.place(workspace);
            rows.upload(prompt);
            pass.run(stream, ForwardPass.Observer.NONE);
            if (last) {
                int n = to - from;
                model.head(stream, logitRows[slot], pass.hidden().slice(0, n - 1, n));
            }
        } finally {
            workspace.reset();
        }
    }

    /// Rows `from .. to` of a slot's prompt.
    private final class Rows {
        private final int length;
        private final int from;
        private final int to;
        private final int slot;
        private Tensor ids;
        private Tensor positions;
        private Tensor start;

        Rows(int length, int from, int to, int slot) {
            this.length = length;
            this.from = from;
            this.to = to;
            this.slot = slot;
        }

        ForwardPass place(Workspace workspace) {
            ids = workspace.allocate(DType.I32, to - from);
            positions = workspace.allocate(DType.I32, to - from);
            start = workspace.allocate(DType.I32, 2);
            return model.place(workspace, new Batch(ids, positions, start, slots[slot].pageTable(), length), cache);
        }

        void upload(int[] prompt) {
            ids.copyFrom(stream, Arrays.copyOfRange(prompt, from, to));
            int[] places = new int[to - from];
            Arrays.setAll(places, i -> from + i);
            positions.copyFrom(stream, places);
            start.copyFrom(stream, 0, to - from);
        }
    }

    /// The settings that the device's own kernels carry out.
    void setParams(int slot, GenerationConfig config) {
        params[0] = config.temperature();
        params[1] = config.topK();
        params[2] = config.topP();
        params[3] = config.minP();
        params[4] = config.repetitionPenalty();
        params[5] = config.presencePenalty();
        params[6] = config.frequencyPenalty();
        slots[slot].params().copyFrom(stream, params);
    }

    /// Settings for logits that the host has processed already: choose, nothing else.
    void setChooseOnly(int slot, boolean greedy) {
        Arrays.fill(params, 0);
        params[0] = greedy ? 0 : 1;
        params[2] = 1;
        params[4] = 1;
        slots[slot].params().copyFrom(stream, params);
    }

    /// Which pages hold the keys and values of a slot.
    void setPages(int slot, int[] pages) {
        int[] table = Arrays.copyOf(pages, (int) all.pageTable().size(1));
        slots[slot].pageTable().copyFrom(stream, table);
    }

    /// Sets the token that the next step of a slot starts from.
    void setInput(int slot, int id, int position) {
        slots[slot].ids().copyFrom(stream, id);
        slots[slot].positions().copyFrom(stream, position);
    }

    /// One decode step of slots 0 .. b-1: forward, logits processing, choice.
    void step(int b) {
        plan(b).step.launch();
    }

    /// The forward part of a step alone; logits are left for the host.
    void forward(int b) {
        plan(b).forward.launch();
    }

    /// The choice alone, from the logits that are there.
    void choose(int b) {
        plan(b).choose.launch();
    }

    /// Ids, or negative faults, of the last choice.
    void readRecord(int[] into, int b) {
        record.read(stream, into, b);
    }

    /// The logits of slots 0 .. b-1 on the host, [b, V]. A copy, and counted.
    float[] downloadLogits(int b) {
        return plan(b).logits().toFloats(stream);
    }

    void uploadLogits(float[] values, int b) {
        plan(b).logits().copyFrom(stream, values);
    }

    /// Moves the state of one slot to another.
    void move(int from, int to) {
        Tensor[] source = slots[from].tensors();
        Tensor[] target = slots[to].tensors();
        for (int i = 0; i < source.length; i++) {
            Elementwise.copy(stream, target[i], source[i]);
        }
    }

    private Plan plan(int b) {
        Plan plan = plans[b];
        if (plan == null) {
            plan = newPlan(b);
            plans[b] = plan;
        }
        return plan;
    }

    private Plan newPlan(int b) {
        Slots s = all.slice(0, b);
        Batch batch = new Batch(s.ids(), s.positions(), queryStart.slice(0, 0, b + 1), s.pageTable(), 0);
        Workspace workspace = device.newWorkspace(Workspace.measure(device, w -> model.place(w, batch, cache)));
        ForwardPass pass = model.place(workspace, batch, cache);
        Tensor out = logits.slice(0, 0, b);
        Tensor chosen = record.tensor().slice(0, 0, b);
        Runnable forward = () -> {
            pass.run(stream, ForwardPass.Observer.NONE);
            model.head(stream, out, pass.hidden());
        };
        Runnable choose = () -> {
            Sampling.processLogits(stream, out, s.tokens(), s.lengths(), s.promptLengths(), s.params());
            Sampling.sample(stream, s.ids(), s.positions(), chosen, s.tokens(), s.lengths(), s.promptLengths(), out,
                    s.params(), s.seeds());
        };
        Runnable step = () -> {
            forward.run();
            choose.run();
        };
        return new Plan(workspace, out, device.capture(stream, step), device.capture(stream, forward),
                device.capture(stream, choose));
    }

    @Override
    public void close() {
        for (Plan plan : plans) {
            if (plan != null) {
                plan.close();
            }
        }
        if (prefillWorkspace != null) {
            prefillWorkspace.close();
        }
        arena.close();
    }
}
