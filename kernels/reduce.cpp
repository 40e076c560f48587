// Sums over rows and over everything: argument checks, dispatch, and the CPU twin of reduce.cu.
#include "gatun/reduce.h"

#include "check.h"
#include "chunks.h"
#include "cpu/isa.h"
#include "reduce_rows.h"

#if defined(GT_ISA)
// Computes    gatun/reduce.h
// Mapping     sum_rows: tiles of columns by chunks of rows over threads, then the chunks' sums by tiles; sum by
//             chunks.h
// Memory      a and b once; a chunk's sums once written and read
// Numerics    within a chunk four rows (of fewer columns than a vector holds: W, if there are no gaps) are added before
//             they join the f32 sum; chunks in order
#include "cpu/chunked_sum.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t COLUMNS = 1024;  // of a tile: its sums take 4 KiB, which stay in the first cache beside the rows
constexpr int64_t ROWS = 4;        // added at once: a quarter of the traffic to the sums

template <class T>
struct Operands {
  const T *a, *b;  // b may be NULL
  int64_t stride_a, stride_b;

  inline __attribute__((always_inline)) vf at(int64_t row, int64_t column, int64_t left) const {
    const vf v = load_up_to(a + row * stride_a + column, left);
    return b ? v * load_up_to(b + row * stride_b + column, left) : v;
  }
};

// sums[0 .. n) of rows from .. to - 1 and the n columns from `column` on. sums has room for whole vectors.
template <class T>
void sum_tile(float *sums, const Operands<T> &x, int64_t from, int64_t to, int64_t column, int64_t n) {
  for (int64_t i = 0; i < n; i += W) store(sums + i, vf{});
  int64_t row = from;
  for (; row + ROWS <= to; row += ROWS)
    for (int64_t i = 0; i < n; i += W) {
      const int64_t left = n - i, c = column + i;
      const vf first = x.at(row, c, left) + x.at(row + 1, c, left);
      const vf second = x.at(row + 2, c, left) + x.at(row + 3, c, left);
      store(sums + i, load(sums + i) + (first + second));
    }
  for (; row < to; ++row)
    for (int64_t i = 0; i < n; i += W) store(sums + i, load(sums + i) + x.at(row, column + i, n - i));
}

// As sum_tile, for n < W columns of rows without gaps: n vectors of memory hold W whole rows, and element i of them
// belongs to column i % n.
template <class T>
void sum_narrow(float *sums, Operands<T> x, int64_t from, int64_t to, int64_t n) {
  vf part[W] = {};
  int64_t row = from;
  for (; row + W <= to; row += W)
    for (int64_t i = 0; i < n; ++i) part[i] += x.at(row, i * W, W);
  sum_tile(sums, x, row, to, 0, n);
  float elements[W * W];
  for (int64_t i = 0; i < n; ++i) store(elements + i * W, part[i]);
  for (int64_t i = 0; i < n * W; ++i) sums[i % n] += elements[i];
}

template <class T>
Operands<T> operands_of(const gt_tensor &a, const gt_tensor *b, int64_t image) {
  return {static_cast<const T *>(a.data) + image * a.stride[0],
          b ? static_cast<const T *>(b->data) + image * b->stride[0] : nullptr, a.stride[1], b ? b->stride[1] : 0};
}

void write(const gt_tensor &y, int64_t image, int64_t column, const float *sums, int64_t n) {
  with_float(y.dtype, [&](auto zero) {
    auto *const row = static_cast<decltype(zero) *>(y.data) + image * y.stride[0] + column;
    for (int64_t i = 0; i < n; i += W) store_up_to(row + i, load(sums + i), n - i);
  });
}

}  // namespace

gt_status sum_rows_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b,
                       const gt_tensor *workspace) {
  const int64_t s = a->shape[1], c = a->shape[2], tiles = (c + COLUMNS - 1) / COLUMNS;
  const RowChunks chunks = row_chunks_of(s);
  const int64_t rows = s < chunks.rows ? s : chunks.rows, width = c < COLUMNS ? c : COLUMNS;
  float *const partial = chunks.count > 1 ? static_cast<float *>(workspace->data) : nullptr;
  with_float(a->dtype, [&](auto zero) {
    using T = decltype(zero);
    parallel_for(stream, a->shape[0] * chunks.count * tiles, rows * width, [&](int64_t begin, int64_t end) {
      alignas(64) float sums[COLUMNS];
      for (int64_t item = begin; item < end; ++item) {
        const int64_t column = item % tiles * COLUMNS, chunk = item / tiles % chunks.count;
        const int64_t image = item / tiles / chunks.count, n = c - column < COLUMNS ? c - column : COLUMNS;
        const int64_t from = chunk * chunks.rows, to = from + chunks.rows < s ? from + chunks.rows : s;
        const Operands<T> x = operands_of<T>(*a, b, image);
        if (c < W && x.stride_a == c && (!b || x.stride_b == c))
          sum_narrow(sums, x, from, to, n);
        else
          sum_tile(sums, x, from, to, column, n);
        if (partial)
          memcpy(partial + (image * chunks.count + chunk) * c + column, sums, static_cast<size_t>(n) * sizeof(float));
        else
          write(*y, image, column, sums, n);
      }
    });
  });
  if (!partial) return GT_OK;
  parallel_for(stream, a->shape[0] * tiles, chunks.count * width, [&](int64_t begin, int64_t end) {
    alignas(64) float sums[COLUMNS];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t column = item % tiles * COLUMNS, image = item / tiles;
      const int64_t n = c - column < COLUMNS ? c - column : COLUMNS;
      const Operands<float> chunk_sums = {partial + image * chunks.count * c, nullptr, c, 0};
      sum_tile(sums, chunk_sums, 0, chunks.count, column, n);
      write(*y, image, column, sums, n);
    }
  });
  return GT_OK;
}

gt_status sum_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float factor,
                  const gt_tensor *workspace) {
  double sum = 0;
  with_float(x->dtype, [&](auto zero) {
    const auto *const values = static_cast<const decltype(zero) *>(x->data);
    sum = chunked_sum(stream, chunks_of(elements(*x)), 1, workspace ? workspace->data : nullptr,
                      [&](int64_t begin, int64_t end) {
      WideSum part;
      for (int64_t i = begin; i < end; i += W) part.add(load_up_to(values + i, end - i));
      return part.total();
    });
  });
  *static_cast<float *>(y->data) = static_cast<float>(static_cast<double>(factor) * sum);
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(sum_rows)
GT_DECLARE_OP(sum)

namespace {

constexpr int64_t MOST_ELEMENTS = int64_t{1} << 48;  // the bytes of a workspace can be counted

void check_rows(gt::Check &check, const gt_tensor *a) {
  check.tensor("a", a, gt::FLOATS).rank("a", a, 3).elements_at_most("a", a, 0, MOST_ELEMENTS);
}

}  // namespace

extern "C" gt_status gt_sum_rows(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b,
                                 const gt_tensor *workspace) {
  gt::Check check("sum_rows", stream);
  check_rows(check, a);
  check.last_contiguous("a", a);
  check.optional("b", b, gt::FLOATS).same_shape("b", b, "a", a).same_dtype("b", b, "a", a).last_contiguous("b", b);
  if (!check.ok()) return check.status();
  check.tensor("y", y, gt::F32 | gt::dtype_bit(a->dtype)).shape("y", y, {a->shape[0], a->shape[2]});
  check.last_contiguous("y", y).workspace(workspace, gt::row_workspace_bytes(*a));
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(sum_rows, stream, y, a, b, workspace);
}

extern "C" gt_status gt_sum_rows_workspace(const gt_stream *stream, const gt_tensor *a, int64_t *bytes) {
  gt::Check check("sum_rows_workspace", stream);
  check_rows(check, a);
  check.require(bytes != nullptr, "bytes is NULL, expected a place for the result");
  if (check.ok()) *bytes = gt::row_workspace_bytes(*a);
  return check.status();
}

extern "C" gt_status gt_sum(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float factor,
                            const gt_tensor *workspace) {
  gt::Check check("sum", stream);
  check.tensor("y", y, gt::F32).shape("y", y, {1}).tensor("x", x, gt::FLOATS).contiguous("x", x);
  if (check.ok()) check.workspace(workspace, gt::workspace_bytes(gt::chunks_of(gt::elements(*x))));
  return check.ok() ? GT_RUN(sum, stream, y, x, factor, workspace) : check.status();
}

extern "C" gt_status gt_sum_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes) {
  gt::Check check("sum_workspace", stream);
  check.tensor("x", x, gt::FLOATS);
  check.require(bytes != nullptr, "bytes is NULL, expected a place for the result");
  if (check.ok()) *bytes = gt::workspace_bytes(gt::chunks_of(gt::elements(*x)));
  return check.status();
}

#endif
