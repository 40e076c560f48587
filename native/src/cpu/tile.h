// The register tile that matrix products and attention are made of, and its operands brought into its shape.
//
// Every element of a product is one chain of fused multiply-adds in ascending k, started from what is in memory: its
// bits depend neither on the size of the tile it was computed in nor on where a long sum is interrupted.
#pragma once

#include <utility>

#include "cpu/vec.h"

namespace gt::GT_ISA {

// a * b + c in one rounding. Written out where bits must not depend on what the compiler contracts around it.
GT_INLINE vf fused(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  for (int i = 0; i < W; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

// 6 x 4 accumulators fill the 32 registers of AVX-512, 6 x 2 the 16 of AVX2.
constexpr int TILE_ROWS = 6;
constexpr int TILE_VECTORS = W == 16 ? 4 : 2;
constexpr int TILE_COLUMNS = TILE_VECTORS * W;

// Where a sum starts: from nothing, from c as it is, or from c * scale[r] for any other array of TILE_ROWS floats.
constexpr const float *FROM_ZERO = nullptr;
static const float FROM_C[TILE_ROWS] = {1, 1, 1, 1, 1, 1};

// c[r][0 .. V*W) = c[r][..] * scale[r] + sum_k a[r][k] * b[k][0 .. V*W)
template <int R, int V, class B>
GT_INLINE void multiply_add(const float *scale, float *c, int64_t ldc, const float *a, int64_t lda,
                            const B *b, int64_t ldb, int64_t n) {
  vf sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = scale ? load(c + r * ldc + v * W) * scale[r] : vf{};
  for (int64_t k = 0; k < n; ++k, b += ldb) {
    vf row[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) row[v] = load(b + v * W);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const vf x = a[r * lda + k] - vf{};
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = fused(x, row[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(c + r * ldc + v * W, sum[r][v]);
}

template <int R, class B>
static void multiply_add_rows(int vectors, const float *scale, float *c, int64_t ldc, const float *a,
                              int64_t lda, const B *b, int64_t ldb, int64_t n) {
  for (; vectors >= TILE_VECTORS; vectors -= TILE_VECTORS, c += TILE_COLUMNS, b += TILE_COLUMNS)
    multiply_add<R, TILE_VECTORS>(scale, c, ldc, a, lda, b, ldb, n);
  if constexpr (TILE_VECTORS > 2) {
    if (vectors == 3) multiply_add<R, 3>(scale, c, ldc, a, lda, b, ldb, n);
    if (vectors == 2) multiply_add<R, 2>(scale, c, ldc, a, lda, b, ldb, n);
  }
  if (vectors == 1) multiply_add<R, 1>(scale, c, ldc, a, lda, b, ldb, n);
}

// The same for 1 .. TILE_ROWS rows and any number of vectors.
template <class B>
static void multiply_add(int rows, int vectors, const float *scale, float *c, int64_t ldc, const float *a,
                         int64_t lda, const B *b, int64_t ldb, int64_t n) {
  switch (rows) {
    case 1: return multiply_add_rows<1>(vectors, scale, c, ldc, a, lda, b, ldb, n);
    case 2: return multiply_add_rows<2>(vectors, scale, c, ldc, a, lda, b, ldb, n);
    case 3: return multiply_add_rows<3>(vectors, scale, c, ldc, a, lda, b, ldb, n);
    case 4: return multiply_add_rows<4>(vectors, scale, c, ldc, a, lda, b, ldb, n);
    case 5: return multiply_add_rows<5>(vectors, scale, c, ldc, a, lda, b, ldb, n);
    default: return multiply_add_rows<6>(vectors, scale, c, ldc, a, lda, b, ldb, n);
  }
}

// c[r][0 .. V*W) += sum_k a[k][r] * b[k][0 .. V*W): the left factor transposed.
template <int R, int V>
GT_INLINE void multiply_transposed(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb,
                                   int64_t n) {
  vf sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = load(c + r * ldc + v * W);
  for (int64_t k = 0; k < n; ++k, a += lda, b += ldb) {
    vf row[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) row[v] = load(b + v * W);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const vf x = a[r] - vf{};
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = fused(x, row[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(c + r * ldc + v * W, sum[r][v]);
}

// The same for any number of vectors.
template <int R>
static void multiply_transposed(int vectors, float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
                                int64_t ldb, int64_t n) {
  for (; vectors >= TILE_VECTORS; vectors -= TILE_VECTORS, c += TILE_COLUMNS, b += TILE_COLUMNS)
    multiply_transposed<R, TILE_VECTORS>(c, ldc, a, lda, b, ldb, n);
  if constexpr (TILE_VECTORS > 2) {
    if (vectors == 3) multiply_transposed<R, 3>(c, ldc, a, lda, b, ldb, n);
    if (vectors == 2) multiply_transposed<R, 2>(c, ldc, a, lda, b, ldb, n);
  }
  if (vectors == 1) multiply_transposed<R, 1>(c, ldc, a, lda, b, ldb, n);
}

// Swaps the S-lane halves of a's odd pairs with those of b's even pairs: one step of a transposition.
template <int S, int... L>
GT_INLINE void exchange(vf &a, vf &b, std::integer_sequence<int, L...>) {
  const vf low = __builtin_shufflevector(a, b, (L & S ? W + L - S : L)...);
  b = __builtin_shufflevector(a, b, (L & S ? W + L : L + S)...);
  a = low;
}
template <int S>
GT_INLINE void exchange(vf &a, vf &b) {
  exchange<S>(a, b, std::make_integer_sequence<int, W>{});
}

// Transposes a W x W matrix of rows: S = W/2, W/4 .. 1.
template <int S = W / 2>
GT_INLINE void transpose(vf (&v)[W]) {
  if constexpr (S > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i)
      if (!(i & S)) exchange<S>(v[i], v[i + S]);
    transpose<S / 2>(v);
  }
}

// Quads of 32 bits from rows 0, 4, 8 .. of a matrix whose rows are stride bytes apart: a transposition's steps across
// lanes of 128 bits done by loads, so that transpose<2> finishes it.
GT_INLINE vf load_quads(const char *p, int64_t stride) {
#if defined(__AVX512F__)
  __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(reinterpret_cast<const float *>(p)));
  v = _mm512_insertf32x4(v, _mm_loadu_ps(reinterpret_cast<const float *>(p + 4 * stride)), 1);
  v = _mm512_insertf32x4(v, _mm_loadu_ps(reinterpret_cast<const float *>(p + 8 * stride)), 2);
  return (vf)_mm512_insertf32x4(v, _mm_loadu_ps(reinterpret_cast<const float *>(p + 12 * stride)), 3);
#elif defined(__AVX2__)
  const __m256 v = _mm256_castps128_ps256(_mm_loadu_ps(reinterpret_cast<const float *>(p)));
  return (vf)_mm256_insertf128_ps(v, _mm_loadu_ps(reinterpret_cast<const float *>(p + 4 * stride)), 1);
#else
  (void)stride;
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
#endif
}

// The lane sums of W vectors side by side: lane i has sum_lanes(v[i]), bit for bit. Spends v.
template <int S = W / 2>
GT_INLINE vf sum_lanes_of_each(vf *v) {
  if constexpr (S == 0) {
    return v[0];
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < S; ++i) {
      exchange<S>(v[i], v[i + S]);
      v[i] += v[i + S];
    }
    return sum_lanes_of_each<S / 2>(v);
  }
}

// The first n <= W elements, then zeros; reads no further.
template <class T>
GT_INLINE vf load_first(const T *p, int64_t n) {
  if (n >= W) return load(p);
  T padded[W] = {};
  if (n == W / 2)  // head dims 40 and 72: a copy of constant size
    memcpy(padded, p, W / 2 * sizeof(T));
  else
    for (int64_t i = 0; i < n; ++i) padded[i] = p[i];
  return load(padded);
}

// out[r][0 .. ld) = x[r][0 .. n) as f32, then zeros; ld a multiple of W.
template <class T>
GT_INLINE void copy_rows(float *out, int64_t ld, const T *x, int64_t ldx, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < ld; i += W) store(out + r * ld + i, i < n ? load_first(x + r * ldx + i, n - i) : vf{});
}

}  // namespace gt::GT_ISA
