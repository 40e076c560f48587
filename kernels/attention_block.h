// What do attention's CPU twins, forward and backward, know of a block of keys?
//
// Where its rows are, how many of them a query sees, how it is transposed, and how powers of two are taken.
#pragma once

#include <math.h>

#include <utility>

#include "cpu/tile.h"
#include "gatun/attention.h"

namespace gt::GT_ISA {
namespace {

constexpr int BLOCK = 64;  // keys per block: a page of the cache
constexpr float LOG2E = 1.44269504088896341f, LN2 = 0.693147180559945309f;

template <class T>
constexpr bool is_f16(T) {
  return false;
}
constexpr bool is_f16(f16) { return true; }
GT_INLINE int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// 2^x for x <= 0: minimax polynomial on the fraction, 5e-9. Below 2^-126.5 gives 0; NaN stays NaN.
GT_INLINE vf exp2_nonpositive(vf x) {
  x = vmax(broadcast(-127.0f), x);
  const vf magic = broadcast(12582912.0f);  // 1.5 * 2^23: the sum's low bits are x rounded to an integer
  const vf shifted = x + magic, r = x - (shifted - magic);
  vf p = broadcast(1.5461447463e-4f);
  p = p * r + 1.3390867351e-3f;
  p = p * r + 9.6180566699e-3f;
  p = p * r + 5.5503571043e-2f;
  p = p * r + 2.4022650922e-1f;
  p = p * r + 6.9314718803e-1f;
  p = p * r + 1.0f;
  return p * (vf)(((vi)shifted << 23) + (127 << 23));  // the exponent of 2^-127 is that of zero
}

template <class T>
struct KeyBlock {
  const T *k, *v;
  int64_t stride_k, stride_v;
};

// Asks for W rows of a later block, one line each, while an earlier one is being worked on: pages of 4 KiB and strided
// rows defeat the hardware's prefetcher.
template <class T>
GT_INLINE void prefetch_rows(const KeyBlock<T> &ahead, int64_t j, int64_t d) {
  for (int64_t i = j; i < j + W; ++i) {
    __builtin_prefetch(ahead.k + i * ahead.stride_k + d, 0, 2);
    __builtin_prefetch(ahead.v + i * ahead.stride_v + d, 0, 2);
  }
}

// out[d][0 .. BLOCK) = k[0 .. n)[d0 + d] for d < dn, zeros for keys from n up to a multiple of W.
template <class T>
void pack_transposed(float *out, const KeyBlock<T> &keys, const KeyBlock<T> &ahead, int64_t n, int64_t d0,
                     int64_t dn) {
  const T *k = keys.k + d0;
  for (int64_t j = 0; j < n; j += W)
    for (int64_t d = 0; d < dn; d += W) {
      vf v[W];
      if constexpr (!is_f16(T{})) {
        // Whole words: one f32, or two bf16 that travel together and part afterwards.
        constexpr int E = sizeof(float) / sizeof(T);
        if (j + W <= n && d + E * W <= dn) {
          const auto *rows = reinterpret_cast<const char *>(k + j * keys.stride_k + d);
          const int64_t stride = keys.stride_k * static_cast<int64_t>(sizeof(T));
#pragma GCC unroll 16
          for (int i = 0; i < W; ++i) v[i] = load_quads(rows + i % 4 * stride + i / 4 * 16, stride);
          prefetch_rows(ahead, j, d0 + d);
          transpose<2>(v);
          for (int i = 0; i < W; ++i) {
            float *to = out + (d + E * i) * BLOCK + j;
            store(to, E == 1 ? v[i] : (vf)((vu)v[i] << 16));
            if (E == 2) store(to + BLOCK, (vf)((vu)v[i] & 0xffff0000u));
          }
          d += (E - 1) * W;
          continue;
        }
      }
      for (int i = 0; i < W; ++i) v[i] = j + i < n ? load_first(k + (j + i) * keys.stride_k + d, dn - d) : vf{};
      if (d * sizeof(T) % 64 == 0) prefetch_rows(ahead, j, d0 + d);
      transpose(v);
      for (int i = 0; i < W && d + i < dn; ++i) store(out + (d + i) * BLOCK + j, v[i]);
    }
}

template <class T>
GT_INLINE T *at(const gt_tensor *t, int64_t i, int64_t j, int64_t k) {
  return static_cast<T *>(t->data) + i * t->stride[0] + j * t->stride[1] + k * t->stride[2];
}
GT_INLINE int64_t i32_at(const gt_tensor *t, int64_t i) { return static_cast<const int32_t *>(t->data)[i]; }
GT_INLINE int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

// Of dense attention: where query row t of sequence b, its keys and its mask are.
template <class T>
struct Dense {
  const gt_tensor *y, *lse, *q, *k, *v, *bias_tensor, *key_lengths;
  gt_mask mask;

  int64_t sequences() const { return q->shape[0]; }
  int64_t heads() const { return q->shape[2]; }
  int64_t kv_heads() const { return k->shape[2]; }
  int64_t queries(int64_t) const { return q->shape[1]; }
  int64_t visible(int64_t b, int64_t t) const {
    const int64_t keys = k->shape[1], causal = mask == GT_MASK_CAUSAL ? t + 1 + keys - q->shape[1] : keys;
    return clamp(causal, 0, key_lengths ? clamp(i32_at(key_lengths, b), 0, keys) : keys);
  }
  const T *query(int64_t b, int64_t t, int64_t h) const { return at<const T>(q, b, t, h); }
  T *output(int64_t b, int64_t t, int64_t h) const { return at<T>(y, b, t, h); }
  int64_t lse_index(int64_t b, int64_t t, int64_t h) const { return (b * heads() + h) * q->shape[1] + t; }
  KeyBlock<T> block(int64_t b, int64_t g, int64_t j) const {
    return {at<const T>(k, b, j * BLOCK, g), at<const T>(v, b, j * BLOCK, g), k->stride[1], v->stride[1]};
  }
  const float *bias(int64_t b, int64_t t, int64_t h) const {
    if (!bias_tensor) return nullptr;
    const gt_tensor &x = *bias_tensor;
    return at<const float>(&x, x.shape[0] == 1 ? 0 : b, x.shape[1] == 1 ? 0 : h, t);
  }
  int64_t bias_stride() const { return bias_tensor ? bias_tensor->stride[3] : 0; }
};

}  // namespace
}  // namespace gt::GT_ISA
