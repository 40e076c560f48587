// How does a warp multiply small matrices on the tensor cores, and how do their operands get into its registers?
//
// d[16 x 8] += a[16 x 16] b[16 x 8], a and b bf16 or f16, d f32. Lane l holds, with g = l / 4 and t = l % 4 * 2:
//   d   d[g][t], d[g][t+1], d[g+8][t], d[g+8][t+1]
//   a   four pairs of neighbours in a row, the left one in the lower half: a[g][t], a[g+8][t], a[g][t+8], a[g+8][t+8]
//   b   two pairs of neighbours in a column: b[t][g], b[t+8][g]
// ldmatrix brings four matrices of 8 x 8 16-bit elements from shared memory: lane l names row l % 8 of matrix l / 8, 16
// aligned bytes, and gets of matrix i the pair m[g][t], m[g][t+1], or transposed m[t][g], m[t+1][g]. All 32 lanes take
// part in every call. A row that another lane has stored needs a __syncwarp before. PTX ISA, "mma" and "ldmatrix";
// sm_80.
#pragma once

#include <type_traits>

#include "lib/shared_address.h"
#if defined(GT_SIMT)
#include "simt/mma.h"
#endif

namespace gt {

#if defined(__CUDACC__)

// T: bf16 or f16, the type of a and b.
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#define GT_MMA(type)                                                             \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "    \
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"           \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                  \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
  if constexpr (std::is_same_v<T, bf16>) GT_MMA("bf16");
  else GT_MMA("f16");
#undef GT_MMA
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

#else

template <class T>
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         simt::Site site = GT_SIMT_HERE) {
  simt::mma_m16n8k16<std::is_same_v<T, bf16> ? simt::Format::BF16 : simt::Format::F16>(d, a, b0, b1, site);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, simt::Site site = GT_SIMT_HERE) {
  simt::ldmatrix_x4<false>(r, row, site);
}
inline void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *row, simt::Site site = GT_SIMT_HERE) {
  simt::ldmatrix_x4<true>(r, row, site);
}

#endif

}  // namespace gt
