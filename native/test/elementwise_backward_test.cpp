// Do gradients of activations and gated units, clamp and dropout in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"

namespace {

using namespace test;

using Run = gt_status (*)(const gt_stream *, const gt_tensor *out, const gt_tensor *out2, const gt_tensor *a,
                          const gt_tensor *b, const gt_tensor *c);

constexpr Tolerance EXACT = {0, 0};
// Terms of up to 4 cancel, each a few roundings off; the CPU contracts products and sums.
constexpr Tolerance SUMMED = {4, 8e-6};

#define BACKWARD(op, ...)                                                                                  \
  [](const gt_stream *s, const gt_tensor *dx, const gt_tensor *, const gt_tensor *dy, const gt_tensor *x,  \
     const gt_tensor *) { return gt_##op##_backward(s, dx, dy, x __VA_OPT__(, ) __VA_ARGS__); }
#define GATED(op)                                                                                                \
  [](const gt_stream *s, const gt_tensor *dgate, const gt_tensor *dup, const gt_tensor *dy, const gt_tensor *gate, \
     const gt_tensor *up) { return gt_##op##_backward(s, dgate, dup, dy, gate, up); }

struct Op {
  const char *name;
  int outputs;
  Run run;
  Tolerance in_f32;  // 16-bit results: 1 ulp and the floor, unless exact
} const ops[] = {
    {"gelu_erf", 1, BACKWARD(gelu_erf), SUMMED},
    {"gelu_tanh", 1, BACKWARD(gelu_tanh), SUMMED},
    {"quick_gelu", 1, BACKWARD(quick_gelu), SUMMED},
    {"silu", 1, BACKWARD(silu), SUMMED},
    {"relu", 1, BACKWARD(relu), EXACT},
    {"leaky_relu", 1, BACKWARD(leaky_relu, 0.2f), EXACT},
    {"tanh", 1, BACKWARD(tanh), SUMMED},
    {"sigmoid", 1, BACKWARD(sigmoid), SUMMED},
    {"swiglu", 2, GATED(swiglu), SUMMED},
    {"geglu", 2, GATED(geglu), SUMMED},
    {"geglu_tanh", 2, GATED(geglu_tanh), SUMMED},
    {"gaussian", 1, [](const gt_stream *s, const gt_tensor *y, const gt_tensor *, const gt_tensor *a,
                       const gt_tensor *b, const gt_tensor *c) { return gt_gaussian_backward(s, y, a, b, c); }, SUMMED},
    {"clamp", 1, [](const gt_stream *s, const gt_tensor *y, const gt_tensor *, const gt_tensor *x, const gt_tensor *,
                    const gt_tensor *) { return gt_clamp(s, y, x, -0.5f, 1.0f); }, EXACT},
};

constexpr float SPECIAL[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-30f, 20.0f, -30.0f, 100.0f, -100.0f};

void fill(const Rows &rows, uint64_t salt) {
  fill_uniform(rows, salt, 2);
  int64_t i = static_cast<int64_t>(salt);
  for (const float x : SPECIAL)
    if ((i += 7) < rows.c()) rows.set(0, i, x);
}

struct Case {
  const Op &op;
  bool in_place;
  Rows first, second, a, b, c;

  Case(const Op &o, gt_dtype dtype, int64_t n, int64_t columns, int64_t pad, int64_t offset, bool in_place_)
      : op(o), in_place(in_place_), first(dtype, n, columns, pad, offset), second(dtype, n, columns, pad, offset),
        a(dtype, n, columns, pad, offset), b(dtype, n, columns, 2 * pad, 0), c(dtype, n, columns, 0, 2 * offset) {
    fill(a, 1);
    fill(b, 2);
    fill(c, 3);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ta = a.tensor(), tb = b.tensor(), tc = c.tensor();
    const gt_tensor y = in_place ? ta : first.tensor(), z = in_place ? tb : second.tensor();
    return op.run(&stream, &y, &z, &ta, &tb, &tc);
  }
  std::vector<const Rows *> outputs() const {
    const Rows *const y = in_place ? &a : &first;
    if (op.outputs == 1) return {y};
    return {y, in_place ? &b : &second};
  }
  std::vector<const Rows *> operands() const { return {&first, &second, &a, &b, &c}; }
};

Tolerance tolerance_of(const Op &op, gt_dtype dtype) {
  if (dtype == GT_F32 || op.in_f32.ulps == 0) return op.in_f32;
  return {1, op.in_f32.floor};
}

void check_maps() {
  struct Size { int64_t n, columns, pad, offset; };
  const Size sizes[] = {{1, 1, 0, 0},   {1, 33, 0, 0},  {1, 257, 0, 1}, {1, 4099, 0, 0},
                        {3, 127, 1, 0}, {5, 64, 64, 0}, {7, 9, 3, 1}};
  for (const Op &op : ops)
    for (const gt_dtype dtype : FLOATS)
      for (const Size &s : sizes)
        for (const bool in_place : {false, true})
          check_against_cpu(std::string(op.name) + " " + name_of(dtype) + " " + std::to_string(s.n) + "x" +
                                std::to_string(s.columns) + (in_place ? " in place" : ""),
                            [&] { return Case(op, dtype, s.n, s.columns, s.pad, s.offset, in_place); },
                            tolerance_of(op, dtype));
}

void check_seeds() {
  for (const Op &op : ops)
    check_against_cpu(std::string(op.name) + " bf16", [&] { return Case(op, GT_BF16, 3, 127, 1, 0, false); },
                      tolerance_of(op, GT_BF16), SEEDS);
}

struct Dropout {
  Rows y, x, step;
  float probability;

  Dropout(gt_dtype dtype, int64_t n, int64_t offset, float p)
      : y(dtype, 1, n, 0, offset), x(dtype, 1, n, 0, offset), step(GT_I32, 1, 1), probability(p) {
    fill_uniform(x, 5);
    step.integer_at<int32_t>(0, 0) = 11;
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = y.vector(), tx = x.vector(), tstep = step.vector();
    return gt_dropout(&stream, &ty, &tx, probability, -123456789012345, &tstep, 2);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&y, &x, &step}; }
};

void check_dropout() {
  for (const gt_dtype dtype : FLOATS)
    for (const int64_t n : {1, 3, 4, 33, 257, 1000, 5003})
      for (const int64_t offset : {0, 1})
        check_against_cpu("dropout " + std::string(name_of(dtype)) + " " + std::to_string(n),
                          [&] { return Dropout(dtype, n, offset, 0.3f); }, EXACT);
  for (const float probability : {0.0f, 1.0f})
    check_against_cpu("dropout of " + std::to_string(probability), [&] { return Dropout(GT_F32, 100, 0, probability); },
                      EXACT, SEEDS);
}

void check_errors() {
  const Rows x(GT_F32, 1, 8), step(GT_I32, 1, 1);
  const gt_tensor tx = x.vector(), tstep = step.vector();
  gt_stream stream = cuda("no such order");
  const bool fails = gt_silu_backward(&stream, &tx, &tx, &tx) == GT_DEVICE_ERROR;
  expect(fails && !strncmp(gt_last_error(), "silu_backward: ", 15),
         "a launch that fails: '%s'", gt_last_error());
  expect(gt_dropout(&stream, &tx, &tx, 0.5f, 1, &tstep, 0) == GT_DEVICE_ERROR, "a dropout whose launch fails");
  stream = cuda("fwd");
  expect(gt_swiglu_backward(&stream, &tx, &tx, &tx, &tx, &tx) == GT_INVALID_ARGUMENT, "dgate = dup");
  expect(gt_clamp(&stream, &tx, &tx, 1, 0) == GT_INVALID_ARGUMENT, "a clamp with low > high");
  expect(gt_dropout(&stream, &tx, &tx, 1.5f, 1, &tstep, 0) == GT_INVALID_ARGUMENT, "a probability of 1.5");
}

}  // namespace

int main() {
  check_maps();
  check_dropout();
  if (!IS_INSTRUMENTED) check_seeds();
  check_errors();
  return summary();
}
