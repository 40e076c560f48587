// Do the gradients of the norms give in CUDA, through the emulator, what they give on the CPU?
#include "family_test.h"
#include "simt/resident.h"

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
    const gt_tensor *const w = layout.is_affine ? &tweight : nullptr;
    const gt_tensor *const r = layout.has_residual ? &tresidual : nullptr;
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
      for (const int64_t c : {3, 33, 256, 1000, 1025, 1032})
        for (const Layout &l : layouts) check(rms, dtype, 5, c, l, ORDERS);
      check(rms, dtype, 2, 8200, layouts[2], ORDERS);
      // chunks of rows whose sums of columns go by several at once, and one with rows left over
      for (const int64_t c : {256, 1000})
        for (const Layout &l : {layouts[1], layouts[3]}) check(rms, dtype, 70, c, l, {"rand:3"});
      // more rows than a block has copied ahead, whole and not
      for (const Layout &l : layouts)
        if (dtype != GT_F16 && !IS_INSTRUMENTED) check(rms, dtype, 1400, 1032, l, {"rand:3"});
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
    const auto run = [&](const gt_tensor *out) {
      return gt_layernorm_backward(&stream, &tdx, nullptr, out, &tdy, &tx, &tmean, &trstd, nullptr, nullptr, nullptr);
    };
    expect(run(nullptr) == GT_OK, "no parameters: %s", gt_last_error());
    expect(run(&tdbias) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "workspace has 0 bytes"), "no workspace: %s",
           gt_last_error());
  }
}

enum class ImageOp { GROUP, BATCH, DOUBLE };

struct ImageLayout {
  const char *name;
  bool channels_last, is_affine, parameters_are_f32, is_modulated, in_place;
  int64_t pad, offset;
};
const ImageLayout image_layouts[] = {
    {"channels last", true, true, false, false, false, 0, 0},
    {"channels first", false, true, false, false, false, 0, 0},
    {"channels last, modulated, f32 parameters", true, true, true, true, false, 8, 0},
    {"channels first, modulated, f32 parameters", false, true, true, true, false, 8, 0},
    {"channels last, unaligned", true, false, false, true, false, 1, 1},
    {"channels first, unaligned", false, true, false, false, false, 3, 1},
    {"channels last, in place", true, true, false, false, true, 0, 0},
};

// [B, S, C] as rows of C, or of S.
struct ImageCase {
  ImageOp op;
  int64_t b, s, c, groups;
  gt_activation activation;
  const ImageLayout &layout;
  Rows dx, ddy, dy, x, u, weight, bias, scale, shift, mean, rstd, dweight, dbias, dscale, dshift;

  ImageCase(ImageOp o, gt_dtype dtype, int64_t b_, int64_t s_, int64_t c_, int64_t g, gt_activation a,
            const ImageLayout &l)
      : op(o), b(b_), s(s_), c(c_), groups(g), activation(a), layout(l), dx(image(dtype, 2 * l.pad)),
        ddy(image(dtype, l.pad)), dy(image(dtype, l.pad)), x(image(dtype, l.pad)), u(image(dtype, 2 * l.pad)),
        weight(l.parameters_are_f32 ? GT_F32 : dtype, 1, c), bias(dtype, 1, c), scale(dtype, b, c, l.pad),
        shift(dtype, b, c), mean(GT_F32, 1, o == ImageOp::BATCH ? c : b * g), rstd(GT_F32, 1, mean.c()),
        dweight(GT_F32, 1, c), dbias(GT_F32, 1, c), dscale(dtype, b, c, l.pad), dshift(dtype, b, c) {
    uint64_t salt = 0;
    for (const Rows *rows : {&dy, &x, &u, &weight, &bias, &scale, &shift, &mean}) fill_uniform(*rows, ++salt);
    for (int64_t i = 0; i < rstd.c(); ++i) rstd.set(0, i, 0.5f + std::fabs(uniform(9, i)) / 2);
    if (groups > 1 && b > 0) dy.set(dy.n() - 1, dy.c() - 1, NAN);
  }
  Rows image(gt_dtype dtype, int64_t pad) const {
    return {dtype, b * (layout.channels_last ? s : c), layout.channels_last ? c : s, pad, layout.offset};
  }
  gt_tensor tensor(const Rows &rows) const {
    const int64_t stride = (rows.at(1, 0) - rows.at(0, 0)) / bytes_of(rows.dtype());
    return layout.channels_last ? rows.view({b, s, c}, {s * stride, stride, 1})
                                : rows.view({b, s, c}, {c * stride, 1, stride});
  }
  const Rows &dx_rows() const { return layout.in_place ? dy : dx; }
  const Rows &ddy_rows() const { return layout.in_place ? u : ddy; }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tdx = tensor(dx_rows()), tddy = tensor(ddy_rows()), tdy = tensor(dy), tx = tensor(x);
    const gt_tensor tu = tensor(u);
    const gt_tensor tweight = weight.vector(), tbias = bias.vector(), tscale = scale.tensor(), tshift = shift.tensor();
    const gt_tensor tdweight = dweight.vector(), tdbias = dbias.vector(), tdscale = dscale.tensor();
    const gt_tensor tdshift = dshift.tensor();
    const bool batch = op == ImageOp::BATCH;
    const gt_tensor tmean = batch ? mean.vector() : mean.view({b, groups}, {groups, 1});
    const gt_tensor trstd = batch ? rstd.vector() : rstd.view({b, groups}, {groups, 1});
    const auto when = [](bool condition, const gt_tensor &t) { return condition ? &t : nullptr; };
    const gt_tensor *const w = when(layout.is_affine, tweight), *const h = when(layout.is_affine, tbias);
    int64_t bytes = 0;
    gt_status status;
    if (batch)
      status = gt_batchnorm_backward_workspace(&stream, &tx, &bytes);
    else if (op == ImageOp::GROUP)
      status = gt_groupnorm_backward_workspace(&stream, &tx, groups, &bytes);
    else
      status = gt_groupnorm_double_backward_workspace(&stream, &tx, groups, &bytes);
    if (status) return status;
    const Rows workspace(GT_U8, 1, bytes);
    const gt_tensor tworkspace = workspace.vector();
    if (batch)
      status = gt_batchnorm_backward(&stream, &tdx, &tdweight, &tdbias, &tdy, &tx, &tmean, &trstd, w, h, activation,
                                     &tworkspace);
    else if (op == ImageOp::GROUP)
      status = gt_groupnorm_backward(
          &stream, &tdx, &tdweight, &tdbias, when(layout.is_modulated, tdscale), when(layout.is_modulated, tdshift),
          &tdy, &tx, &tmean, &trstd, w, h, when(layout.is_modulated, tscale), when(layout.is_modulated, tshift), groups,
          activation, &tworkspace);
    else
      status = gt_groupnorm_double_backward(&stream, &tddy, &tdx, &tdweight, &tu, &tdy, &tx, &tmean, &trstd, w, groups,
                                            &tworkspace);
    return status == GT_OK && !workspace.guards_are_intact() ? GT_INTERNAL : status;
  }
  std::vector<const Rows *> outputs() const {
    return {&dx_rows(), &ddy_rows(), &dweight, &dbias, &dscale, &dshift};
  }
  std::vector<const Rows *> operands() const {
    return {&dx, &ddy, &dy, &x, &u, &weight, &bias, &scale, &shift, &mean, &rstd, &dweight, &dbias, &dscale, &dshift};
  }
};

void check_images() {
  const auto check = [](ImageOp op, gt_dtype dtype, int64_t b, int64_t s, int64_t c, int64_t groups,
                        gt_activation activation, const ImageLayout &l,
                        std::initializer_list<const char *> orders = ORDERS) {
    const char *const names[] = {"groupnorm_backward ", "batchnorm_backward ", "groupnorm_double_backward "};
    check_against_cpu(names[static_cast<int>(op)] + (name_of(dtype) + (" [" + std::to_string(b))) + ", " +
                          std::to_string(s) + ", " + std::to_string(c) + "] in " + std::to_string(groups) +
                          " groups, activation " + std::to_string(activation) + ", " + l.name,
                      [&] { return ImageCase(op, dtype, b, s, c, groups, activation, l); },
                      tolerance_of(dtype, 4 * b * s), orders);
  };
  for (const ImageOp op : {ImageOp::GROUP, ImageOp::BATCH, ImageOp::DOUBLE})
    for (const gt_dtype dtype : FLOATS) {
      for (const ImageLayout &l : image_layouts) check(op, dtype, 2, 35, 12, 3, GT_ACTIVATION_SILU, l);
      if (IS_INSTRUMENTED && dtype == GT_F16) continue;
      for (const int l : {0, 1}) {
        check(op, dtype, 1, 9, 300, 4, GT_ACTIVATION_SILU, image_layouts[l]);
        check(op, dtype, 3, 1, 33, 11, GT_ACTIVATION_NONE, image_layouts[l]);
        check(op, dtype, 0, 3, 4, 2, GT_ACTIVATION_NONE, image_layouts[l]);
        check(op, dtype, 1, IS_INSTRUMENTED ? 150 : 600, 8, 2, GT_ACTIVATION_NONE, image_layouts[l]);
      }
    }
  for (const gt_activation activation : {GT_ACTIVATION_NONE, GT_ACTIVATION_RELU, GT_ACTIVATION_TANH})
    for (const int l : {2, 3}) check(ImageOp::GROUP, GT_BF16, 2, 35, 16, 4, activation, image_layouts[l]);
  // strips that 1, 4 and 8 blocks share; none, since there are no clusters
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const int l : {0, 2, 4, 6}) {
      if (IS_INSTRUMENTED && l != 2) continue;
      check(ImageOp::GROUP, dtype, 3, 9, 80, 8, GT_ACTIVATION_SILU, image_layouts[l]);
      check(ImageOp::GROUP, dtype, 1, 301, 40, 4, GT_ACTIVATION_SILU, image_layouts[l]);
      if (!IS_INSTRUMENTED) check(ImageOp::GROUP, dtype, 2, 901, 80, 8, GT_ACTIVATION_SILU, image_layouts[l]);
      simt::resident_clusters = 0;
      check(ImageOp::GROUP, dtype, 2, 35, 16, 4, GT_ACTIVATION_SILU, image_layouts[l]);
      simt::resident_clusters = 2;
    }
  if (IS_INSTRUMENTED) return;
  for (const ImageOp op : {ImageOp::GROUP, ImageOp::BATCH, ImageOp::DOUBLE})
    for (const int l : {0, 1}) {
      check(op, GT_BF16, 2, 67, 12, 3, GT_ACTIVATION_SILU, image_layouts[l], SEEDS);
      check(op, GT_F32, 1, 600001, 4, 2, GT_ACTIVATION_NONE, image_layouts[l], {"fwd"});  // more than MAX_CHUNKS steps
    }
}

}  // namespace

int main() {
  check_rows();
  check_images();
  check_without_parameters();
  return summary();
}
