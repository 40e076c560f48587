package io.gatun.generate;

import io.gatun.models.KvCache;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Sampling;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// State tensors of sequences, one behind the other, as `gatun/sampling.h` and `gatun/attention.h` describe them.
///
/// @param tokens        [B, M] i32
/// @param lengths       [B] i32; 0: idle
/// @param promptLengths [B] i32
/// @param ids           [B] i32, input of the next step
/// @param positions     [B] i32, its position; negative: idle
/// @param params        [B, fields] f32
/// @param seeds         [B, 2] i64
/// @param pageTable     [B, pages] i32
record Slots(Tensor tokens, Tensor lengths, Tensor promptLengths, Tensor ids, Tensor positions, Tensor params,
        Tensor seeds, Tensor pageTable) {
    static Slots allocate(DeviceArena arena, int count, int maxTokens) {
        return new Slots(arena.allocate(DType.I32, count, maxTokens), arena.allocate(DType.I32, count),
                arena.allocate(DType.I32, count), arena.allocate(DType.I32, count), arena.allocate(DType.I32, count),
                arena.allocate(DType.F32, count, Sampling.FIELDS), arena.allocate(DType.I64, count, 2),
                arena.allocate(DType.I32, count, KvCache.pagesFor(maxTokens)));
    }

    /// Device memory that [#allocate] takes.
    static long bytes(int count, int maxTokens) {
        return DeviceArena.bytesFor(DType.I32, count, maxTokens) + 4 * DeviceArena.bytesFor(DType.I32, count)
                + DeviceArena.bytesFor(DType.F32, count, Sampling.FIELDS) + DeviceArena.bytesFor(DType.I64, count, 2)
                + DeviceArena.bytesFor(DType.I32, count, KvCache.pagesFor(maxTokens));
    }

    Slots slice(int from, int to) {
        return new Slots(tokens.slice(0, from, to), lengths.slice(0, from, to), promptLengths.slice(0, from, to),
                ids.slice(0, from, to), positions.slice(0, from, to), params.slice(0, from, to),
                seeds.slice(0, from, to), pageTable.slice(0, from, to));
    }

    Tensor[] tensors() {
        return new Tensor[] {tokens, lengths, promptLengths, ids, positions, params, seeds, pageTable};
    }

    /// Makes all of them idle, with values that every op accepts.
    void fillIdle(Stream stream) {
        for (Tensor tensor : tensors()) {
            Elementwise.fill(stream, tensor, 0);
        }
        Elementwise.fill(stream, positions, -1);
    }
}
