// How does a kernel that works on rows take operands with any strides?
//
// On the host, loop_over puts the dimensions in the order of the first operand's strides and merges them where all
// operands allow it: operands with one common layout become a single row, whatever that layout is. On the device,
// position_at finds the operands of a row.
#pragma once

#include <cstdlib>
#include <initializer_list>

#include "check.h"
#include "lib/cuda.h"

namespace gt {

constexpr int MAX_OPERANDS = 5;

struct Loop {
  int num_operands, rank;  // rank >= 1; rows lie along the last dimension
  int64_t shape[GT_MAX_RANK];
  int64_t stride[MAX_OPERANDS][GT_MAX_RANK];  // in bytes
  char *data[MAX_OPERANDS];
  int64_t bytes[MAX_OPERANDS];  // of an element
};

inline void swap_dimensions(Loop &loop, int i, int j) {
  std::swap(loop.shape[i], loop.shape[j]);
  for (int t = 0; t < loop.num_operands; ++t) std::swap(loop.stride[t][i], loop.stride[t][j]);
}

inline bool merges_with_next(const Loop &loop, int i) {
  for (int t = 0; t < loop.num_operands; ++t)
    if (loop.stride[t][i] != loop.stride[t][i + 1] * loop.shape[i + 1]) return false;
  return true;
}

// tensors: of one shape, no dimension of which is 0; the first decides the order.
inline Loop loop_over(std::initializer_list<const gt_tensor *> tensors) {
  Loop loop{};
  const gt_tensor &leader = **tensors.begin();
  for (const gt_tensor *t : tensors) {
    loop.data[loop.num_operands] = static_cast<char *>(t->data);
    loop.bytes[loop.num_operands++] = dtype_bytes(t->dtype);
  }
  for (int d = 0; d < leader.rank; ++d) {
    if (leader.shape[d] == 1) continue;
    loop.shape[loop.rank] = leader.shape[d];
    for (int t = 0; t < loop.num_operands; ++t)
      loop.stride[t][loop.rank] = tensors.begin()[t]->stride[d] * loop.bytes[t];
    for (int i = loop.rank; i > 0 && llabs(loop.stride[0][i - 1]) < llabs(loop.stride[0][i]); --i)
      swap_dimensions(loop, i - 1, i);
    ++loop.rank;
  }
  if (loop.rank == 0) {
    loop.rank = 1;
    loop.shape[0] = 1;
    for (int t = 0; t < loop.num_operands; ++t) loop.stride[t][0] = loop.bytes[t];
  }
  int last = 0;
  for (int i = 1; i < loop.rank; ++i) {
    swap_dimensions(loop, last + 1, i);
    if (!merges_with_next(loop, last)) {
      ++last;
      continue;
    }
    loop.shape[last] *= loop.shape[last + 1];
    for (int t = 0; t < loop.num_operands; ++t) loop.stride[t][last] = loop.stride[t][last + 1];
  }
  loop.rank = last + 1;
  return loop;
}

// The number of indices of the first num_outer dimensions.
inline int64_t count_of(const Loop &loop, int num_outer) {
  int64_t n = 1;
  for (int d = 0; d < num_outer; ++d) n *= loop.shape[d];
  return n;
}

struct Position {
  char *data[MAX_OPERANDS];
};

// Where the item-th index of the first num_outer dimensions lies, the last of them counting fastest.
__device__ __forceinline__ Position position_at(const Loop &loop, int num_outer, int64_t item) {
  Position at;
#pragma unroll
  for (int t = 0; t < MAX_OPERANDS; ++t) at.data[t] = loop.data[t];
#pragma unroll
  for (int d = GT_MAX_RANK - 2; d >= 0; --d) {
    if (d >= num_outer) continue;
    const int64_t rest = d > 0 ? item / loop.shape[d] : 0, index = item - rest * loop.shape[d];
    item = rest;
#pragma unroll
    for (int t = 0; t < MAX_OPERANDS; ++t) at.data[t] += index * loop.stride[t][d];
  }
  return at;
}

}  // namespace gt
