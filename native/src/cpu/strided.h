// How does code written for contiguous runs work on operands with any strides?
//
// The dimensions are put in the order of the first operand's strides and merged where all operands allow it: operands
// with one common layout become a single run, whatever that layout is. What is left is walked run by run.
#pragma once

#include <stdlib.h>

#include "check.h"
#include "cpu/parallel.h"

namespace gt::GT_ISA {

constexpr int MAX_OPERANDS = 5;
// Elements of a run handed out at once: gathered operands of 4 bytes then take 16 KiB, which stay in the first cache.
constexpr int64_t RUN = 1024;

struct Loop {
  int num_operands, rank;  // rank >= 1
  int64_t shape[GT_MAX_RANK];
  int64_t stride[MAX_OPERANDS][GT_MAX_RANK];  // in bytes
  char *data[MAX_OPERANDS];
  int64_t bytes[MAX_OPERANDS];  // of an element
};

// The last dimension is the one that runs lie along.
GT_INLINE int64_t stride_in_run(const Loop &loop, int operand) { return loop.stride[operand][loop.rank - 1]; }
GT_INLINE bool is_contiguous(const Loop &loop, int operand) {
  return stride_in_run(loop, operand) == loop.bytes[operand];
}

// The element of each operand where a walk over the outer dimensions stands.
struct Position {
  char *data[MAX_OPERANDS];
  int64_t index[GT_MAX_RANK];
};

static inline void swap_dimensions(Loop &loop, int i, int j) {
  const int64_t n = loop.shape[i];
  loop.shape[i] = loop.shape[j];
  loop.shape[j] = n;
  for (int t = 0; t < loop.num_operands; ++t) {
    const int64_t s = loop.stride[t][i];
    loop.stride[t][i] = loop.stride[t][j];
    loop.stride[t][j] = s;
  }
}

static inline bool merges_with_next(const Loop &loop, int i) {
  for (int t = 0; t < loop.num_operands; ++t)
    if (loop.stride[t][i] != loop.stride[t][i + 1] * loop.shape[i + 1]) return false;
  return true;
}

// tensors: num_operands of one shape; the first decides the order.
static inline Loop loop_over(const gt_tensor *const *tensors, int num_operands) {
  Loop loop{};
  loop.num_operands = num_operands;
  for (int t = 0; t < num_operands; ++t) {
    loop.data[t] = static_cast<char *>(tensors[t]->data);
    loop.bytes[t] = dtype_bytes(tensors[t]->dtype);
  }
  for (int d = 0; d < tensors[0]->rank; ++d) {
    if (tensors[0]->shape[d] == 1) continue;
    loop.shape[loop.rank] = tensors[0]->shape[d];
    for (int t = 0; t < num_operands; ++t) loop.stride[t][loop.rank] = tensors[t]->stride[d] * loop.bytes[t];
    ++loop.rank;
  }
  if (loop.rank == 0) {
    loop.rank = loop.shape[0] = 1;
    for (int t = 0; t < num_operands; ++t) loop.stride[t][0] = loop.bytes[t];
  }
  for (int i = 1; i < loop.rank; ++i)
    for (int j = i; j > 0 && llabs(loop.stride[0][j - 1]) < llabs(loop.stride[0][j]); --j)
      swap_dimensions(loop, j - 1, j);
  int last = 0;
  for (int i = 1; i < loop.rank; ++i) {
    swap_dimensions(loop, last + 1, i);
    if (!merges_with_next(loop, last)) {
      ++last;
      continue;
    }
    loop.shape[last] *= loop.shape[last + 1];
    for (int t = 0; t < num_operands; ++t) loop.stride[t][last] = loop.stride[t][last + 1];
  }
  loop.rank = last + 1;
  return loop;
}

// Where the item-th index of the first num_outer dimensions lies, the last of them counting fastest.
static inline Position position_at(const Loop &loop, int num_outer, int64_t item) {
  Position at{};
  for (int t = 0; t < loop.num_operands; ++t) at.data[t] = loop.data[t];
  for (int d = num_outer - 1; d >= 0; --d) {
    at.index[d] = item % loop.shape[d];
    item /= loop.shape[d];
    for (int t = 0; t < loop.num_operands; ++t) at.data[t] += at.index[d] * loop.stride[t][d];
  }
  return at;
}

static inline void advance(const Loop &loop, int num_outer, Position &at) {
  for (int d = num_outer - 1; d >= 0; --d) {
    const bool wraps = ++at.index[d] == loop.shape[d];
    const int64_t steps = wraps ? 1 - loop.shape[d] : 1;
    for (int t = 0; t < loop.num_operands; ++t) at.data[t] += steps * loop.stride[t][d];
    if (!wraps) return;
    at.index[d] = 0;
  }
}

// Calls f(data, n) with the first elements of runs of n <= RUN elements; operand t continues at stride_in_run(t).
// cost: of one element, in the units of parallel_for.
template <class F>
static inline void for_runs(const gt_stream *stream, const Loop &loop, int64_t cost, const F &f) {
  const int64_t length = loop.shape[loop.rank - 1], pieces = (length + RUN - 1) / RUN;
  int64_t outer = 1;
  for (int d = 0; d < loop.rank - 1; ++d) outer *= loop.shape[d];
  parallel_for(stream, outer * pieces, cost * (length < RUN ? length : RUN), [&](int64_t begin, int64_t end) {
    if (begin >= end) return;
    Position at = position_at(loop, loop.rank - 1, begin / pieces);
    for (int64_t item = begin, piece = begin % pieces; item < end; ++item) {
      const int64_t first = piece * RUN, left = length - first;
      char *data[MAX_OPERANDS];
      for (int t = 0; t < loop.num_operands; ++t) data[t] = at.data[t] + first * stride_in_run(loop, t);
      f(data, left < RUN ? left : RUN);
      if (++piece == pieces) {
        piece = 0;
        advance(loop, loop.rank - 1, at);
      }
    }
  });
}

}  // namespace gt::GT_ISA
