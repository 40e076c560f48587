// Attention, dense and against a paged cache: argument checks, dispatch, and the CPU twin of attention.cu.
#include "gatun/attention.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/attention.h, with the running maximum and sum of online softmax
// Mapping     a work item is a tile of query rows (every query head of one kv head) of one sequence; items are shared
//             out by their cost. A tile meets the keys in blocks of 64 positions, from block 0 on
// Types       q (scaled), scores, sums and the accumulator of y are f32; K and V become f32 block by block
// Memory      K and V are read once per tile. 180 KiB of stack: scaled q and the accumulator (64 KiB each), one block
//             of scores, 64 x 64 of K transposed and of V in turn
// Numerics    powers of two, log2(e) being part of the scale. One chain of multiply-adds per score (ascending d) and
//             per output (ascending key), so a row is the same in any tile. A key that a row may not see is not
//             multiplied at all: what lies there may be NaN
// Limits      D <= 512; a tile has 96 rows up to D = 160 and 30 at D = 512
#include "attention_block.h"
#include "cpu/parallel.h"

namespace gt::GT_ISA {
namespace {

constexpr int MAX_TILE = 96;         // query rows per tile, a multiple of TILE_ROWS
constexpr int TILE_FLOATS = 16384;   // rows * D of a tile

template <int... L>
GT_INLINE vf fold_max(vf v, int s, std::integer_sequence<int, L...>) {
  return vmax(v, __builtin_shuffle(v, vi{(L ^ s)...}));
}
GT_INLINE float max_of_lanes(vf v) {
#pragma GCC unroll 4
  for (int s = W / 2; s > 0; s /= 2) v = fold_max(v, s, std::make_integer_sequence<int, W>{});
  return v[0];
}

// As Dense of attention_block.h.
template <class T>
struct Paged {
  const gt_tensor *y, *lse, *q, *k, *v, *page_table, *query_start, *positions;

  int64_t sequences() const { return page_table->shape[0]; }
  int64_t heads() const { return q->shape[1]; }
  int64_t kv_heads() const { return k->shape[1]; }
  int64_t row(int64_t b, int64_t t) const { return i32_at(query_start, b) + t; }
  int64_t queries(int64_t b) const { return i32_at(query_start, b + 1) - i32_at(query_start, b); }
  int64_t visible(int64_t b, int64_t t) const { return clamp(i32_at(positions, row(b, t)) + 1, 0, INT64_MAX); }
  const T *query(int64_t b, int64_t t, int64_t h) const { return at<const T>(q, row(b, t), h, 0); }
  T *output(int64_t b, int64_t t, int64_t h) const { return at<T>(y, row(b, t), h, 0); }
  int64_t lse_index(int64_t b, int64_t t, int64_t h) const { return row(b, t) * heads() + h; }
  KeyBlock<T> block(int64_t b, int64_t g, int64_t j) const {
    const int64_t page = i32_at(page_table, b * page_table->shape[1] + j), d = q->shape[2];
    const int64_t offset = (page * kv_heads() + g) * BLOCK * d;
    return {static_cast<const T *>(k->data) + offset, static_cast<const T *>(v->data) + offset, d, d};
  }
  const float *bias(int64_t, int64_t, int64_t) const { return nullptr; }
  int64_t bias_stride() const { return 0; }
};

// Rows of one kv head of one sequence: row r is query head r % group of query first + r / group.
template <class T, class Source>
struct Tile {
  const Source &source;
  const int64_t b, g, first_row, rows, group, d, width;  // width: D rounded up to vectors
  const float scale;

  // Not an aggregate: the arrays below must not be cleared for every tile.
  Tile(const Source &source, int64_t b, int64_t g, int64_t first_row, int64_t rows, int64_t group, int64_t d,
       int64_t width, float scale)
      : source(source), b(b), g(g), first_row(first_row), rows(rows), group(group), d(d), width(width), scale(scale) {}

  alignas(64) float q[TILE_FLOATS], y[TILE_FLOATS];
  alignas(64) float scores[MAX_TILE * BLOCK], sums[MAX_TILE * W];
  alignas(64) float block[BLOCK * BLOCK];
  alignas(64) float maximum[MAX_TILE], block_maximum[MAX_TILE], rescale[MAX_TILE];
  int64_t visible[MAX_TILE];

  int64_t query_of(int64_t r) const { return (first_row + r) / group; }
  int64_t head_of(int64_t r) const { return g * group + (first_row + r) % group; }

  // Returns the largest number of keys that a row sees.
  int64_t begin() {
    int64_t keys = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const T *x = source.query(b, query_of(r), head_of(r));
      for (int64_t i = 0; i < width; i += W) {
        store(q + r * width + i, load_first(x + i, d - i) * (scale * LOG2E));
        store(y + r * width + i, vf{});
      }
      visible[r] = source.visible(b, query_of(r));
      if (visible[r] > keys) keys = visible[r];
      store(sums + r * W, vf{});
      maximum[r] = -INFINITY;
    }
    return keys;
  }

  // Keys of the block that row r sees, the block beginning at position start.
  int64_t seen(int64_t r, int64_t start) const { return clamp(visible[r] - start, 0, BLOCK); }

  // Scores of rows [r, r + n) against the block, d ascending.
  void score(const KeyBlock<T> &keys, const KeyBlock<T> &ahead, int64_t start, int64_t first, int64_t last) {
    int64_t most = 0;
    for (int64_t r = first; r < last; ++r)
      if (seen(r, start) > most) most = seen(r, start);
    for (int64_t d0 = 0; d0 < d; d0 += BLOCK) {
      const int64_t dn = d - d0 < BLOCK ? d - d0 : BLOCK;
      pack_transposed(block, keys, ahead, most, d0, dn);
      for (int64_t r = first; r < last; r += TILE_ROWS) {
        const int64_t n = last - r < TILE_ROWS ? last - r : TILE_ROWS;
        int64_t columns = 0;
        for (int64_t i = r; i < r + n; ++i)
          if (seen(i, start) > columns) columns = seen(i, start);
        multiply_add(static_cast<int>(n), static_cast<int>(round_up(columns, W) / W),
                     d0 ? FROM_C : FROM_ZERO, scores + r * BLOCK, BLOCK, q + r * width + d0, width,
                     block, BLOCK, dn);
      }
    }
  }

  // Adds the bias, hides what the row may not see, and finds the block's maximum.
  void mask_row(int64_t r, int64_t start) {
    float *s = scores + r * BLOCK;
    const int64_t n = seen(r, start);
    const float *bias = source.bias(b, query_of(r), head_of(r));
    const int64_t stride = source.bias_stride();
    if (bias)
      for (int64_t j = 0; j < n; ++j) s[j] += bias[(start + j) * stride] * LOG2E;
    for (int64_t j = n; j < round_up(n, W); ++j) s[j] = -INFINITY;
    vf most = broadcast(-INFINITY);
    for (int64_t j = 0; j < n; j += W) most = vmax(load(s + j), most);
    block_maximum[r] = max_of_lanes(most);
  }

  // The new maxima, and by how much what was summed under the old ones shrinks.
  void raise_maxima() {
    for (int64_t r = 0; r < rows; r += W) {
      const vf old = load(maximum + r), now = vmax(load(block_maximum + r), old);
      const vf base = select(now == -INFINITY, vf{}, now);
      store(rescale + r, exp2_nonpositive(old - base));
      store(block_maximum + r, base);
      store(maximum + r, now);
    }
  }

  void exponentiate_row(int64_t r, int64_t start) {
    float *s = scores + r * BLOCK;
    vf sum = load(sums + r * W) * rescale[r];
    for (int64_t j = 0; j < seen(r, start); j += W) {
      const vf p = exp2_nonpositive(load(s + j) - block_maximum[r]);
      store(s + j, p);
      sum += p;
    }
    store(sums + r * W, sum);
  }

  void accumulate(const KeyBlock<T> &keys, int64_t start, int64_t first, int64_t last) {
    int64_t most = 0;
    for (int64_t r = first; r < last; ++r)
      if (seen(r, start) > most) most = seen(r, start);
    for (int64_t d0 = 0; d0 < width; d0 += BLOCK) {
      const int64_t dn = width - d0 < BLOCK ? width - d0 : BLOCK;
      // Rows of one register tile use V where it is; more are worth a copy, which a partial vector needs anyway.
      const bool direct = last - first <= TILE_ROWS && d0 + dn <= d;
      if (!direct) copy_rows(block, BLOCK, keys.v + d0, keys.stride_v, most, d - d0 < BLOCK ? d - d0 : BLOCK);
      for (int64_t r = first; r < last; r += TILE_ROWS) {
        const int64_t n = last - r < TILE_ROWS ? last - r : TILE_ROWS;
        if (direct)
          accumulate_rows(r, n, start, d0, dn, keys.v + d0, keys.stride_v);
        else
          accumulate_rows(r, n, start, d0, dn, block, BLOCK);
      }
    }
  }

  // Keys that all rows see together, then each row's own: a row never touches a value that it does not see.
  template <class V>
  void accumulate_rows(int64_t r, int64_t n, int64_t start, int64_t d0, int64_t dn, const V *v, int64_t stride_v) {
    const int vectors = static_cast<int>(dn / W);
    int64_t common = BLOCK;
    for (int64_t i = r; i < r + n; ++i)
      if (seen(i, start) < common) common = seen(i, start);
    multiply_add(static_cast<int>(n), vectors, rescale + r, y + r * width + d0, width,
                 scores + r * BLOCK, BLOCK, v, stride_v, common);
    for (int64_t i = r; i < r + n; ++i)
      if (seen(i, start) > common)
        multiply_add(1, vectors, FROM_C, y + i * width + d0, width, scores + i * BLOCK + common, BLOCK,
                     v + common * stride_v, stride_v, seen(i, start) - common);
  }

  void end() {
    for (int64_t r = 0; r < rows; ++r) {
      const float sum = sum_lanes(load(sums + r * W));
      const bool empty = sum == 0;
      const float inverse = empty ? 0.0f : 1.0f / sum;
      T *out = source.output(b, query_of(r), head_of(r));
      for (int64_t i = 0; i < d; i += W) {
        const vf v = load(y + r * width + i) * inverse;
        d - i >= W ? store(out + i, v) : store_part(out + i, v, d - i);
      }
      if (source.lse)
        static_cast<float *>(source.lse->data)[source.lse_index(b, query_of(r), head_of(r))] =
            empty ? -INFINITY : (maximum[r] + log2f(sum)) * LN2;
    }
  }

  void run() {
    const int64_t keys = begin();
    for (int64_t r = rows; r < round_up(rows, W); ++r) maximum[r] = block_maximum[r] = 0;
    for (int64_t start = 0; start < keys; start += BLOCK) {
      int64_t first = 0, last = rows;
      while (first < rows && visible[first] <= start) ++first;
      while (last > first && visible[last - 1] <= start) --last;
      const KeyBlock<T> at = source.block(b, g, start / BLOCK);
      const KeyBlock<T> ahead = start + BLOCK < keys ? source.block(b, g, start / BLOCK + 1) : at;
      for (int64_t r = 0; r < rows; ++r) block_maximum[r] = -INFINITY;
      score(at, ahead, start, first, last);
      for (int64_t r = first; r < last; ++r) mask_row(r, start);
      raise_maxima();
      for (int64_t r = first; r < last; ++r) exponentiate_row(r, start);
      accumulate(at, start, first, last);
    }
    end();
  }
};

// Calls f(b, g, first_row, rows, cost) for every work item.
template <class Source, class F>
GT_INLINE void for_each_item(const Source &source, int64_t tile_rows, int64_t d, F &&f) {
  const int64_t group = source.heads() / source.kv_heads();
  for (int64_t b = 0; b < source.sequences(); ++b) {
    const int64_t rows = source.queries(b) * group;
    for (int64_t g = 0; g < source.kv_heads(); ++g)
      for (int64_t first = 0; first < rows; first += tile_rows) {
        const int64_t n = rows - first < tile_rows ? rows - first : tile_rows;
        const int64_t keys = source.visible(b, (first + n / 2) / group);
        f(b, g, first, n, (keys * (n + 16) + n) * d);  // bringing a key in costs about as much as 16 rows
      }
  }
}

template <class T, class Source>
void attend(const gt_stream *stream, const Source &source, int64_t d, float scale) {
  const int64_t width = round_up(d, W), group = source.heads() / source.kv_heads();
  const int64_t fit = TILE_FLOATS / width / TILE_ROWS * TILE_ROWS, tile_rows = fit < MAX_TILE ? fit : MAX_TILE;
  int64_t total = 0;
  for_each_item(source, tile_rows, d, [&](int64_t, int64_t, int64_t, int64_t, int64_t cost) { total += cost; });
  // One share of the cost per thread: an item belongs to the share that its middle falls into.
  const int64_t shares = stream->num_threads;
  parallel_for(stream, shares, total / shares, [&](int64_t begin, int64_t end) {
    int64_t before = 0;
    for_each_item(source, tile_rows, d, [&](int64_t b, int64_t g, int64_t first, int64_t rows, int64_t cost) {
      const double middle = static_cast<double>(before) + 0.5 * static_cast<double>(cost);
      const int64_t share = clamp(static_cast<int64_t>(middle * shares / total), 0, shares - 1);
      before += cost;
      if (share < begin || share >= end) return;
      Tile<T, Source>(source, b, g, first, rows, group, d, width, scale).run();
    });
  });
}

}  // namespace

gt_status attention_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse, const gt_tensor *q,
                        const gt_tensor *k, const gt_tensor *v, const gt_tensor *bias, const gt_tensor *key_lengths,
                        float scale, gt_mask mask, const gt_tensor *) {
  with_float(q->dtype, [&](auto zero) {
    using T = decltype(zero);
    attend<T>(stream, Dense<T>{y, lse, q, k, v, bias, key_lengths, mask}, q->shape[3], scale);
  });
  return GT_OK;
}

gt_status attention_paged_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse, const gt_tensor *q,
                              const gt_tensor *k_pages, const gt_tensor *v_pages, const gt_tensor *page_table,
                              const gt_tensor *query_start, const gt_tensor *positions, float scale,
                              const gt_tensor *) {
  with_float(q->dtype, [&](auto zero) {
    using T = decltype(zero);
    attend<T>(stream, Paged<T>{y, lse, q, k_pages, v_pages, page_table, query_start, positions}, q->shape[2], scale);
  });
  return GT_OK;
}

gt_status kv_append_cpu(const gt_stream *stream, const gt_tensor *k_pages, const gt_tensor *v_pages,
                        const gt_tensor *k, const gt_tensor *v, const gt_tensor *page_table,
                        const gt_tensor *query_start, const gt_tensor *positions) {
  const int64_t kv_heads = k->shape[1], d = k->shape[2], bytes = k->dtype == GT_F32 ? 4 : 2;
  parallel_for(stream, k->shape[0], 2 * kv_heads * d, [&](int64_t begin, int64_t end) {
    int64_t b = 0;
    for (int64_t n = begin; n < end; ++n) {
      while (i32_at(query_start, b + 1) <= n) ++b;
      const int64_t position = i32_at(positions, n);
      if (position < 0) continue;
      const int64_t page = i32_at(page_table, b * page_table->shape[1] + position / BLOCK);
      for (int64_t g = 0; g < kv_heads; ++g) {
        const int64_t to = ((page * kv_heads + g) * BLOCK + position % BLOCK) * d;
        const auto copy = [&](const gt_tensor *pages, const gt_tensor *x) {
          memcpy(static_cast<char *>(pages->data) + to * bytes,
                 static_cast<const char *>(x->data) + (n * x->stride[0] + g * x->stride[1]) * bytes, d * bytes);
        };
        copy(k_pages, k);
        copy(v_pages, v);
      }
    }
  });
  return GT_OK;
}

// A tile keeps everything on its thread's stack.
gt_status attention_workspace_cpu(const gt_stream *, const gt_tensor *, const gt_tensor *, int64_t *bytes) {
  *bytes = 0;
  return GT_OK;
}

gt_status attention_paged_workspace_cpu(const gt_stream *, const gt_tensor *, const gt_tensor *, int64_t *bytes) {
  *bytes = 0;
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

#include "attention_check.h"

using gt::PAGE, gt::check_heads, gt::check_pages;

GT_DECLARE_OP(attention)
GT_DECLARE_OP(attention_workspace)
GT_DECLARE_OP(attention_paged)
GT_DECLARE_OP(attention_paged_workspace)
GT_DECLARE_OP(kv_append)

extern "C" gt_status gt_attention(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse,
                                  const gt_tensor *q, const gt_tensor *k, const gt_tensor *v, const gt_tensor *bias,
                                  const gt_tensor *key_lengths, float scale, gt_mask mask,
                                  const gt_tensor *workspace) {
  gt::Check check("attention", stream);
  check.tensor("q", q, gt::FLOATS).rank("q", q, 4).last_contiguous("q", q);
  check.tensor("y", y, gt::FLOATS).same_shape("y", y, "q", q).same_dtype("y", y, "q", q).last_contiguous("y", y);
  if (!check.ok()) return check.status();
  const int64_t b = q->shape[0], t = q->shape[1], h = q->shape[2], d = q->shape[3];
  check.tensor("k", k, gt::FLOATS).shape("k", k, {b, -1, -1, d}).same_dtype("k", k, "q", q).last_contiguous("k", k);
  check.tensor("v", v, gt::FLOATS).same_shape("v", v, "k", k).same_dtype("v", v, "q", q).last_contiguous("v", v);
  if (!check.ok()) return check.status();
  check_heads(check, h, k->shape[2], d);
  check.optional("lse", lse, gt::F32).shape("lse", lse, {b, h, t}).contiguous("lse", lse);
  check.optional("bias", bias, gt::F32).shape("bias", bias, {-1, -1, t, k->shape[1]});
  if (check.ok() && bias)
    check.require((bias->shape[0] == 1 || bias->shape[0] == b) && (bias->shape[1] == 1 || bias->shape[1] == h),
                  "bias is for %lld x %lld heads, expected 1 or B = %lld, 1 or H = %lld",
                  static_cast<long long>(bias->shape[0]), static_cast<long long>(bias->shape[1]),
                  static_cast<long long>(b), static_cast<long long>(h));
  check.optional("key_lengths", key_lengths, gt::I32).shape("key_lengths", key_lengths, {b});
  check.contiguous("key_lengths", key_lengths);
  check.require(mask == GT_MASK_NONE || mask == GT_MASK_CAUSAL, "mask is %d, expected %d (none) or %d (causal)", mask,
                GT_MASK_NONE, GT_MASK_CAUSAL);
  if (!check.workspace(workspace, 0).ok() || gt::elements(*q) == 0) return check.status();
  return GT_RUN(attention, stream, y, lse, q, k, v, bias, key_lengths, scale, mask, workspace);
}

extern "C" gt_status gt_attention_workspace(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k,
                                            int64_t *bytes) {
  gt::Check check("attention_workspace", stream);
  check.tensor("q", q, gt::FLOATS).rank("q", q, 4).tensor("k", k, gt::FLOATS).rank("k", k, 4);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  if (!check.ok()) return check.status();
  return GT_RUN(attention_workspace, stream, q, k, bytes);
}

extern "C" gt_status gt_attention_paged(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse,
                                        const gt_tensor *q, const gt_tensor *k_pages, const gt_tensor *v_pages,
                                        const gt_tensor *page_table, const gt_tensor *query_start,
                                        const gt_tensor *positions, float scale, const gt_tensor *workspace) {
  gt::Check check("attention_paged", stream);
  check.tensor("q", q, gt::FLOATS).rank("q", q, 3).last_contiguous("q", q);
  check.tensor("y", y, gt::FLOATS).same_shape("y", y, "q", q).same_dtype("y", y, "q", q).last_contiguous("y", y);
  if (!check.ok()) return check.status();
  const int64_t n = q->shape[0], h = q->shape[1], d = q->shape[2];
  check.tensor("k_pages", k_pages, gt::FLOATS).shape("k_pages", k_pages, {-1, -1, PAGE, d});
  check.same_dtype("k_pages", k_pages, "q", q).contiguous("k_pages", k_pages);
  check.tensor("v_pages", v_pages, gt::FLOATS).same_shape("v_pages", v_pages, "k_pages", k_pages);
  check.same_dtype("v_pages", v_pages, "q", q).contiguous("v_pages", v_pages);
  if (!check.ok()) return check.status();
  check_heads(check, h, k_pages->shape[1], d);
  check.optional("lse", lse, gt::F32).shape("lse", lse, {n, h}).contiguous("lse", lse);
  check_pages(check, stream, k_pages, page_table, query_start, positions, n);
  if (!check.ok() || gt::elements(*q) == 0) return check.status();
  int64_t bytes = 0;
  if (const gt_status status = gt_attention_paged_workspace(stream, q, page_table, &bytes)) return status;
  if (!check.workspace(workspace, bytes).ok()) return check.status();
  return GT_RUN(attention_paged, stream, y, lse, q, k_pages, v_pages, page_table, query_start, positions, scale,
                workspace);
}

extern "C" gt_status gt_attention_paged_workspace(const gt_stream *stream, const gt_tensor *q,
                                                  const gt_tensor *page_table, int64_t *bytes) {
  gt::Check check("attention_paged_workspace", stream);
  check.tensor("q", q, gt::FLOATS).rank("q", q, 3);
  check.tensor("page_table", page_table, gt::I32).rank("page_table", page_table, 2);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  if (!check.ok()) return check.status();
  return GT_RUN(attention_paged_workspace, stream, q, page_table, bytes);
}

extern "C" gt_status gt_kv_append(const gt_stream *stream, const gt_tensor *k_pages, const gt_tensor *v_pages,
                                  const gt_tensor *k, const gt_tensor *v, const gt_tensor *page_table,
                                  const gt_tensor *query_start, const gt_tensor *positions) {
  gt::Check check("kv_append", stream);
  check.tensor("k", k, gt::FLOATS).rank("k", k, 3).last_contiguous("k", k);
  check.tensor("v", v, gt::FLOATS).same_shape("v", v, "k", k).same_dtype("v", v, "k", k).last_contiguous("v", v);
  if (!check.ok()) return check.status();
  check.tensor("k_pages", k_pages, gt::FLOATS).shape("k_pages", k_pages, {-1, k->shape[1], PAGE, k->shape[2]});
  check.same_dtype("k_pages", k_pages, "k", k).contiguous("k_pages", k_pages);
  check.tensor("v_pages", v_pages, gt::FLOATS).same_shape("v_pages", v_pages, "k_pages", k_pages);
  check.same_dtype("v_pages", v_pages, "k", k).contiguous("v_pages", v_pages);
  if (!check.ok()) return check.status();
  check_pages(check, stream, k_pages, page_table, query_start, positions, k->shape[0]);
  if (!check.ok() || gt::elements(*k) == 0) return check.status();
  return GT_RUN(kv_append, stream, k_pages, v_pages, k, v, page_table, query_start, positions);
}

#endif
