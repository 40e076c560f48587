// Vector quantisation: argument checks, dispatch, and the CPU twin of quantise.cu.
#include "gatun/quantise.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/quantise.h
// Mapping     tiles of ROWS rows are split over threads; lanes are rows, so that any C fills the vectors, and codes
//             pass by in tiles of CODES
// Memory      a tile of rows lies transposed on the stack, CHANNELS at a time; the codebook passes once for each tile
// Numerics    a distance is one chain of fused multiply-adds in ascending c, whatever the tile
#include "cpu/math.h"
#include "cpu/parallel.h"
#include "cpu/row.h"
#include "cpu/tile.h"

namespace gt::GT_ISA {
namespace {

constexpr int VECTORS = 4;             // independent chains
constexpr int64_t ROWS = VECTORS * W;  // 64 with AVX-512
constexpr int64_t CODES = 16;          // distances of a tile: 4 KiB
constexpr int64_t CHANNELS = 128;      // transposed rows: 32 KiB

// rows[c][0 .. ROWS) = x[0 .. n)[c]; the rows beyond n are 0.
template <class T>
void transpose_rows(float (*rows)[ROWS], const T *x, int64_t stride, int64_t n, int64_t channels) {
  for (int64_t r = 0; r < ROWS; ++r)
    for (int64_t c = 0; c < channels; ++c) rows[c][r] = r < n ? to_float(x[r * stride + c]) : 0.0f;
}

// distance[v] += sum_c (rows[c] - code[c])^2
template <class T>
GT_INLINE void add_distances(vf (&distance)[VECTORS], const float (*rows)[ROWS], const T *code, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    const float value = to_float(code[c]);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      const vf d = load(rows[c] + v * W) - value;
      distance[v] = fused(d, d, distance[v]);
    }
  }
}

struct Nearest {
  vf distance[VECTORS];
  vi code[VECTORS];

  GT_INLINE void offer(Nearest &n, const vf (&distance)[VECTORS], int64_t k) {
    for (int v = 0; v < VECTORS; ++v) {
      const vi nearer = distance[v] < n.distance[v];
      n.distance[v] = select(nearer, distance[v], n.distance[v]);
      n.code[v] = (nearer & static_cast<int32_t>(k)) | (~nearer & n.code[v]);
    }
  }
};

template <class T>
void nearest_codes(int32_t *ids, const T *x, int64_t stride, int64_t n, const gt_tensor &codebook) {
  const int64_t codes = codebook.shape[0], c = codebook.shape[1];
  const T *book = static_cast<const T *>(codebook.data);
  alignas(64) float rows[CHANNELS][ROWS];
  Nearest nearest;
  for (int v = 0; v < VECTORS; ++v) nearest.distance[v] = broadcast(INF), nearest.code[v] = vi{};
  bool has_nan[ROWS] = {};
  for (int64_t k = 0; k < codes; k += CODES) {
    const int64_t tile = codes - k < CODES ? codes - k : CODES;
    vf distances[CODES][VECTORS] = {};
    for (int64_t first = 0; first < c; first += CHANNELS) {
      const int64_t channels = c - first < CHANNELS ? c - first : CHANNELS;
      if (k == 0 || c > CHANNELS) transpose_rows(rows, x + first, stride, n, channels);
      for (int64_t i = 0; k == 0 && i < channels; ++i)
        for (int64_t r = 0; r < n; ++r) has_nan[r] |= rows[i][r] != rows[i][r];
      for (int64_t i = 0; i < tile; ++i)
        add_distances(distances[i], rows, book + (k + i) * codebook.stride[0] + first, channels);
    }
    for (int64_t i = 0; i < tile; ++i) Nearest::offer(nearest, distances[i], k + i);
  }
  for (int64_t r = 0; r < n; ++r) ids[r] = has_nan[r] ? -1 : nearest.code[r / W][r % W];
}

}  // namespace

gt_status nearest_code_cpu(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *x,
                           const gt_tensor *codebook) {
  const int64_t n = x->shape[0], tiles = (n + ROWS - 1) / ROWS;
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    parallel_for(stream, tiles, 3 * VECTORS * codebook->shape[0] * x->shape[1], [&](int64_t begin, int64_t end) {
      for (int64_t r = begin * ROWS; r < n && r < end * ROWS; r += ROWS)
        nearest_codes(static_cast<int32_t *>(ids->data) + r, static_cast<const T *>(x->data) + r * x->stride[0],
                      x->stride[0], n - r < ROWS ? n - r : ROWS, *codebook);
    });
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(nearest_code)

extern "C" gt_status gt_nearest_code(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *x,
                                     const gt_tensor *codebook) {
  gt::Check check("nearest_code", stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 2).last_contiguous("x", x);
  check.tensor("codebook", codebook, gt::FLOATS).same_dtype("codebook", codebook, "x", x);
  if (!check.ok()) return check.status();
  check.shape("codebook", codebook, {-1, x->shape[1]}).last_contiguous("codebook", codebook);
  check.require(!check.ok() || (codebook->shape[0] >= 1 && codebook->shape[0] <= INT32_MAX),
                "codebook has %lld codes, expected 1 to %d", static_cast<long long>(codebook->shape[0]), INT32_MAX);
  check.tensor("ids", ids, gt::I32).shape("ids", ids, {x->shape[0]}).contiguous("ids", ids);
  if (!check.ok() || x->shape[0] == 0) return check.status();
  return GT_RUN(nearest_code, stream, ids, x, codebook);
}

#endif
