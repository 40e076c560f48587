// Do losses and their gradients in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"

namespace {

using namespace test;

// Elements of up to 40, each a few roundings off.
constexpr Tolerance SUMMED = {8, 4e-6};

struct Layout { int64_t b, columns, pad, target_stride; };
constexpr Layout LAYOUTS[] = {{1, 1, 0, 1}, {1, 257, 0, 1}, {3, 33, 0, 1}, {5, 64, 3, 0}, {2, 2500, 0, 1}};

struct Case {
  gt_loss_kind kind;  // LINEAR + 1: the divergence
  Layout layout;
  bool has_extras;  // weight, gradients, scale
  Rows loss, x, target, weight, scale, dx, second, workspace;

  Case(gt_loss_kind k, gt_dtype dtype, gt_dtype target_dtype, const Layout &l, bool extras)
      : kind(k), layout(l), has_extras(extras), loss(GT_F32, 1, 1), x(dtype, l.b, l.columns, l.pad),
        target(target_dtype, l.b, l.columns, 2 * l.pad), weight(GT_F32, 1, l.b), scale(GT_F32, 1, 1),
        dx(dtype, l.b, l.columns, l.pad), second(dtype, l.b, l.columns), workspace(GT_U8, 1, 8 * 1024) {
    fill_uniform(x, 1, 2);
    fill_uniform(target, 2);
    fill_uniform(weight, 3);
    scale.set(0, 0, 16);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tl = loss.vector(), tx = x.tensor(), tw = weight.vector(), ts = scale.vector(), td = dx.tensor(),
                    t2 = second.tensor(), w = workspace.vector();
    gt_tensor tt = target.tensor();
    if (layout.target_stride == 0) tt.stride[0] = tt.stride[1] = 0;
    const auto extra = [&](const gt_tensor &t) { return has_extras ? &t : nullptr; };
    if (kind > GT_LOSS_LINEAR)
      return gt_kl_gaussian(&stream, &tl, extra(td), extra(t2), &tx, &tt, 0.1f, extra(ts), &w);
    return gt_loss(&stream, &tl, extra(td), &tx, &tt, extra(tw), kind, 0.1f, extra(ts), &w);
  }
  std::vector<const Rows *> outputs() const { return {&loss, &dx, &second}; }
  std::vector<const Rows *> operands() const {
    return {&loss, &x, &target, &weight, &scale, &dx, &second, &workspace};
  }
};

void check_losses(std::initializer_list<const char *> orders) {
  for (gt_loss_kind kind = GT_LOSS_MSE; kind <= GT_LOSS_LINEAR + 1; ++kind)
    for (const gt_dtype dtype : FLOATS)
      for (const Layout &layout : LAYOUTS)
        for (const bool extras : {false, true})
          check_against_cpu("loss " + std::to_string(kind) + " " + name_of(dtype) + " " + std::to_string(layout.b) +
                                "x" + std::to_string(layout.columns) + (extras ? " with gradients" : ""),
                            [&] {
                              const gt_dtype target = extras || kind > GT_LOSS_LINEAR ? dtype : GT_F32;
                              return Case(kind, dtype, target, layout, extras);
                            },
                            dtype == GT_F32 ? SUMMED : Tolerance{1, SUMMED.floor}, orders);
}

void check_seeds() {
  for (gt_loss_kind kind = GT_LOSS_MSE; kind <= GT_LOSS_LINEAR + 1; ++kind)
    check_against_cpu("loss " + std::to_string(kind), [&] { return Case(kind, GT_F32, GT_F32, LAYOUTS[4], true); },
                      SUMMED, SEEDS);
}

void check_errors() {
  Case c(GT_LOSS_MSE, GT_F32, GT_F32, LAYOUTS[2], true);
  expect(c.run(cuda("no such order")) == GT_DEVICE_ERROR, "a loss whose launch fails");
  const gt_stream stream = cuda("fwd");
  const gt_tensor l = c.loss.vector(), x = c.x.tensor();
  expect(gt_loss(&stream, &l, nullptr, &x, &x, nullptr, 7, 1, nullptr, nullptr) == GT_INVALID_ARGUMENT &&
             strstr(gt_last_error(), "kind"), "a kind of 7: '%s'", gt_last_error());
  expect(gt_loss(&stream, &l, nullptr, &x, &x, nullptr, 0, 1, nullptr, nullptr) == GT_INVALID_ARGUMENT &&
             strstr(gt_last_error(), "workspace"), "no workspace: '%s'", gt_last_error());
  gt_tensor empty = x;
  empty.shape[0] = 0;
  expect(!gt_loss(&stream, &l, nullptr, &empty, &empty, nullptr, 0, 1, nullptr, nullptr) && c.loss.get(0, 0) == 0,
         "no samples: %g", static_cast<double>(c.loss.get(0, 0)));
}

}  // namespace

int main() {
  check_losses(ORDERS);
  if (!IS_INSTRUMENTED) check_seeds();
  check_errors();
  return summary();
}
