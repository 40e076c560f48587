// The derivatives of dense attention: argument checks, dispatch, and the CPU twin of attention_backward.cu.
#include "gatun/attention.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gt_attention_backward of gatun/attention.h
// Mapping     a work item is a key/value head of a sequence: row r is query r / group, head r % group of the group, so
//             that what the keys get from all heads is one sum. Keys come in blocks of 64; a block meets the rows that
//             see it in tiles of 48. Items that share a dbias are one item
// Types       operands become f32; P, dS and every sum are f32
// Memory      the workspace has per thread: q, dy and dq of all rows, and of a block K, K and V transposed, dK, dV, all
//             f32. 24 KiB of stack: P and dS of a tile
// Numerics    powers of two, log2(e) being part of the scale. One chain of multiply-adds per element: dq in ascending
//             key, dk and dv in ascending row, dbias in ascending batch and head
// Limits      D <= 512
#include "attention_block.h"
#include "cpu/parallel.h"

namespace gt::GT_ISA {
namespace {

constexpr int ROWS = 48;  // of a tile, a multiple of TILE_ROWS: P and dS stay in the L1 cache beside one operand
static_assert(ROWS % TILE_ROWS == 0 && BLOCK % TILE_ROWS == 4, "what register tiles cover");

GT_INLINE int64_t width_of(int64_t d) { return round_up(d, W); }
// Floats of a thread's workspace, a multiple of what fills a line.
GT_INLINE int64_t slot_floats(int64_t rows, int64_t d) {
  return round_up(rows * (3 * width_of(d) + 3) + 5 * BLOCK * width_of(d), 16);
}
GT_INLINE int64_t num_slots(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k) {
  const int64_t items = q->shape[0] * k->shape[2];
  return stream->num_threads < items ? stream->num_threads : items;
}

// The gradients that belong to one key/value head.
template <class T>
struct Item {
  const Dense<T> &source;
  const gt_tensor *dq, *dk, *dv, *dbias, *dy;
  const float scale;
  const int64_t group, rows, d, width;
  int64_t b, g;
  float *q, *grad_y, *grad_q;            // [rows, width]: scaled q, dy, the sum of dS k
  float *lse, *delta;                    // [rows]: in powers of two, dy . y
  int32_t *visible;                      // [rows]
  float *keys, *grad_keys, *grad_values; // [BLOCK, width]
  float *keys_t, *values_t;              // [width, BLOCK]

  Item(const Dense<T> &source, const gt_tensor *dq, const gt_tensor *dk, const gt_tensor *dv, const gt_tensor *dbias,
       const gt_tensor *dy, float scale, float *slot)
      : source(source), dq(dq), dk(dk), dv(dv), dbias(dbias), dy(dy), scale(scale),
        group(source.heads() / source.kv_heads()), rows(source.queries(0) * group), d(dq->shape[3]), width(width_of(d)),
        b(0), g(0) {
    const auto take = [&](int64_t n) { return slot += n, slot - n; };
    q = take(rows * width), grad_y = take(rows * width), grad_q = take(rows * width);
    keys = take(BLOCK * width), grad_keys = take(BLOCK * width), grad_values = take(BLOCK * width);
    keys_t = take(BLOCK * width), values_t = take(BLOCK * width);
    lse = take(rows), delta = take(rows);
    visible = reinterpret_cast<int32_t *>(take(rows));
  }

  int64_t query_of(int64_t r) const { return r / group; }
  int64_t head_of(int64_t r) const { return g * group + r % group; }
  int64_t seen(int64_t r, int64_t start) const { return clamp(visible[r] - start, 0, BLOCK); }

  // Rows as f32, and the largest number of keys that one sees.
  int64_t begin() {
    int64_t most = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t t = query_of(r), h = head_of(r);
      const T *x = source.query(b, t, h), *y = source.output(b, t, h), *grad = at<const T>(dy, b, t, h);
      vf sum = {};
      for (int64_t i = 0; i < width; i += W) {
        const vf gradient = load_first(grad + i, d - i);
        store(q + r * width + i, load_first(x + i, d - i) * (scale * LOG2E));
        store(grad_y + r * width + i, gradient);
        store(grad_q + r * width + i, vf{});
        sum = fused(gradient, load_first(y + i, d - i), sum);
      }
      delta[r] = sum_lanes(sum);
      const float l = static_cast<const float *>(source.lse->data)[source.lse_index(b, t, h)];
      lse[r] = l == -INFINITY ? 0.0f : l * LOG2E;
      visible[r] = static_cast<int32_t>(source.visible(b, t));
      if (visible[r] > most) most = visible[r];
    }
    return most;
  }

  // p: scores become P; ds: dP becomes dS; 0 for keys that the row does not see. dbias gets its part.
  void differentiate_row(int64_t r, int64_t start, float *p, float *ds) {
    const int64_t n = seen(r, start);
    const float *bias = source.bias(b, query_of(r), head_of(r));
    const int64_t stride = source.bias_stride();
    if (bias)
      for (int64_t j = 0; j < n; ++j) p[j] += bias[(start + j) * stride] * LOG2E;
    const vf base = broadcast(lse[r]), mean = broadcast(delta[r]);
    int64_t j = 0;
    for (; j + W <= n; j += W) {
      const vf power = exp2_nonpositive(load(p + j) - base);
      store(p + j, power);
      store(ds + j, power * (load(ds + j) - mean));
    }
    if (j < n) {
      vi lane;
      for (int i = 0; i < W; ++i) lane[i] = i;
      const vi inside = lane < static_cast<int32_t>(n - j);
      const vf power = exp2_nonpositive(load(p + j) - base);
      store(p + j, select(inside, power, vf{}));
      store(ds + j, select(inside, power * (load(ds + j) - mean), vf{}));
      j += W;
    }
    for (; j < BLOCK; j += W) store(p + j, vf{}), store(ds + j, vf{});
    if (!dbias) return;
    float *to = at<float>(dbias, dbias->shape[0] == 1 ? 0 : b, dbias->shape[1] == 1 ? 0 : head_of(r), query_of(r));
    for (int64_t i = 0; i < n; ++i) to[start + i] += ds[i];
  }

  // Rows [first, first + n) against the block of keys at position start.
  void run_tile(int64_t first, int64_t n, int64_t start, int64_t num_keys) {
    alignas(64) float p[ROWS * BLOCK], ds[ROWS * BLOCK];
    const int vectors = static_cast<int>(width / W);
    for (int64_t r = 0; r < n; r += TILE_ROWS) {
      const int64_t m = n - r < TILE_ROWS ? n - r : TILE_ROWS;
      int64_t columns = 0;
      for (int64_t i = r; i < r + m; ++i)
        if (seen(first + i, start) > columns) columns = seen(first + i, start);
      const int key_vectors = static_cast<int>(round_up(columns, W) / W);
      multiply_add(static_cast<int>(m), key_vectors, FROM_ZERO, p + r * BLOCK, BLOCK, q + (first + r) * width, width,
                   keys_t, BLOCK, d);
      multiply_add(static_cast<int>(m), key_vectors, FROM_ZERO, ds + r * BLOCK, BLOCK, grad_y + (first + r) * width,
                   width, values_t, BLOCK, d);
      for (int64_t i = r; i < r + m; ++i) differentiate_row(first + i, start, p + i * BLOCK, ds + i * BLOCK);
      multiply_add(static_cast<int>(m), vectors, FROM_C, grad_q + (first + r) * width, width, ds + r * BLOCK, BLOCK,
                   keys, width, columns);
    }
    int64_t r = 0;  // the first row of the tile that sees a key of the register tile: visible ascends
    for (int64_t j = 0; j < num_keys; j += TILE_ROWS) {
      while (r < n && seen(first + r, start) <= j) ++r;
      if (r == n) break;
      const int64_t row = (first + r) * width, corner = r * BLOCK + j;
      const auto add = j + TILE_ROWS <= BLOCK ? multiply_transposed<TILE_ROWS> : multiply_transposed<BLOCK % TILE_ROWS>;
      add(vectors, grad_values + j * width, width, p + corner, BLOCK, grad_y + row, width, n - r);
      add(vectors, grad_keys + j * width, width, ds + corner, BLOCK, q + row, width, n - r);
    }
  }

  void store_row(T *to, const float *from, float factor) const {
    for (int64_t i = 0; i < d; i += W) {
      const vf v = load(from + i) * factor;
      d - i >= W ? store(to + i, v) : store_part(to + i, v, d - i);
    }
  }

  void run(int64_t sequence, int64_t kv_head) {
    b = sequence, g = kv_head;
    const int64_t most = begin(), num_keys = dk->shape[1];
    int64_t first = 0;  // row that sees a key of the block
    for (int64_t start = 0; start < num_keys; start += BLOCK) {
      const int64_t in_block = num_keys - start < BLOCK ? num_keys - start : BLOCK;
      const int64_t n = clamp(most - start, 0, BLOCK);
      memset(grad_keys, 0, BLOCK * width * sizeof(float));
      memset(grad_values, 0, BLOCK * width * sizeof(float));
      if (n > 0) {
        const KeyBlock<T> block = source.block(b, g, start / BLOCK);
        const KeyBlock<T> values = {block.v, block.v, block.stride_v, block.stride_v};
        copy_rows(keys, width, block.k, block.stride_k, n, d);
        pack_transposed(keys_t, block, block, n, 0, d);
        pack_transposed(values_t, values, values, n, 0, d);
        while (first < rows && visible[first] <= start) ++first;
        for (int64_t r = first; r < rows; r += ROWS) run_tile(r, rows - r < ROWS ? rows - r : ROWS, start, n);
      }
      for (int64_t j = 0; j < in_block; ++j) {
        store_row(at<T>(dk, b, start + j, g), grad_keys + j * width, LN2);  // q has scale log2(e) in it
        store_row(at<T>(dv, b, start + j, g), grad_values + j * width, 1.0f);
      }
    }
    for (int64_t r = 0; r < rows; ++r) store_row(at<T>(dq, b, query_of(r), head_of(r)), grad_q + r * width, scale);
  }
};

}  // namespace

gt_status attention_backward_cpu(const gt_stream *stream, const gt_tensor *dq, const gt_tensor *dk, const gt_tensor *dv,
                                 const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *y, const gt_tensor *lse,
                                 const gt_tensor *q, const gt_tensor *k, const gt_tensor *v, const gt_tensor *bias,
                                 const gt_tensor *key_lengths, float scale, gt_mask mask, const gt_tensor *workspace) {
  const int64_t sequences = q->shape[0], num_queries = q->shape[1], heads = q->shape[2], d = q->shape[3];
  const int64_t num_keys = k->shape[1], kv_heads = k->shape[2];
  if (dbias) memset(dbias->data, 0, elements(*dbias) * sizeof(float));
  const int64_t slot = slot_floats(num_queries * (heads / kv_heads), d);
  int64_t shares = num_slots(stream, q, k);
  if (shares == 0) return GT_OK;
  const int64_t fit = workspace ? elements(*workspace) / (slot * static_cast<int64_t>(sizeof(float))) : 0;
  if (fit == 0)
    return fail(GT_INVALID_ARGUMENT, "attention_backward: workspace has %lld bytes, expected at least %lld",
                static_cast<long long>(workspace ? elements(*workspace) : 0), static_cast<long long>(slot * 4));
  if (shares > fit) shares = fit;
  // Sequences and heads that add to the same dbias follow each other in one work item.
  const int64_t item_sequences = dbias && dbias->shape[0] == 1 ? sequences : 1;
  const int64_t item_heads = dbias && dbias->shape[1] == 1 ? kv_heads : 1;
  const int64_t head_items = kv_heads / item_heads, items = sequences / item_sequences * head_items;
  with_float(q->dtype, [&](auto zero) {
    using T = decltype(zero);
    const Dense<T> source = {y, lse, q, k, v, bias, key_lengths, mask};
    const int64_t cost = num_queries * heads * (5 * num_keys + 4) * d * sequences;
    parallel_for(stream, shares, cost / shares, [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share) {
        Item<T> item(source, dq, dk, dv, dbias, dy, scale, static_cast<float *>(workspace->data) + share * slot);
        for (int64_t i = items * share / shares; i < items * (share + 1) / shares; ++i)
          for (int64_t b = 0; b < item_sequences; ++b)
            for (int64_t g = 0; g < item_heads; ++g)
              item.run(i / head_items * item_sequences + b, i % head_items * item_heads + g);
      }
    });
  });
  return GT_OK;
}

gt_status attention_backward_workspace_cpu(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k,
                                           int64_t *bytes) {
  const int64_t group = k->shape[2] > 0 ? q->shape[2] / k->shape[2] : 0;
  const int64_t floats = num_slots(stream, q, k) * slot_floats(q->shape[1] * group, q->shape[3]);
  *bytes = floats * static_cast<int64_t>(sizeof(float));
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(attention_backward)
GT_DECLARE_OP(attention_backward_workspace)

extern "C" gt_status gt_attention_backward(const gt_stream *stream, const gt_tensor *dq, const gt_tensor *dk,
                                           const gt_tensor *dv, const gt_tensor *dbias, const gt_tensor *dy,
                                           const gt_tensor *y, const gt_tensor *lse, const gt_tensor *q,
                                           const gt_tensor *k, const gt_tensor *v, const gt_tensor *bias,
                                           const gt_tensor *key_lengths, float scale, gt_mask mask,
                                           const gt_tensor *workspace) {
  gt::Check check("attention_backward", stream);
  check.tensor("q", q, gt::FLOATS).rank("q", q, 4).last_contiguous("q", q);
  if (!check.ok()) return check.status();
  const int64_t b = q->shape[0], t = q->shape[1], h = q->shape[2], d = q->shape[3];
  check.tensor("k", k, gt::FLOATS).shape("k", k, {b, -1, -1, d}).same_dtype("k", k, "q", q).last_contiguous("k", k);
  const auto same = [&](const char *name, const gt_tensor *x, const char *other_name, const gt_tensor *other) {
    check.tensor(name, x, gt::FLOATS).same_shape(name, x, other_name, other).same_dtype(name, x, other_name, other);
    check.last_contiguous(name, x);
  };
  same("v", v, "k", k);
  same("dq", dq, "q", q);
  same("dk", dk, "k", k);
  same("dv", dv, "k", k);
  same("dy", dy, "q", q);
  same("y", y, "q", q);
  if (!check.ok()) return check.status();
  const int64_t s = k->shape[1], g = k->shape[2];
  check.require(g > 0 && h % g == 0, "q has %lld heads, expected a multiple of k's %lld", static_cast<long long>(h),
                static_cast<long long>(g));
  check.require(d >= 1 && d <= 512, "q has head dim %lld, expected 1 to 512", static_cast<long long>(d));
  check.tensor("lse", lse, gt::F32).shape("lse", lse, {b, h, t}).contiguous("lse", lse);
  check.optional("bias", bias, gt::F32).shape("bias", bias, {-1, -1, t, s});
  if (check.ok() && bias)
    check.require((bias->shape[0] == 1 || bias->shape[0] == b) && (bias->shape[1] == 1 || bias->shape[1] == h),
                  "bias is for %lld x %lld heads, expected 1 or B = %lld, 1 or H = %lld",
                  static_cast<long long>(bias->shape[0]), static_cast<long long>(bias->shape[1]),
                  static_cast<long long>(b), static_cast<long long>(h));
  check.require(bias || !dbias, "dbias is wanted without a bias, expected both or no dbias");
  if (check.ok() && dbias) {
    check.tensor("dbias", dbias, gt::F32).same_shape("dbias", dbias, "bias", bias).contiguous("dbias", dbias);
  }
  check.optional("key_lengths", key_lengths, gt::I32).shape("key_lengths", key_lengths, {b});
  check.contiguous("key_lengths", key_lengths);
  check.require(mask == GT_MASK_NONE || mask == GT_MASK_CAUSAL, "mask is %d, expected %d (none) or %d (causal)", mask,
                GT_MASK_NONE, GT_MASK_CAUSAL);
  check.require(s <= INT32_MAX, "k has %lld keys, expected below 2^31", static_cast<long long>(s));
  check.optional("workspace", workspace, gt::dtype_bit(GT_U8)).contiguous("workspace", workspace);
  if (!check.ok()) return check.status();
  return GT_RUN(attention_backward, stream, dq, dk, dv, dbias, dy, y, lse, q, k, v, bias, key_lengths, scale, mask,
                workspace);
}

extern "C" gt_status gt_attention_backward_workspace(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k,
                                                     int64_t *bytes) {
  gt::Check check("attention_backward_workspace", stream);
  check.tensor("q", q, gt::FLOATS).rank("q", q, 4).tensor("k", k, gt::FLOATS).rank("k", k, 4);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  if (!check.ok()) return check.status();
  return GT_RUN(attention_backward_workspace, stream, q, k, bytes);
}

#endif
