package io.gatun.generate;

import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.KvCache;
import io.gatun.models.ModelConfig;
import io.gatun.ops.Attention;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.OutOfDeviceMemoryException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;

/// How is a device's memory shared out once the weights are there? The workspace of prompts and steps is measured, some
/// is left alone, the rest may become key/value pages.
///
/// @param weightBytes    what the weights took
/// @param workspaceBytes prompts, steps, and the state of the sequences
/// @param cacheBytes     key/value pages
/// @param pages          how many
record MemoryPlan(long weightBytes, long workspaceBytes, long cacheBytes, int pages) {
    /// The CPU's memory serves other programs too.
    private static final int CPU_SHARE = 4;
    /// Of a GPU's free memory 1/16 stays free: the driver and cuBLASLt take some as they go.
    private static final int GPU_RESERVE = 16;
    private static final long MAX_CACHE_TOKENS = 1L << 30;

    /// @throws OutOfDeviceMemoryException when not even one page is left, or fewer than were asked for; says what was
    ///     needed, what was free, and the largest context that would fit
    static MemoryPlan make(Device device, Stream stream, CausalModel model, long weightBytes, int maxBatch,
            long cacheTokens) {
        ModelConfig config = model.config();
        long pageBytes = KvCache.pageBytes(config);
        long workspace = DecodeState.bytes(config, maxBatch) + passBytes(device, stream, model, maxBatch);
        long free = device.memoryFree();
        long budget = device.addressesHostMemory() ? cacheTokens > 0 ? free : free / CPU_SHARE
                : Math.max(0, free - free / GPU_RESERVE - workspace);
        long affordable = Math.min(budget / pageBytes, MAX_CACHE_TOKENS / Attention.PAGE_SIZE);
        long asked = cacheTokens > 0 ? (cacheTokens + Attention.PAGE_SIZE - 1) / Attention.PAGE_SIZE
                : (long) maxBatch * KvCache.pagesFor(config.contextLength());
        if (affordable < (cacheTokens > 0 ? asked : 1)) {
            throw new OutOfDeviceMemoryException(("%s: a key/value cache for %,d tokens needs %,d bytes; %,d bytes are"
                    + " free beside the weights (%,d), %,d of them needed for work: the largest context that would fit"
                    + " has %,d tokens. Ask for fewer cache tokens or a smaller batch, or load as bf16")
                    .formatted(device, cacheTokens > 0 ? cacheTokens : Attention.PAGE_SIZE,
                            (cacheTokens > 0 ? asked : 1) * pageBytes, free, weightBytes, workspace,
                            affordable * Attention.PAGE_SIZE),
                    asked * pageBytes);
        }
        int pages = Math.toIntExact(Math.min(asked, affordable));
        return new MemoryPlan(weightBytes, workspace, pages * pageBytes, pages);
    }

    /// The workspaces of a prompt and of steps of up to `maxBatch` sequences.
    private static long passBytes(Device device, Stream stream, CausalModel model, int maxBatch) {
        int rows = Math.min(DecodeState.PREFILL_ROWS, model.config().contextLength());
        try (KvCache none = new KvCache(device, model.config(), 0)) {
            long prompt = 0;
            for (boolean hasPast : new boolean[] {false, true}) {
                prompt = Math.max(prompt, Workspace.measure(device, w -> new ForwardPass(device, stream, w, model,
                        batch(w, model, rows, 1, rows, hasPast), none)));
            }
            long step = Workspace.measure(device,
                    w -> new ForwardPass(device, stream, w, model, batch(w, model, maxBatch, maxBatch, 0, true), none));
            return device.prefersGraphs() ? prompt + 2 * step + device.matmulWorkspaceBytes() : prompt + step;
        }
    }

    private static Batch batch(Workspace w, CausalModel model, int rows, int sequences, int sequenceLength,
            boolean hasPast) {
        Tensor ids = w.allocate(DType.I32, rows);
        return new Batch(ids, ids, w.allocate(DType.I32, sequences + 1),
                w.allocate(DType.I32, sequences, KvCache.pagesFor(model.config().contextLength() + 1)),
                w.allocate(DType.I32, sequences, model.config().kvHeads()), sequenceLength, hasPast);
    }
}
