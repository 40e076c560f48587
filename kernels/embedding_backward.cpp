// The gradient of an embedding's table: argument checks, dispatch, and the CPU twin of embedding_backward.cu.
#include "gatun/embedding.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/embedding.h: tokens sorted by id with a counting sort, then row by row of dtable the sum of its
//             tokens
// Types       f32, added in the order of the tokens
// Mapping     rows without a token are zeroed, split over threads; of the others PIECE columns at a time are summed,
//             all rows of a piece by one thread: however unevenly ids are spread, threads have equal shares
// Memory      dy once, dtable once. The workspace holds where each id's tokens begin, and the tokens by id
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t PIECE = 64;  // columns: whole cache lines, and few enough that small C still fills the threads

GT_INLINE int64_t id_at(const gt_tensor &ids, int64_t n) {
  return ids.dtype == GT_I64 ? static_cast<const int64_t *>(ids.data)[n] : static_cast<const int32_t *>(ids.data)[n];
}

// begin[v] .. begin[v + 1]: where in `tokens` those of id v are, in ascending order.
void sort_tokens(const gt_tensor &ids, int64_t v, int32_t *begin, int32_t *tokens) {
  const int64_t n = ids.shape[0];
  memset(begin, 0, static_cast<size_t>(v + 2) * sizeof *begin);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t id = id_at(ids, i);
    if (id >= 0 && id < v) ++begin[id + 2];
  }
  for (int64_t id = 2; id < v + 2; ++id) begin[id] += begin[id - 1];
  for (int64_t i = 0; i < n; ++i) {  // afterwards begin[v + 1] is where id v ends, as it is where id v + 1 begins
    const int64_t id = id_at(ids, i);
    if (id >= 0 && id < v) tokens[begin[id + 1]++] = static_cast<int32_t>(i);
  }
}

// to = the sum of num_tokens rows of dy, for PIECE columns or fewer.
template <class T>
void sum_rows(float *to, const T *dy, int64_t stride, const int32_t *tokens, int64_t num_tokens, int64_t columns) {
  constexpr int64_t VECTORS = PIECE / W;
  if (columns == PIECE) {
    vf sum[VECTORS] = {};
    for (int64_t i = 0; i < num_tokens; ++i) {
      const T *row = dy + tokens[i] * stride;
#pragma GCC unroll 16
      for (int64_t k = 0; k < VECTORS; ++k) sum[k] += load(row + k * W);
    }
#pragma GCC unroll 16
    for (int64_t k = 0; k < VECTORS; ++k) store(to + k * W, sum[k]);
    return;
  }
  for (int64_t c = 0; c < columns; c += W) {
    vf sum{};
    for (int64_t i = 0; i < num_tokens; ++i) sum += load_up_to(dy + tokens[i] * stride + c, columns - c);
    store_up_to(to + c, sum, columns - c);
  }
}

}  // namespace

gt_status embedding_backward_cpu(const gt_stream *stream, const gt_tensor *dtable, const gt_tensor *dy,
                                 const gt_tensor *ids, const gt_tensor *workspace) {
  const int64_t v = dtable->shape[0], c = dtable->shape[1];
  if (elements(*dtable) == 0) return GT_OK;
  int32_t *const begin = static_cast<int32_t *>(workspace->data), *const tokens = begin + v + 2;
  sort_tokens(*ids, v, begin, tokens);
  float *const table = static_cast<float *>(dtable->data);
  parallel_for(stream, v, c, [&](int64_t first, int64_t end) {
    for (int64_t id = first; id < end; ++id)
      if (begin[id] == begin[id + 1]) memset(table + id * dtable->stride[0], 0, static_cast<size_t>(c) * sizeof(float));
  });
  const int64_t num_sorted = begin[v];
  with_float(dy->dtype, [&](auto zero) {
    using T = decltype(zero);
    parallel_for(stream, (c + PIECE - 1) / PIECE, 2 * num_sorted * PIECE, [&](int64_t first, int64_t end) {
      for (int64_t piece = first; piece < end; ++piece) {
        const int64_t column = piece * PIECE, columns = c - column < PIECE ? c - column : PIECE;
        for (int64_t i = 0; i < num_sorted;) {
          const int64_t id = id_at(*ids, tokens[i]), next = begin[id + 1];
          sum_rows(table + id * dtable->stride[0] + column, static_cast<const T *>(dy->data) + column, dy->stride[0],
                   tokens + i, next - i, columns);
          i = next;
        }
      }
    });
  });
  return GT_OK;
}

gt_status embedding_backward_workspace_cpu(const gt_stream *, const gt_tensor *table, const gt_tensor *ids,
                                           int64_t *bytes) {
  *bytes = 4 * (table->shape[0] + 2 + ids->shape[0]);
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(embedding_backward)
GT_DECLARE_OP(embedding_backward_workspace)

extern "C" gt_status gt_embedding_backward(const gt_stream *stream, const gt_tensor *dtable, const gt_tensor *dy,
                                           const gt_tensor *ids, const gt_tensor *workspace) {
  gt::Check check("embedding_backward", stream);
  check.tensor("dtable", dtable, gt::F32).rank("dtable", dtable, 2).last_contiguous("dtable", dtable);
  check.tensor("dy", dy, gt::FLOATS).tensor("ids", ids, gt::I32 | gt::I64).rank("ids", ids, 1);
  if (!check.ok()) return check.status();
  check.shape("dy", dy, {ids->shape[0], dtable->shape[1]}).last_contiguous("dy", dy).contiguous("ids", ids);
  int64_t bytes = 0;
  if (!check.ok()) return check.status();
  if (const gt_status status = gt_embedding_backward_workspace(stream, dtable, ids, &bytes)) return status;
  check.workspace(workspace, bytes);
  return check.ok() ? GT_RUN(embedding_backward, stream, dtable, dy, ids, workspace) : check.status();
}

extern "C" gt_status gt_embedding_backward_workspace(const gt_stream *stream, const gt_tensor *table,
                                                     const gt_tensor *ids, int64_t *bytes) {
  gt::Check check("embedding_backward_workspace", stream);
  check.tensor("table", table, gt::FLOATS).rank("table", table, 2);
  check.tensor("ids", ids, gt::I32 | gt::I64).rank("ids", ids, 1);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  if (!check.ok()) return check.status();
  const long long v = table->shape[0], n = ids->shape[0];
  check.require(v < INT32_MAX - 1 && n < INT32_MAX - 1,
                "table has V = %lld rows and ids has N = %lld, expected both below 2^31 - 2", v, n);
  return check.ok() ? GT_RUN(embedding_backward_workspace, stream, table, ids, bytes) : check.status();
}

#endif
