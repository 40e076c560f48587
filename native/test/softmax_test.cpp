// Do gt_softmax and gt_log_softmax in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"
#include "simt/resident.h"

namespace {

using namespace test;

using Run = gt_status (*)(const gt_stream *, const gt_tensor *y, const gt_tensor *x);

struct Layout {
  const char *name;
  int64_t pad_y, offset_y, pad_x, offset_x;
  bool y_is_x;
};
// pad 8 and offset 0 keep rows of a multiple of 8 aligned; 4 aligns bf16 rows to the 8 bytes that go with 4 of f32.
const Layout layouts[] = {
    {"dense", 0, 0, 0, 0, false},
    {"padded", 8, 0, 16, 0, false},
    {"y unaligned", 0, 1, 8, 0, false},
    {"x unaligned", 4, 4, 1, 3, false},
    {"y is x", 0, 0, 8, 0, true},
    {"y is x, unaligned", 0, 0, 1, 1, true},
};

// Rows: ordinary, masked in part, wholly masked, with a NaN, with +inf, wide, all the same, NaN in a masked row,
// rising.
constexpr int64_t NUM_ROWS = 9;
float value(int64_t r, int64_t i, int64_t c) {
  const float x = 4 * uniform(1, r * 65537 + i);
  switch (r) {
    case 1: return i % 3 == 0 || i < c / 2 ? -INFINITY : x;
    case 2: return -INFINITY;
    case 3: return i == c - 1 ? NAN : x;
    case 4: return i == c / 3 ? INFINITY : x;
    case 5: return 40 * x;
    case 6: return 1000.0f;
    case 7: return i == c / 2 ? NAN : -INFINITY;
    case 8: return x + 40 * static_cast<float>(i) / static_cast<float>(c);
    default: return x;
  }
}

struct Case {
  Run run_op;
  Rows y, x;
  bool y_is_x;

  Case(Run run, gt_dtype to, gt_dtype from, int64_t c, const Layout &l, int64_t n = NUM_ROWS)
      : run_op(run), y(to, n, c, l.pad_y, l.offset_y), x(from, n, c, l.pad_x, l.offset_x), y_is_x(l.y_is_x) {
    for (int64_t r = 0; r < n; ++r)
      for (int64_t i = 0; i < c; ++i) x.set(r, i, value(r, i, c));
  }
  const Rows &result() const { return y_is_x ? x : y; }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = result().tensor(), tx = x.tensor();
    return run_op(&stream, &ty, &tx);
  }
  std::vector<const Rows *> outputs() const { return {&result()}; }
  std::vector<const Rows *> operands() const { return {&y, &x}; }
};

struct Op {
  const char *name;
  Run run;
  Tolerance in_f32, in_16_bits;
} const ops[] = {
    // the CPU sums in f64 and drops denormals: f32 sums in chains of 32 stay within 32 roundings
    {"softmax", gt_softmax, {32, 1e-37}, {1, 1e-37}},
    // the logarithm's error is the sum's relative one, whatever remains of x - m
    {"log_softmax", gt_log_softmax, {2, 2e-6}, {1, 2e-6}},
};

std::string name(const Op &op, gt_dtype to, gt_dtype from, int64_t c, const char *layout) {
  return std::string(op.name) + " " + name_of(from) + " to " + name_of(to) + " C = " + std::to_string(c) + " " + layout;
}

void check_all_layouts() {
  for (const Op &op : ops)
    for (const int64_t c : {1, 3, 8, 31, 33, 127, 257, 768, 1000, 1025, 4096, 8200, 21001})
      for (const gt_dtype from : FLOATS)
        for (const gt_dtype to : FLOATS)
          for (const Layout &layout : layouts) {
            if (layout.y_is_x && to != from) continue;
            // kernels differ by x's dtype alone, and bf16 and f16 by little
            const bool is_representative = from != GT_F16 && (to == GT_BF16 || to == from);
            if (c > 1025 && !(is_representative && (layout.pad_x == 8 || layout.pad_x == 1))) continue;
            if (IS_INSTRUMENTED && c > 257 && !is_representative) continue;
            check_against_cpu(name(op, to, from, c, layout.name), [&] { return Case(op.run, to, from, c, layout); },
                              to == GT_F32 ? op.in_f32 : op.in_16_bits);
          }
}

// By a cluster of 2 with rows ahead, of 4 without, of 8 that has not enough registers; by a block, where there are no
// clusters.
void check_wide_rows() {
  for (const Op &op : ops)
    for (const auto &[c, clusters] : {std::pair<int64_t, int>{16400, 2}, {33001, 2}, {131080 + 4096, 2}, {16999, 0}}) {
      if (IS_INSTRUMENTED && c != 16400) continue;
      simt::resident_clusters = clusters;
      const gt_dtype from = c == 33001 ? GT_F32 : GT_BF16;
      check_against_cpu(name(op, GT_BF16, from, c, layouts[1].name),
                        [&, columns = c] { return Case(op.run, GT_BF16, from, columns, layouts[1]); }, op.in_16_bits);
      simt::resident_clusters = 2;
    }
}

void check_seeds() {
  for (const Op &op : ops)
    for (const int64_t c : {31, 257, 1025, 8200})
      for (const gt_dtype dtype : {GT_F32, GT_BF16})
        check_against_cpu(name(op, dtype, dtype, c, layouts[1].name),
                          [&] { return Case(op.run, dtype, dtype, c, layouts[1]); },
                          dtype == GT_F32 ? op.in_f32 : op.in_16_bits, SEEDS);
}

// A row's bits depend neither on the other rows nor on its alignment. Of 170 rows a block has several.
void check_rows_alone() {
  const gt_stream stream = cuda("fwd");
  for (const Op &op : ops)
    for (const auto &[n, c] : {std::pair<int64_t, int64_t>{9, 5}, {9, 31}, {9, 200}, {9, 1000}, {170, 1032}, {9, 2048},
                               {9, 2049}, {9, 16999}}) {
      const Case all(op.run, GT_BF16, GT_BF16, c, layouts[1], n);
      bool same = !all.run(stream);
      for (int64_t r = 0; r < n; ++r) {
        const Rows x(GT_BF16, 1, c, 0, r % 8), y(GT_BF16, 1, c);
        memcpy(x.at(0, 0), all.x.at(r, 0), 2 * c);
        const gt_tensor tx = x.tensor(), ty = y.tensor();
        same &= !op.run(&stream, &ty, &tx) && !memcmp(y.at(0, 0), all.y.at(r, 0), 2 * c);
      }
      expect(same, "%s: a row alone has other bits", name(op, GT_BF16, GT_BF16, c, "").c_str());
    }
}

// More rows than a grid has blocks. Those of x all lie in one place; each row of y begins one element after the last
// and overwrites the rest of it, so that every row leaves an element behind.
void check_many_rows() {
  const gt_stream stream = cuda("fwd");
  for (const auto &[n, c] : {std::pair<int64_t, int64_t>{16384 * 128 + 3, 1}, {16384 + 2, 1025}}) {
    const Rows x(GT_BF16, 1, c), y(GT_BF16, 1, n + c - 1);
    for (int64_t i = 0; i < c; ++i) x.set(0, i, 1);
    const gt_tensor tx = x.view({n, c}, {0, 1}), ty = y.view({n, c}, {1, 1});
    const gt_status status = gt_softmax(&stream, &ty, &tx);
    int64_t wrong = 0;
    for (int64_t i = 0; i < y.c(); ++i) wrong += !(std::fabs(y.get(0, i) * static_cast<float>(c) - 1) < 0.01f);
    expect(status == GT_OK && wrong == 0, "%ld rows: status %d, %ld wrong", static_cast<long>(n), status,
           static_cast<long>(wrong));
  }
}

void check_shapes_and_errors() {
  const Rows x(GT_F32, 6, 5), y(GT_F32, 6, 5);
  fill_uniform(x, 1);
  gt_stream stream = cuda("fwd");
  gt_tensor tx = x.view({2, 3, 5}, {15, 5, 1}), ty = y.view({2, 3, 5}, {15, 5, 1});
  expect(gt_softmax(&stream, &ty, &tx) == GT_OK && std::isfinite(y.get(5, 4)), "rank 3: %s", gt_last_error());
  stream = cuda("no such order");
  expect(gt_softmax(&stream, &ty, &tx) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "softmax: ", 9),
         "a launch that fails: '%s'", gt_last_error());
  tx.shape[0] = ty.shape[0] = 0;  // nothing is launched: the order does not matter
  expect(gt_softmax(&stream, &ty, &tx) == GT_OK, "no rows: %s", gt_last_error());
  tx = x.view({6, 0}, {5, 1}), ty = y.view({6, 0}, {5, 1});
  expect(gt_log_softmax(&stream, &ty, &tx) == GT_OK, "C = 0: %s", gt_last_error());
}

}  // namespace

int main() {
  check_all_layouts();
  check_wide_rows();
  if (!IS_INSTRUMENTED) check_seeds();
  check_rows_alone();
  if (!IS_INSTRUMENTED) check_many_rows();
  check_shapes_and_errors();
  return summary();
}
