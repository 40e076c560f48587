// Do sums over rows and over everything in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"

namespace {

using namespace test;

// Two orders of adding a few hundred numbers of up to 4 in f32.
constexpr Tolerance SUMMED = {4, 2e-4};

Rows workspace_of(int64_t bytes) { return {GT_U8, 1, bytes > 0 ? bytes : 1}; }

struct SumRows {
  int64_t b, s, c;
  bool is_product;
  Rows y, x, factor;  // x: B S rows of C
  int64_t bytes = 0;
  Rows workspace;

  SumRows(gt_dtype dtype, gt_dtype to, int64_t b_, int64_t s_, int64_t c_, bool is_product_, int64_t pad)
      : b(b_), s(s_), c(c_), is_product(is_product_), y(to, b, c, pad), x(dtype, b * s, c, pad),
        factor(dtype, b * s, c, 2 * pad), workspace(workspace_of(query())) {
    fill_uniform(x, 1);
    fill_uniform(factor, 2);
  }
  gt_tensor matrix(const Rows &rows) const {
    const int64_t stride = (rows.at(1, 0) - rows.at(0, 0)) / bytes_of(rows.dtype());
    return rows.view({b, s, c}, {s * stride, stride, 1});
  }
  int64_t query() {
    const gt_stream stream = cpu(1);
    const gt_tensor a = matrix(x);
    if (gt_sum_rows_workspace(&stream, &a, &bytes)) abort();
    return bytes;
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = y.tensor(), a = matrix(x), f = matrix(factor), w = workspace.vector();
    return gt_sum_rows(&stream, &ty, &a, is_product ? &f : nullptr, bytes ? &w : nullptr);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&y, &x, &factor, &workspace}; }
};

void check_rows() {
  struct Size { int64_t b, s, c, pad; };
  const Size sizes[] = {{1, 1, 1, 0},   {1, 3, 31, 0},   {2, 33, 257, 1}, {1, 64, 128, 0}, {1, 65, 128, 8},
                        {3, 200, 36, 4}, {1, 0, 5, 0},    {1, 300, 3, 0},  {1, 70, 520, 0}};
  for (const gt_dtype dtype : FLOATS)
    for (const Size &n : sizes)
      for (const bool is_product : {false, true})
        check_against_cpu("sum_rows " + std::string(name_of(dtype)) + " " + std::to_string(n.b) + "x" +
                              std::to_string(n.s) + "x" + std::to_string(n.c) + (is_product ? " of a product" : ""),
                          [&] {
                            return SumRows(dtype, is_product ? GT_F32 : dtype, n.b, n.s, n.c, is_product, n.pad);
                          },
                          is_product || dtype == GT_F32 ? SUMMED : Tolerance{1, 2e-4});
  if (!IS_INSTRUMENTED)
    check_against_cpu("sum_rows", [] { return SumRows(GT_BF16, GT_F32, 2, 130, 40, true, 0); }, SUMMED, SEEDS);
}

struct Sum {
  Rows y, x;
  int64_t bytes = 0;
  Rows workspace;

  Sum(gt_dtype dtype, int64_t n) : y(GT_F32, 1, 1), x(dtype, 1, n), workspace(workspace_of(query())) {
    fill_uniform(x, 3);
  }
  int64_t query() {
    const gt_stream stream = cpu(1);
    const gt_tensor tx = x.vector();
    if (gt_sum_workspace(&stream, &tx, &bytes)) abort();
    return bytes;
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = y.vector(), tx = x.vector(), w = workspace.vector();
    return gt_sum(&stream, &ty, &tx, 0.5f, bytes ? &w : nullptr);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&y, &x, &workspace}; }
};

void check_sums() {
  for (const gt_dtype dtype : FLOATS)
    for (const int64_t n : {0, 1, 33, 257, 4096, 4097, 20000})
      check_against_cpu("sum " + std::string(name_of(dtype)) + " " + std::to_string(n), [&] { return Sum(dtype, n); },
                        {1, 1e-7});
  if (!IS_INSTRUMENTED) check_against_cpu("sum", [] { return Sum(GT_F32, 9000); }, {1, 1e-7}, SEEDS);
}

void check_errors() {
  const Rows x(GT_F32, 1, 8), y(GT_F32, 1, 1);
  const gt_tensor tx = x.vector(), ty = y.vector(), matrix = x.view({1, 2, 4}, {8, 4, 1}), row = x.view({1, 4}, {4, 1});
  gt_stream stream = cuda("no such order");
  expect(gt_sum(&stream, &ty, &tx, 1, nullptr) == GT_DEVICE_ERROR, "a sum whose launch fails");
  expect(gt_sum_rows(&stream, &row, &matrix, nullptr, nullptr) == GT_DEVICE_ERROR, "a sum of rows whose launch fails");
  const Rows many(GT_F32, 1, 5000);
  const gt_tensor tmany = many.vector();
  stream = cuda("fwd");
  expect(gt_sum(&stream, &ty, &tmany, 1, nullptr) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "workspace"),
         "no workspace: '%s'", gt_last_error());
}

}  // namespace

int main() {
  check_rows();
  check_sums();
  check_errors();
  return summary();
}
