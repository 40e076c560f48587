// The gradient of an embedding's table: argument checks, dispatch, and the CPU twin of embedding_backward.cu.
#include "gatun/embedding.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/embedding.h: dtable = 0, then dtable[ids[n],:] += dy[n,:], token by token
// Types       f32, added in the order of the tokens
// Mapping     the zeros: rows of dtable are split over threads. The sums: columns are, PIECE at a time, so that threads
//             have equal shares however ids are spread, and each reads its columns of dy once, front to back
// Memory      dy once, dtable once, and each token's row of it once more: from a cache unless the table is large
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t PIECE = 16;  // columns: a cache line of f32, which threads should not share

GT_INLINE int64_t id_at(const gt_tensor &ids, int64_t n) {
  return ids.dtype == GT_I64 ? static_cast<const int64_t *>(ids.data)[n] : static_cast<const int32_t *>(ids.data)[n];
}

// Columns begin .. end - 1 of all tokens.
template <class T>
void add_tokens(const gt_tensor &dtable, const gt_tensor &dy, const gt_tensor &ids, int64_t begin, int64_t end) {
  const int64_t columns = end - begin;
  for (int64_t n = 0; n < ids.shape[0]; ++n) {
    const int64_t id = id_at(ids, n);
    if (id < 0 || id >= dtable.shape[0]) continue;
    float *to = static_cast<float *>(dtable.data) + id * dtable.stride[0] + begin;
    const T *from = static_cast<const T *>(dy.data) + n * dy.stride[0] + begin;
    int64_t c = 0;
    for (; c + W <= columns; c += W) store(to + c, load(to + c) + load(from + c));
    if (c < columns) store_part(to + c, load_part(to + c, columns - c) + load_part(from + c, columns - c), columns - c);
  }
}

}  // namespace

gt_status embedding_backward_cpu(const gt_stream *stream, const gt_tensor *dtable, const gt_tensor *dy,
                                 const gt_tensor *ids, const gt_tensor *) {
  const int64_t v = dtable->shape[0], c = dtable->shape[1], n = ids->shape[0];
  if (elements(*dtable) == 0) return GT_OK;
  float *const table = static_cast<float *>(dtable->data);
  const int64_t stride = dtable->stride[0];
  parallel_for(stream, v, c, [&](int64_t begin, int64_t end) {
    if (stride == c) {
      memset(table + begin * c, 0, static_cast<size_t>((end - begin) * c) * sizeof(float));
      return;
    }
    for (int64_t id = begin; id < end; ++id) memset(table + id * stride, 0, static_cast<size_t>(c) * sizeof(float));
  });
  with_float(dy->dtype, [&](auto zero) {
    parallel_for(stream, (c + PIECE - 1) / PIECE, 2 * n * PIECE, [&](int64_t begin, int64_t end) {
      add_tokens<decltype(zero)>(*dtable, *dy, *ids, begin * PIECE, end * PIECE < c ? end * PIECE : c);
    });
  });
  return GT_OK;
}

gt_status embedding_backward_workspace_cpu(const gt_stream *, const gt_tensor *, const gt_tensor *, int64_t *bytes) {
  *bytes = 0;
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
