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
import io.gatun.runtime.HostRecord;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// The sequences of a batch as the device sees them, in slots 0 .. B-1, and the work on them: prefill of one slot, a
/// decode step of the first B. The sampled id of a step is the input of the next without leaving the device; the host
/// reads a record of 4 B bytes.
///
/// Where steps are graphs ([Device#prefersGraphs]), there is one per bucket of batch sizes, a power of two: slots from
/// B to the bucket's size are idle then, and cost no more than rows of a product.
final class DecodeState implements AutoCloseable {
    /// Prompt rows per pass. Fixed, so that a prompt is cut in the same places whatever else runs.
    static final int PREFILL_ROWS = 512;

    private final Device device;
    private final Stream stream;
    private final CausalModel model;
    private final KvCache cache;
    private final int maxBatch;
    private final DeviceArena arena;
    private final Slots all;
    private final Slots[] slots;
    /// Slots whose state on the device may be that of a sequence; unknown memory at first.
    private final boolean[] maybeLive;
    private final Tensor queryStart;
    /// One for all plans: their steps come one after another.
    private final Tensor counters;
    private final Tensor logits;
    private final Tensor[] logitRows;
    private final Tensor[] logitsOfFirst;
    private final HostRecord record;
    private final @Nullable DecodePlan[] plans;
    private final float[] params = new float[Sampling.FIELDS];
    private @Nullable Workspace prefillWorkspace;
    private boolean hasStepOperands;

    DecodeState(Device device, Stream stream, CausalModel model, KvCache cache, int maxBatch) {
        this.device = device;
        this.stream = stream;
        this.model = model;
        this.cache = cache;
        this.maxBatch = maxBatch;
        this.arena = device.newArena("decode state");
        ModelConfig c = model.config();
        try {
            arena.reserve(bytes(c, maxBatch));
            this.all = Slots.allocate(arena, maxBatch, c.contextLength() + 1);
            this.logits = arena.allocate(DType.F32, maxBatch, c.vocabSize());
            this.queryStart = arena.allocate(DType.I32, maxBatch + 1);
            this.counters = arena.allocate(DType.I32, maxBatch, c.kvHeads());
            this.record = arena.allocateRecord(maxBatch);
        } catch (RuntimeException e) {
            arena.close();
            throw e;
        }
        this.slots = new Slots[maxBatch];
        this.maybeLive = new boolean[maxBatch];
        Arrays.fill(maybeLive, true);
        this.logitRows = new Tensor[maxBatch];
        this.logitsOfFirst = new Tensor[maxBatch + 1];
        for (int i = 0; i < maxBatch; i++) {
            slots[i] = all.slice(i, i + 1);
            logitRows[i] = logits.slice(0, i, i + 1);
            logitsOfFirst[i + 1] = logits.slice(0, 0, i + 1);
        }
        this.plans = new DecodePlan[maxBatch + 1];
    }

    /// Device memory that the state of so many sequences takes.
    static long bytes(ModelConfig c, int maxBatch) {
        return Slots.bytes(maxBatch, c.contextLength() + 1)
                + DeviceArena.bytesFor(DType.F32, maxBatch, c.vocabSize())
                + DeviceArena.bytesFor(DType.I32, maxBatch + 1)
                + DeviceArena.bytesFor(DType.I32, maxBatch, c.kvHeads());
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
        setInput(slot, prompt[prompt.length - 1], prompt.length - 1);
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
            pass.run(ForwardPass.Observer.NONE);
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
            return new ForwardPass(device, stream, workspace, model, new Batch(ids, positions, start,
                    slots[slot].pageTable(), null, length, from > 0), cache);
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
        maybeLive[slot] = true;
    }

    /// One decode step of slots 0 .. b-1: forward, logits processing, choice.
    void step(int b) {
        plan(b).step();
    }

    /// The forward part of a step alone; logits are left for the host.
    void forward(int b) {
        plan(b).forward();
    }

    /// The choice alone, from the logits that are there.
    void choose(int b) {
        plan(b).choose();
    }

    /// Ids, or negative faults, of the last choice.
    void readRecord(int[] into, int b) {
        record.read(stream, into, b);
    }

    /// The logits of slots 0 .. b-1 on the host, [b, V]. A copy, and counted.
    float[] downloadLogits(int b) {
        return logitsOfFirst[b].toFloats(stream);
    }

    void uploadLogits(float[] values, int b) {
        logitsOfFirst[b].copyFrom(stream, values);
    }

    /// Moves the state of one slot to another.
    void move(int from, int to) {
        Tensor[] source = slots[from].tensors();
        Tensor[] target = slots[to].tensors();
        for (int i = 0; i < source.length; i++) {
            Elementwise.copy(stream, target[i], source[i]);
        }
        maybeLive[to] = true;
    }

    /// What is prepared for the first b slots, the slots behind them made idle.
    private DecodePlan plan(int b) {
        int size = device.prefersGraphs() ? Math.min(maxBatch, Math.max(1, Integer.highestOneBit(2 * b - 1))) : b;
        DecodePlan plan = plans[size];
        if (plan == null) {
            if (!hasStepOperands) {
                int[] starts = new int[maxBatch + 1];
                Arrays.setAll(starts, i -> i);
                queryStart.copyFrom(stream, starts);
                Elementwise.fill(stream, counters, 0);
                hasStepOperands = true;
            }
            plan = DecodePlan.make(device, stream, model, cache, all.slice(0, size), queryStart.slice(0, 0, size + 1),
                    counters.slice(0, 0, size), logitsOfFirst[size], record.tensor().slice(0, 0, size));
            plans[size] = plan;
        }
        for (int slot = b; slot < size; slot++) {
            if (maybeLive[slot]) {
                Elementwise.fill(stream, slots[slot].positions(), -1);
                Elementwise.fill(stream, slots[slot].lengths(), 0);
                Elementwise.fill(stream, slots[slot].ids(), 0);
                maybeLive[slot] = false;
            }
        }
        return plan;
    }

    @Override
    public void close() {
        try (arena) {
            for (DecodePlan plan : plans) {
                if (plan != null) {
                    plan.close();
                }
            }
            if (prefillWorkspace != null) {
                prefillWorkspace.close();
            }
        }
    }
}
