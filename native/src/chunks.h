// How a sum over many elements is cut: by their number alone, so that neither threads nor the device change its order.
#pragma once

#include <cstdint>

namespace gt {

constexpr int64_t MIN_CHUNK = 4096;   // elements that are not worth a second block or thread
constexpr int64_t MAX_CHUNKS = 1024;  // what joins them reads as many f64

struct Chunks {
  int64_t n, size, count;  // count >= 1; the last chunk has what is left
};

static inline Chunks chunks_of(int64_t n) {
  int64_t size = (n + MAX_CHUNKS - 1) / MAX_CHUNKS;
  size = size < MIN_CHUNK ? MIN_CHUNK : (size + 63) / 64 * 64;
  return {n, size, n > size ? (n + size - 1) / size : 1};
}

// Of the chunks' sums in f64; a single chunk needs no memory.
static inline int64_t workspace_bytes(const Chunks &chunks) { return chunks.count > 1 ? chunks.count * 8 : 0; }

}  // namespace gt
