// Do the norms keep what gatun/norm.h says, on the CPU and, through the emulator, in CUDA? gt_groupnorm and
// gt_batchnorm in CUDA are held against the CPU, the others against an oracle.
//
// Every case runs on both devices: CUDA in several lane orders, the CPU with one thread and with three; a device's runs
// must agree bitwise, and each with the oracle.
#include "family_test.h"
#include "norm_oracle.h"
#include "simt/resident.h"

namespace {

using namespace test;

constexpr float EPS = 1e-5f;

enum class Alias { NONE, Y_IS_X, KEPT_IN_X, KEPT_IN_RESIDUAL };

struct Layout {
  const char *name;
  bool is_affine, parameters_are_f32, has_residual, keeps_h, has_statistics;
  int64_t pad, offset;
  Alias alias;
};
// pad 8 and offset 0 keep rows of a multiple of 8 aligned; 1 aligns no row but the first.
const Layout layouts[] = {
    {"plain", false, false, false, false, false, 0, 0, Alias::NONE},
    {"affine", true, false, false, false, true, 0, 0, Alias::NONE},
    {"f32 parameters", true, true, true, true, true, 8, 0, Alias::NONE},
    {"residual, unaligned", true, false, true, true, true, 1, 1, Alias::NONE},
    {"strided, no residual_out", true, true, true, false, false, 3, 0, Alias::NONE},
    {"kept without residual", false, false, false, true, true, 0, 3, Alias::NONE},
    {"y is x", true, false, false, false, true, 8, 0, Alias::Y_IS_X},
    {"residual_out is x", true, true, true, true, true, 0, 1, Alias::KEPT_IN_X},
    {"residual_out is residual", true, false, true, true, true, 8, 0, Alias::KEPT_IN_RESIDUAL},
};

// Row 1 has a NaN, row 3 an Inf, row 2 a mean far from zero.
float value(int64_t r, int64_t i, int64_t c, uint64_t salt) {
  if (salt == 1 && i == c / 2 && r == 1) return NAN;
  if (salt == 1 && i == c - 1 && r == 3) return INFINITY;
  return uniform(salt, r * 65537 + i) + (r == 2 ? 1000.0f : 0.0f);
}

gt_status call(bool rms, const gt_stream &stream, const gt_tensor *y, const gt_tensor *residual_out,
               const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *residual,
               const gt_tensor *weight, const gt_tensor *bias) {
  if (rms) return gt_rmsnorm(&stream, y, residual_out, rstd, x, residual, weight, EPS);
  return gt_layernorm(&stream, y, residual_out, mean, rstd, x, residual, weight, bias, EPS);
}

// One case's operands, freshly filled.
struct Operands {
  bool rms;
  gt_dtype dtype;
  int64_t n, c;
  const Layout &layout;
  std::string what;
  Rows x, residual, y, kept, weight, bias, mean, rstd;

  Operands(bool rms_, gt_dtype dtype_, int64_t n_, int64_t c_, const Layout &l)
      : rms(rms_), dtype(dtype_), n(n_), c(c_), layout(l), x(dtype, n, c, l.pad, l.offset),
        residual(dtype, n, c, l.pad, l.offset ? 2 : 0), y(dtype, n, c, 2 * l.pad, l.offset), kept(dtype, n, c, l.pad),
        weight(l.parameters_are_f32 ? GT_F32 : dtype, 1, c, 0, l.offset),
        bias(l.pad == 8 ? GT_F32 : dtype, 1, c, 0, l.offset), mean(GT_F32, 1, n), rstd(GT_F32, 1, n) {
    what = std::string(rms ? "rmsnorm " : "layernorm ") + name_of(dtype) + " [" + std::to_string(n) + ", " +
           std::to_string(c) + "] " + l.name;
    for (int64_t r = 0; r < n; ++r)
      for (int64_t i = 0; i < c; ++i) {
        x.set(r, i, value(r, i, c, 1));
        residual.set(r, i, value(0, r * c + i, 0, 2));
      }
    for (int64_t i = 0; i < c; ++i) {
      weight.set(0, i, value(0, i, 0, 3));
      bias.set(0, i, value(0, i, 0, 4));
    }
  }

  const Rows &y_rows() const { return layout.alias == Alias::Y_IS_X ? x : y; }
  const Rows &kept_rows() const {
    return layout.alias == Alias::KEPT_IN_X ? x : layout.alias == Alias::KEPT_IN_RESIDUAL ? residual : kept;
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = y_rows().tensor(), tkept = kept_rows().tensor(), tx = x.tensor(),
                    tresidual = residual.tensor();
    const gt_tensor tweight = weight.vector(), tbias = bias.vector(), tmean = mean.vector(), trstd = rstd.vector();
    const auto when = [](bool condition, const gt_tensor &t) { return condition ? &t : nullptr; };
    return call(rms, stream, &ty, when(layout.keeps_h, tkept), when(layout.has_statistics, tmean),
                when(layout.has_statistics, trstd), &tx, when(layout.has_residual, tresidual),
                when(layout.is_affine, tweight), when(layout.is_affine, tbias));
  }
  std::vector<float> h(int64_t r) const {  // before run: it may be overwritten
    std::vector<float> v = x.row(r);
    for (int64_t i = 0; layout.has_residual && i < c; ++i) v[i] = round_to(dtype, v[i] + residual.get(r, i));
    return v;
  }
  std::string bits() const {
    std::string all;
    for (const Rows *rows : {&y_rows(), &kept_rows(), &mean, &rstd}) rows->append_to(all);
    return all;
  }
  bool guards_are_intact() const {
    for (const Rows *rows : {&x, &residual, &y, &kept, &weight, &bias, &mean, &rstd})
      if (!rows->guards_are_intact()) return false;
    return true;
  }
};

// The first thing that is wrong with the results, or "".
std::string wrong(const Operands &o, const std::vector<std::vector<float>> &h) {
  const std::vector<float> none, weight = o.layout.is_affine ? o.weight.row(0) : none;
  const std::vector<float> bias = o.layout.is_affine && !o.rms ? o.bias.row(0) : none;
  const auto at = [](const char *name, int64_t r, int64_t i, double actual, double expected) {
    char text[160];
    snprintf(text, sizeof text, "%s[%ld, %ld] is %.9g, expected %.9g", name, static_cast<long>(r), static_cast<long>(i),
             actual, expected);
    return std::string(text);
  };
  for (int64_t r = 0; r < o.n; ++r) {
    const Row<double> oracle(o.rms, o.dtype, h[r], weight, bias, EPS);
    const Row<float> obvious(o.rms, o.dtype, h[r], weight, bias, EPS);
    double error = 0, most = 0;
    for (int64_t i = 0; i < o.c; ++i)
      if (std::isfinite(oracle.y[i])) {
        error = std::max(error, std::fabs(obvious.y[i] - oracle.y[i]));
        most = std::max(most, std::fabs(oracle.y[i]));
      }
    const double scale = largest(h[r]) * unit_of(GT_F32) * 4;  // a few f32 roundings of the row's largest value
    const double floor = unit_of(o.dtype) * most + scale * oracle.rstd * (weight.empty() ? 1 : largest(weight));
    for (int64_t i = 0; i < o.c; ++i) {
      const double y = o.y_rows().get(r, i);
      if (!within(y, oracle.y[i], error, floor)) return at("y", r, i, y, oracle.y[i]);
      const float kept = o.kept_rows().get(r, i);
      if (o.layout.keeps_h && !(kept == h[r][i] || (std::isnan(kept) && std::isnan(h[r][i]))))
        return at("residual_out", r, i, kept, h[r][i]);
    }
    if (!o.layout.has_statistics) continue;
    const double mean = o.mean.get(0, r), rstd = o.rstd.get(0, r);
    if (!o.rms && !within(mean, oracle.mean, std::fabs(obvious.mean - oracle.mean), scale))
      return at("mean", r, 0, mean, oracle.mean);
    if (!within(rstd, oracle.rstd, std::fabs(obvious.rstd - oracle.rstd), oracle.rstd * unit_of(GT_F32) * 8))
      return at("rstd", r, 0, rstd, oracle.rstd);
  }
  return "";
}

template <class Stream, class Setting>
void check_device(const char *device, bool rms, gt_dtype dtype, int64_t n, int64_t c, const Layout &layout,
                  Stream stream, std::initializer_list<Setting> settings) {
  std::string first;
  for (const Setting setting : settings) {
    const Operands o(rms, dtype, n, c, layout);
    std::vector<std::vector<float>> h;
    for (int64_t r = 0; first.empty() && r < n; ++r) h.push_back(o.h(r));
    const gt_status status = o.run(stream(setting));
    const char *const what = o.what.c_str();
    if (status) return expect(false, "%s %s: status %d, %s", device, what, status, gt_last_error());
    if (!o.guards_are_intact()) return expect(false, "%s %s: wrote outside the rows", device, what);
    if (first.empty()) {
      const std::string error = wrong(o, h);
      if (!error.empty()) return expect(false, "%s %s: %s", device, what, error.c_str());
      first = o.bits();
    }
    if (o.bits() != first) return expect(false, "%s %s: another order or thread count gives other bits", device, what);
  }
  expect(true, "unused");
}

void check_all_layouts() {
  for (const int64_t c : {1, 3, 31, 33, 127, 257, 768, 1000, 1025, 4096, 8200, 16400})
    for (const bool rms : {false, true})
      for (const gt_dtype dtype : FLOATS)
        for (const Layout &layout : layouts) {
          check_device("cuda", rms, dtype, 6, c, layout, cuda, ORDERS);
          check_device("cpu", rms, dtype, 6, c, layout, cpu, {1, 3, 3});
        }
}

// A row in a warp, in a block that keeps it, and in one that reads it again.
void check_seeds() {
  for (const int64_t c : {33, 1000, 4096, 16400})
    for (const bool rms : {false, true})
      for (const gt_dtype dtype : {GT_F32, GT_BF16}) check_device("cuda", rms, dtype, 2, c, layouts[2], cuda, SEEDS);
}

// A row's bits depend neither on the other rows nor on its alignment.
void check_rows_alone() {
  for (const int64_t c : {31, 128, 1000, 2048, 2049})
    for (const bool rms : {false, true}) {
      const Operands o(rms, GT_BF16, 37, c, layouts[1]);
      gt_status status = o.run(cuda("fwd"));
      bool same = true;
      for (int64_t r = 4; r < 37; ++r) {
        const Rows x(GT_BF16, 1, c, 0, r % 8), y(GT_BF16, 1, c);
        const gt_tensor tx = x.tensor(), ty = y.tensor(), weight = o.weight.vector(), bias = o.bias.vector();
        memcpy(x.at(0, 0), o.x.at(r, 0), 2 * c);
        status |= call(rms, cuda("fwd"), &ty, nullptr, nullptr, nullptr, &tx, nullptr, &weight, &bias);
        same &= !memcmp(y.at(0, 0), o.y.at(r, 0), 2 * c);
      }
      expect(status == GT_OK && same, "%s: a row alone has other bits", o.what.c_str());
    }
}

// More rows than blocks that copy rows ahead: each has several, beyond those that it copies before the first.
void check_many_rows_per_block() {
  for (const bool rms : {false, true})
    for (const gt_dtype dtype : {GT_F32, GT_BF16})
      for (const int layout : {0, 2, 6, 8})
        check_device("cuda", rms, dtype, 130, 1032, layouts[layout], cuda, {"rand:7"});
}

// rmsnorm rounds h rstd to x's dtype before the weight. With an f32 weight the two orders differ in many elements.
void check_rounding_order() {
  const int64_t c = 1000;
  for (const gt_dtype dtype : {GT_BF16, GT_F16}) {
    const Layout layout = {"f32 weight", true, true, false, false, false, 0, 0, Alias::NONE};
    for (const gt_stream &stream : {cuda("fwd"), cpu(1)}) {
      const Operands o(true, dtype, 1, c, layout);
      const Row<double> oracle(true, dtype, o.h(0), {}, {}, EPS);
      const gt_status status = o.run(stream);
      int as_documented = 0, distinguishable = 0;
      for (int64_t i = 0; i < c; ++i) {
        const float n = static_cast<float>(oracle.y[i]), weight = o.weight.get(0, i);
        const float documented = round_to(dtype, round_to(dtype, n) * weight);
        as_documented += o.y.get(0, i) == documented;
        distinguishable += documented != round_to(dtype, n * weight);
      }
      expect(status == GT_OK && distinguishable > c / 10 && as_documented > c * 98 / 100,
             "rmsnorm %s device %d: %d of %ld as documented, %d distinguishable", name_of(dtype), stream.device,
             as_documented, static_cast<long>(c), distinguishable);
    }
  }
}

// More rows than a grid has blocks: all read and write one row (stride 0), each leaves its rstd.
void check_many_rows() {
  const int64_t n = 65535 + 2, c = 1025;
  const Rows x(GT_BF16, 1, c), y(GT_BF16, 1, c), rstd(GT_F32, 1, n);
  for (int64_t i = 0; i < c; ++i) x.set(0, i, 0.5f);
  gt_tensor tx = x.tensor(), ty = y.tensor();
  const gt_tensor trstd = rstd.vector();
  tx.shape[0] = ty.shape[0] = n;
  tx.stride[0] = ty.stride[0] = 0;
  const gt_status status = call(true, cuda("fwd"), &ty, nullptr, nullptr, &trstd, &tx, nullptr, nullptr, nullptr);
  int64_t wrong = 0;
  for (int64_t r = 0; r < n; ++r) wrong += !(std::fabs(rstd.get(0, r) - 2) < 1e-3);
  expect(status == GT_OK && wrong == 0, "%ld rows: status %d, %ld without their rstd", static_cast<long>(n), status,
         static_cast<long>(wrong));
}

void check_shapes_and_errors() {
  const Rows x(GT_F32, 6, 5), y(GT_F32, 6, 5);
  for (const gt_stream &stream : {cuda("fwd"), cpu(1)}) {
    gt_tensor tx = x.tensor(), ty = y.tensor();
    const auto run = [&] {
      return call(false, stream, &ty, nullptr, nullptr, nullptr, &tx, nullptr, nullptr, nullptr);
    };
    tx = {x.at(0, 0), GT_F32, 3, {2, 3, 5}, {15, 5, 1}};
    ty = {y.at(0, 0), GT_F32, 3, {2, 3, 5}, {15, 5, 1}};
    expect(run() == GT_OK, "rank 3: %s", gt_last_error());
    tx.shape[0] = ty.shape[0] = 0;
    tx.data = ty.data = nullptr;
    expect(run() == GT_OK, "no rows: %s", gt_last_error());
    tx = {x.at(0, 0), GT_F32, 2, {6, 0}, {5, 1}};
    ty = {y.at(0, 0), GT_F32, 2, {6, 0}, {5, 1}};
    expect(run() == GT_INVALID_ARGUMENT, "C = 0 was not refused");
  }
  const gt_tensor tx = x.tensor(), ty = y.tensor();
  const gt_status status =
      call(false, cuda("no such order"), &ty, nullptr, nullptr, nullptr, &tx, nullptr, nullptr, nullptr);
  expect(status == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "layernorm: ", 11),
         "a launch that fails: status %d, '%s'", status, gt_last_error());
}

struct ImageLayout {
  const char *name;
  bool channels_last, is_affine, parameters_are_f32, is_modulated, has_statistics, y_is_x;
  int64_t pad, offset;
};
const ImageLayout image_layouts[] = {
    {"channels last", true, true, false, false, true, false, 0, 0},
    {"channels first", false, true, false, false, true, false, 0, 0},
    {"channels last, modulated, f32 parameters", true, true, true, true, true, false, 8, 0},
    {"channels first, modulated, f32 parameters", false, true, true, true, true, false, 8, 0},
    {"channels last, unaligned", true, false, false, true, false, false, 1, 1},
    {"channels first, unaligned", false, true, false, false, true, false, 3, 1},
    {"channels last, y is x", true, true, false, false, false, true, 0, 0},
    {"channels first, y is x", false, false, false, false, true, true, 0, 3},
};

// [B, S, C] as rows of C, or of S. groups 0: batch norm.
struct ImageCase {
  int64_t b, s, c, groups;
  gt_activation activation;
  const ImageLayout &layout;
  Rows x, y, weight, bias, scale, shift, mean, rstd, var;

  ImageCase(gt_dtype dtype, int64_t b_, int64_t s_, int64_t c_, int64_t g, gt_activation a, const ImageLayout &l)
      : b(b_), s(s_), c(c_), groups(g), activation(a), layout(l), x(image(dtype, l.pad)), y(image(dtype, 2 * l.pad)),
        weight(l.parameters_are_f32 ? GT_F32 : dtype, 1, c, 0, l.offset), bias(dtype, 1, c), scale(dtype, b, c, l.pad),
        shift(dtype, b, c), mean(GT_F32, 1, g > 0 ? b * g : c), rstd(GT_F32, 1, b * std::max<int64_t>(g, 1)),
        var(dtype, 1, c) {
    fill_uniform(x, 1);
    fill_uniform(weight, 2);
    fill_uniform(bias, 3);
    fill_uniform(scale, 4);
    fill_uniform(shift, 5);
    if (groups > 0) x.set(x.n() - 1, x.c() - 1, NAN);
    if (groups == 0) fill_uniform(mean, 6);
    for (int64_t i = 0; i < c; ++i) var.set(0, i, 0.5f + std::fabs(uniform(7, i)));
  }
  Rows image(gt_dtype dtype, int64_t pad) const {
    return {dtype, b * (layout.channels_last ? s : c), layout.channels_last ? c : s, pad, layout.offset};
  }
  gt_tensor tensor(const Rows &rows) const {
    const int64_t row = rows.at(1, 0) - rows.at(0, 0), stride = row / bytes_of(rows.dtype());
    return layout.channels_last ? rows.view({b, s, c}, {s * stride, stride, 1})
                                : rows.view({b, s, c}, {c * stride, 1, stride});
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tx = tensor(x), ty = tensor(layout.y_is_x ? x : y);
    const gt_tensor tweight = weight.vector(), tbias = bias.vector();
    const gt_tensor tscale = scale.tensor(), tshift = shift.tensor(), tmean = mean.view({b, groups}, {groups, 1});
    const gt_tensor trstd = rstd.view({b, groups}, {groups, 1}), tvar = var.vector(), tgiven = mean.vector();
    const auto when = [](bool condition, const gt_tensor &t) { return condition ? &t : nullptr; };
    if (groups == 0)
      return gt_batchnorm(&stream, &ty, &tx, &tgiven, &tvar, when(layout.is_affine, tweight),
                          when(layout.is_affine, tbias), EPS, activation);
    int64_t bytes = 0;
    if (const gt_status status = gt_groupnorm_workspace(&stream, &tx, groups, &bytes)) return status;
    const Rows workspace(GT_U8, 1, bytes);
    const gt_tensor tworkspace = workspace.vector();
    const gt_status status =
        gt_groupnorm(&stream, &ty, when(layout.has_statistics, tmean), when(layout.has_statistics, trstd), &tx,
                     when(layout.is_affine, tweight), when(layout.is_affine, tbias), when(layout.is_modulated, tscale),
                     when(layout.is_modulated, tshift), groups, EPS, activation, &tworkspace);
    return status == GT_OK && !workspace.guards_are_intact() ? GT_INTERNAL : status;
  }
  std::vector<const Rows *> outputs() const { return {layout.y_is_x ? &x : &y, &mean, &rstd}; }
  std::vector<const Rows *> operands() const {
    return {&x, &y, &weight, &bias, &scale, &shift, &mean, &rstd, &var};
  }
};

void check_images() {
  struct Size {
    int64_t b, s, c, groups;
  };
  const auto check = [](gt_dtype dtype, const Size &size, gt_activation activation, const ImageLayout &l) {
    const std::string shape = " [" + std::to_string(size.b) + ", " + std::to_string(size.s) + ", " +
                              std::to_string(size.c) + "] in " + std::to_string(size.groups) + " groups, activation " +
                              std::to_string(activation) + ", ";
    // values near 0 are what is left of larger ones
    const Tolerance tolerance = {dtype == GT_F32 ? 4.0 : 1.0, dtype == GT_F32 ? 4e-6 : 1e-5};
    check_against_cpu(std::string(size.groups > 0 ? "groupnorm " : "batchnorm ") + name_of(dtype) + shape + l.name,
                      [&] { return ImageCase(dtype, size.b, size.s, size.c, size.groups, activation, l); }, tolerance);
  };
  for (const Size &size : {Size{1, 1, 1, 1}, Size{2, 3, 6, 3}, Size{1, 67, 32, 8}, Size{2, 33, 31, 31},
                           Size{1, 9, 300, 4}, Size{1, 300, 8, 2}, Size{2, 35, 13, 0}, Size{1, 130, 264, 0}})
    for (const gt_dtype dtype : FLOATS)
      for (const ImageLayout &l : image_layouts) check(dtype, size, GT_ACTIVATION_SILU, l);
  for (const gt_activation activation : {GT_ACTIVATION_NONE, GT_ACTIVATION_RELU, GT_ACTIVATION_TANH})
    for (const int l : {2, 3}) check(GT_BF16, {2, 35, 16, 4}, activation, image_layouts[l]);
  if (!IS_INSTRUMENTED)  // more pixels than MAX_CHUNKS steps
    for (const int l : {0, 1}) check(GT_F32, {1, 600001, 4, 2}, GT_ACTIVATION_NONE, image_layouts[l]);
  // Strips of 5 vectors that 1, 2 and 8 blocks share, of 4 that are all there are, of 8 with 32 groups; then none,
  // since there are no clusters.
  for (const Size &size : {Size{2, 9, 80, 8}, Size{1, 301, 40, 4}, Size{1, 1301, 80, 8}, Size{2, 70, 32, 4},
                           Size{1, 40, 64, 64}})
    for (const gt_dtype dtype : {GT_F32, GT_BF16})
      for (const int l : {0, 2, 4, 6}) {
        if (IS_INSTRUMENTED && (l != 2 || size.s > 1000)) continue;
        check(dtype, size, GT_ACTIVATION_SILU, image_layouts[l]);
      }
  simt::resident_clusters = 0;
  for (const gt_dtype dtype : FLOATS) check(dtype, {2, 70, 32, 4}, GT_ACTIVATION_SILU, image_layouts[2]);
  simt::resident_clusters = 2;
}

// An image has the same bits where its rows are not aligned, with clusters and without.
void check_image_anywhere() {
  const ImageLayout aligned = {"", true, true, false, false, false, false, 0, 0};
  const ImageLayout unaligned = {"", true, true, false, false, false, false, 1, 3};
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const int clusters : {2, 0}) {
      simt::resident_clusters = clusters;
      const ImageCase a(dtype, 1, 301, 40, 4, GT_ACTIVATION_SILU, aligned);
      const ImageCase b(dtype, 1, 301, 40, 4, GT_ACTIVATION_SILU, unaligned);
      a.x.set(300, 39, 1);  // a NaN would hide its group
      b.x.set(300, 39, 1);
      bool same = a.run(cuda("fwd")) == GT_OK && b.run(cuda("fwd")) == GT_OK;
      for (int64_t r = 0; r < 301; ++r) same &= !memcmp(a.y.at(r, 0), b.y.at(r, 0), 40 * bytes_of(dtype));
      expect(same, "groupnorm %s with %d clusters: other bits where rows are not aligned", name_of(dtype), clusters);
    }
  simt::resident_clusters = 2;
}

struct TrainCase : ImageCase {
  using ImageCase::ImageCase;

  gt_status run(const gt_stream &stream) const {
    const gt_tensor tx = tensor(x), ty = tensor(layout.y_is_x ? x : y), tweight = weight.vector();
    const gt_tensor tbias = bias.vector(), trunning_mean = running_mean.vector();
    const gt_tensor trunning_var = running_var.vector(), tmean = found_mean.vector(), trstd = found_rstd.vector();
    int64_t bytes = 0;
    if (const gt_status status = gt_batchnorm_train_workspace(&stream, &tx, &bytes)) return status;
    const Rows workspace(GT_U8, 1, bytes);
    const gt_tensor tworkspace = workspace.vector();
    const bool affine = layout.is_affine, runs = layout.has_statistics;
    const gt_status status = gt_batchnorm_train(&stream, &ty, &tmean, &trstd, runs ? &trunning_mean : nullptr,
                                                runs ? &trunning_var : nullptr, &tx, affine ? &tweight : nullptr,
                                                affine ? &tbias : nullptr, 0.1f, EPS, activation, &tworkspace);
    return status == GT_OK && !workspace.guards_are_intact() ? GT_INTERNAL : status;
  }
  Rows found_mean{GT_F32, 1, c}, found_rstd{GT_F32, 1, c}, running_mean{filled(c)}, running_var{filled(c)};
  static Rows filled(int64_t c) {
    Rows rows(GT_F32, 1, c);
    fill_uniform(rows, 8);
    return rows;
  }
  std::vector<const Rows *> outputs() const {
    return {layout.y_is_x ? &x : &y, &found_mean, &found_rstd, &running_mean, &running_var};
  }
};

void check_batchnorm_train() {
  for (const gt_dtype dtype : FLOATS)
    for (const ImageLayout &l : image_layouts)
      for (const int64_t s : {1, 35, 600})
        check_against_cpu(std::string("batchnorm_train ") + name_of(dtype) + " " + std::to_string(s) + " pixels, " +
                              l.name,
                          [&] { return TrainCase(dtype, 3, s, 13, 0, GT_ACTIVATION_RELU, l); },
                          {dtype == GT_F32 ? 4.0 : 1.0, dtype == GT_F32 ? 4e-6 : 1e-5});
}

// Sizes whose product is 0 modulo 2^64.
void check_workspace_of_too_many_elements() {
  float value = 0;
  int64_t bytes = 0;
  for (const gt_stream &stream : {cpu(1), cuda("fwd")}) {
    const gt_tensor x{&value, GT_F32, 3, {1, int64_t{1} << 32, int64_t{1} << 32}, {0, int64_t{1} << 32, 1}};
    expect(gt_groupnorm_workspace(&stream, &x, 32, &bytes) == GT_INVALID_ARGUMENT &&
               strstr(gt_last_error(), "product of at most"), "2^64 elements: '%s'", gt_last_error());
  }
}

// A large y goes past the caches of the CPU, unless it is x: no element may be missed by it.
void check_large_images() {
  for (const bool channels_last : {true, false})
    for (const int64_t groups : {8, 0})
      for (const gt_dtype dtype : {GT_F32, GT_BF16}) {
        const int64_t s = channels_last ? (17 << 20) / 1024 / bytes_of(dtype) + 5 : 8192 * 4 / bytes_of(dtype);
        const int64_t c = channels_last ? 1024 : 544;
        const ImageLayout apart = {"", channels_last, true, false, false, false, false, 0, 0};
        const ImageLayout in_place = {"", channels_last, true, false, false, false, true, 0, 0};
        const ImageCase a(dtype, 1, s, c, groups, GT_ACTIVATION_SILU, apart);
        const ImageCase b(dtype, 1, s, c, groups, GT_ACTIVATION_SILU, in_place);
        const bool ran = a.run(cpu(3)) == GT_OK && b.run(cpu(1)) == GT_OK;
        const size_t bytes = static_cast<size_t>(s * c * bytes_of(dtype));
        expect(ran && !memcmp(a.y.at(0, 0), b.x.at(0, 0), bytes) && a.y.guards_are_intact(),
               "%s of a large %s image, channels %s: y apart from x differs from y in its place",
               groups > 0 ? "groupnorm" : "batchnorm", name_of(dtype), channels_last ? "last" : "first");
      }
}

// Near the largest numbers, the sum of a few values overflows f32, but their mean does not; nor do the squares of
// deviations where those of the values do.
void check_huge_values() {
  const auto check = [](const ImageLayout &layout, gt_dtype dtype, const char *values, float even, float odd) {
    const ImageCase image(dtype, 2, 512, 40, 4, GT_ACTIVATION_NONE, layout);
    const auto is_odd = [&](int64_t r, int64_t i) { return (layout.channels_last ? r : i) % 2 != 0; };
    for (int64_t r = 0; r < image.x.n(); ++r)
      for (int64_t i = 0; i < image.x.c(); ++i) image.x.set(r, i, is_odd(r, i) ? odd : even);
    bool right = image.run(cpu(2)) == GT_OK && image.mean.get(0, 7) == even / 2 + odd / 2;
    for (int64_t r = 0; r < image.y.n(); ++r)
      for (int64_t i = 0; i < image.y.c(); ++i) {
        const int64_t c = layout.channels_last ? i : r % image.c;
        const double weight = even == odd ? 0 : is_odd(r, i) ? -image.weight.get(0, c) : image.weight.get(0, c);
        const double y = weight + image.bias.get(0, c);
        right = right && fabs(image.y.get(r, i) - y) <= unit_of(dtype) * fabs(y);
      }
    expect(right, "groupnorm %s of values %s, %s", name_of(dtype), values, layout.name);
  };
  for (const ImageLayout &layout : {image_layouts[0], image_layouts[1]})
    for (const gt_dtype dtype : {GT_F32, GT_BF16}) {
      check(layout, dtype, "2^127", 0x1p127f, 0x1p127f);
      check(layout, dtype, "33 and 31 times 2^60", 33 * 0x1p60f, 31 * 0x1p60f);
    }
}

}  // namespace

int main() {
  check_all_layouts();
  check_images();
  check_image_anywhere();
  check_batchnorm_train();
  check_large_images();
  check_huge_values();
  if (!IS_INSTRUMENTED) check_seeds();
  check_many_rows_per_block();
  check_rows_alone();
  check_rounding_order();
  if (!IS_INSTRUMENTED) check_many_rows();
  check_shapes_and_errors();
  check_workspace_of_too_many_elements();
  return summary();
}
