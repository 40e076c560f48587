package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.GoldenCase;
import io.gatun.models.KvCache;
import io.gatun.models.ModelLoader;
import io.gatun.models.TestDevice;
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
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Does a decode step that is replayed as a graph give the bits that its ops give one by one?
@Tag("device")
class DecodePlanTest {
    private static final int STEPS = 6;
    private static final int B = 3;

    /// The state of B sequences that have one token each.
    private record State(Slots slots, KvCache cache, Tensor queryStart, Tensor counters,
            Tensor logits, HostRecord record) {
        static State of(Device device, Stream stream, DeviceArena arena, CausalModel model) {
            int v = model.config().vocabSize();
            State state = new State(Slots.allocate(arena, B, model.config().contextLength() + 1),
                    new KvCache(device, model.config(), B), arena.allocate(DType.I32, B + 1),
                    arena.allocate(DType.I32, B, model.config().kvHeads()),
                    arena.allocate(DType.F32, B, v), arena.allocateRecord(B));
            state.queryStart.copyFrom(stream, 0, 1, 2, 3);
            Elementwise.fill(stream, state.counters, 0);
            state.slots.fillIdle(stream);
            for (int i = 0; i < B; i++) {
                Slots slot = state.slots.slice(i, i + 1);
                slot.ids().copyFrom(stream, 5 + i);
                slot.tokens().slice(1, 0, 1).copyFrom(stream, 5 + i);
                slot.positions().copyFrom(stream, 0);
                slot.lengths().copyFrom(stream, 1);
                slot.promptLengths().copyFrom(stream, 1);
                slot.params().copyFrom(stream, i == 0 ? 0 : 0.9f, 40, 0.95f, 0, 1.1f, 0, 0.25f, 0);
                slot.seeds().copyFrom(stream, 7, i);
                slot.pageTable().slice(1, 0, 1).copyFrom(stream, i);
            }
            return state;
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void step_graphEqualsOps(DType dtype) {
        for (GoldenCase golden : new GoldenCase[] {GoldenCase.GPT2, GoldenCase.LLAMA}) {
            try (Device device = Device.open(TestDevice.NAME, new Device.Options(1));
                    Stream stream = device.newStream();
                    ModelLoader.Result loaded = ModelLoader.load(device, stream, golden.model(), dtype, n -> {});
                    DeviceArena arena = device.newArena("states")) {
                CausalModel model = loaded.network();
                model.reserve(stream, 64);
                State replayed = State.of(device, stream, arena, model);
                State eager = State.of(device, stream, arena, model);
                try (KvCache first = replayed.cache; KvCache second = eager.cache;
                        DecodePlan plan = DecodePlan.make(device, stream, model, first, replayed.slots,
                                replayed.queryStart, replayed.counters, replayed.logits, replayed.record.tensor());
                        Workspace workspace = device.newWorkspace(Workspace.measure(device,
                                w -> new ForwardPass(device, stream, w, model, batch(eager), second)))) {
                    ForwardPass pass = new ForwardPass(device, stream, workspace, model, batch(eager), second);
                    for (int step = 0; step < STEPS; step++) {
                        plan.step();
                        runOps(stream, model, pass, eager);
                        String what = "%s on %s, %s, step %d".formatted(golden, TestDevice.NAME, dtype, step);
                        assertArrayEquals(eager.logits.toFloats(stream), replayed.logits.toFloats(stream), what);
                        assertArrayEquals(read(stream, eager), read(stream, replayed), what);
                    }
                }
            }
        }
    }

    private static Batch batch(State state) {
        return new Batch(state.slots.ids(), state.slots.positions(), state.queryStart, state.slots.pageTable(),
                state.counters, 0, true);
    }

    private static void runOps(Stream stream, CausalModel model, ForwardPass pass, State state) {
        Slots s = state.slots;
        pass.run(ForwardPass.Observer.NONE);
        model.head(stream, state.logits, pass.hidden());
        Sampling.processLogits(stream, state.logits, s.tokens(), s.lengths(), s.promptLengths(), s.params());
        Sampling.sample(stream, s.ids(), s.positions(), state.record.tensor(), s.tokens(), s.lengths(),
                s.promptLengths(), state.logits, s.params(), s.seeds());
    }

    private static int[] read(Stream stream, State state) {
        int[] ids = new int[B];
        state.record.read(stream, ids, B);
        if (Arrays.stream(ids).anyMatch(id -> id < 0)) {
            throw new AssertionError("a fault instead of an id: " + Arrays.toString(ids));
        }
        return ids;
    }
}
