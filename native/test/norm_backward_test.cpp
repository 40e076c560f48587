// Do the gradients of the norms give in CUDA, through the emulator, what they give on the CPU?
#include "family_test.h"

namespace {

using namespace test;

struct Layout {
  const char *name;
  bool is_affine, weight_is_f32, has_residual;
  int64_t pad, offset;
  bool dx_is_dy, dx_is_residual;
};
// pad 8 and offset 0 keep rows of a multiple of 8 aligned; 1 aligns no row but the first.
const Layout layouts[] = {
    {"plain", false, false, false, 0, 0, false, false},
    {"affine", true, false, false, 0, 0, false, false},
    {"f32 weight, residual", true, true, true, 8, 0, false, false},
    {"unaligned", true, false, true, 1, 1, false, false},
    {"dx is dy", true, false, false, 8, 0, true, false},
    {"dx is residual", true, false, true, 0, 3, false, true},
};

struct RowCase {
  bool rms;
  const Layout &layout;
  Rows dx, dy, x, residual, weight, mean, rstd, dweight, dbias;

  RowCase(bool rms_, gt_dtype dtype, int64_t n, int64_t c, const Layout &l)
      : rms(rms_), layout(l), dx(dtype, n, c, 2 * l.pad, l.offset), dy(dtype, n, c, l.pad, l.offset),
        x(dtype, n, c, l.pad, l.offset), residual(dtype, n, c, l.pad), weight(l.weight_is_f32 ? GT_F32 : dtype, 1, c),
        mean(GT_F32, 1, n), rstd(GT_F32, 1, n), dweight(GT_F32, 1, c), dbias(GT_F32, 1, c) {
    fill_uniform(dy, 1);
    fill_uniform(x, 2);
    fill_uniform(residual, 3);
    fill_uniform(weight, 4);
    fill_uniform(mean, 5);
    for (int64_t i = 0; i < n; ++i) rstd.set(0, i, 0.5f + std::fabs(uniform(6, i)));
    if (n > 1) dy.set(n - 1, c - 1, NAN);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tdx = (layout.dx_is_dy ? dy : layout.dx_is_residual ? residual : dx).tensor(), tdy = dy.tensor();
    const gt_tensor tx = x.tensor(), tresidual = residual.tensor(), tweight = weight.vector();
    const gt_tensor tmean = mean.vector(), trstd = rstd.vector(), tdweight = dweight.vector(), tdbias = dbias.vector();
    const gt_tensor *const w = layout.is_affine ? &tweight : nullptr, *const r = layout.has_residual ? &tresidual : nullptr;
    int64_t bytes = 0;
    const gt_status status = rms ? gt_rmsnorm_backward_workspace(&stream, &tx, &bytes)
                                 : gt_layernorm_backward_workspace(&stream, &tx, &bytes);
    if (status) return status;
    const Rows workspace(GT_U8, 1, bytes);
    const gt_tensor tworkspace = workspace.vector();
    const gt_status ran =
        rms ? gt_rmsnorm_backward(&stream, &tdx, &tdweight, &tdy, &tx, &trstd, w, r, &tworkspace)
            : gt_layernorm_backward(&stream, &tdx, &tdweight, &tdbias, &tdy, &tx, &tmean, &trstd, w, r, &tworkspace);
    return ran == GT_OK && !workspace.guards_are_intact() ? GT_INTERNAL : ran;
  }
  std::vector<const Rows *> outputs() const {
    return {layout.dx_is_dy ? &dy : layout.dx_is_residual ? &residual : &dx, &dweight, &dbias};
  }
  std::vector<const Rows *> operands() const {
    return {&dx, &dy, &x, &residual, &weight, &mean, &rstd, &dweight, &dbias};
  }
};

// Sums of many products in other orders, and a gradient that is what is left of them.
Tolerance tolerance_of(gt_dtype dtype, int64_t n) {
  return {dtype == GT_F32 ? 4.0 : 1.0, 2e-6 * std::sqrt(static_cast<double>(n)) + (dtype == GT_F32 ? 2e-5 : 4e-5)};
}

void check_rows() {
  const auto check = [](bool rms, gt_dtype dtype, int64_t n, int64_t c, const Layout &l,
                        std::initializer_list<const char *> orders) {
    check_against_cpu(std::string(rms ? "rmsnorm_backward " : "layernorm_backward ") + name_of(dtype) + " [" +
                          std::to_string(n) + ", " + std::to_string(c) + "] " + l.name,
                      [&] { return RowCase(rms, dtype, n, c, l); }, tolerance_of(dtype, n), orders);
  };
  for (const bool rms : {false, true}) {
    for (const gt_dtype dtype : FLOATS) {
      for (const int64_t c : {1, 3, 33, 256, 1000, 1025})
        for (const Layout &l : layouts) check(rms, dtype, 5, c, l, ORDERS);
      check(rms, dtype, 2, 8200, layouts[2], ORDERS);
      check(rms, dtype, 0, 7, layouts[1], ORDERS);
    }
    if (!IS_INSTRUMENTED) {
      for (const int64_t c : {33, 1000, 1600}) check(rms, GT_BF16, 3, c, layouts[2], SEEDS);
      check(rms, GT_F32, 140000, 2, layouts[1], {"fwd"});  // more rows than chunks of one round each
    }
  }
}

// Neither gradient of a parameter wanted: no workspace either.
void check_without_parameters() {
  const RowCase c(false, GT_F32, 3, 5, layouts[0]);
  for (const gt_stream &stream : {cpu(1), cuda("fwd")}) {
    const gt_tensor tdx = c.dx.tensor(), tdy = c.dy.tensor(), tx = c.x.tensor(), tmean = c.mean.vector();
    const gt_tensor trstd = c.rstd.vector(), tdbias = c.dbias.vector();
    expect(gt_layernorm_backward(&stream, &tdx, nullptr, nullptr, &tdy, &tx, &tmean, &trstd, nullptr, nullptr, nullptr) ==
               GT_OK, "no parameters: %s", gt_last_error());
    expect(gt_layernorm_backward(&stream, &tdx, nullptr, &tdbias, &tdy, &tx, &tmean, &trstd, nullptr, nullptr, nullptr) ==
               GT_INVALID_ARGUMENT && strstr(gt_last_error(), "workspace has 0 bytes"), "no workspace: %s",
           gt_last_error());
  }
}

}  // namespace

int main() {
  check_rows();
  check_without_parameters();
  return summary();
}
