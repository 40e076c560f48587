// What do the kernels of attention's derivatives know of their operands?
#pragma once

#include "attention_tile.h"

namespace gt::attention_backward {

// Rows of [B, N, H, D].
template <class T> struct Heads {
  T *data;
  int64_t stride[3];  // sequence, position, head
  bool is_aligned;    // every row begins at a multiple of 16 bytes
  __device__ __forceinline__ T *at(int b, int i, int h) const {
    return data + b * stride[0] + i * stride[1] + h * stride[2];
  }
};

template <class T> struct Operands {
  Heads<T> dq, dk, dv;
  Heads<const T> dy, y, q, k, v;
  const float *lse, *bias;
  float *workspace, *dbias;
  int64_t stride_bias[4];  // sequence, head, query, key; 0 where it is shared
  const int32_t *key_lengths;
  int num_sequences, num_queries, num_keys, heads, kv_heads, group, d;
  float scale;
  bool is_causal;

  __host__ __device__ __forceinline__ bool rows_are_aligned() const { return q.is_aligned && dy.is_aligned; }
  __host__ __device__ __forceinline__ bool keys_are_aligned() const { return k.is_aligned && v.is_aligned; }
  __device__ __forceinline__ int columns() const {
    return (d + attention::COLUMN_STEP - 1) / attention::COLUMN_STEP * attention::COLUMN_STEP;
  }
  __device__ __forceinline__ int length(int b) const {
    return key_lengths ? min(max(key_lengths[b], 0), num_keys) : num_keys;
  }
  // Keys that a query sees: those before this position.
  __device__ __forceinline__ int visible(int length, int query) const {
    return is_causal ? min(max(query + 1 - num_queries + num_keys, 0), length) : length;
  }
};

// On Hopper, of bf16 and f16, what attention_backward_sm90.cu takes: false where it does not, else *status is a
// cudaError_t. Of the workspace it needs hopper_workspace_bytes.
template <class T> bool launch_hopper(void *stream, const Operands<T> &o, int *status);
int64_t hopper_workspace_bytes(int64_t sequences, int64_t heads, int64_t queries, int64_t d);

}  // namespace gt::attention_backward
