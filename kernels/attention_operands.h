// How do the tensors of attention's ops become what its kernels take?
#pragma once

#include <initializer_list>

#include "attention_tile.h"
#include "check.h"
#include "lib/entry.h"

namespace gt::attention {

// What kernels count in 32 bits.
inline gt_status check_counts(const char *op, std::initializer_list<int64_t> counts) {
  for (const int64_t count : counts)
    if (count > INT32_MAX - PAGE)
      return fail(GT_UNSUPPORTED, "%s: a count of %lld (sequences, keys, query rows, blocks), expected below 2^31", op,
                  static_cast<long long>(count));
  return GT_OK;
}

// Whether every [.., D] row of t starts at a multiple of 16 bytes.
template <class T> bool is_aligned_tensor(const gt_tensor &t) {
  bool aligned = is_aligned(static_cast<const T *>(t.data));
  for (int i = 0; i < t.rank - 1; ++i) aligned &= t.stride[i] % VEC<T> == 0 || t.shape[i] == 1;
  return aligned;
}

// Calls f with a value of the dtype's type.
template <class F> gt_status with_type(gt_dtype dtype, F f) {
  switch (dtype) {
    case GT_F32: return f(float{});
    case GT_BF16: return f(bf16{});
    default: return f(f16{});
  }
}

// What both ops have.
template <class T>
Operands<T> operands_of(const gt_tensor *y, const gt_tensor *lse, const gt_tensor *q, const gt_tensor *k,
                        const gt_tensor *v, float scale) {
  Operands<T> o = {};
  o.y = static_cast<T *>(y->data);
  o.lse = lse ? static_cast<float *>(lse->data) : nullptr;
  o.q = static_cast<const T *>(q->data);
  o.k = static_cast<const T *>(k->data);
  o.v = static_cast<const T *>(v->data);
  for (int i = 0; i < q->rank - 1; ++i) {  // dense has a sequence dim before the others
    o.stride_y[i + 4 - q->rank] = y->stride[i];
    o.stride_q[i + 4 - q->rank] = q->stride[i];
  }
  o.d = static_cast<int>(q->shape[q->rank - 1]);
  o.scale = scale * LOG2E;
  o.q_is_aligned = is_aligned_tensor<T>(*q);
  o.kv_is_aligned = is_aligned_tensor<T>(*k) && is_aligned_tensor<T>(*v);
  o.y_is_aligned = is_aligned_tensor<T>(*y);
  return o;
}

inline const int32_t *ints_of(const gt_tensor *t) { return t ? static_cast<const int32_t *>(t->data) : nullptr; }

}  // namespace gt::attention
