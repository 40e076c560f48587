// How are the rows of gt_sum_rows cut? By their number alone, so that the order of a sum depends on nothing else.
#pragma once

#include <cstdint>

#include "gatun/types.h"

namespace gt {

constexpr int64_t MIN_CHUNK_ROWS = 64;    // what one block or thread sums without another's help
constexpr int64_t MAX_ROW_CHUNKS = 256;   // what is added up one by one in the end

struct RowChunks {
  int64_t rows, count;  // of a chunk, the last has what is left; count >= 1
};

static inline RowChunks row_chunks_of(int64_t s) {
  int64_t rows = (s + MAX_ROW_CHUNKS - 1) / MAX_ROW_CHUNKS;
  if (rows < MIN_CHUNK_ROWS) rows = MIN_CHUNK_ROWS;
  return {rows, s > rows ? (s + rows - 1) / rows : 1};
}

// Of the chunks' sums [B, count, C] in f32; a single chunk needs no memory. a: [B, S, C].
static inline int64_t row_workspace_bytes(const gt_tensor &a) {
  const int64_t count = row_chunks_of(a.shape[1]).count;
  return count > 1 ? a.shape[0] * count * a.shape[2] * 4 : 0;
}

}  // namespace gt
