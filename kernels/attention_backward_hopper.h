// What do both of Hopper's kernels of attention's derivatives share?
//
// A block owns 128 keys or 128 rows, two warpgroups of it 64 each, and meets the others tile by tile. One thread has
// the copy engine bring them. The rows' lse and delta come the same way, from the workspace, where a first kernel puts
// them.
#pragma once

#include "attention_backward_operands.h"
#include "lib/tma.h"
#include "lib/wgmma.h"

namespace gt::attention_backward {

constexpr int ROWS = WGMMA_M;          // of a warpgroup
constexpr int GROUPS = 2;              // warpgroups that multiply
constexpr int OWN = GROUPS * ROWS;
constexpr int PANEL = 64;              // columns of a swizzled tile; wider rows are several of them
constexpr int THREADS = (GROUPS + 1) * WARPGROUP_THREADS;
constexpr int CONSUMERS = GROUPS * WARPGROUP_THREADS;

// Of a thread. A block starts with equal shares, in eights, of 64 Ki; who asks for more than is left waits for ever.
constexpr int PRODUCER_REGISTERS = 24, CONSUMER_REGISTERS = 240;
static_assert(PRODUCER_REGISTERS + GROUPS * CONSUMER_REGISTERS <= (GROUPS + 1) * (65536 / THREADS / 8 * 8),
              "the warpgroups ask for more registers than a block has");

// lse in powers of two and delta of two neighbouring rows: 16 bytes. A head's rows are padded to whole tiles with rows
// whose P is 0.
struct alignas(16) RowPair {
  float lse[2], delta[2];
};
constexpr int ROWS_PER_LINE = 2 * TILE_ROW_BYTES / static_cast<int>(sizeof(RowPair));
constexpr int LINES = ROWS / ROWS_PER_LINE;          // of a tile of rows
constexpr int STATISTICS = 8 * TILE_COLUMNS<float>;  // of a place for them, in floats: such places begin at 1024 bytes
__host__ __device__ constexpr int64_t padded_rows(int64_t queries) { return (queries + OWN - 1) / OWN * OWN; }

// Which of PLACES comes next, and the parity of its phase.
template <int PLACES> struct Ring {
  int place = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void advance() {
    if (++place == PLACES) place = 0, parity ^= 1;
  }
};

// Has one tile of `rows` rows brought to each panel.
template <int PANELS, class T>
__device__ __forceinline__ void load_panels(T *to, int rows, const TensorMap *map, Mbarrier *barrier, int row, int head,
                                            int sequence) {
#pragma unroll
  for (int panel = 0; panel < PANELS; ++panel) {
    const int place[5] = {panel * PANEL, row, head, sequence, 0};
    tma_load(to + panel * rows * PANEL, map, barrier, place);
  }
}

// lse and delta of the rows that are columns 8 j + lane % 4 * 2 and one more of a place's tile. One exclusive or away
// from an index that changes with the place: eight addresses for all j would not fit in registers.
template <int PLACES>
__device__ __forceinline__ const RowPair &pair_of(const float (&statistics)[PLACES][STATISTICS], int place, int lane,
                                                  int j) {
  const int first = place * STATISTICS + lane % 4 * 4;
  return *reinterpret_cast<const RowPair *>(statistics[0] + (first ^ tile_offset<float>(j / 2, j % 2 * 16)));
}

// s = own met^T, of 64 rows of what is owned. The caller fences before and commits after.
template <int WIDTH, int MET, class T>
__device__ __forceinline__ void order_scores(float (&s)[MET / 2], const T *own, const T *met) {
  const uint64_t a = wgmma_k_major(own, 0), b = wgmma_k_major(met, 0);
#pragma unroll
  for (int column = 0; column < WIDTH; column += WGMMA_K) {
    const int panel = column / PANEL, bytes = column % PANEL * static_cast<int>(sizeof(T));
    wgmma<T, MET>(s, wgmma_advance(a, panel * OWN * TILE_ROW_BYTES + bytes),
                  wgmma_advance(b, panel * MET * TILE_ROW_BYTES + bytes), column > 0);
  }
}

// sums += p met, p of 64 rows. The caller fences before and commits after.
template <int WIDTH, int MET, class T>
__device__ __forceinline__ void order_sums(float (&sums)[WIDTH / 2], const uint32_t (&p)[MET / 16][4], const T *met) {
  const uint64_t b = wgmma_mn_major(met, 0, MET);
#pragma unroll
  for (int row = 0; row < MET; row += WGMMA_K)
    wgmma<T, WIDTH, Major::MN>(sums, p[row / WGMMA_K], wgmma_advance(b, row * TILE_ROW_BYTES), true);
}

// Rounds factor * sums of the warp's 16 rows, of which `count` exist and is_seen says which are not zero, and stores
// them by way of `tile`, the warp's rows of a place in shared memory that nobody reads any more.
template <int WIDTH, class T>
__device__ __forceinline__ void store_rows(const float (&sums)[WIDTH / 2], float factor, const bool (&is_seen)[2],
                                           T *tile, const Heads<T> &out, int sequence, int head, int row, int count,
                                           int d) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int i = 2 * h; i < WIDTH / 2; i += 4) {
      const int column = wgmma_column(lane, i);
      const float low = is_seen[h] ? sums[i] * factor : 0.0f, high = is_seen[h] ? sums[i + 1] * factor : 0.0f;
      const uint32_t pair = pack_pair<T>(low, high);
      const int place = column / PANEL * OWN * PANEL + tile_offset<T>(h * 8 + lane / 4, column % PANEL);
      memcpy(tile + place, &pair, sizeof pair);
    }
  __syncwarp();
  constexpr int CHUNKS = WIDTH / VEC<T>;
#pragma unroll 1
  for (int i = lane; i < attention::TILE_ROWS * CHUNKS; i += WARP) {
    const int r = i / CHUNKS, column = i % CHUNKS * VEC<T>;
    if (r >= count || column >= d) continue;
    const auto x = *reinterpret_cast<const Vector<T> *>(tile + column / PANEL * OWN * PANEL +
                                                        tile_offset<T>(r, column % PANEL));
    T *const to = out.at(sequence, row + r, head) + column;
    if (out.is_aligned) {
      *reinterpret_cast<Vector<T> *>(to) = x;
    } else {
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) to[j] = x.element[j];
    }
  }
}

// Host

// Rows of [B, N, H, D] in tiles of `rows` positions. False: no map takes them.
template <class T>
bool map_rows(TensorMap *map, const Heads<const T> &x, int b, int n, int h, int d, int rows) {
  const int64_t extents[5] = {d, n, h, b, 1};
  int64_t strides[4] = {x.stride[1], x.stride[2], x.stride[0], d};
  for (int i = 0; i < 4; ++i) {
    if (extents[i + 1] == 1) strides[i] = d;
    if (strides[i] <= 0) return false;
  }
  return make_tensor_map(map, x.data, extents, strides, {rows, 1, 1, 1}) == 0;
}

// The first pass: lse and delta into the workspace; counters per tile of 64 rows and the ticket, where there are some,
// become 0. Returns a cudaError_t.
template <class T> int launch_statistics(void *stream, const Operands<T> &o, unsigned *counters, unsigned *tickets);

// attention_backward_turns_sm90.cu: as launch_hopper, for D from 104 to 128. Behind the statistics it needs workspace
// for that many padded rows.
template <class T> bool launch_in_turns(void *stream, const Operands<T> &o, int *status);
int64_t turns_workspace_bytes(int64_t rows);

}  // namespace gt::attention_backward
