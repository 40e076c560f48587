// How does a warpgroup multiply tiles that lie in shared memory?
//
//   D[64, N] += A[64, 16] B[16, N]    A and B bf16 or f16, D f32 in registers, N = 64, 80, 96, 128 or 256
// Four warps, the first a multiple of 4, call together:
//   wgmma_fence(d);                   d is handed over; again after each wait, and where a branch comes between
//                                     products
//   wgmma<bf16, N>(d, a, b, true);    any number of them; false: d = A B
//   wgmma_commit();                   ends a group; so does, for ptxas, a fence: commit before each
//   wgmma_wait<0>(d);                 all but the last 0 groups are over, d is ours again and the tiles may be reused
//   wgmma_wait_behind(x, y);          before a wait: what x and y are made of is done first, while products run
// In between nobody may touch d. a and b describe tiles as tma.h loads them: K-major, rows of 64 k, or MN-major, rows
// of 64 m or n. Tiles that threads wrote themselves (at tile_offset) need fence_async and a barrier before. A may also
// lie in registers, as wgmma_pack makes them of a result: wgmma_fence(d, a), wgmma<bf16, N>(d, a[i], b, true),
// wgmma_wait<0>(d, a), and nobody may touch a in between. PTX ISA, "Asynchronous warpgroup level matrix instructions".
// ptxas serialises products whose d it cannot keep in fixed registers, and says so: index d by constants alone.
#pragma once

#include "lib/tma.h"
#include "lib/vec.h"
#if defined(GT_SIMT)
#include "simt/registers.h"
#include "simt/wgmma.h"
#endif

namespace gt {

enum class Major { K, MN };

constexpr int WGMMA_M = 64, WGMMA_K = 16, WARPGROUP_THREADS = 128;

// PTX ISA, "Matrix descriptor format": address, distance between 64 m or n, distance between 8 rows, 128-byte swizzle.
template <class T>
__device__ __forceinline__ uint64_t wgmma_descriptor(const T *p, uint32_t leading_bytes, uint32_t stride_bytes) {
  return static_cast<uint64_t>(shared_address(p) >> 4 & 0x3fff) | static_cast<uint64_t>(leading_bytes >> 4) << 16 |
         static_cast<uint64_t>(stride_bytes >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

// Columns k .. k + 15 of a tile [64 or N][64 k]; a tile of M rows serves several warpgroups at tile + 64 * 64 * g.
template <class T> __device__ __forceinline__ uint64_t wgmma_k_major(const T *tile, int k) {
  return wgmma_descriptor(tile + k, 16, 8 * TILE_ROW_BYTES);
}

// Rows k .. k + 15 of a tile [rows of k][64 m or n]; beyond 64, the next 64 are the tile behind it.
template <class T> __device__ __forceinline__ uint64_t wgmma_mn_major(const T *tile, int k, int rows) {
  return wgmma_descriptor(tile + k * TILE_COLUMNS<T>, rows * TILE_ROW_BYTES, 8 * TILE_ROW_BYTES);
}

// The same `bytes` further on in the tile, or in the tiles behind it.
__device__ __forceinline__ uint64_t wgmma_advance(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// Which element of D d[i] is; `thread` counts from 0 to 127 in the warpgroup.
__device__ __forceinline__ int wgmma_row(int thread, int i) {
  return thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
}
__device__ __forceinline__ int wgmma_column(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

// Columns 16 i .. 16 i + 15 of D as A[i] of another product, rounded.
template <class T, int COUNT>
__device__ __forceinline__ void wgmma_pack(uint32_t (&a)[COUNT / 8][4], const float (&d)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT / 2; ++i) a[i / 4][i % 4] = pack_pair<T>(d[2 * i], d[2 * i + 1]);
}

#if defined(__CUDACC__)

namespace wgmma_detail {

template <class T, int N> struct Shape {};

#define GT_TEN(t) "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9, "
#define GT_REGISTERS_64 GT_TEN() GT_TEN(1) GT_TEN(2) "%30, %31"
#define GT_REGISTERS_80 GT_TEN() GT_TEN(1) GT_TEN(2) "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39"
#define GT_REGISTERS_96 GT_TEN() GT_TEN(1) GT_TEN(2) GT_TEN(3) "%40, %41, %42, %43, %44, %45, %46, %47"
#define GT_REGISTERS_128 GT_TEN() GT_TEN(1) GT_TEN(2) GT_TEN(3) GT_TEN(4) GT_TEN(5) "%60, %61, %62, %63"
#define GT_REGISTERS_256                                                                                             \
  GT_TEN() GT_TEN(1) GT_TEN(2) GT_TEN(3) GT_TEN(4) GT_TEN(5) GT_TEN(6) GT_TEN(7) GT_TEN(8) GT_TEN(9) GT_TEN(10)      \
  GT_TEN(11) "%120, %121, %122, %123, %124, %125, %126, %127"
#define GT_EIGHT(i)                                                                                                  \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]),        \
      "+f"(d[i + 7])
#define GT_OPERANDS_64 GT_EIGHT(0), GT_EIGHT(8), GT_EIGHT(16), GT_EIGHT(24)
#define GT_OPERANDS_80 GT_OPERANDS_64, GT_EIGHT(32)
#define GT_OPERANDS_96 GT_OPERANDS_80, GT_EIGHT(40)
#define GT_OPERANDS_128 GT_OPERANDS_96, GT_EIGHT(48), GT_EIGHT(56)
#define GT_OPERANDS_256                                                                                              \
  GT_OPERANDS_128, GT_EIGHT(64), GT_EIGHT(72), GT_EIGHT(80), GT_EIGHT(88), GT_EIGHT(96), GT_EIGHT(104), GT_EIGHT(112), \
      GT_EIGHT(120)

// a, b, accumulate, transpose_a, transpose_b: numbers of the operands behind the registers.
#define GT_WGMMA(T, TYPE, N, a_, b_, accumulate_, transpose_a, transpose_b)                                          \
  template <Major A, Major B>                                                                                        \
  __device__ __forceinline__ void multiply(Shape<T, N>, float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) { \
    GT_HOPPER_ASM("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %" #accumulate_ ", 0;\n"                       \
                  "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" GT_REGISTERS_##N "}, %" #a_   \
                  ", %" #b_ ", accumulate, 1, 1, %" #transpose_a ", %" #transpose_b ";\n}\n"                         \
                  : GT_OPERANDS_##N                                                                                  \
                  : "l"(a), "l"(b), "r"(accumulate), "n"(A == Major::MN), "n"(B == Major::MN));                      \
  }
// The same with A in four registers.
#define GT_WGMMA_REGISTERS(T, TYPE, N, a0, a1, a2, a3, b_, accumulate_, transpose_b)                                 \
  template <Major B>                                                                                                 \
  __device__ __forceinline__ void multiply(Shape<T, N>, float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,       \
                                           int accumulate) {                                                         \
    GT_HOPPER_ASM("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %" #accumulate_ ", 0;\n"                       \
                  "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" GT_REGISTERS_##N "}, {%" #a0  \
                  ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b_ ", accumulate, 1, 1, %" #transpose_b ";\n}\n"             \
                  : GT_OPERANDS_##N                                                                                  \
                  : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(B == Major::MN));       \
  }
#define GT_WGMMA_TYPE(T, TYPE)                                         \
  GT_WGMMA(T, TYPE, 64, 32, 33, 34, 35, 36)                            \
  GT_WGMMA(T, TYPE, 80, 40, 41, 42, 43, 44)                            \
  GT_WGMMA(T, TYPE, 128, 64, 65, 66, 67, 68)                           \
  GT_WGMMA(T, TYPE, 256, 128, 129, 130, 131, 132)                      \
  GT_WGMMA_REGISTERS(T, TYPE, 64, 32, 33, 34, 35, 36, 37, 38)          \
  GT_WGMMA_REGISTERS(T, TYPE, 96, 48, 49, 50, 51, 52, 53, 54)          \
  GT_WGMMA_REGISTERS(T, TYPE, 128, 64, 65, 66, 67, 68, 69, 70)         \
  GT_WGMMA_REGISTERS(T, TYPE, 256, 128, 129, 130, 131, 132, 133, 134)
GT_WGMMA_TYPE(bf16, "bf16")
GT_WGMMA_TYPE(f16, "f16")
#undef GT_WGMMA_TYPE
#undef GT_WGMMA_REGISTERS
#undef GT_WGMMA
#undef GT_OPERANDS_256
#undef GT_OPERANDS_128
#undef GT_OPERANDS_96
#undef GT_OPERANDS_80
#undef GT_OPERANDS_64
#undef GT_EIGHT
#undef GT_REGISTERS_256
#undef GT_REGISTERS_128
#undef GT_REGISTERS_96
#undef GT_REGISTERS_80
#undef GT_REGISTERS_64
#undef GT_TEN

// The compiler may move no access to d across this point: it does not know that registers change, or are read, behind
// its back.
template <int COUNT> __device__ __forceinline__ void pin(float (&d)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int COUNT> __device__ __forceinline__ void pin(uint32_t (&a)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) asm volatile("" : "+r"(a[i])::"memory");
}
template <class T, int TILES, int COUNT> __device__ __forceinline__ void pin(T (&d)[TILES][COUNT]) {
#pragma unroll
  for (int i = 0; i < TILES; ++i) pin(d[i]);
}

}  // namespace wgmma_detail

// d: an accumulator, or an array of them. a: A in registers.
template <class Accumulators> __device__ __forceinline__ void wgmma_fence(Accumulators &d) {
  wgmma_detail::pin(d);
  GT_HOPPER_ASM("wgmma.fence.sync.aligned;" ::: "memory");
}
template <class Accumulators, int TILES>
__device__ __forceinline__ void wgmma_fence(Accumulators &d, uint32_t (&a)[TILES][4]) {
  wgmma_detail::pin(a);
  wgmma_fence(d);
}

template <class T, int N, Major A = Major::K, Major B = Major::K>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
  wgmma_detail::multiply<A, B>(wgmma_detail::Shape<T, N>(), d, a, b, accumulate);
}
template <class T, int N, Major B = Major::K>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  wgmma_detail::multiply<B>(wgmma_detail::Shape<T, N>(), d, a, b, accumulate);
}

__device__ __forceinline__ void wgmma_commit() { GT_HOPPER_ASM("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int PENDING, class Accumulators> __device__ __forceinline__ void wgmma_wait(Accumulators &d) {
  GT_HOPPER_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
  wgmma_detail::pin(d);
}
template <int PENDING, class Accumulators, int TILES>
__device__ __forceinline__ void wgmma_wait(Accumulators &d, uint32_t (&a)[TILES][4]) {
  wgmma_wait<PENDING>(d);
  wgmma_detail::pin(a);
}

// Keeps the next wait behind what x and y are made of, neither of which may be below 0. ptxas moves a wait ahead of all
// that does not need its products, up to the next branch, and what was to run beside them comes after. No thread does
// the load, but ptxas moves no wait ahead of one.
__device__ __forceinline__ void wgmma_wait_behind(float x, float y) {
  GT_HOPPER_ASM("{\n.reg .pred never;\n.reg .b32 nothing;\n"
                "setp.lt.f32 never, %0, 0f00000000;\nsetp.lt.or.f32 never, %1, 0f00000000, never;\n"
                "@never ld.volatile.shared.b32 nothing, [%2];\n}\n" ::"f"(x), "f"(y), "r"(0) : "memory");
}

// Takes registers per thread from the block's pool, or gives them back: a multiple of 8 from 24 to 256, by all warps of
// a warpgroup. Only in a kernel with __launch_bounds__(threads, 1).
template <int REGISTERS> __device__ __forceinline__ void increase_registers() {
  GT_HOPPER_ASM("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> __device__ __forceinline__ void decrease_registers() {
  GT_HOPPER_ASM("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

#else

template <class Accumulators> void wgmma_fence(Accumulators &, simt::Site site = GT_SIMT_HERE) {
  simt::tensor_cores.fence(site);
}
template <class Accumulators, int TILES>
void wgmma_fence(Accumulators &, uint32_t (&)[TILES][4], simt::Site site = GT_SIMT_HERE) {
  simt::tensor_cores.fence(site);
}
template <class T> constexpr simt::Format wgmma_format() {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>, "bf16 or f16");
  return std::is_same_v<T, bf16> ? simt::Format::BF16 : simt::Format::F16;
}
template <class T, int N, Major A = Major::K, Major B = Major::K>
void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, simt::Site site = GT_SIMT_HERE) {
  static_assert(N == 64 || N == 80 || N == 128 || N == 256, "N is 64, 80, 128 or 256");
  simt::tensor_cores.multiply({{a, A == Major::MN}, {b, B == Major::MN}, N, accumulate, wgmma_format<T>()}, nullptr, d,
                              site);
}
template <class T, int N, Major B = Major::K>
void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, simt::Site site = GT_SIMT_HERE) {
  static_assert(N == 64 || N == 96 || N == 128 || N == 256, "N is 64, 96, 128 or 256");
  simt::tensor_cores.multiply({{}, {b, B == Major::MN}, N, accumulate, wgmma_format<T>()}, a, d, site);
}
inline void wgmma_commit(simt::Site site = GT_SIMT_HERE) { simt::tensor_cores.commit(site); }
template <int PENDING, class Accumulators> void wgmma_wait(Accumulators &, simt::Site site = GT_SIMT_HERE) {
  simt::tensor_cores.wait(PENDING, site);
}
template <int PENDING, class Accumulators, int TILES>
void wgmma_wait(Accumulators &, uint32_t (&)[TILES][4], simt::Site site = GT_SIMT_HERE) {
  simt::tensor_cores.wait(PENDING, site);
}
inline void wgmma_wait_behind(float, float) {}  // operations happen in the order of the code
template <int REGISTERS> void increase_registers(simt::Site site = GT_SIMT_HERE) {
  static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256, "a multiple of 8 from 24 to 256");
  simt::registers.set(REGISTERS, true, site);
}
template <int REGISTERS> void decrease_registers(simt::Site site = GT_SIMT_HERE) {
  static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256, "a multiple of 8 from 24 to 256");
  simt::registers.set(REGISTERS, false, site);
}

#endif

}  // namespace gt
