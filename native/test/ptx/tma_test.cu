// Does the copy engine bring tiles to where tile_offset says, with zeros beyond the matrix, and take them back?
#include "lib/tma.h"
#include "lib/vec.h"
#include "memory.h"

namespace {

constexpr int MAX_ROWS = 256;
constexpr size_t TILE_BYTES = MAX_ROWS * gt::TILE_ROW_BYTES;

template <class T> struct Tile {
  T element[MAX_ROWS * gt::TILE_COLUMNS<T>];
  gt::Mbarrier full;
};

// Where a tile begins, in a matrix and in five dimensions.
struct InMatrix {
  int column, row;
  template <class T>
  __device__ void load(T *tile, const gt::TensorMap *map, gt::Mbarrier *full) const {
    gt::tma_load(tile, map, full, column, row);
  }
};
struct InFive {
  int at[5];
  template <class T>
  __device__ void load(T *tile, const gt::TensorMap *map, gt::Mbarrier *full) const {
    gt::tma_load(tile, map, full, at);
  }
};

// One tile of `rows` rows, to `out` in the order of its rows.
template <class T, class Place>
__global__ void load(const __grid_constant__ gt::TensorMap map, int rows, Place place, T *out) {
  GT_DYNAMIC_SMEM(Tile<T>, tile);
  constexpr int COLUMNS = gt::TILE_COLUMNS<T>;
  if (threadIdx.x == 0) {
    gt::mbarrier_init(&tile->full, 1);
    gt::mbarrier_fence_init();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    gt::mbarrier_arrive_expect_tx(&tile->full, rows * gt::TILE_ROW_BYTES);
    place.load(tile->element, &map, &tile->full);
  }
  gt::mbarrier_wait(&tile->full, 0);
  for (int i = threadIdx.x; i < rows * COLUMNS; i += blockDim.x)
    out[i] = tile->element[gt::tile_offset<T>(i / COLUMNS, i % COLUMNS)];
}

template <class T>
__global__ void store(const __grid_constant__ gt::TensorMap map, int rows, int row, int column, const T *in) {
  GT_DYNAMIC_SMEM(Tile<T>, tile);
  constexpr int COLUMNS = gt::TILE_COLUMNS<T>;
  for (int i = threadIdx.x; i < rows * COLUMNS; i += blockDim.x)
    tile->element[gt::tile_offset<T>(i / COLUMNS, i % COLUMNS)] = in[i];
  gt::fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    gt::tma_store(&map, tile->element, column, row);
    gt::tma_commit();
    gt::tma_store_wait<0>();
  }
}

// Small integers, exact in every type.
template <class T> T number(int i) { return gt::from_float<T>(static_cast<float>(i * 37 % 251 - 125)); }
template <class T> bool equal(T a, T b) { return !memcmp(&a, &b, sizeof a); }

template <class T>
void check(const char *type, int matrix_rows, int matrix_columns, int tile_rows, int row, int column) {
  const int stride = (matrix_columns + 7) / 8 * 8, columns = gt::TILE_COLUMNS<T>;
  const ptx::Shared<T> matrix(matrix_rows * stride), tile(tile_rows * columns);
  for (int i = 0; i < matrix_rows * stride; ++i) matrix[i] = number<T>(i);
  gt::TensorMap map;
  const int status = gt::make_tensor_map(&map, matrix.data(), matrix_rows, matrix_columns, stride, tile_rows);
  ptx::expect(status == 0, "%s: no tensor map for [%d, %d]: %s", type, matrix_rows, matrix_columns,
              gt::launch_error(status));
  if (status) return;
  const auto is_inside = [&](int r, int c) {
    return row + r >= 0 && row + r < matrix_rows && column + c >= 0 && column + c < matrix_columns;
  };

  char load_name[80], store_name[80];
  snprintf(load_name, sizeof load_name, "%s load of %d rows at (%d, %d) of [%d, %d]", type, tile_rows, row, column,
           matrix_rows, matrix_columns);
  snprintf(store_name, sizeof store_name, "%s store of %d rows at (%d, %d) of [%d, %d]", type, tile_rows, row, column,
           matrix_rows, matrix_columns);
  if (!ptx::run(load_name, load<T, InMatrix>, 128, sizeof(Tile<T>), map, tile_rows, InMatrix{column, row}, tile.data()))
    return;
  for (int r = 0; r < tile_rows; ++r)
    for (int c = 0; c < columns; ++c) {
      const T expected = is_inside(r, c) ? matrix[(row + r) * stride + column + c] : gt::from_float<T>(0.0f);
      ptx::expect(equal(tile[r * columns + c], expected), "%s load at (%d, %d): element (%d, %d) differs", type, row,
                  column, r, c);
    }

  if (row < 0 || column < 0) return;  // of a store, the tile may not begin before the matrix
  for (int i = 0; i < tile_rows * columns; ++i) tile[i] = number<T>(i + 1000);
  if (!ptx::run(store_name, store<T>, 128, sizeof(Tile<T>), map, tile_rows, row, column, tile.data())) return;
  for (int i = 0; i < matrix_rows * stride; ++i) {
    const int r = i / stride - row, c = i % stride - column;
    const bool is_stored = r >= 0 && r < tile_rows && c >= 0 && c < columns && i % stride < matrix_columns;
    const T expected = is_stored ? tile[r * columns + c] : number<T>(i);
    ptx::expect(equal(matrix[i], expected), "%s store at (%d, %d): element %d of the matrix differs", type, row, column,
                i);
  }
}

template <class T> void check_type(const char *type) {
  check<T>(type, 64, 128, 64, 0, 0);
  check<T>(type, 100, 72, 64, 64, 32);   // over two edges
  check<T>(type, 100, 71, 8, -3, -16);   // before the beginning
  check<T>(type, 100, 71, 8, 3, 48);     // a row whose end is no whole chunk
  check<T>(type, 300, 64, 256, 17, 8);
  check<T>(type, 1, 1, 1, 0, 0);
}

// extents[0] columns, the other dimensions strides[i] elements apart.
template <class T>
void check_rows(const char *type, const int64_t (&extents)[5], const int64_t (&strides)[4], const int (&box)[4],
                const InFive &place) {
  const int columns = gt::TILE_COLUMNS<T>, rows = box[0] * box[1] * box[2] * box[3];
  int64_t last = extents[0];
  for (int i = 0; i < 4; ++i) last += (extents[i + 1] - 1) * strides[i];
  const ptx::Shared<T> tensor(last), tile(rows * columns);
  for (int64_t i = 0; i < last; ++i) tensor[i] = number<T>(static_cast<int>(i));
  gt::TensorMap map;
  const int status = gt::make_tensor_map(&map, tensor.data(), extents, strides, box);
  ptx::expect(status == 0, "%s: no tensor map of five dimensions: %s", type, gt::launch_error(status));
  if (status || !ptx::run("load_rows", load<T, InFive>, 128, sizeof(Tile<T>), map, rows, place, tile.data())) return;
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) {
      int64_t at = place.at[0] + c;
      bool is_inside = at < extents[0];
      for (int i = 0, rest = r; i < 4; rest /= box[i++]) {
        const int64_t place_i = place.at[i + 1] + rest % box[i];
        is_inside &= place_i >= 0 && place_i < extents[i + 1];
        at += place_i * strides[i];
      }
      const T expected = is_inside ? tensor[at] : gt::from_float<T>(0.0f);
      ptx::expect(equal(tile[r * columns + c], expected), "%s load_rows: element (%d, %d) differs", type, r, c);
    }
}

// As attention reads q, k and v: [B, T, H, D] with 4 heads of a group as neighbours, [B, H, T, D], one of each, pages.
template <class T> void check_attention_rows(const char *type) {
  const int64_t d = 80, t = 37, h = 8, b = 2;
  check_rows<T>(type, {d, 4, t, h / 4, b}, {d, h * d, 4 * d, t * h * d}, {4, 16, 1, 1}, {{0, 0, 32, 1, 1}});
  check_rows<T>(type, {d, 4, t, h / 4, b}, {d, h * d, 4 * d, t * h * d}, {4, 16, 1, 1}, {{64, 0, 16, 0, 1}});
  check_rows<T>(type, {d, 1, t, h, b}, {d, d, t * d, h * t * d}, {1, 128, 1, 1}, {{0, 0, 0, 7, 0}});
  check_rows<T>(type, {d, 1, t, h, b}, {d, h * d, d, t * h * d}, {1, 80, 1, 1}, {{64, 0, 20, 3, 1}});
  check_rows<T>(type, {64, 1, 1, 1, 1}, {64, 64, 64, 64}, {1, 64, 1, 1}, {{0, 0, 0, 0, 0}});
  // pages [pages, 3 heads, 64, D]: a whole one, a part of one, and one behind the last, which is not there
  const int64_t g = 3, pages = 5;
  for (const int page : {0, 4, 5, 1 << 30})
    for (const int box : {64, 16})
      check_rows<T>(type, {d, 1, 64, g, pages}, {d, d, 64 * d, g * 64 * d}, {1, box, 1, 1},
                    {{64, 0, 64 - box, 2, page}});
}

void check_refusals() {
  const ptx::Shared<float> matrix(64 * 64);
  gt::TensorMap map;
  const auto refuses = [&](const float *base, int stride, int tile_rows) {
    return gt::make_tensor_map(&map, base, 8, 32, stride, tile_rows) != 0;
  };
  ptx::expect(!refuses(matrix.data(), 64, 8), "a good map was refused");
  ptx::expect(refuses(matrix.data() + 1, 64, 8), "a misaligned matrix was accepted");
  ptx::expect(refuses(matrix.data(), 63, 8), "misaligned rows were accepted");
  ptx::expect(refuses(matrix.data(), 64, 257), "a tile of 257 rows was accepted");
  ptx::expect(refuses(matrix.data(), 64, 0), "a tile of no rows was accepted");
}

}  // namespace

int main() {
  static_assert(sizeof(Tile<float>::element) == TILE_BYTES, "a tile is as large in every type");
  if (!gt::has_hopper()) return printf("skipped: needs a Hopper GPU\n"), 0;
  check_type<float>("f32");
  check_type<gt::bf16>("bf16");
  check_type<gt::f16>("f16");
  check_attention_rows<gt::bf16>("bf16");
  check_attention_rows<gt::f16>("f16");
  check_refusals();
  check<float>("f32", 40, 64, 16, 40, 64);  // nothing of it inside
  check<gt::bf16>("bf16", 40, 64, 16, 40, 64);
  return ptx::summary();
}
