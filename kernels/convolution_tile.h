// Where the sums of a tile of 64 x 64 lie among the threads of two by two warps, as mma.sync leaves them.
#pragma once

#include "lib/cuda.h"

// put(row of the tile, column of the tile, sum); d[block of rows][block of columns][sum of a thread]
template <class Sums, class Put> __device__ __forceinline__ void for_each_of_tile(const Sums &d, Put put) {
  constexpr int LANES = 32;
  const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          put(warp / 2 * 32 + i * 16 + h * 8 + lane / 4, warp % 2 * 32 + j * 8 + lane % 4 * 2 + e, d[i][j][2 * h + e]);
}
