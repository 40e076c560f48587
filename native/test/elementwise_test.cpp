// Do the elementwise ops in CUDA, on the emulator, give what the CPU gives, for every layout of the operands?
//
// Each operand's whole storage is compared, the gaps between strided elements too, which must stay as they were.
#include "family_test.h"

namespace {

using namespace test;

using Run = gt_status (*)(const gt_stream *, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b);

#define UNARY(op, ...)                                                                   \
  [](const gt_stream *s, const gt_tensor *y, const gt_tensor *x, const gt_tensor *) {    \
    return gt_##op(s, y, x __VA_OPT__(, ) __VA_ARGS__);                                  \
  }

constexpr Tolerance EXACT = {0, 0}, FEW = {16, 1e-37};
// A rounding of the exponent 2 u = 50 is worth 25 of the result's, and the CPU contracts u differently.
constexpr Tolerance CUBIC = {256, 1e-37};
// A product and a sum, contracted or not: half a unit of operands up to 4 where they cancel.
constexpr Tolerance ONE_SUM = {1, 4e-6};

// An exponential of up to e^2 times another operand, and a sum that may cancel.
constexpr Tolerance FEW_SUMMED = {4, 2e-5};

struct Op {
  const char *name;
  int inputs;
  Run run;
  Tolerance in_f32;  // 16-bit results: 1 ulp, unless exact
} const ops[] = {
    {"add", 2, gt_add, EXACT},
    {"mul", 2, gt_mul, EXACT},
    {"swiglu", 2, gt_swiglu, FEW},
    {"geglu", 2, gt_geglu, FEW},
    {"geglu_tanh", 2, gt_geglu_tanh, CUBIC},
    {"scale", 1, UNARY(scale, 0.7f), EXACT},
    {"gelu_erf", 1, UNARY(gelu_erf), FEW},
    {"gelu_tanh", 1, UNARY(gelu_tanh), CUBIC},
    {"quick_gelu", 1, UNARY(quick_gelu), FEW},
    {"silu", 1, UNARY(silu), FEW},
    {"relu", 1, UNARY(relu), EXACT},
    {"leaky_relu", 1, UNARY(leaky_relu, 0.2f), EXACT},
    {"tanh", 1, UNARY(tanh), FEW},
    {"sigmoid", 1, UNARY(sigmoid), FEW},
    // the third operand is the second again
    {"modulate", 2, [](const gt_stream *s, const gt_tensor *y, const gt_tensor *x,
                       const gt_tensor *scale) { return gt_modulate(s, y, x, scale, scale); }, ONE_SUM},
    {"add_gated", 2, [](const gt_stream *s, const gt_tensor *y, const gt_tensor *x,
                        const gt_tensor *gate) { return gt_add_gated(s, y, x, gate, gate); }, ONE_SUM},
    {"gaussian", 2, [](const gt_stream *s, const gt_tensor *y, const gt_tensor *mean,
                       const gt_tensor *logvar) { return gt_gaussian(s, y, mean, logvar, mean); }, FEW_SUMMED},
};

using Dims = std::vector<int64_t>;

// Strides in elements; `offset_x` elements before the operand's first.
struct Layout {
  std::string name;
  Dims shape, stride_y, stride_a, stride_b;
  int64_t offset_y = 0, offset_a = 0, offset_b = 0;
};

Layout contiguous(int64_t n, int64_t offset_y = 0, int64_t offset_a = 0, int64_t offset_b = 0) {
  return {"contiguous " + std::to_string(n), {n}, {1}, {1}, {1}, offset_y, offset_a, offset_b};
}

std::vector<Layout> all_layouts() {
  std::vector<Layout> all;
  for (const int64_t n : {1, 3, 8, 31, 33, 127, 257, 1000, 4096, 9001}) all.push_back(contiguous(n));
  all.push_back(contiguous(1000, 1, 0, 0));
  all.push_back(contiguous(257, 0, 3, 1));
  all.push_back({"aligned slices of rows", {7, 64}, {64, 1}, {128, 1}, {128, 1}, 0, 0, 64});
  all.push_back({"slices with odd columns", {5, 13}, {16, 1}, {32, 1}, {24, 1}, 0, 16, 8});
  all.push_back({"unaligned slices", {5, 67}, {67, 1}, {134, 1}, {134, 1}, 0, 0, 67});
  all.push_back({"rows of several pieces", {3, 4100}, {4104, 1}, {4104, 1}, {4104, 1}});
  all.push_back({"a row for all", {9, 40}, {40, 1}, {40, 1}, {0, 1}});
  all.push_back({"an element per row", {9, 40}, {40, 1}, {40, 1}, {1, 0}});
  all.push_back({"one element for all", {77}, {1}, {1}, {0}});
  all.push_back({"a transposed", {37, 70}, {70, 1}, {1, 37}, {70, 1}});
  all.push_back({"y and b transposed", {37, 70}, {1, 40}, {70, 1}, {1, 40}});
  all.push_back({"every second", {100}, {2}, {3}, {1}});
  all.push_back({"backwards", {6, 50}, {50, 1}, {-50, -1}, {-50, 1}, 0, 299, 250});
  all.push_back({"rank 5", {2, 3, 4, 5, 8}, {480, 160, 40, 8, 1}, {8, 16, 48, 192, 1}, {0, 160, 0, 8, 1}});
  all.push_back({"rank 5, nothing dense", {3, 2, 5, 3, 7}, {1, 3, 6, 30, 90}, {210, 105, 21, 7, 1}, {7, 0, 42, 14, 1}});
  all.push_back({"sizes of 1", {1, 5, 1, 16}, {999, 16, 7, 1}, {3, 16, 999, 1}, {0, 32, 1, 1}});
  return all;
}

// One element from each region where an activation behaves differently.
const float SPECIAL[] = {NAN,   INFINITY, -INFINITY, 0.0f,   -0.0f,  1e-30f, -1e-30f,
                         30.0f, -30.0f,   88.0f,     -88.0f, 100.0f, -100.0f};

// The storage of one operand: one row that holds everything its strides reach.
Rows storage(gt_dtype dtype, const Dims &shape, const Dims &stride, int64_t offset) {
  int64_t last = 0;
  for (size_t d = 0; d < shape.size(); ++d) last += stride[d] > 0 ? (shape[d] - 1) * stride[d] : 0;
  return {dtype, 1, last + 1 + offset};
}
gt_tensor view(const Rows &rows, const Dims &shape, const Dims &stride, int64_t offset) {
  gt_tensor t = {rows.at(0, offset), rows.dtype(), static_cast<int32_t>(shape.size()), {}, {}};
  std::copy(shape.begin(), shape.end(), t.shape);
  std::copy(stride.begin(), stride.end(), t.stride);
  return t;
}
void fill(const Rows &rows, uint64_t salt) {
  if (!is_float(rows.dtype())) {
    for (int64_t i = 0; i < rows.c() * bytes_of(rows.dtype()); ++i)
      rows.at(0, 0)[i] = static_cast<unsigned char>(i * 7 + i / 256);
    return;
  }
  fill_uniform(rows, salt, 4);
  int64_t i = static_cast<int64_t>(salt);
  for (const float x : SPECIAL)
    if ((i += 5) < rows.c()) rows.set(0, i, x);
}

struct Case {
  Run run_op;
  const Layout &layout;
  Rows y, a, b;
  bool y_is_a;

  Case(Run run, const Layout &l, gt_dtype to, gt_dtype from, bool y_is_a_ = false)
      : run_op(run), layout(l), y(storage(to, l.shape, l.stride_y, l.offset_y)),
        a(storage(from, l.shape, l.stride_a, l.offset_a)), b(storage(from, l.shape, l.stride_b, l.offset_b)),
        y_is_a(y_is_a_) {
    fill(a, 1);
    fill(b, 2);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ta = view(a, layout.shape, layout.stride_a, layout.offset_a);
    const gt_tensor ty = y_is_a ? ta : view(y, layout.shape, layout.stride_y, layout.offset_y);
    const gt_tensor tb = view(b, layout.shape, layout.stride_b, layout.offset_b);
    return run_op(&stream, &ty, &ta, &tb);
  }
  std::vector<const Rows *> outputs() const { return {y_is_a ? &a : &y}; }
  std::vector<const Rows *> operands() const { return {&y, &a, &b}; }
};

std::string name(const char *op, gt_dtype dtype, const Layout &layout) {
  return std::string(op) + " " + name_of(dtype) + " " + layout.name;
}
Tolerance tolerance_of(const Op &op, gt_dtype dtype) {
  return dtype == GT_F32 || op.in_f32.ulps == 0 ? op.in_f32 : Tolerance{1, 0};
}

void check_maps() {
  const std::vector<Layout> layouts = all_layouts();
  for (const Op &op : ops)
    for (const gt_dtype dtype : FLOATS) {
      const bool represents_others = op.run == gt_add || op.inputs == 1;  // the layouts of one binary op serve all
      for (size_t i = 0; i < layouts.size(); ++i)
        if (represents_others || i % 5 == 2)
          check_against_cpu(name(op.name, dtype, layouts[i]), [&] { return Case(op.run, layouts[i], dtype, dtype); },
                            tolerance_of(op, dtype));
      const Layout aligned = contiguous(5003), unaligned = contiguous(300, 1, 1, 0);
      for (const Layout *layout : {&aligned, &unaligned})
        check_against_cpu(name(op.name, dtype, *layout) + ", y is a",
                          [&] { return Case(op.run, *layout, dtype, dtype, true); }, tolerance_of(op, dtype));
    }
}

// An element's bits do not depend on the path that computes it.
void check_paths_agree() {
  const int64_t n = 1000;
  for (const Op &op : ops)
    for (const gt_dtype dtype : FLOATS) {
      const Layout aligned = contiguous(n), strided = {"", {n}, {2}, {1}, {1}, 1, 0, 0};
      const Case one(op.run, aligned, dtype, dtype), other(op.run, strided, dtype, dtype);
      bool same = !one.run(cuda("fwd")) && !other.run(cuda("fwd"));
      for (int64_t i = 0; same && i < n; ++i) same = !memcmp(one.y.at(0, i), other.y.at(0, 1 + 2 * i), bytes_of(dtype));
      expect(same, "%s %s: vectors and single elements give other bits", op.name, name_of(dtype));
    }
}

void check_casts() {
  for (const Layout &layout : all_layouts())
    for (const gt_dtype to : FLOATS)
      for (const gt_dtype from : FLOATS)
        check_against_cpu(name("cast", to, layout) + " from " + name_of(from),
                          [&] { return Case(UNARY(cast), layout, to, from); }, EXACT);
}

constexpr std::initializer_list<gt_dtype> ALL = {GT_F32, GT_BF16, GT_F16, GT_I32, GT_I64, GT_U8};

void check_copies() {
  std::vector<Layout> layouts = all_layouts();
  for (const auto &[rows, columns] : {std::pair<int64_t, int64_t>{8, 8}, {7, 100}, {33, 65}, {64, 64}, {130, 70}})
    layouts.push_back({"transposed", {rows, columns}, {columns, 1}, {1, rows}, {0, 0}});
  layouts.push_back({"heads before tokens", {2, 5, 3, 16}, {240, 16, 80, 1}, {240, 48, 16, 1}, {0, 0, 0, 0}});
  layouts.push_back({"transposed slices", {3, 2, 20, 30}, {1300, 640, 31, 1}, {2000, 1000, 1, 24}, {0, 0, 0, 0}});
  layouts.push_back({"channels last", {2, 3, 40}, {120, 1, 3}, {120, 40, 1}, {0, 0, 0}});
  layouts.push_back({"into a slice", {6, 24}, {40, 1}, {24, 1}, {0, 0}, 16, 0, 0});
  for (const Layout &layout : layouts)
    for (const gt_dtype dtype : ALL)
      check_against_cpu(name("copy", dtype, layout), [&] { return Case(UNARY(copy), layout, dtype, dtype); }, EXACT);
}

template <int VALUE> gt_status fill_with(const gt_stream *s, const gt_tensor *y, const gt_tensor *, const gt_tensor *) {
  constexpr double values[] = {0, 1.7, -3.9, 1e300, -1e300, 300, -INFINITY, NAN};
  return gt_fill(s, y, values[VALUE]);
}

void check_fills() {
  constexpr Run fills[] = {fill_with<0>, fill_with<1>, fill_with<2>, fill_with<3>,
                           fill_with<4>, fill_with<5>, fill_with<6>, fill_with<7>};
  for (const Layout &layout : {contiguous(1), contiguous(1000), contiguous(77, 1), all_layouts().back(),
                               Layout{"transposed slice", {9, 20}, {1, 12}, {0, 0}, {0, 0}}})
    for (const gt_dtype dtype : ALL)
      for (const Run run : fills)
        check_against_cpu(name("fill", dtype, layout), [&] { return Case(run, layout, dtype, dtype); }, EXACT);
}

struct Count {
  const Layout &layout;
  Rows count, x;
  Count(const Layout &l, gt_dtype dtype)
      : layout(l), count(GT_I64, 1, 1), x(storage(dtype, l.shape, l.stride_a, l.offset_a)) {
    fill(x, 3);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tcount = count.vector(), tx = view(x, layout.shape, layout.stride_a, layout.offset_a);
    return gt_count_nonfinite(&stream, &tcount, &tx);
  }
  std::vector<const Rows *> outputs() const { return {&count}; }
  std::vector<const Rows *> operands() const { return {&count, &x}; }
};

void check_counts() {
  for (const Layout &layout : all_layouts())
    for (const gt_dtype dtype : FLOATS)
      check_against_cpu(name("count_nonfinite", dtype, layout), [&] { return Count(layout, dtype); }, EXACT);
  const Rows x(GT_BF16, 1, 100000), count(GT_I64, 1, 1);
  const gt_tensor tx = x.vector(), tcount = count.vector();
  const gt_stream stream = cuda("fwd");
  const gt_status status = gt_count_nonfinite(&stream, &tcount, &tx);
  expect(status == GT_OK && count.integer_at<int64_t>(0, 0) == 100000, "count_nonfinite of NaN: status %d, %ld", status,
         static_cast<long>(count.integer_at<int64_t>(0, 0)));
}

void check_seeds() {
  const Layout plain = contiguous(1000), strided = {"a transposed", {37, 70}, {70, 1}, {1, 37}, {70, 1}};
  for (const Layout *layout : {&plain, &strided}) {
    for (const Op &op : ops)
      check_against_cpu(name(op.name, GT_BF16, *layout), [&] { return Case(op.run, *layout, GT_BF16, GT_BF16); },
                        tolerance_of(op, GT_BF16), SEEDS);
    for (const Run run : {Run(UNARY(copy)), Run(UNARY(cast)), Run(fill_with<1>)})
      check_against_cpu(name("copy, cast, fill", GT_F32, *layout), [&] { return Case(run, *layout, GT_F32, GT_F32); },
                        EXACT, SEEDS);
    check_against_cpu(name("count_nonfinite", GT_F32, *layout), [&] { return Count(*layout, GT_F32); }, EXACT, SEEDS);
  }
}

// More rows, and more tiles, than a grid has blocks for.
void check_large_grids() {
  const Layout narrow = {"65536 blocks of rows", {65535 * 128 + 5, 2}, {3, 1}, {2, 1}, {0, 1}};
  const Layout batch = {"16387 tiles", {16387, 8, 8}, {64, 8, 1}, {64, 1, 8}, {0, 0, 0}};
  const auto check = [](Run run, gt_dtype dtype, const Layout &layout) {
    const Case many(run, layout, dtype, dtype), reference(run, layout, dtype, dtype);
    const bool runs = !many.run(cuda("fwd")) && !reference.run(cpu(1));
    const std::string error = runs ? difference(many.y, reference.y, EXACT) : gt_last_error();
    expect(error.empty(), "%s: %s", layout.name.c_str(), error.c_str());
  };
  check(gt_add, GT_BF16, narrow);
  check(UNARY(copy), GT_U8, batch);
}

// Large contiguous copies go by places, larger ones past the caches of the CPU where y is aligned.
void check_large_copies() {
  for (const int64_t n : {(1 << 20) + 13, (17 << 20) + 77})
    for (const int64_t offset : {0, 3}) {
      const Layout layout = contiguous(n, offset, 5);
      const Case copy(UNARY(copy), layout, GT_U8, GT_U8);
      const bool runs = !copy.run(cpu(3));
      expect(runs && !memcmp(copy.y.at(0, offset), copy.a.at(0, 5), static_cast<size_t>(n)) &&
                 copy.y.guards_are_intact(),
             "copy of %lld bytes to an offset of %lld", static_cast<long long>(n), static_cast<long long>(offset));
    }
}

// y may be x itself.
void check_copies_in_place() {
  const std::vector<Layout> layouts = all_layouts();
  for (const Layout &layout : layouts)
    for (const gt_dtype dtype : {GT_F32, GT_BF16})
      if (layout.stride_a[0] != 0)
        check_against_cpu(name("copy", dtype, layout) + ", y is x",
                          [&] { return Case(UNARY(copy), layout, dtype, dtype, true); }, EXACT);
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const int64_t bytes : {1 << 20, 17 << 20}) {
      const Rows x(dtype, 1, bytes / bytes_of(dtype));
      for (int64_t i = 0; i < bytes; ++i) x.at(0, 0)[i] = static_cast<unsigned char>(i * 7 + i / 256);
      const std::string before(reinterpret_cast<const char *>(x.at(0, 0)), static_cast<size_t>(bytes));
      const gt_tensor tx = x.vector();
      const gt_stream stream = cpu(3);
      expect(!gt_copy(&stream, &tx, &tx) && !memcmp(x.at(0, 0), before.data(), before.size()) && x.guards_are_intact(),
             "copy of %lld bytes of %s onto themselves", static_cast<long long>(bytes), name_of(dtype));
    }
}

void check_empty_and_errors() {
  const Rows x(GT_F32, 2, 8), y(GT_F32, 2, 8), count(GT_I64, 1, 1);
  gt_stream stream = cuda("no such order");
  gt_tensor tx = x.tensor(), ty = y.tensor();
  const gt_tensor tcount = count.vector();
  expect(gt_silu(&stream, &ty, &tx) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "silu: ", 6),
         "a launch that fails: '%s'", gt_last_error());
  expect(gt_count_nonfinite(&stream, &tcount, &tx) == GT_DEVICE_ERROR, "a count whose launch fails");
  tx.shape[0] = ty.shape[0] = 0;  // nothing is launched: the order does not matter
  tx.data = ty.data = nullptr;
  const bool all_ok = !gt_add(&stream, &ty, &tx, &tx) && !gt_cast(&stream, &ty, &tx) && !gt_copy(&stream, &ty, &tx) &&
                      !gt_fill(&stream, &ty, 1);
  expect(all_ok, "no elements: %s", gt_last_error());
  stream = cuda("fwd");
  expect(!gt_count_nonfinite(&stream, &tcount, &tx) && count.integer_at<int64_t>(0, 0) == 0, "a count of nothing: %s",
         gt_last_error());
}

}  // namespace

int main() {
  check_maps();
  check_paths_agree();
  check_casts();
  check_copies();
  check_fills();
  check_counts();
  if (!IS_INSTRUMENTED) check_seeds();
  if (!IS_INSTRUMENTED) check_large_grids();
  check_large_copies();
  check_copies_in_place();
  check_empty_and_errors();
  return summary();
}
