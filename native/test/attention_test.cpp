// Do the attention kernels give what the CPU gives, in every lane order the same bits, whatever else is in the batch?
//
// The CPU twin is the reference (Java's tests prove it against double). Keys and values that no query may see are NaN,
// and page table entries that no query needs name no page.
#include "family_test.h"

namespace {

using namespace test;

// f16 is bf16's code with another mma.
#if defined(GT_TEST_INSTRUMENTED)
constexpr std::initializer_list<gt_dtype> DTYPES = {GT_F32, GT_BF16};
#else
constexpr std::initializer_list<gt_dtype> DTYPES = FLOATS;
#endif

// In f32 two computations differ by what a dot product and a sum of powers round; in bf16 and f16 CUDA rounds the
// powers as well, by half a unit of 1 each, before they meet values of 2 at most.
Tolerance tolerance_of(gt_dtype dtype) {
  return dtype == GT_F32 ? Tolerance{4, 4e-6} : Tolerance{1, unit_of(dtype)};
}
constexpr Tolerance LSE_TOLERANCE = {4, 4e-6};

// How the rows of D elements lie: side by side, behind each other with a gap that keeps 16-byte alignment, or so that
// no row but by chance is aligned.
enum class Layout { PLAIN, GAPS, UNALIGNED };

Rows rows_of(gt_dtype dtype, int64_t n, int64_t d, Layout layout) {
  return Rows(dtype, n, d, layout == Layout::GAPS ? 24 - d % 8 : layout == Layout::UNALIGNED ? 3 : 0,
              layout == Layout::UNALIGNED ? 1 : 0);
}
int64_t stride_of(const Rows &rows) { return (rows.at(1, 0) - rows.at(0, 0)) / bytes_of(rows.dtype()); }

// Rows in the order of the leading dims.
gt_tensor tensor_of(const Rows &rows, std::initializer_list<int64_t> dims) {
  gt_tensor t = {rows.at(0, 0), rows.dtype(), static_cast<int32_t>(dims.size()) + 1, {}, {}};
  std::copy(dims.begin(), dims.end(), t.shape);
  t.shape[t.rank - 1] = rows.c();
  t.stride[t.rank - 1] = 1;
  int64_t stride = stride_of(rows);
  for (int i = t.rank - 2; i >= 0; --i) {
    t.stride[i] = stride;
    stride *= t.shape[i];
  }
  return t;
}

Rows workspace_of(int64_t bytes) { return Rows(GT_U8, 1, bytes); }

// Dense

struct Sizes {
  int64_t b, t, s, h, g, d;
};
enum class Bias { NONE, SHARED, FULL };

struct DenseCase {
  Sizes z;
  gt_dtype dtype;
  gt_mask mask;
  Bias bias_kind;
  bool has_lengths, compares_lse;
  float scale;
  Rows q, k, v, y, lse, bias, lengths;

  DenseCase(const Sizes &sizes, gt_dtype type, gt_mask m, Bias kind = Bias::NONE, bool lengths_too = false,
            Layout layout = Layout::PLAIN, bool only_lse = false)
      : z(sizes), dtype(type), mask(m), bias_kind(kind), has_lengths(lengths_too), compares_lse(only_lse),
        scale(1 / std::sqrt(static_cast<float>(z.d))), q(rows_of(type, z.b * z.t * z.h, z.d, layout)),
        k(rows_of(type, z.b * z.s * z.g, z.d, layout)), v(rows_of(type, z.b * z.s * z.g, z.d, layout)),
        y(rows_of(type, z.b * z.t * z.h, z.d, layout)), lse(GT_F32, z.b * z.h, z.t),
        bias(GT_F32, kind == Bias::FULL ? z.b * z.h * z.t : z.t, z.s, 3), lengths(GT_I32, 1, z.b) {
    fill_uniform(q, 1);
    fill_uniform(k, 2);
    fill_uniform(v, 3);
    fill_uniform(bias, 4);
    for (int64_t b = 0; b < z.b; ++b) {
      lengths.integer_at<int32_t>(0, b) = static_cast<int32_t>(z.s * (b + 1) / (z.b + 1));
      for (int64_t s = length(b); has_lengths && s < z.s; ++s)
        for (int64_t g = 0; g < z.g; ++g)
          for (int64_t i = 0; i < z.d; ++i) k.set(key(b, s, g), i, NAN), v.set(key(b, s, g), i, NAN);
    }
  }
  int64_t key(int64_t b, int64_t s, int64_t g) const { return (b * z.s + s) * z.g + g; }
  int64_t length(int64_t b) const { return lengths.integer_at<int32_t>(0, b); }

  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = tensor_of(y, {z.b, z.t, z.h}), tq = tensor_of(q, {z.b, z.t, z.h});
    const gt_tensor tk = tensor_of(k, {z.b, z.s, z.g}), tv = tensor_of(v, {z.b, z.s, z.g});
    const gt_tensor tlse = lse.view({z.b, z.h, z.t}, {z.h * z.t, z.t, 1}), tlengths = lengths.vector();
    const int64_t row = z.s + 3;
    const gt_tensor tbias = bias_kind == Bias::FULL
                                ? bias.view({z.b, z.h, z.t, z.s}, {z.h * z.t * row, z.t * row, row, 1})
                                : bias.view({1, 1, z.t, z.s}, {0, 0, row, 1});
    int64_t bytes = -1;
    if (const gt_status status = gt_attention_workspace(&stream, &tq, &tk, &bytes)) return status;
    if (bytes) return GT_INTERNAL;
    return gt_attention(&stream, &ty, &tlse, &tq, &tk, &tv, bias_kind == Bias::NONE ? nullptr : &tbias,
                        has_lengths ? &tlengths : nullptr, scale, mask, nullptr);
  }
  std::vector<const Rows *> outputs() const { return {compares_lse ? &lse : &y}; }
  std::vector<const Rows *> operands() const { return {&q, &k, &v, &y, &lse, &bias, &lengths}; }
  std::string what() const {
    char text[160];
    snprintf(text, sizeof text, "attention %s B%d T%d S%d H%d G%d D%d mask %d bias %d lengths %d stride %d",
             name_of(dtype), static_cast<int>(z.b), static_cast<int>(z.t), static_cast<int>(z.s), static_cast<int>(z.h),
             static_cast<int>(z.g), static_cast<int>(z.d), mask, static_cast<int>(bias_kind), has_lengths,
             static_cast<int>(stride_of(q)));
    return text;
  }
};

template <class... Args> void check_dense(const Args &...args) {
  const DenseCase c(args...);
  check_against_cpu(c.what() + (c.compares_lse ? " lse" : ""), [&] { return DenseCase(args...); },
                    c.compares_lse ? LSE_TOLERANCE : tolerance_of(c.dtype));
}

constexpr gt_mask MASKS[] = {GT_MASK_NONE, GT_MASK_CAUSAL};

void check_sizes() {
  for (const gt_dtype dtype : DTYPES)
    for (const gt_mask mask : MASKS)
      for (const Sizes &z : {Sizes{1, 1, 1, 1, 1, 16}, {2, 3, 65, 2, 1, 64}, {1, 65, 64, 2, 2, 40},
                             {1, 33, 130, 2, 2, 64}, {1, 130, 33, 1, 1, 16}, {1, 64, 64, 7, 1, 24},
                             {2, 1, 130, 4, 2, 80}}) {
        check_dense(z, dtype, mask);
        if (z.t * z.s > 1000 && dtype != GT_F16) check_dense(z, dtype, mask, Bias::NONE, false, Layout::PLAIN, true);
      }
}

// Each padded width, whole and in part, and each number of warps that share rows.
void check_head_dims() {
  for (const gt_dtype dtype : DTYPES)
    for (const int64_t d : {1, 8, 33, 64, 72, 80, 128, 129, 192, 256, 257, 300, 512}) {
      const bool is_large = d > 128;
      check_dense(Sizes{1, is_large ? 19 : 35, is_large ? 35 : 67, 2, 2, d}, dtype, GT_MASK_CAUSAL);
    }
}

void check_layouts() {
  for (const gt_dtype dtype : DTYPES)
    for (const Layout layout : {Layout::GAPS, Layout::UNALIGNED})
      for (const int64_t d : {16, 20, 65})
        check_dense(Sizes{2, 17, 70, 2, 1, d}, dtype, GT_MASK_CAUSAL, Bias::NONE, true, layout);
}

void check_bias_and_lengths() {
  for (const gt_dtype dtype : DTYPES)
    for (const gt_mask mask : MASKS)
      for (const Bias bias : {Bias::NONE, Bias::SHARED, Bias::FULL})
        check_dense(Sizes{2, 35, 67, 4, 2, 24}, dtype, mask, bias, bias != Bias::SHARED, Layout::PLAIN,
                    dtype == GT_BF16);
}

// More queries than keys: the first rows see none. No keys at all. A bias of -inf. Zeros and -inf, on both devices.
void check_empty_rows() {
  for (const gt_dtype dtype : DTYPES) {
    DenseCase c(Sizes{1, 40, 5, 2, 1, 16}, dtype, GT_MASK_CAUSAL);
    bool ok = c.run(cuda("fwd")) == GT_OK;
    for (int64_t t = 0; t < 40; ++t) {
      ok &= (c.y.get(2 * t, 3) == 0) == (t < 35) && std::isinf(c.lse.get(1, t)) == (t < 35);
    }
    expect(ok, "%s: rows that see no key", c.what().c_str());
    check_dense(Sizes{1, 40, 5, 2, 1, 16}, dtype, GT_MASK_CAUSAL);

    DenseCase none(Sizes{1, 3, 0, 2, 1, 16}, dtype, GT_MASK_NONE);
    ok = none.run(cuda("fwd")) == GT_OK;
    for (int64_t r = 0; r < 6; ++r) ok &= none.y.get(r, 0) == 0 && none.y.get(r, 15) == 0;
    expect(ok && none.lse.get(1, 2) == -INFINITY, "%s: no keys", none.what().c_str());

    DenseCase hidden(Sizes{1, 3, 67, 2, 1, 16}, dtype, GT_MASK_NONE, Bias::SHARED);
    for (int64_t s = 0; s < 67; ++s) hidden.bias.set(1, s, -INFINITY);
    ok = hidden.run(cuda("fwd")) == GT_OK;
    for (int64_t r = 0; r < 6; ++r) ok &= (hidden.y.get(r, 5) == 0) == (r / 2 == 1);
    expect(ok && hidden.lse.get(0, 1) == -INFINITY && hidden.lse.get(0, 2) > 0, "%s: a bias of -inf",
           hidden.what().c_str());
  }
}

// Scores up to thousands: exp alone would overflow. A NaN in one query, and in one value that only later queries see.
void check_extremes() {
  for (const gt_dtype dtype : DTYPES) {
    const Sizes z{1, 70, 70, 2, 1, 40};
    check_against_cpu("attention, large scores, " + std::string(name_of(dtype)),
                      [&] {
                        DenseCase c(z, dtype, GT_MASK_CAUSAL);
                        fill_uniform(c.q, 1, 1024);  // exact in every dtype
                        return c;
                      },
                      {2, dtype == GT_F32 ? 1e-3 : 4 * unit_of(dtype)});
    const auto sick = [&](float value) {
      DenseCase c(z, dtype, GT_MASK_CAUSAL);
      c.v.set(c.key(0, 37, 0), 21, value);
      c.k.set(c.key(0, 66, 0), 3, NAN);
      c.q.set(11 * z.h + 1, 0, NAN);
      return c;
    };
    check_against_cpu("attention, NaNs, " + std::string(name_of(dtype)), [&] { return sick(NAN); },
                      tolerance_of(dtype));

    const DenseCase well = sick(0), ill = sick(INFINITY);
    bool ok = well.run(cuda("fwd")) == GT_OK && ill.run(cuda("rev")) == GT_OK;
    for (int64_t r = 0; r < z.t * z.h; ++r)
      for (int64_t i = 0; i < z.d; ++i) {
        const bool sees = r / z.h >= 37 && i == 21;
        ok &= sees ? !std::isfinite(ill.y.get(r, i)) : !memcmp(well.y.at(r, i), ill.y.at(r, i), bytes_of(dtype));
      }
    expect(ok, "%s: a value of Inf reaches rows that do not see it, or not those that do", well.what().c_str());
  }
}

// attention_sm90.cu: more tiles of keys than stages, more tiles of rows than blocks, each number of heads side by side,
// every width; lengths that end within a tile.
void check_hopper() {
  for (const gt_dtype dtype : {GT_BF16, GT_F16}) {
    for (const gt_mask mask : MASKS) {
      // f16 is bf16's code with another wgmma
      if (IS_INSTRUMENTED && (dtype == GT_F16 || mask == GT_MASK_NONE)) continue;
      for (const Sizes &z : {Sizes{1, 200, 530, 6, 2, 64}, {1, 210, 210, 2, 2, 64}, {2, 150, 150, 4, 1, 128},
                             {1, 130, 260, 3, 3, 96}, {1, 140, 250, 2, 1, 256}, {3, 5, 300, 8, 1, 72},
                             {1, 400, 390, 2, 2, 200}}) {
        check_dense(z, dtype, mask, Bias::NONE, z.b > 1);
        if (z.d == 64) check_dense(z, dtype, mask, Bias::NONE, true, Layout::GAPS, true);
      }
    }
  }
}

// The bits of a sequence alone, and of the last queries alone, are those it has in company.
void check_dense_alone(Bias bias) {
  for (const gt_dtype dtype : DTYPES) {
    if (bias == Bias::NONE && dtype == GT_F32) continue;  // not the Hopper kernel
    const Sizes z{3, 65, bias == Bias::NONE ? 290 : 70, 4, 2, 40};
    const Layout other = bias == Bias::NONE ? Layout::GAPS : Layout::UNALIGNED;
    const DenseCase all(z, dtype, GT_MASK_CAUSAL, bias, true);
    bool same = all.run(cuda("fwd")) == GT_OK;
    for (int64_t b = 0; b < z.b; ++b)
      for (const int64_t t : {z.t, int64_t{1}, int64_t{20}}) {
        DenseCase one(Sizes{1, t, z.s, z.h, z.g, z.d}, dtype, GT_MASK_CAUSAL, bias, true, other);
        const int64_t first = z.t - t, bytes = bytes_of(dtype) * z.d;
        for (int64_t r = 0; r < t * z.h; ++r) memcpy(one.q.at(r, 0), all.q.at((b * z.t + first) * z.h + r, 0), bytes);
        for (int64_t r = 0; r < z.s * z.g; ++r) {
          memcpy(one.k.at(r, 0), all.k.at(b * z.s * z.g + r, 0), bytes);
          memcpy(one.v.at(r, 0), all.v.at(b * z.s * z.g + r, 0), bytes);
        }
        for (int64_t h = 0; h < z.h && bias == Bias::FULL; ++h)
          for (int64_t i = 0; i < t; ++i)
            memcpy(one.bias.at(h * t + i, 0), all.bias.at((b * z.h + h) * z.t + first + i, 0), 4 * z.s);
        one.lengths.integer_at<int32_t>(0, 0) = static_cast<int32_t>(all.length(b));
        same &= one.run(cuda("rand:3")) == GT_OK;
        for (int64_t r = 0; r < t * z.h; ++r)
          same &= !memcmp(one.y.at(r, 0), all.y.at((b * z.t + first) * z.h + r, 0), bytes);
        for (int64_t h = 0; h < z.h; ++h) same &= !memcmp(one.lse.at(h, 0), all.lse.at(b * z.h + h, first), 4 * t);
      }
    expect(same, "%s: a sequence, or its last queries, alone has other bits", all.what().c_str());
  }
}

// Paged

// A sequence's keys before its query rows, and those; idle: its rows have no position.
struct Sequence {
  int64_t before, rows;
  bool is_idle = false;
  int64_t length() const { return is_idle ? 0 : before + rows; }
};
using Batch = std::vector<Sequence>;
struct Heads {
  int64_t h, g, d;
};

constexpr int64_t PAGE = 64;

// What lies at a position depends on the sequence's number in `numbers`, head and position, not on the page.
struct PagedCase {
  Batch batch;
  std::vector<int> numbers;
  Heads z;
  gt_dtype dtype;
  bool compares_lse, appends = false;
  int64_t n = 0, width = 0, num_pages = 0;
  std::vector<int64_t> first_row;
  Rows q, y, lse, k_pages, v_pages, k, v, table, starts, positions;

  PagedCase(const Batch &sequences, const Heads &heads, gt_dtype type, bool only_lse = false, std::vector<int> who = {},
            int64_t extra_width = 1, Layout layout = Layout::PLAIN)
      : batch(sequences), numbers(who), z(heads), dtype(type), compares_lse(only_lse), q(type, 0, 0), y(type, 0, 0),
        lse(type, 0, 0), k_pages(type, 0, 0), v_pages(type, 0, 0), k(type, 0, 0), v(type, 0, 0), table(GT_I32, 0, 0),
        starts(GT_I32, 0, 0), positions(GT_I32, 0, 0) {
    const int64_t b = static_cast<int64_t>(batch.size());
    for (int i = 0; numbers.size() < batch.size(); ++i) numbers.push_back(i);
    for (const Sequence &s : batch) {
      first_row.push_back(n);
      n += s.rows;
      width = std::max(width, (s.length() + PAGE - 1) / PAGE);
      num_pages += (s.length() + PAGE - 1) / PAGE;
    }
    width += extra_width;
    num_pages += 2 + num_pages % 2;  // even
    q = rows_of(dtype, n * z.h, z.d, layout);
    y = rows_of(dtype, n * z.h, z.d, layout);
    k = rows_of(dtype, n * z.g, z.d, layout);
    v = rows_of(dtype, n * z.g, z.d, layout);
    lse = Rows(GT_F32, n, z.h);
    k_pages = Rows(dtype, num_pages * z.g * PAGE, z.d);
    v_pages = Rows(dtype, num_pages * z.g * PAGE, z.d);
    table = Rows(GT_I32, b, width);
    starts = Rows(GT_I32, 1, b + 1);
    positions = Rows(GT_I32, 1, n);
    int64_t page = 1;
    for (int64_t i = 0; i < b; ++i) {
      const Sequence &s = batch[i];
      starts.integer_at<int32_t>(0, i) = static_cast<int32_t>(first_row[i]);
      for (int64_t j = 0; j < width; ++j) table.integer_at<int32_t>(i, j) = INT32_MAX;
      for (int64_t j = 0; j * PAGE < s.length(); ++j) {  // even pages backwards, so that neighbours lie apart
        table.integer_at<int32_t>(i, j) = static_cast<int32_t>(page % 2 ? page : num_pages - page);
        ++page;
      }
      for (int64_t p = 0; p < s.length(); ++p)
        for (int64_t g = 0; g < z.g; ++g)
          for (int64_t c = 0; c < z.d; ++c) {
            k_pages.set(place(i, p, g), c, value(11, i, p, g, c));
            v_pages.set(place(i, p, g), c, value(12, i, p, g, c));
          }
      for (int64_t r = 0; r < s.rows; ++r) {
        const int64_t row = first_row[i] + r, p = s.before + r;
        positions.integer_at<int32_t>(0, row) = s.is_idle ? -1 : static_cast<int32_t>(p);
        for (int64_t h = 0; h < z.h; ++h)
          for (int64_t c = 0; c < z.d; ++c) q.set(row * z.h + h, c, value(13, i, p, h, c));
        for (int64_t g = 0; g < z.g; ++g)
          for (int64_t c = 0; c < z.d; ++c) {
            k.set(row * z.g + g, c, value(14, i, p, g, c));
            v.set(row * z.g + g, c, value(15, i, p, g, c));
          }
      }
    }
    starts.integer_at<int32_t>(0, b) = static_cast<int32_t>(n);
  }
  float value(uint64_t salt, int64_t i, int64_t p, int64_t head, int64_t c) const {
    return uniform(salt + 100 * static_cast<uint64_t>(numbers[i]), (p * 64 + head) * 1024 + c);
  }
  // The row of k_pages and v_pages.
  int64_t place(int64_t i, int64_t p, int64_t g) const {
    return (table.integer_at<int32_t>(i, p / PAGE) * z.g + g) * PAGE + p % PAGE;
  }

  gt_status run(const gt_stream &stream) const {
    const int64_t b = static_cast<int64_t>(batch.size());
    const gt_tensor ty = tensor_of(y, {n, z.h}), tq = tensor_of(q, {n, z.h}), tlse = lse.tensor();
    const gt_tensor tk = tensor_of(k_pages, {num_pages, z.g, PAGE}), tv = tensor_of(v_pages, {num_pages, z.g, PAGE});
    const gt_tensor ttable = table.view({b, width}, {width, 1}), tstarts = starts.vector(),
                    tpositions = positions.vector();
    if (appends) {
      const gt_tensor new_k = tensor_of(k, {n, z.g}), new_v = tensor_of(v, {n, z.g});
      return gt_kv_append(&stream, &tk, &tv, &new_k, &new_v, &ttable, &tstarts, &tpositions);
    }
    int64_t bytes = -1;
    if (const gt_status status = gt_attention_paged_workspace(&stream, &tq, &ttable, &bytes)) return status;
    const Rows scratch = workspace_of(bytes);
    const gt_tensor workspace = scratch.vector();
    const gt_status status = gt_attention_paged(&stream, &ty, &tlse, &tq, &tk, &tv, &ttable, &tstarts, &tpositions,
                                                1 / std::sqrt(static_cast<float>(z.d)), bytes ? &workspace : nullptr);
    return status == GT_OK && !scratch.guards_are_intact() ? GT_INTERNAL : status;
  }
  std::vector<const Rows *> outputs() const {
    if (appends) return {&k_pages, &v_pages};
    return {compares_lse ? &lse : &y};
  }
  std::vector<const Rows *> operands() const {
    return {&q, &y, &lse, &k_pages, &v_pages, &k, &v, &table, &starts, &positions};
  }
  // y and lse of a sequence's rows.
  std::string bits_of(int64_t i, int64_t from, int64_t to) const {
    std::string bits;
    for (int64_t row = first_row[i] + from; row < first_row[i] + to; ++row) {
      for (int64_t h = 0; h < z.h; ++h)
        bits.append(reinterpret_cast<char *>(y.at(row * z.h + h, 0)), z.d * bytes_of(dtype));
      bits.append(reinterpret_cast<char *>(lse.at(row, 0)), 4 * z.h);
    }
    return bits;
  }
  std::string what() const {
    char text[128];
    snprintf(text, sizeof text, "%s %s B%d N%d H%d G%d D%d", appends ? "kv_append" : "attention_paged", name_of(dtype),
             static_cast<int>(batch.size()), static_cast<int>(n), static_cast<int>(z.h), static_cast<int>(z.g),
             static_cast<int>(z.d));
    return text;
  }
};

template <class... Args> void check_paged(const Args &...args) {
  const PagedCase c(args...);
  check_against_cpu(c.what() + (c.compares_lse ? " lse" : ""), [&] { return PagedCase(args...); },
                    c.compares_lse ? LSE_TOLERANCE : tolerance_of(c.dtype));
}

// Prefill: from nothing, a chunk in the middle, one row among many, an idle sequence, one without rows. bf16 and f16 by
// the Hopper kernel where D fits it and rows are aligned.
const Batch MIXED = {{127, 1}, {0, 33}, {70, 61}, {5, 2, true}, {64, 0}, {200, 1}, {63, 3}};
// One row each, or none: up to 2, 3 and 5 splits of 256 keys.
const Batch STEPS = {{0, 1}, {600, 1}, {63, 1}, {64, 1}, {5, 1, true}, {255, 1}, {256, 1}, {1100, 1}, {3, 0}};

void check_prefill() {
  for (const gt_dtype dtype : DTYPES) {
    check_paged(MIXED, Heads{4, 2, 40}, dtype);
    check_paged(MIXED, Heads{7, 1, 64}, dtype, true);
    for (const int64_t d : {40, 72})
      if (dtype != GT_F32 && !(IS_INSTRUMENTED && d == 72))
        check_paged(MIXED, Heads{4, 2, d}, dtype, d == 72, std::vector<int>{}, int64_t{1}, Layout::UNALIGNED);
    check_paged(Batch{{1, 2}}, Heads{1, 1, 1}, dtype);
    check_paged(Batch{{60, 7}, {63, 1}}, Heads{2, 2, 128}, dtype);
    check_paged(Batch{{60, 3}, {63, 1}}, Heads{2, 1, 192}, dtype);
    check_paged(Batch{{30, 1}}, Heads{2, 1, 300}, dtype);  // N = B, but too wide to split
  }
}

void check_decode() {
  for (const gt_dtype dtype : DTYPES) {
    check_paged(STEPS, Heads{2, 2, 64}, dtype);
    check_paged(STEPS, Heads{7, 1, 40}, dtype, true);
    check_paged(STEPS, Heads{16, 16, 16}, dtype);                           // blocks with more than one split
    check_paged(Batch{{300, 1}, {10, 1}}, Heads{18, 1, 80}, dtype);  // more heads than a tile has rows
    check_paged(Batch{{280, 1}}, Heads{2, 2, 128}, dtype);
    check_paged(Batch{{280, 1}}, Heads{3, 1, 192}, dtype);
    check_paged(Batch{{40, 1}, {63, 1}}, Heads{2, 1, 33}, dtype, false, std::vector<int>{}, 0);  // a single split
    check_paged(Batch{{5, 1, true}}, Heads{2, 1, 16}, dtype, false, std::vector<int>{}, 0);
    check_paged(Batch{{5, 1, true}}, Heads{2, 1, 16}, dtype, true, std::vector<int>{}, 9);
    check_paged(Batch{{5, 2}, {0, 0}, {300, 1}}, Heads{2, 1, 16}, dtype);  // N = B with two rows in one sequence
  }
  if (!IS_INSTRUMENTED) check_paged(Batch{{9500, 1}}, Heads{1, 1, 16}, GT_BF16);  // beyond the short splits
}

// A decode step's bits: alone, with other pages and wider page tables, in any batch of steps.
void check_decode_alone() {
  for (const gt_dtype dtype : DTYPES)
    for (const Heads &z : {Heads{16, 16, 16}, Heads{2, 1, 128}}) {
      const PagedCase all(STEPS, z, dtype);
      bool same = all.run(cuda("fwd")) == GT_OK;
      for (size_t i = 0; i < STEPS.size(); ++i) {
        if (STEPS[i].rows == 0) continue;
        const int64_t extra = i % 3 * 20;
        const PagedCase one({STEPS[i]}, z, dtype, false, {static_cast<int>(i)}, extra, Layout::UNALIGNED);
        same &= one.run(cuda("rand:2")) == GT_OK && one.bits_of(0, 0, 1) == all.bits_of(static_cast<int64_t>(i), 0, 1);
      }
      expect(same, "%s: a decode step alone has other bits", all.what().c_str());
    }
}

// Pages on Hopper: more tiles of keys than stages, more tiles of rows than blocks, sequences that begin where a tile of
// the one in front would go on, every width; page tables without an entry that nobody needs.
void check_hopper_pages() {
  const Batch chunks = {{300, 40}, {0, 5}, {64, 0}, {190, 3}, {0, 70}, {9, 2, true}};
  const auto check = [](const Batch &batch, const Heads &z, gt_dtype dtype, Layout layout = Layout::PLAIN) {
    check_paged(batch, z, dtype, z.d == 128, std::vector<int>{}, int64_t{0}, layout);
  };
  for (const gt_dtype dtype : {GT_BF16, GT_F16}) {
    if (IS_INSTRUMENTED && dtype == GT_F16) continue;
    check(chunks, {3, 1, 64}, dtype);
    check({{140, 6}, {70, 2}}, {4, 1, 256}, dtype);
    if (IS_INSTRUMENTED) continue;
    check({{128, 70}, {127, 2}}, {4, 1, 128}, dtype);
    check({{0, 2}, {200, 20}}, {3, 3, 96}, dtype, Layout::GAPS);
  }
}

// A value of Inf, a key of NaN and a query of NaN in the second chunk of a prompt: rows that see them, and no others.
void check_paged_extremes() {
  for (const gt_dtype dtype : DTYPES) {
    const auto sick = [&](float value, float key, float query) {
      PagedCase c({{100, 60}, {0, 40}}, Heads{2, 1, 40}, dtype);
      c.v_pages.set(c.place(0, 137, 0), 21, value);
      c.k_pages.set(c.place(0, 150, 0), 3, key);
      c.q.set(11 * 2 + 1, 0, query);
      return c;
    };
    check_against_cpu("attention_paged, NaNs, " + std::string(name_of(dtype)), [&] { return sick(NAN, NAN, NAN); },
                      tolerance_of(dtype));
    const PagedCase well = sick(0, 0, 0), ill = sick(INFINITY, 0, 0);
    bool ok = well.run(cuda("fwd")) == GT_OK && ill.run(cuda("rev")) == GT_OK;
    for (int64_t r = 0; r < 2 * well.n; ++r)
      for (int64_t i = 0; i < 40; ++i) {
        const bool sees = r / 2 >= 37 && r / 2 < 60 && i == 21;
        ok &= sees ? !std::isfinite(ill.y.get(r, i)) : !memcmp(well.y.at(r, i), ill.y.at(r, i), bytes_of(dtype));
      }
    expect(ok, "%s: a value of Inf reaches rows that do not see it, or not those that do", well.what().c_str());
  }
}

// A prompt's bits: alone, in a batch, in chunks, and as dense attention has them.
void check_prefill_alone(gt_dtype dtype, const Heads &z, Layout layout) {
  const PagedCase all({{0, 20}, {0, 150}, {7, 1}}, z, dtype, false, {0, 1, 2}, 1, layout);
  bool same = all.run(cuda("fwd")) == GT_OK;
  for (const int64_t chunk : {150, 37})
    for (int64_t from = 0; from < 150; from += chunk) {
      const int64_t to = std::min<int64_t>(from + chunk, 150);
      const PagedCase part({{from, to - from}}, z, dtype, false, {1}, 0, layout);
      same &= part.run(cuda("rev")) == GT_OK && part.bits_of(0, 0, to - from) == all.bits_of(1, from, to);
    }
  expect(same, "%s: a prompt alone or in chunks has other bits", all.what().c_str());

  const DenseCase dense(Sizes{1, 150, 150, z.h, z.g, z.d}, dtype, GT_MASK_CAUSAL, Bias::NONE, false, layout);
  const int64_t bytes = bytes_of(dtype) * z.d;
  for (int64_t p = 0; p < 150; ++p) {
    for (int64_t h = 0; h < z.h; ++h) memcpy(dense.q.at(p * z.h + h, 0), all.q.at((20 + p) * z.h + h, 0), bytes);
    for (int64_t g = 0; g < z.g; ++g) {
      memcpy(dense.k.at(p * z.g + g, 0), all.k_pages.at(all.place(1, p, g), 0), bytes);
      memcpy(dense.v.at(p * z.g + g, 0), all.v_pages.at(all.place(1, p, g), 0), bytes);
    }
  }
  same = dense.run(cuda("rand:4")) == GT_OK;
  for (int64_t r = 0; r < 150 * z.h; ++r) same &= !memcmp(dense.y.at(r, 0), all.y.at(20 * z.h + r, 0), bytes);
  expect(same, "%s: dense attention has other bits", all.what().c_str());
}

// Aligned rows of 16 bits by the Hopper kernel, others not: it sums in another order.
void check_prefill_alone() {
  for (const gt_dtype dtype : DTYPES) {
    if (dtype != GT_F32) check_prefill_alone(dtype, {4, 2, 40}, Layout::PLAIN);
    if (IS_INSTRUMENTED && dtype != GT_F32) continue;
    check_prefill_alone(dtype, {4, 2, 40}, Layout::UNALIGNED);
    if (dtype != GT_F32) check_prefill_alone(dtype, {2, 1, 256}, Layout::PLAIN);  // tiles of keys end within a page
  }
}

void check_append() {
  const auto check = [](gt_dtype dtype, Layout layout, const Heads &z, const Batch &batch) {
    const auto make = [&] {
      PagedCase c(batch, z, dtype, false, {}, 1, layout);
      c.appends = true;
      return c;
    };
    check_against_cpu(make().what(), make, {0, 0});
  };
  for (const gt_dtype dtype : DTYPES) {
    for (const Layout layout : {Layout::PLAIN, Layout::GAPS, Layout::UNALIGNED})
      check(dtype, layout, {1, 2, 40}, MIXED);
    check(dtype, Layout::PLAIN, {1, 3, 1}, MIXED);
    check(dtype, Layout::PLAIN, {1, 4, 80}, Batch{{62, 1}, {5, 1, true}, {0, 1}});
  }
}

void check_seeds() {
  for (const gt_dtype dtype : {GT_F32, GT_BF16}) {
    for (const Sizes &z : {Sizes{1, 150, 170, 6, 2, 40}, {1, 70, 200, 1, 1, 256}})
      if (dtype == GT_BF16)
        check_against_cpu(DenseCase(z, dtype, GT_MASK_CAUSAL).what(),
                          [&] { return DenseCase(z, dtype, GT_MASK_CAUSAL, Bias::NONE, true); },
                          tolerance_of(dtype), SEEDS);
    for (const Sizes &z : {Sizes{1, 35, 67, 2, 1, 40}, {1, 19, 35, 1, 1, 256}})
      check_against_cpu(DenseCase(z, dtype, GT_MASK_CAUSAL).what(),
                        [&] { return DenseCase(z, dtype, GT_MASK_CAUSAL, Bias::FULL); }, tolerance_of(dtype), SEEDS);
    for (const Batch &batch : {Batch{{127, 1}, {0, 33}, {5, 2, true}, {63, 3}}, Batch{{600, 1}, {63, 1}, {5, 1, true}}})
      for (const bool appends : {false, true}) {
        const auto make = [&] {
          PagedCase c(batch, Heads{2, 1, 40}, dtype);
          c.appends = appends;
          return c;
        };
        check_against_cpu(make().what(), make, appends ? Tolerance{0, 0} : tolerance_of(dtype), SEEDS);
      }
  }
}

void check_errors() {
  const PagedCase c({{600, 1}}, Heads{2, 1, 16}, GT_BF16);
  const gt_tensor ty = tensor_of(c.y, {1, 2}), tq = tensor_of(c.q, {1, 2});
  const gt_tensor tk = tensor_of(c.k_pages, {c.num_pages, 1, PAGE}), tv = tensor_of(c.v_pages, {c.num_pages, 1, PAGE});
  const gt_tensor table = c.table.view({1, c.width}, {c.width, 1}), starts = c.starts.vector(),
                  positions = c.positions.vector();
  const gt_stream stream = cuda("fwd");
  const auto run = [&](const gt_tensor *workspace) {
    return gt_attention_paged(&stream, &ty, nullptr, &tq, &tk, &tv, &table, &starts, &positions, 1, workspace);
  };
  expect(run(nullptr) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "workspace"), "no workspace: '%s'",
         gt_last_error());
  int64_t bytes = 0;
  gt_attention_paged_workspace(&stream, &tq, &table, &bytes);
  const Rows scratch = workspace_of(bytes - 1), enough = workspace_of(bytes);
  const gt_tensor small = scratch.vector(), workspace = enough.vector();
  expect(run(&small) == GT_INVALID_ARGUMENT, "a workspace that is too small: '%s'", gt_last_error());
  expect(run(&workspace) == GT_OK, "without lse: %s", gt_last_error());
  gt_tensor long_table = table;  // of 2^26 pages, which hold 2^32 positions
  long_table.shape[1] = long_table.stride[0] = int64_t{1} << 26;
  bytes = -1;
  expect(gt_attention_paged_workspace(&stream, &tq, &long_table, &bytes) == GT_UNSUPPORTED && bytes == -1 &&
             strstr(gt_last_error(), "4294967296"), "a page table of 2^26 pages: %lld bytes, '%s'",
         static_cast<long long>(bytes), gt_last_error());
  simt::set_order(simt::parse_order("no such order"));
  expect(run(&workspace) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "attention_paged: ", 17),
         "a launch that fails: '%s'", gt_last_error());
}

}  // namespace

int main() {
  check_sizes();
  check_head_dims();
  check_layouts();
  check_bias_and_lengths();
  check_empty_rows();
  check_extremes();
  check_hopper();
  check_dense_alone(Bias::FULL);
  check_dense_alone(Bias::NONE);
  check_prefill();
  check_decode();
  check_decode_alone();
  check_hopper_pages();
  check_paged_extremes();
  check_prefill_alone();
  check_append();
  if (!IS_INSTRUMENTED) check_seeds();
  check_errors();
  return summary();
}
