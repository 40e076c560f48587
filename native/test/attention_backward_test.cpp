// Do the kernels of attention's derivatives give what the CPU gives, and in every lane order the same bits?
//
// The CPU twin is the reference (Java's tests prove it against double); y and lse are any numbers, which the definition
// allows. Keys and values from key lengths on are NaN.
#include "family_test.h"

namespace {

using namespace test;

struct Sizes {
  int64_t b, t, s, h, g, d;
};
// Planes of the bias: none, one, one for each head, or one for each sequence and head.
enum class Bias { NONE, SHARED, HEADS, FULL };
enum class Output { DQ, DK, DV, DBIAS, ROWS };  // ROWS: the first three, by the widest of their tolerances
// Which rows of D elements are not aligned but by chance. Hopper's kernel, which has no bias, takes 16-bit rows whose
// inputs are aligned and whose D is a multiple of 8 up to 128.
enum class Unaligned { NONE, OUTPUTS, ALL };

// Which output is compared changes nothing about what runs: instrumented code runs once.
#if defined(GT_TEST_INSTRUMENTED)
constexpr std::initializer_list<gt_dtype> DTYPES = {GT_F32, GT_BF16};
constexpr std::initializer_list<Output> OUTPUTS = {Output::DK}, ALL_OUTPUTS = {Output::DBIAS};
#else
constexpr std::initializer_list<gt_dtype> DTYPES = FLOATS;
constexpr std::initializer_list<Output> OUTPUTS = {Output::DQ, Output::DK, Output::DV};
constexpr std::initializer_list<Output> ALL_OUTPUTS = {Output::DQ, Output::DK, Output::DV, Output::DBIAS};
#endif

struct Case {
  Sizes z;
  gt_dtype dtype;
  gt_mask mask;
  Bias bias_kind;
  bool has_lengths;
  Output compared;
  Rows q, k, v, y, dy, dq, dk, dv, lse, bias, dbias, lengths;

  static Rows rows(gt_dtype type, int64_t n, int64_t d, bool is_aligned) {
    return Rows(type, n, d, is_aligned ? 0 : 3, is_aligned ? 0 : 1);
  }
  Case(const Sizes &sizes, gt_dtype type, gt_mask m, Output which, Bias kind = Bias::NONE, bool lengths_too = false,
       Unaligned unaligned = Unaligned::NONE)
      : z(sizes), dtype(type), mask(m), bias_kind(kind), has_lengths(lengths_too), compared(which),
        q(rows(type, z.b * z.t * z.h, z.d, unaligned < Unaligned::ALL)),
        k(rows(type, z.b * z.s * z.g, z.d, unaligned < Unaligned::ALL)),
        v(rows(type, z.b * z.s * z.g, z.d, unaligned < Unaligned::ALL)),
        y(rows(type, z.b * z.t * z.h, z.d, unaligned < Unaligned::ALL)),
        dy(rows(type, z.b * z.t * z.h, z.d, unaligned < Unaligned::ALL)),
        dq(rows(type, z.b * z.t * z.h, z.d, unaligned == Unaligned::NONE)),
        dk(rows(type, z.b * z.s * z.g, z.d, unaligned == Unaligned::NONE)),
        dv(rows(type, z.b * z.s * z.g, z.d, unaligned == Unaligned::NONE)),
        lse(GT_F32, z.b * z.h, z.t), bias(GT_F32, planes() * z.t, z.s), dbias(GT_F32, planes() * z.t, z.s),
        lengths(GT_I32, 1, z.b) {
    fill_uniform(q, 1);
    fill_uniform(k, 2);
    fill_uniform(v, 3);
    fill_uniform(y, 4, 0.25f);
    fill_uniform(dy, 5);
    fill_uniform(bias, 6);
    for (int64_t r = 0; r < lse.n(); ++r)  // P is 1 at most, or not much more
      for (int64_t i = 0; i < z.t; ++i)
        lse.set(r, i, 2 + std::log(static_cast<float>(z.s)) + 0.25f * uniform(7, r * 997 + i));
    for (int64_t b = 0; b < z.b; ++b) {
      lengths.integer_at<int32_t>(0, b) = static_cast<int32_t>(z.s * (b + 1) / (z.b + 1));
      for (int64_t r = (b * z.s + length(b)) * z.g; has_lengths && r < (b + 1) * z.s * z.g; ++r)
        for (int64_t i = 0; i < z.d; ++i) k.set(r, i, NAN), v.set(r, i, NAN);
    }
  }
  int64_t length(int64_t b) const { return lengths.integer_at<int32_t>(0, b); }
  int64_t planes() const {
    return bias_kind == Bias::FULL ? z.b * z.h : bias_kind == Bias::HEADS ? z.h : 1;
  }

  // Rows as [B, N, H, D].
  static gt_tensor heads(const Rows &rows, int64_t b, int64_t n, int64_t h) {
    const int64_t stride = (rows.at(1, 0) - rows.at(0, 0)) / bytes_of(rows.dtype());
    return rows.view({b, n, h, rows.c()}, {n * h * stride, h * stride, stride, 1});
  }
  gt_tensor plane(const Rows &rows) const {
    const int64_t b = bias_kind == Bias::FULL ? z.b : 1, h = planes() / b;
    return rows.view({b, h, z.t, z.s}, {h * z.t * z.s, z.t * z.s, z.s, 1});
  }
  gt_status run(const gt_stream &stream) const {
    const auto of_queries = [&](const Rows &rows) { return heads(rows, z.b, z.t, z.h); };
    const auto of_keys = [&](const Rows &rows) { return heads(rows, z.b, z.s, z.g); };
    const gt_tensor tq = of_queries(q), ty = of_queries(y), tdy = of_queries(dy), tdq = of_queries(dq);
    const gt_tensor tk = of_keys(k), tv = of_keys(v), tdk = of_keys(dk), tdv = of_keys(dv);
    const gt_tensor tlse = lse.view({z.b, z.h, z.t}, {z.h * z.t, z.t, 1}), tlengths = lengths.vector();
    const gt_tensor tbias = plane(bias), tdbias = plane(dbias);
    int64_t bytes = -1;
    if (const gt_status status = gt_attention_backward_workspace(&stream, &tq, &tk, &bytes)) return status;
    const Rows scratch(GT_U8, 1, bytes);
    const gt_tensor workspace = scratch.vector();
    const bool has_bias = bias_kind != Bias::NONE;
    const gt_status status = gt_attention_backward(
        &stream, &tdq, &tdk, &tdv, has_bias ? &tdbias : nullptr, &tdy, &ty, &tlse, &tq, &tk, &tv,
        has_bias ? &tbias : nullptr, has_lengths ? &tlengths : nullptr, 1 / std::sqrt(static_cast<float>(z.d)), mask,
        &workspace);
    return status == GT_OK && !scratch.guards_are_intact() ? GT_INTERNAL : status;
  }
  std::vector<const Rows *> outputs() const {
    switch (compared) {
      case Output::DQ: return {&dq};
      case Output::DK: return {&dk};
      case Output::DV: return {&dv};
      case Output::ROWS: return {&dq, &dk, &dv};
      default: return {&dbias};
    }
  }
  std::vector<const Rows *> operands() const {
    return {&q, &k, &v, &y, &dy, &dq, &dk, &dv, &lse, &bias, &dbias, &lengths};
  }
  std::string what() const {
    char text[160];
    snprintf(text, sizeof text,
             "attention_backward %s B%d T%d S%d H%d G%d D%d mask %d bias %d lengths %d stride %d output %d",
             name_of(dtype), static_cast<int>(z.b), static_cast<int>(z.t), static_cast<int>(z.s), static_cast<int>(z.h),
             static_cast<int>(z.g), static_cast<int>(z.d), mask, static_cast<int>(bias_kind), has_lengths,
             static_cast<int>((q.at(1, 0) - q.at(0, 0)) / bytes_of(dtype)), static_cast<int>(compared));
    return text;
  }

  // CUDA rounds P and dS of 16-bit dtypes, each by half a unit, before it sums T H / G or S products with them.
  Tolerance tolerance() const {
    if (dtype == GT_F32 || compared == Output::DBIAS) return {8, 2e-5};
    const int64_t keys = compared == Output::DQ || compared == Output::ROWS ? z.s : 0;
    const int64_t rows = compared == Output::DQ ? 0 : z.t * (z.h / z.g);
    const double terms = static_cast<double>(std::max(keys, rows));
    return {1, 2 * unit_of(dtype) * std::sqrt(terms)};
  }
};

template <class... Args>
void check(std::initializer_list<const char *> orders, const Sizes &z, gt_dtype dtype, gt_mask mask, Output output,
           const Args &...args) {
  const Case c(z, dtype, mask, output, args...);
  check_against_cpu(c.what(), [&] { return Case(z, dtype, mask, output, args...); }, c.tolerance(), orders);
}

constexpr gt_mask MASKS[] = {GT_MASK_NONE, GT_MASK_CAUSAL};

void check_sizes() {
  for (const gt_dtype dtype : DTYPES)
    for (const gt_mask mask : MASKS)
      for (const Sizes &z :
           {Sizes{1, 1, 1, 1, 1, 16}, {2, 3, 65, 2, 1, 64}, {1, 70, 33, 2, 2, 40}, {1, 20, 20, 7, 1, 24}})
        for (const Output output : OUTPUTS)
          check(ORDERS, z, dtype, mask, output, Bias::NONE, false, dtype == GT_F32 ? Unaligned::NONE : Unaligned::ALL);
}

// Each padded width, and each number of warps that share rows.
void check_head_dims() {
  for (const gt_dtype dtype : DTYPES)
    for (const int64_t d : {8, 33, 72, 128, 129, 256, 300, 512})
      for (const Output output : OUTPUTS)
        check({"fwd", "rand:1"}, Sizes{1, 19, 35, 2, 2, d}, dtype, GT_MASK_CAUSAL, output, Bias::NONE, false,
              dtype == GT_F32 ? Unaligned::NONE : Unaligned::ALL);
}

void check_bias_lengths_and_layout() {
  for (const gt_dtype dtype : DTYPES)
    for (const gt_mask mask : MASKS)
      for (const Bias bias : {Bias::SHARED, Bias::HEADS, Bias::FULL})
        for (const Output output : ALL_OUTPUTS)
          check({"fwd", "rand:1"}, Sizes{2, 19, 35, 4, 2, 24}, dtype, mask, output, bias, bias != Bias::HEADS,
                bias != Bias::FULL ? Unaligned::NONE : Unaligned::ALL);
}

// Each width of Hopper's kernels, whole and in part; one key to several tiles of keys and of rows, tiles that are
// partly there, keys that end in the first tile, in a later one, and before any key; more and fewer queries than keys.
void check_hopper() {
  for (const gt_dtype dtype : DTYPES) {
    if (dtype == GT_F32) continue;
    for (const gt_mask mask : MASKS)
      for (const Sizes &z :
           {Sizes{1, 1, 1, 1, 1, 16}, {2, 65, 195, 2, 2, 64}, {1, 140, 260, 2, 1, 40}, {3, 70, 3, 3, 1, 96},
            {1, 67, 300, 1, 1, 72}, {2, 130, 67, 2, 1, 128}, {1, 70, 260, 2, 1, 120}, {2, 5, 2, 1, 1, 104}})
        check({"fwd", "rand:1"}, z, dtype, mask, Output::ROWS, Bias::NONE, z.b > 1,
              z.d % 16 == 0 ? Unaligned::NONE : Unaligned::OUTPUTS);
  }
}

// More queries than keys: the first see none. No keys at all, no queries at all.
void check_empty() {
  for (const gt_dtype dtype : DTYPES) {
    for (const Output output : OUTPUTS) {
      check(ORDERS, Sizes{1, 40, 5, 2, 1, 16}, dtype, GT_MASK_CAUSAL, output);
      check(ORDERS, Sizes{1, 3, 0, 2, 1, 16}, dtype, GT_MASK_NONE, output);
      check(ORDERS, Sizes{1, 0, 3, 2, 1, 16}, dtype, GT_MASK_NONE, output);
    }
    const Case c(Sizes{1, 40, 5, 2, 1, 16}, dtype, GT_MASK_CAUSAL, Output::DQ);
    bool ok = c.run(cuda("fwd")) == GT_OK;
    for (int64_t t = 0; t < 40; ++t) ok &= (c.dq.get(2 * t, 3) == 0) == (t < 35);
    expect(ok, "%s: queries that see no key", c.what().c_str());
  }
}

void check_seeds() {
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const Output output : ALL_OUTPUTS)
      check(SEEDS, Sizes{2, 19, 35, 2, 1, 40}, dtype, GT_MASK_CAUSAL, output, Bias::SHARED);
  check(ORDERS, Sizes{1, 70, 140, 2, 1, 128}, GT_BF16, GT_MASK_CAUSAL, Output::ROWS);
  for (const int64_t d : {64, 128}) check(SEEDS, Sizes{1, 35, 140, 2, 1, d}, GT_BF16, GT_MASK_CAUSAL, Output::ROWS);
}

void check_errors() {
  const Case c(Sizes{1, 3, 5, 2, 1, 16}, GT_BF16, GT_MASK_NONE, Output::DQ);
  const gt_tensor tq = Case::heads(c.q, 1, 3, 2), tdq = Case::heads(c.dq, 1, 3, 2), tk = Case::heads(c.k, 1, 5, 1);
  const gt_tensor tdk = Case::heads(c.dk, 1, 5, 1), tlse = c.lse.view({1, 2, 3}, {6, 3, 1});
  const auto run = [&](const gt_stream &stream, int64_t missing_bytes) {
    int64_t bytes = 0;
    gt_attention_backward_workspace(&stream, &tq, &tk, &bytes);
    const Rows scratch(GT_U8, 1, bytes - missing_bytes);
    const gt_tensor workspace = scratch.vector();
    return gt_attention_backward(&stream, &tdq, &tdk, &tdk, nullptr, &tq, &tq, &tlse, &tq, &tk, &tk, nullptr, nullptr,
                                 1, GT_MASK_NONE, &workspace);
  };
  for (const gt_stream &stream : {cpu(1), cuda("fwd")}) {
    expect(run(stream, 1) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "workspace"), "a small workspace: '%s'",
           gt_last_error());
    expect(run(stream, 0) == GT_OK, "%s", gt_last_error());
  }
  const gt_stream stream = cuda("fwd");
  simt::set_order(simt::parse_order("no such order"));
  expect(run(stream, 0) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "attention_backward: ", 20),
         "a launch that fails: '%s'", gt_last_error());
}

}  // namespace

int main() {
  check_sizes();
  check_head_dims();
  check_hopper();
  check_bias_lengths_and_layout();
  check_empty();
  if (!IS_INSTRUMENTED) check_seeds();
  check_errors();
  return summary();
}
