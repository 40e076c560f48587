// How does one thread have a whole tile of a matrix copied between global and shared memory?
//
// The copy engine (TMA) moves tiles of tile_rows rows by 128 bytes, and swizzles them: of row r the 16-byte chunk i
// lies at r * 128 + (i ^ r % 8) * 16, which lets wgmma.h read rows and columns without bank conflicts; tile_offset says
// where an element is. Tiles begin at multiples of 1024 bytes in dynamic shared memory, and at columns that are
// multiples of 16 bytes. Where a tile reaches over the matrix's edge, a load fills in zeros and a store writes nothing;
// a store may not begin before the matrix, which ends in an illegal instruction.
//   load    mbarrier_arrive_expect_tx(&full, bytes), tma_load(tile, &map, &full, column, row); readers wait at `full`.
//           The rows may also come out of four dimensions: tma_load(tile, &map, &full, place)
//   store   fence_async by each thread that wrote to the tile, a barrier, then by one thread: tma_store(&map, tile,
//           column, row), tma_commit(), and before the tile is written again or the block ends: tma_store_wait<0>()
// The kernel takes its maps as `const __grid_constant__ TensorMap`. CUDA Programming Guide, "Asynchronous Data Copies
// using the Tensor Memory Accelerator"; PTX ISA, "cp.async.bulk.tensor". Needs a toolkit of 12.5 or later.
#pragma once

#include "lib/mbarrier.h"
#if defined(__CUDACC__)
#include <cuda.h>
#else
#include "simt/tma.h"
#endif

namespace gt {

constexpr int TILE_ROW_BYTES = 128;
template <class T> constexpr int TILE_COLUMNS = TILE_ROW_BYTES / static_cast<int>(sizeof(T));

// Where element (row, column) of a tile lies, in elements from its beginning.
template <class T> __device__ __forceinline__ int tile_offset(int row, int column) {
  constexpr int CHUNK = 16 / static_cast<int>(sizeof(T));
  return row * TILE_COLUMNS<T> + (column / CHUNK ^ row % 8) * CHUNK + column % CHUNK;
}

#if defined(__CUDACC__)

using TensorMap = CUtensorMap;

namespace tma {
constexpr CUtensorMapDataType data_type(const float *) { return CU_TENSOR_MAP_DATA_TYPE_FLOAT32; }
constexpr CUtensorMapDataType data_type(const bf16 *) { return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16; }
constexpr CUtensorMapDataType data_type(const f16 *) { return CU_TENSOR_MAP_DATA_TYPE_FLOAT16; }
}  // namespace tma

namespace tma {
struct Encoder {
  decltype(&cuTensorMapEncodeTiled) encode;
  cudaError_t error;
};
// libcuda is asked by name, once, and not linked: libgatun must load where there is no driver.
inline const Encoder &encoder() {
  static const Encoder known = [] {
    void *entry = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
    const bool is_there = error == cudaSuccess && found == cudaDriverEntryPointSuccess;
    return Encoder{reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(is_there ? entry : nullptr),
                   is_there || error != cudaSuccess ? error : cudaErrorSymbolNotFound};
  }();
  return known;
}

// A tensor of `rank` dimensions, the first contiguous, the others strides[i] elements apart.
template <class T>
int encode(TensorMap *map, const T *base, int rank, const int64_t *extent, const int64_t *stride, const int *box) {
  if (!encoder().encode) return encoder().error;
  cuuint64_t extents[5], strides[4];
  cuuint32_t boxes[5] = {static_cast<cuuint32_t>(TILE_COLUMNS<T>)};
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  for (int i = 0; i < rank; ++i) extents[i] = static_cast<cuuint64_t>(extent[i]);
  for (int i = 0; i < rank - 1; ++i) strides[i] = static_cast<cuuint64_t>(stride[i]) * sizeof(T);
  for (int i = 0; i < rank - 1; ++i) boxes[i + 1] = static_cast<cuuint32_t>(box[i]);
  const CUresult result = encoder().encode(
      map, data_type(base), static_cast<cuuint32_t>(rank), const_cast<T *>(base), extents, strides, boxes, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}
}  // namespace tma

// The matrix [rows, columns] at base, rows `stride` elements apart, to be moved in tiles of tile_rows (1..256) rows and
// TILE_COLUMNS<T> columns. Base and rows at multiples of 16 bytes. Returns a cudaError_t, 0 = OK.
template <class T>
int make_tensor_map(TensorMap *map, const T *base, int64_t rows, int64_t columns, int64_t stride, int tile_rows) {
  const int64_t extents[] = {columns, rows};
  return tma::encode(map, base, 2, extents, &stride, &tile_rows);
}

// The same for the tensor [extents[4], .., extents[0]], of which dimension 0 is contiguous and i + 1 strides[i]
// elements apart, in any order of size. The rows of a tile: box[0] neighbours in dimension 1, for each of box[1] in
// dimension 2, and so on.
template <class T>
int make_tensor_map(TensorMap *map, const T *base, const int64_t (&extents)[5], const int64_t (&strides)[4],
                    const int (&box)[4]) {
  return tma::encode(map, base, 5, extents, strides, box);
}

// Orders a copy of the tile whose first element is (row, column), or stands at place[i] of dimension i. The tile's
// bytes count for `barrier`.
template <class T>
__device__ __forceinline__ void tma_load(T *tile, const TensorMap *map, Mbarrier *barrier, int column, int row) {
  GT_HOPPER_ASM(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
      ::"r"(shared_address(tile)), "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row) : "memory");
}
template <class T>
__device__ __forceinline__ void tma_load(T *tile, const TensorMap *map, Mbarrier *barrier, const int (&place)[5]) {
  GT_HOPPER_ASM(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
      ::"r"(shared_address(tile)), "l"(map), "r"(shared_address(barrier)), "r"(place[0]), "r"(place[1]), "r"(place[2]),
      "r"(place[3]), "r"(place[4]) : "memory");
}

template <class T>
__device__ __forceinline__ void tma_store(const TensorMap *map, const T *tile, int column, int row) {
  GT_HOPPER_ASM("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%1, {%2, %3}], [%0];"
                ::"r"(shared_address(tile)), "l"(map), "r"(column), "r"(row) : "memory");
}

// Makes a group of the thread's stores since the last.
__device__ __forceinline__ void tma_commit() { GT_HOPPER_ASM("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until all but the thread's last PENDING groups have arrived in global memory.
template <int PENDING> __device__ __forceinline__ void tma_store_wait() {
  GT_HOPPER_ASM("cp.async.bulk.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Shows what this thread has stored in shared memory to the copy engine and to the tensor cores.
__device__ __forceinline__ void fence_async() { GT_HOPPER_ASM("fence.proxy.async.shared::cta;" ::: "memory"); }

#else

using TensorMap = simt::TensorMap;

template <class T>
int make_tensor_map(TensorMap *map, const T *base, int64_t rows, int64_t columns, int64_t stride, int tile_rows) {
  const int64_t extents[] = {columns, rows};
  return simt::make_tensor_map(map, base, sizeof(T), 2, extents, &stride, &tile_rows);
}
template <class T>
int make_tensor_map(TensorMap *map, const T *base, const int64_t (&extents)[5], const int64_t (&strides)[4],
                    const int (&box)[4]) {
  return simt::make_tensor_map(map, base, sizeof(T), 5, extents, strides, box);
}
template <class T>
void tma_load(T *tile, const TensorMap *map, Mbarrier *barrier, int column, int row, simt::Site site = GT_SIMT_HERE) {
  simt::copy_engine.load(reinterpret_cast<char *>(tile), *map, &barrier->state, 2, {column, row}, site);
}
template <class T>
void tma_load(T *tile, const TensorMap *map, Mbarrier *barrier, const int (&place)[5], simt::Site site = GT_SIMT_HERE) {
  simt::copy_engine.load(reinterpret_cast<char *>(tile), *map, &barrier->state, 5,
                         {place[0], place[1], place[2], place[3], place[4]}, site);
}
template <class T>
void tma_store(const TensorMap *map, const T *tile, int column, int row, simt::Site site = GT_SIMT_HERE) {
  simt::copy_engine.store(*map, reinterpret_cast<const char *>(tile), 2, {column, row}, site);
}
inline void tma_commit() { simt::copy_engine.commit(); }
template <int PENDING> void tma_store_wait(simt::Site site = GT_SIMT_HERE) { simt::copy_engine.wait(PENDING, site); }
inline void fence_async() { simt::race::fence_async(simt::current->running->rank); }

#endif

}  // namespace gt
