// Attention of decode steps, rope and the append to the cache in it: argument checks, dispatch, and the CPU twin.
#include "gatun/attention.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/attention.h, gt_attention_decode: the ops that it stands for, in turn

namespace gt::GT_ISA {

decltype(gt_rope) rope_cpu;
decltype(gt_kv_append) kv_append_cpu;
decltype(gt_attention_paged) attention_paged_cpu;

namespace {

// In the workspace: the rows' beginnings [N + 1] i32, then q and k as rope leaves them.
struct Layout {
  int64_t q, k, bytes;  // where they begin, and where all ends
};
Layout layout_of(const gt_tensor &q, const gt_tensor &k) {
  constexpr int64_t LINE = 64;
  const auto lines = [](int64_t bytes) { return (bytes + LINE - 1) / LINE * LINE; };
  const int64_t n = q.shape[0], row = q.shape[2] * (q.dtype == GT_F32 ? 4 : 2);
  Layout at;
  at.q = lines((n + 1) * 4);
  at.k = at.q + lines(n * q.shape[1] * row);
  at.bytes = at.k + lines(n * k.shape[1] * row);
  return at;
}

gt_tensor contiguous_like(const gt_tensor &x, char *data) {
  return {data, x.dtype, 3, {x.shape[0], x.shape[1], x.shape[2]}, {x.shape[1] * x.shape[2], x.shape[2], 1}};
}

}  // namespace

gt_status attention_decode_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse,
                               const gt_tensor *k_pages, const gt_tensor *v_pages, const gt_tensor *,
                               const gt_tensor *q, const gt_tensor *k, const gt_tensor *v, const gt_tensor *page_table,
                               const gt_tensor *positions, const gt_tensor *rope_table, gt_rope_pairing pairing,
                               float scale, const gt_tensor *workspace) {
  const int64_t n = q->shape[0];
  const Layout at = layout_of(*q, *k);
  char *const memory = static_cast<char *>(workspace->data);
  auto *const starts = reinterpret_cast<int32_t *>(memory);
  for (int64_t i = 0; i <= n; ++i) starts[i] = static_cast<int32_t>(i);
  const gt_tensor query_start = {starts, GT_I32, 1, {n + 1}, {1}};
  const gt_tensor turned_q = contiguous_like(*q, memory + at.q), turned_k = contiguous_like(*k, memory + at.k);
  if (rope_table) {
    rope_cpu(stream, &turned_q, q, positions, rope_table, pairing);
    rope_cpu(stream, &turned_k, k, positions, rope_table, pairing);
    q = &turned_q;
    k = &turned_k;
  }
  kv_append_cpu(stream, k_pages, v_pages, k, v, page_table, &query_start, positions);
  return attention_paged_cpu(stream, y, lse, q, k_pages, v_pages, page_table, &query_start, positions, scale, nullptr);
}

gt_status attention_decode_workspace_cpu(const gt_stream *, const gt_tensor *q, const gt_tensor *k, const gt_tensor *,
                                         int64_t *bytes) {
  *bytes = layout_of(*q, *k).bytes;
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

#include "attention_check.h"

GT_DECLARE_OP(attention_decode)
GT_DECLARE_OP(attention_decode_workspace)

namespace {

constexpr int64_t MAX_HEAD_DIM = 256;

// What decides about the workspace.
void check_step(gt::Check &check, const gt_tensor *q, const gt_tensor *k, const gt_tensor *page_table) {
  check.tensor("q", q, gt::FLOATS).rank("q", q, 3).last_contiguous("q", q);
  if (!check.ok()) return;
  const int64_t n = q->shape[0], d = q->shape[2];
  check.tensor("k", k, gt::FLOATS).shape("k", k, {n, -1, d}).same_dtype("k", k, "q", q).last_contiguous("k", k);
  check.tensor("page_table", page_table, gt::I32).shape("page_table", page_table, {n, -1});
  check.contiguous("page_table", page_table);
  if (check.ok()) gt::check_heads(check, q->shape[1], k->shape[1], d, MAX_HEAD_DIM);
}

}  // namespace

extern "C" gt_status gt_attention_decode(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse,
                                         const gt_tensor *k_pages, const gt_tensor *v_pages, const gt_tensor *counters,
                                         const gt_tensor *q, const gt_tensor *k, const gt_tensor *v,
                                         const gt_tensor *page_table, const gt_tensor *positions,
                                         const gt_tensor *rope_table, gt_rope_pairing pairing, float scale,
                                         const gt_tensor *workspace) {
  gt::Check check("attention_decode", stream);
  check_step(check, q, k, page_table);
  if (!check.ok()) return check.status();
  const int64_t n = q->shape[0], h = q->shape[1], g = k->shape[1], d = q->shape[2];
  check.tensor("y", y, gt::FLOATS).same_shape("y", y, "q", q).same_dtype("y", y, "q", q).last_contiguous("y", y);
  check.tensor("v", v, gt::FLOATS).same_shape("v", v, "k", k).same_dtype("v", v, "q", q).last_contiguous("v", v);
  check.tensor("k_pages", k_pages, gt::FLOATS).shape("k_pages", k_pages, {-1, g, gt::PAGE, d});
  check.same_dtype("k_pages", k_pages, "q", q).contiguous("k_pages", k_pages);
  check.tensor("v_pages", v_pages, gt::FLOATS).same_shape("v_pages", v_pages, "k_pages", k_pages);
  check.same_dtype("v_pages", v_pages, "q", q).contiguous("v_pages", v_pages);
  check.optional("lse", lse, gt::F32).shape("lse", lse, {n, h}).contiguous("lse", lse);
  check.tensor("counters", counters, gt::I32).shape("counters", counters, {n, g}).contiguous("counters", counters);
  check.tensor("positions", positions, gt::I32).shape("positions", positions, {n}).contiguous("positions", positions);
  check.optional("rope_table", rope_table, gt::F32).shape("rope_table", rope_table, {-1, 2, -1});
  check.contiguous("rope_table", rope_table);
  check.require(pairing == GT_ROPE_HALF || pairing == GT_ROPE_INTERLEAVED, "pairing is %d, expected %d or %d", pairing,
                GT_ROPE_HALF, GT_ROPE_INTERLEAVED);
  if (check.ok() && rope_table)
    check.require(2 * rope_table->shape[2] <= d, "rope_table rotates %lld elements, but q has D = %lld",
                  static_cast<long long>(2 * rope_table->shape[2]), static_cast<long long>(d));
  if (stream && stream->device == GT_CPU)
    for (int64_t i = 0; i < n && check.ok(); ++i)
      gt::check_reach(check, k_pages, page_table, i, static_cast<const int32_t *>(positions->data)[i]);
  if (!check.ok() || gt::elements(*q) == 0) return check.status();
  int64_t bytes = 0;
  if (const gt_status status = gt_attention_decode_workspace(stream, q, k, page_table, &bytes)) return status;
  if (!check.workspace(workspace, bytes).ok()) return check.status();
  return GT_RUN(attention_decode, stream, y, lse, k_pages, v_pages, counters, q, k, v, page_table, positions,
                rope_table, pairing, scale, workspace);
}

extern "C" gt_status gt_attention_decode_workspace(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k,
                                                   const gt_tensor *page_table, int64_t *bytes) {
  gt::Check check("attention_decode_workspace", stream);
  check_step(check, q, k, page_table);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  if (!check.ok()) return check.status();
  return GT_RUN(attention_decode_workspace, stream, q, k, page_table, bytes);
}

#endif
