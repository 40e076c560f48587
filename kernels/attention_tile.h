// What do attention's kernels do to a tile of query rows and a tile of keys?
//
// A warp works on tiles of 16 query rows. What it knows of them lies in registers as the result of an mma does
// (lib/mma.h): of a tile of scores or of outputs, lane l holds rows l / 4 and l / 4 + 8, columns l % 4 * 2 and one more
// of every 8. f32 has no tensor core; its products are plain, in the same places.
// Tiles in shared memory have rows of WIDTH columns, 64 up to 512; of a head dim between, columns up to the next
// multiple of 32 are zeros and the rest is not touched. The 16-byte chunks of a row are permuted by its number, so that
// the same chunk of 8 rows lies in 8 different banks.
#pragma once

#include "lib/cuda.h"

#include <type_traits>

#include "gatun/attention.h"
#include "lib/async_copy.h"
#include "lib/exp2.h"
#include "lib/mma.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt::attention {

constexpr int PAGE = 64;  // positions
constexpr int TILE_ROWS = 16;
constexpr int COLUMN_STEP = 32;
constexpr float LOG2E = 1.44269504088896341f, LN2 = 0.693147180559945309f;

template <class T> constexpr bool HAS_MMA = !std::is_same_v<T, float>;

// Of both ops. What only one of them has is NULL or 0 in the other.
template <class T> struct Operands {
  T *y;
  float *lse;
  const T *q, *k, *v;
  int64_t stride_y[3], stride_q[3];    // sequence, query, head; paged: queries of all sequences follow each other
  int64_t stride_k[3], stride_v[3];    // sequence, key, head; paged: contiguous
  int64_t stride_lse[3];               // sequence, query, head
  const float *bias;                   // dense
  int64_t stride_bias[4];              // sequence, head, query, key; 0 where it is shared
  const int32_t *key_lengths;          // dense
  const int32_t *page_table, *query_start, *positions;  // paged
  int num_sequences, num_queries, num_keys, kv_heads, group, d, max_pages, num_pages;
  float scale;                         // times log2(e)
  bool is_causal, q_is_aligned, kv_is_aligned, y_is_aligned;

  __device__ __forceinline__ int columns() const { return (d + COLUMN_STEP - 1) / COLUMN_STEP * COLUMN_STEP; }
};

// The sequence that query row n belongs to. In a decode step it is the n-th.
__device__ __forceinline__ int sequence_of(const int32_t *query_start, int num_sequences, int n) {
  if (n < num_sequences && query_start[n] <= n && n < query_start[n + 1]) return n;
  int low = 0, high = num_sequences - 1;  // the last one that starts at or before n
  while (low < high) {
    const int middle = high - (high - low) / 2;
    if (query_start[middle] <= n) low = middle;
    else high = middle - 1;
  }
  return low;
}

// The page of a position; asked for early, because everything about its keys waits for it.
template <class T> __device__ __forceinline__ int page_of(const Operands<T> &o, int b, int position) {
  return o.page_table ? o.page_table[int64_t{b} * o.max_pages + position / PAGE] : 0;
}

// Keys of one kv head of one sequence from position `start` on, all in `page`.
template <class T> struct KeyRows {
  const T *k, *v;
  int64_t stride_k, stride_v;
};
template <class T>
__device__ __forceinline__ KeyRows<T> key_rows(const Operands<T> &o, int b, int g, int start, int page) {
  if (!o.page_table)
    return {o.k + b * o.stride_k[0] + start * o.stride_k[1] + g * o.stride_k[2],
            o.v + b * o.stride_v[0] + start * o.stride_v[1] + g * o.stride_v[2], o.stride_k[1], o.stride_v[1]};
  const int64_t first = ((int64_t{page} * o.kv_heads + g) * PAGE + start % PAGE) * o.d;
  return {o.k + first, o.v + first, o.d, o.d};
}

// Shared memory

template <class T, int WIDTH> __device__ __forceinline__ T *chunk_at(T *tile, int row, int chunk) {
  return tile + row * WIDTH + (chunk ^ (row & 7)) * VEC<T>;
}
template <class T, int WIDTH> __device__ __forceinline__ const T *chunk_at(const T *tile, int row, int chunk) {
  return tile + row * WIDTH + (chunk ^ (row & 7)) * VEC<T>;
}

// tile[r] = row_of(r)[0 .. d) for r < count, zeros for the rows from there on up to ROWS, by `threads` threads of which
// this is number `thread`. Where rows are aligned the copies are asynchronous: the caller commits and waits.
template <class T, int WIDTH, class RowOf>
__device__ __forceinline__ void load_rows(T *tile, int rows, int count, int d, int columns, bool aligned, int thread,
                                          int threads, RowOf row_of) {
  constexpr int CHUNKS = WIDTH / VEC<T>;
#pragma unroll 4
  for (int i = thread; i < rows * CHUNKS; i += threads) {
    const int r = i / CHUNKS, chunk = i % CHUNKS, column = chunk * VEC<T>;
    if (column >= columns) continue;
    const int n = r < count ? max(0, min(VEC<T>, d - column)) : 0;
    const T *const from = row_of(r < count ? r : 0) + (n > 0 ? column : 0);
    T *const to = chunk_at<T, WIDTH>(tile, r, chunk);
    if (aligned) {
      async_copy_16(to, from, n * static_cast<int>(sizeof(T)));
    } else {
      Vector<T> v = {};
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j)
        if (j < n) v.element[j] = from[j];
      *reinterpret_cast<Vector<T> *>(to) = v;
    }
  }
}

// Scores

// s = q k^T of ROW_TILES * 16 rows and KEYS keys, columns ascending. In f32 only the first num_rows rows are worth
// work.
template <class T, int WIDTH, int ROW_TILES, int KEYS>
__device__ __forceinline__ void score(const T *q, const T *k, int num_rows, int columns,
                                      float (&s)[ROW_TILES][KEYS / 8][4]) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
    for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[i][j][e] = 0.0f;
  if constexpr (HAS_MMA<T>) {
#pragma unroll 2
    for (int chunk = 0; chunk < columns / VEC<T>; chunk += 2) {
      uint32_t a[ROW_TILES][4];
#pragma unroll
      for (int i = 0; i < ROW_TILES; ++i)
        ldmatrix_x4(a[i], chunk_at<T, WIDTH>(q, i * TILE_ROWS + lane % 16, chunk + lane / 16));
#pragma unroll
      for (int j = 0; j < KEYS / 16; ++j) {
        uint32_t b[4];
        ldmatrix_x4(b, chunk_at<T, WIDTH>(k, j * 16 + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < ROW_TILES; ++i) {
          mma_m16n8k16<T>(s[i][2 * j], a[i], b[0], b[1]);
          mma_m16n8k16<T>(s[i][2 * j + 1], a[i], b[2], b[3]);
        }
      }
    }
  } else {
    static_assert(ROW_TILES == 1, "num_rows is of one tile");
    const int r = lane / 4;
    if (r >= num_rows) return;
    const bool has_high = r + 8 < num_rows;
#pragma unroll 1
    for (int chunk = 0; chunk < columns / VEC<T>; ++chunk) {
      const auto low = *reinterpret_cast<const Vector<float> *>(chunk_at<T, WIDTH>(q, r, chunk));
      const auto high = *reinterpret_cast<const Vector<float> *>(chunk_at<T, WIDTH>(q, has_high ? r + 8 : r, chunk));
#pragma unroll
      for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const auto key = *reinterpret_cast<const Vector<float> *>(
              chunk_at<T, WIDTH>(k, j * 8 + lane % 4 * 2 + e, chunk));
#pragma unroll
          for (int c = 0; c < VEC<float>; ++c) s[0][j][e] += low.element[c] * key.element[c];
          if (has_high)
#pragma unroll
            for (int c = 0; c < VEC<float>; ++c) s[0][j][2 + e] += high.element[c] * key.element[c];
        }
    }
  }
}

// The largest value, or the sum, of a row's 4 lanes.
__device__ __forceinline__ float row_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 1));
  return fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 2));
}
__device__ __forceinline__ float row_sum(float v) {
  v += __shfl_xor_sync(ALL_LANES, v, 1);
  return v + __shfl_xor_sync(ALL_LANES, v, 2);
}

// What powers of two are taken relative to: 0 where there is nothing to be seen yet, so that 2^(-inf - base) is 0.
__device__ __forceinline__ float base_of(float maximum) { return maximum == -INFINITY ? 0.0f : maximum; }

// The state of 16 rows: the largest score so far, this lane's part of the sum of powers, and of the weighted values.
template <int COLUMNS> struct Rows {
  float maximum[2], sum[2], o[COLUMNS / 8][4];

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int h = 0; h < 2; ++h) maximum[h] = -INFINITY, sum[h] = 0.0f;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[j][e] = 0.0f;
  }

  // Turns scores into powers relative to the new maximum, and what was summed under the old one with them.
  template <int N> __device__ __forceinline__ void raise(float (&s)[N][4]) {
    float rescale[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float now = maximum[h];
#pragma unroll
      for (int j = 0; j < N; ++j) now = fmaxf(now, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
      now = row_max(now);
      const float base = base_of(now);
      rescale[h] = exp2_flushed(maximum[h] - base);
      maximum[h] = now;
      sum[h] *= rescale[h];
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; ++e) {
          s[j][e] = exp2_flushed(s[j][e] - base);
          sum[h] += s[j][e];
        }
    }
    if (!__any_sync(ALL_LANES, rescale[0] != 1.0f || rescale[1] != 1.0f)) return;  // as soon as the maxima are found
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[j][e] *= rescale[e / 2];
  }
};

// Values

// Pairs of bf16 or f16 in one register.
template <class T> constexpr uint32_t EXPONENT = std::is_same_v<T, bf16> ? 0x7f80u : 0x7c00u;
template <class T> constexpr uint32_t ONE = std::is_same_v<T, bf16> ? 0x3f80u : 0x3c00u;

// 0xffff in each half that is Inf or NaN.
template <class T> __device__ __forceinline__ uint32_t nonfinite_mask(uint32_t pair) {
  const uint32_t low = (pair & EXPONENT<T>) == EXPONENT<T> ? 0xffffu : 0u;
  return low | ((pair >> 16 & EXPONENT<T>) == EXPONENT<T> ? 0xffff0000u : 0u);
}

// b of lib/mma.h from values: keys 16 k up to 16 k + 15 and 16 columns from 16-byte chunk `chunk` on.
template <class T, int WIDTH>
__device__ __forceinline__ void load_values(uint32_t (&b)[4], const T *v, int k, int chunk) {
  const int lane = threadIdx.x % WARP;
  ldmatrix_x4_transposed(b, chunk_at<T, WIDTH>(v, k * 16 + lane % 16, chunk + lane / 16));
}

// rows.o += p v, where SANITISED with 0 for each value that is Inf or NaN. Returns 0 if there was none.
template <bool SANITISED, class T, int WIDTH, int COLUMNS, int ROW_TILES, int KEYS>
__device__ __forceinline__ uint32_t multiply_values(Rows<COLUMNS> (&rows)[ROW_TILES],
                                                    const uint32_t (&p)[ROW_TILES][KEYS / 16][4], const T *v,
                                                    int first_column, int columns) {
  uint32_t nonfinite = 0;
#pragma unroll
  for (int step = 0; step < COLUMNS; step += COLUMN_STEP) {
    if (first_column + step >= columns) break;
#pragma unroll
    for (int k = 0; k < KEYS / 16; ++k)
#pragma unroll
      for (int j = step / 16; j < (step + COLUMN_STEP) / 16; ++j) {
        uint32_t b[4];
        load_values<T, WIDTH>(b, v, k, first_column / VEC<T> + 2 * j);
        if (SANITISED)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const uint32_t mask = nonfinite_mask<T>(b[e]);
            nonfinite |= mask;
            b[e] &= ~mask;
          }
#pragma unroll
        for (int i = 0; i < ROW_TILES; ++i) {
          mma_m16n8k16<T>(rows[i].o[2 * j], p[i][k], b[0], b[1]);
          mma_m16n8k16<T>(rows[i].o[2 * j + 1], p[i][k], b[2], b[3]);
        }
      }
  }
  return nonfinite;
}

// Turns into NaN what the rows have in columns where they see a value that is Inf or NaN: such values are counted, 1
// for each in both factors.
template <class T, int WIDTH, int COLUMNS, int ROW_TILES, int KEYS, class Seen>
__device__ __forceinline__ void spread_nonfinite(Rows<COLUMNS> (&rows)[ROW_TILES], const T *v, int first_column,
                                                 int columns, Seen seen) {
  const int lane = threadIdx.x % WARP;
  int limit[ROW_TILES][2];
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) limit[i][h] = seen(i, h);
#pragma unroll
  for (int j = 0; j < COLUMNS / 16; ++j) {
    if (first_column + j * 16 >= columns) break;
    float count[ROW_TILES][2][4] = {};
#pragma unroll 1
    for (int k = 0; k < KEYS / 16; ++k) {
      uint32_t b[4];
      load_values<T, WIDTH>(b, v, k, first_column / VEC<T> + 2 * j);
#pragma unroll
      for (int e = 0; e < 4; ++e) b[e] = nonfinite_mask<T>(b[e]) & (ONE<T> | ONE<T> << 16);
#pragma unroll
      for (int i = 0; i < ROW_TILES; ++i) {
        uint32_t a[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = k * 16 + e / 2 * 8 + lane % 4 * 2;
          a[e] = (key < limit[i][e % 2] ? ONE<T> : 0u) | (key + 1 < limit[i][e % 2] ? ONE<T> << 16 : 0u);
        }
        mma_m16n8k16<T>(count[i][0], a, b[0], b[1]);
        mma_m16n8k16<T>(count[i][1], a, b[2], b[3]);
      }
    }
#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
      for (int e = 0; e < 8; ++e)
        if (count[i][e / 4][e % 4] > 0.0f) rows[i].o[2 * j + e / 4][e % 4] = NAN;
  }
}

// rows.o += p v on the tensor cores, where s holds the powers p and v has KEYS rows. all_seen: every row sees every
// key; else seen(i, h) says how many row l / 4 + 8 h of tile i sees. A value that only some rows see must not be
// multiplied with the 0 of the others if it is Inf or NaN.
template <class T, int WIDTH, int COLUMNS, int ROW_TILES, int KEYS, class Seen>
__device__ __forceinline__ void accumulate_mma(Rows<COLUMNS> (&rows)[ROW_TILES],
                                               const float (&s)[ROW_TILES][KEYS / 8][4], const T *v, int first_column,
                                               int columns, bool all_seen, Seen seen) {
  uint32_t p[ROW_TILES][KEYS / 16][4];
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
    for (int k = 0; k < KEYS / 16; ++k)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float *const pair = &s[i][2 * k + e / 2][e % 2 * 2];
        p[i][k][e] = pack_pair<T>(pair[0], pair[1]);
      }
  if (all_seen) {
    multiply_values<false, T, WIDTH, COLUMNS, ROW_TILES, KEYS>(rows, p, v, first_column, columns);
  } else {
    const uint32_t found = multiply_values<true, T, WIDTH, COLUMNS, ROW_TILES, KEYS>(rows, p, v, first_column, columns);
    if (__any_sync(ALL_LANES, found != 0))
      spread_nonfinite<T, WIDTH, COLUMNS, ROW_TILES, KEYS>(rows, v, first_column, columns, seen);
  }
}

// The same for f32. The powers of a row lie in 4 lanes and each of them wants all: they travel through `scratch`, 16
// rows of KEYS floats of shared memory that belong to this warp. Only the first num_rows rows are worth work.
template <int WIDTH, int COLUMNS, int KEYS, class Seen>
__device__ __forceinline__ void accumulate_f32(Rows<COLUMNS> &rows, const float (&s)[KEYS / 8][4], const float *v,
                                               float *scratch, int num_rows, int first_column, int columns,
                                               bool all_seen, Seen seen) {
  constexpr int SPREAD = KEYS / 4 < 8 ? KEYS / 4 - 1 : 7;  // as chunk_at, with as many chunks as there are
  const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4 * 2;
  const auto at = [&](int row, int key) { return scratch + row * KEYS + (key / 4 ^ (row & SPREAD)) * 4 + key % 4; };
  __syncwarp();
#pragma unroll
  for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) *at(g + e / 2 * 8, j * 8 + t + e % 2) = s[j][e];
  __syncwarp();
  if (g >= num_rows) return;
  const bool has_high = g + 8 < num_rows;
  const int low_limit = all_seen ? KEYS : seen(0, 0), high_limit = !has_high ? 0 : all_seen ? KEYS : seen(0, 1);
#pragma unroll 1
  for (int quad = 0; quad < KEYS; quad += 4) {
    const auto low = *reinterpret_cast<const Vector<float> *>(at(g, quad));
    const auto high = *reinterpret_cast<const Vector<float> *>(at(g + 8, quad));
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int key = quad + k;
      // a value that a row does not see may be NaN, and 0 times that is NaN
      const bool low_sees = key < low_limit, high_sees = key < high_limit;
#pragma unroll
      for (int step = 0; step < COLUMNS; step += COLUMN_STEP) {
        if (first_column + step >= columns) break;
#pragma unroll
        for (int j = step / 8; j < (step + COLUMN_STEP) / 8; ++j) {
          const int column = first_column + j * 8 + t;
          const float2 x = *reinterpret_cast<const float2 *>(
              chunk_at<float, WIDTH>(v, key, column / 4) + column % 4);
          if (low_sees) {
            rows.o[j][0] += low.element[k] * x.x;
            rows.o[j][1] += low.element[k] * x.y;
          }
          if (high_sees) {
            rows.o[j][2] += high.element[k] * x.x;
            rows.o[j][3] += high.element[k] * x.y;
          }
        }
      }
    }
  }
}

template <class T, int WIDTH, int COLUMNS, int ROW_TILES, int KEYS, class Seen>
__device__ __forceinline__ void accumulate(Rows<COLUMNS> (&rows)[ROW_TILES], const float (&s)[ROW_TILES][KEYS / 8][4],
                                           const T *v, T *scratch, int num_rows, int first_column, int columns,
                                           bool all_seen, Seen seen) {
  if constexpr (HAS_MMA<T>) {
    accumulate_mma<T, WIDTH, COLUMNS, ROW_TILES, KEYS>(rows, s, v, first_column, columns, all_seen, seen);
  } else {
    static_assert(ROW_TILES == 1, "the scratch is for 16 rows");
    accumulate_f32<WIDTH, COLUMNS, KEYS>(rows[0], s[0], v, scratch, num_rows, first_column, columns, all_seen, seen);
  }
}

// Host

// Decode steps: attention_decode.cu.
constexpr int MAX_SPLIT_WIDTH = 256;  // head dim
constexpr int64_t MAX_SPLIT_HEADS = 65535;
// Refuses what kernels cannot count.
gt_status split_workspace(const char *op, const gt_tensor &q, const gt_tensor &page_table, int64_t *bytes);
template <class T> int launch_split(void *stream, const Operands<T> &o, void *workspace);

// Dense and paged attention on Hopper: attention_sm90.cu. False: it does not take these operands, and has done nothing.
template <class T> bool launch_hopper(void *stream, const Operands<T> &o, int *status);

}  // namespace gt::attention
