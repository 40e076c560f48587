// Do optimisers, the gradient's norm, the step counter and averages in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"

namespace {

using namespace test;

// The same formulas, contracted by each compiler as it likes: parameters of up to 2 and a step of up to 1.
constexpr Tolerance FEW = {4, 1e-6};

enum Rule { ADAMW, ADAM, PLAIN_SGD, MOMENTUM_SGD, NESTEROV_SGD, PLAIN_RMSPROP, MOMENTUM_RMSPROP };
constexpr Rule RULES[] = {ADAMW, ADAM, PLAIN_SGD, MOMENTUM_SGD, NESTEROV_SGD, PLAIN_RMSPROP, MOMENTUM_RMSPROP};

struct Update {
  Rule rule;
  bool is_scaled;
  gt_dtype low_dtype;  // GT_F32: no copy
  Rows param, low, grad, first, second, rates, step, norm, scale;

  Update(Rule r, gt_dtype low_, int64_t n, int64_t offset, float norm_value, int32_t t)
      : rule(r), is_scaled(norm_value != 0), low_dtype(low_), param(GT_F32, 1, n, 0, offset),
        low(low_ == GT_F32 ? GT_BF16 : low_, 1, n, 0, offset), grad(GT_F32, 1, n), first(GT_F32, 1, n, 0, offset),
        second(GT_F32, 1, n), rates(GT_F32, 1, 3), step(GT_I32, 1, 1), norm(GT_F32, 1, 1), scale(GT_F32, 1, 1) {
    fill_uniform(param, 1);
    fill_uniform(grad, 2);
    fill_uniform(second, 4, 0.1f);
    for (int64_t i = 0; i < n; ++i) {
      first.set(0, i, std::fabs(uniform(3, i)));
      second.set(0, i, std::fabs(second.get(0, i)));
    }
    for (int64_t i = 0; i < 3; ++i) rates.set(0, i, 0.1f / static_cast<float>(i + 1));
    step.integer_at<int32_t>(0, 0) = t;
    norm.set(0, 0, norm_value);
    scale.set(0, 0, 4);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor p = param.vector(), l = low.vector(), g = grad.vector(), a = first.vector(), b = second.vector(),
                    r = rates.vector(), t = step.vector(), n = norm.vector(), s = scale.vector();
    const gt_tensor *const pl = low_dtype == GT_F32 ? nullptr : &l;
    const gt_tensor *const pn = is_scaled ? &n : nullptr, *const ps = is_scaled ? &s : nullptr;
    const int64_t decayed = param.c() * 2 / 3;
    switch (rule) {
      case ADAMW:
      case ADAM:
        return gt_adamw(&stream, &p, pl, &a, &b, &g, &r, &t, pn, 1.5f, ps, 0.9, 0.99, 1e-8, 0.1, decayed,
                        rule == ADAMW);
      case PLAIN_SGD: return gt_sgd(&stream, &p, pl, nullptr, &g, &r, &t, pn, 1.5f, ps, 0, 0, 0.1, decayed);
      case MOMENTUM_SGD:
      case NESTEROV_SGD:
        return gt_sgd(&stream, &p, pl, &a, &g, &r, &t, pn, 1.5f, ps, 0.9, rule == NESTEROV_SGD, 0.1, decayed);
      case PLAIN_RMSPROP:
        return gt_rmsprop(&stream, &p, pl, &a, nullptr, &g, &r, &t, pn, 1.5f, ps, 0.99, 1e-8, 0, 0.1, decayed);
      default: return gt_rmsprop(&stream, &p, pl, &a, &b, &g, &r, &t, pn, 1.5f, ps, 0.99, 1e-8, 0.9, 0.1, decayed);
    }
  }
  std::vector<const Rows *> outputs() const { return {&param, &low, &first, &second}; }
  std::vector<const Rows *> operands() const {
    return {&param, &low, &grad, &first, &second, &rates, &step, &norm, &scale};
  }
};

void check_updates() {
  for (const Rule rule : RULES) {
    for (const gt_dtype low : FLOATS)
      for (const int64_t n : {1, 3, 33, 257, 1000, 1028})
        check_against_cpu("update " + std::to_string(rule) + " " + name_of(low) + " " + std::to_string(n),
                          [&] { return Update(rule, low, n, n % 2, low == GT_F32 ? 0.0f : 3.0f, 5); }, FEW);
    check_against_cpu("skipped update", [&] { return Update(rule, GT_BF16, 100, 0, NAN, 0); }, {0, 0});
    if (!IS_INSTRUMENTED)
      check_against_cpu("update " + std::to_string(rule), [&] { return Update(rule, GT_BF16, 300, 0, 3, 0); }, FEW,
                        SEEDS);
  }
}

// More elements than a grid has threads for.
void check_large_grid() {
  const int64_t n = 2048 * 1024 + 77;
  const Update many(ADAMW, GT_F32, n, 0, 0, 1), reference(ADAMW, GT_F32, n, 0, 0, 1);
  const bool runs = !many.run(cuda("fwd")) && !reference.run(cpu(1));
  const std::string error = runs ? difference(many.param, reference.param, FEW) : gt_last_error();
  expect(error.empty(), "a large grid: %s", error.c_str());
}

struct Norm {
  Rows norm, grad, scale;
  int64_t bytes = 0;
  Rows workspace;

  explicit Norm(int64_t n)
      : norm(GT_F32, 1, 1), grad(GT_F32, 1, n), scale(GT_F32, 1, 1), workspace(GT_U8, 1, query() + 1) {
    fill_uniform(grad, 1);
    scale.set(0, 0, 8);
  }
  int64_t query() {
    const gt_stream stream = cpu(1);
    const gt_tensor g = grad.vector();
    if (gt_gradient_norm_workspace(&stream, &g, &bytes)) abort();
    return bytes;
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor n = norm.vector(), g = grad.vector(), s = scale.vector(), w = workspace.vector();
    return gt_gradient_norm(&stream, &n, &g, &s, bytes ? &w : nullptr);
  }
  std::vector<const Rows *> outputs() const { return {&norm}; }
  std::vector<const Rows *> operands() const { return {&norm, &grad, &scale, &workspace}; }
};

struct Advance {
  Rows step, norm, scale, good;

  Advance(float norm_value, int32_t good_steps)
      : step(GT_I32, 1, 1), norm(GT_F32, 1, 1), scale(GT_F32, 1, 1), good(GT_I32, 1, 1) {
    step.integer_at<int32_t>(0, 0) = 3;
    good.integer_at<int32_t>(0, 0) = good_steps;
    norm.set(0, 0, norm_value);
    scale.set(0, 0, 1024);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor t = step.vector(), n = norm.vector(), s = scale.vector(), g = good.vector();
    return gt_advance(&stream, &t, &n, &s, &g, 5, 2, 0.5f);
  }
  std::vector<const Rows *> outputs() const { return {&step, &scale, &good}; }
  std::vector<const Rows *> operands() const { return {&step, &norm, &scale, &good}; }
};

struct Average {
  Rows average, param, step;

  Average(gt_dtype dtype, int64_t n, int64_t offset)
      : average(GT_F32, 1, n, 0, offset), param(dtype, 1, n, 0, offset), step(GT_I32, 1, 1) {
    fill_uniform(average, 1);
    fill_uniform(param, 2);
    step.integer_at<int32_t>(0, 0) = 4;
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor a = average.vector(), p = param.vector(), t = step.vector();
    return gt_ema(&stream, &a, &p, 0.99, &t);
  }
  std::vector<const Rows *> outputs() const { return {&average}; }
  std::vector<const Rows *> operands() const { return {&average, &param, &step}; }
};

void check_others() {
  for (const int64_t n : {0, 1, 33, 257, 4097, 9001})
    check_against_cpu("gradient_norm " + std::to_string(n), [&] { return Norm(n); }, {1, 0});
  for (const float norm : {1.0f, NAN, INFINITY})
    for (const int32_t good : {0, 4})
      check_against_cpu("advance", [&] { return Advance(norm, good); }, {0, 0});
  for (const gt_dtype dtype : FLOATS)
    for (const int64_t n : {1, 3, 33, 257, 1000})
      check_against_cpu("ema " + std::string(name_of(dtype)), [&] { return Average(dtype, n, n % 2); }, {4, 1e-7});
}

void check_errors() {
  const gt_stream broken = cuda("no such order");
  expect(Update(ADAMW, GT_BF16, 8, 0, 0, 0).run(broken) == GT_DEVICE_ERROR, "an update whose launch fails");
  expect(Norm(8).run(broken) == GT_DEVICE_ERROR, "a norm whose launch fails");
  expect(Advance(1, 0).run(broken) == GT_DEVICE_ERROR, "an advance whose launch fails");
  expect(Average(GT_F32, 8, 0).run(broken) == GT_DEVICE_ERROR, "an average whose launch fails");
  expect(!Update(ADAMW, GT_BF16, 0, 0, 0, 0).run(broken), "no parameters: nothing is launched: %s", gt_last_error());
}

}  // namespace

int main() {
  check_updates();
  check_others();
  if (!IS_INSTRUMENTED) check_large_grid();
  check_errors();
  return summary();
}
