// Token and position embedding: argument checks, dispatch, and the CPU twin of embedding.cu.
#include "gatun/embedding.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/embedding.h
// Mapping     rows n are split over threads
// Memory      one row of each table read, one row written
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

GT_INLINE int64_t id_at(const gt_tensor &ids, int64_t n) {
  return ids.dtype == GT_I64 ? static_cast<const int64_t *>(ids.data)[n] : static_cast<const int32_t *>(ids.data)[n];
}

// Row number id of a table, NULL where it has none.
template <class T>
const T *row_of(const gt_tensor &table, int64_t id) {
  if (id < 0 || id >= table.shape[0]) return nullptr;
  return static_cast<const T *>(table.data) + id * table.stride[0];
}

template <class T>
void embed(T *y, const T *token, const T *position, int64_t c) {
  for (int64_t i = 0; i < c; i += W) {
    const int64_t left = c - i;
    store_up_to(y + i, load_up_to(token + i, left) + load_up_to(position + i, left), left);
  }
}

}  // namespace

gt_status embedding_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *ids, const gt_tensor *table,
                        const gt_tensor *positions, const gt_tensor *position_table) {
  const int64_t c = y->shape[1];
  with_float(y->dtype, [&](auto zero) {
    using T = decltype(zero);
    parallel_for(stream, y->shape[0], c, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        T *out = static_cast<T *>(y->data) + n * y->stride[0];
        const T *token = row_of<T>(*table, id_at(*ids, n));
        const T *position = positions ? row_of<T>(*position_table, id_at(*positions, n)) : nullptr;
        if (!token || (positions && !position))
          fill_row(out, __builtin_nanf(""), c);
        else if (position)
          embed(out, token, position, c);
        else
          memcpy(out, token, static_cast<size_t>(c) * sizeof(T));
      }
    });
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(embedding)

extern "C" gt_status gt_embedding(const gt_stream *stream, const gt_tensor *y, const gt_tensor *ids,
                                  const gt_tensor *table, const gt_tensor *positions,
                                  const gt_tensor *position_table) {
  gt::Check check("embedding", stream);
  check.tensor("y", y, gt::FLOATS).rank("y", y, 2).last_contiguous("y", y);
  check.tensor("ids", ids, gt::I32 | gt::I64).tensor("table", table, gt::FLOATS);
  check.require(!positions == !position_table, "%s is NULL, but %s is not: expected both or neither",
                positions ? "position_table" : "positions", positions ? "positions" : "position_table");
  check.optional("positions", positions, gt::I32).optional("position_table", position_table, gt::FLOATS);
  if (!check.ok()) return check.status();
  const int64_t n = y->shape[0], c = y->shape[1];
  check.shape("ids", ids, {n}).contiguous("ids", ids);
  check.shape("table", table, {-1, c}).same_dtype("table", table, "y", y).last_contiguous("table", table);
  check.shape("positions", positions, {n}).contiguous("positions", positions);
  check.shape("position_table", position_table, {-1, c}).same_dtype("position_table", position_table, "y", y);
  check.last_contiguous("position_table", position_table);
  return check.ok() ? GT_RUN(embedding, stream, y, ids, table, positions, position_table) : check.status();
}

#endif
