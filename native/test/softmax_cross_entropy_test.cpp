// Does gt_cross_entropy in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"
#include "simt/resident.h"

namespace {

using namespace test;

constexpr int64_t IGNORED = -100;

struct Layout {
  const char *name;
  gt_dtype targets;
  bool has_row_losses, has_gradient, is_in_place, has_scale, has_bad_rows;
  float smoothing;
  int64_t pad_d, offset_d, pad_x, offset_x;
};
const Layout layouts[] = {
    {"dense", GT_I32, false, true, false, false, false, 0, 0, 0, 0, 0},
    {"in place", GT_I64, true, true, true, true, false, 0.1f, 0, 0, 3, 1},
    {"loss alone", GT_I64, false, false, false, false, false, 0.1f, 0, 0, 8, 0},
    {"smoothing alone", GT_I32, true, true, false, true, false, 1, 1, 3, 0, 0},
    {"bad rows", GT_I64, true, true, true, false, true, 0, 0, 0, 0, 0},
    {"in place, aligned", GT_I64, true, true, true, true, false, 0.1f, 0, 0, 0, 0},
    {"a tail of 3 before aligned rows", GT_I64, true, true, true, true, false, 0.1f, 0, 0, 5, 0},
    {"the same, bad rows", GT_I32, true, true, false, false, true, 0, 5, 0, 13, 0},
};

// Rows that do not count or give NaN: bad targets, a NaN, +inf, -inf alone, a target of -inf.
constexpr int64_t NUM_ROWS = 11;
int64_t target_of(int64_t r, int64_t v, bool has_bad_rows) {
  const int64_t bad[] = {-1, v, (int64_t{1} << 32) + 1, INT64_MIN};
  if (r % 5 == 2) return IGNORED;
  return has_bad_rows && r > 6 ? bad[r - 7] : (r * 7 + 3) % v;
}
float value(int64_t r, int64_t i, int64_t v, bool has_bad_rows) {
  const float x = 4 * uniform(1, r * 65537 + i);
  if (r == 2) return NAN;  // does not count: nobody reads it
  if (r == 1) return 50 * x + 3 * static_cast<float>(i) / static_cast<float>(v);
  if (!has_bad_rows) return x;
  switch (r) {
    case 0: return i == v - 1 ? NAN : x;
    case 3: return i == v / 2 ? INFINITY : x;
    case 4: return -INFINITY;
    case 5: return i == target_of(r, v, true) ? -INFINITY : x;
    default: return x;
  }
}

struct Case {
  const Layout &layout;
  Rows loss, row_losses, dlogits, logits, targets, scale, workspace;

  Case(gt_dtype dtype, int64_t n, int64_t v, const Layout &l)
      : layout(l), loss(GT_F32, 1, 1), row_losses(GT_F32, 1, n), dlogits(dtype, n, v, l.pad_d, l.offset_d),
        logits(dtype, n, v, l.pad_x, l.offset_x), targets(l.targets, 1, n), scale(GT_F32, 1, 1),
        workspace(GT_U8, 1, 16 + 4 * n) {
    scale.set(0, 0, 3.5f);
    for (int64_t r = 0; r < n; ++r) {
      const int64_t kind = r % NUM_ROWS, target = target_of(kind, v, l.has_bad_rows);
      if (l.targets == GT_I64)
        targets.integer_at<int64_t>(0, r) = target;
      else
        targets.integer_at<int32_t>(0, r) = static_cast<int32_t>(target);
      for (int64_t i = 0; i < v; ++i) logits.set(r, i, value(kind, i, v, l.has_bad_rows));
    }
  }
  const Rows &gradient() const { return layout.is_in_place ? logits : dlogits; }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tloss = loss.vector(), trows = row_losses.vector(), td = gradient().tensor(), tx = logits.tensor();
    const gt_tensor ttargets = targets.vector(), tscale = scale.vector(), tworkspace = workspace.vector();
    return gt_cross_entropy(&stream, &tloss, layout.has_row_losses ? &trows : nullptr,
                            layout.has_gradient ? &td : nullptr, &tx, &ttargets, IGNORED, layout.smoothing,
                            layout.has_scale ? &tscale : nullptr, &tworkspace);
  }
  std::vector<const Rows *> outputs() const {
    std::vector<const Rows *> all = {&loss};
    if (layout.has_row_losses) all.push_back(&row_losses);
    if (layout.has_gradient) all.push_back(&gradient());
    return all;
  }
  std::vector<const Rows *> operands() const {
    return {&loss, &row_losses, &dlogits, &logits, &targets, &scale, &workspace};
  }
};

// The floor: logits and losses of up to 400, gradients of up to 3.5, each with a few roundings.
constexpr Tolerance CLOSE = {4, 2e-6};

std::string name(gt_dtype dtype, int64_t n, int64_t v, const Layout &l) {
  return std::string(name_of(dtype)) + " [" + std::to_string(n) + ", " + std::to_string(v) + "] " + l.name;
}

void check_all_layouts() {
  for (const int64_t v : {1, 3, 31, 33, 127, 257, 1000, 4097})
    for (const gt_dtype dtype : FLOATS)
      for (const Layout &l : layouts) {
        if (v > 257 && (dtype == GT_F16 || IS_INSTRUMENTED)) continue;
        check_against_cpu(name(dtype, NUM_ROWS, v, l), [&] { return Case(dtype, NUM_ROWS, v, l); }, CLOSE);
      }
  // rows in shared memory; in the second case a block has several, in the third they do not fit
  for (const gt_dtype dtype : FLOATS)
    for (const Layout &l : layouts) {
      if (IS_INSTRUMENTED && dtype == GT_F16) continue;
      for (const int64_t v : {2056, 2059})
        check_against_cpu(name(dtype, NUM_ROWS, v, l), [&] { return Case(dtype, NUM_ROWS, v, l); }, CLOSE);
      if (IS_INSTRUMENTED || dtype == GT_F16) continue;
      for (const auto &[n, bytes] : {std::pair{2 * NUM_ROWS, 80000}, std::pair{NUM_ROWS, 120000}}) {
        const int64_t rows = n, v = bytes / bytes_of(dtype) + (l.pad_x % 8 == 5 ? 3 : 0);
        check_against_cpu(name(dtype, rows, v, l), [&] { return Case(dtype, rows, v, l); }, CLOSE);
      }
    }
  // A GPU with room for less: the row is shared by a cluster of 2, 4 or 8, or comes twice, since there are no clusters
  // or since it does not fit into 8 either.
  for (const auto &[bytes, clusters] : {std::pair{8000, 2}, {3000, 2}, {1100, 2}, {8000, 0}, {1000, 2}}) {
    simt::max_dynamic_bytes = bytes;
    simt::resident_clusters = clusters;
    for (const gt_dtype dtype : {GT_F32, GT_BF16})
      for (const Layout &l : layouts) {
        if (IS_INSTRUMENTED && (dtype == GT_BF16) != (bytes == 3000)) continue;
        const int64_t v = 4112 / bytes_of(dtype) + (l.pad_x % 8 == 5 ? 3 : 0);
        check_against_cpu(name(dtype, NUM_ROWS, v, l) + ", room for " + std::to_string(bytes),
                          [&] { return Case(dtype, NUM_ROWS, v, l); }, CLOSE);
      }
  }
  simt::max_dynamic_bytes = 225 << 10;
  simt::resident_clusters = 2;
  for (const int64_t n : {1, 600})
    check_against_cpu(name(GT_F32, n, 5, layouts[1]), [&] { return Case(GT_F32, n, 5, layouts[1]); }, CLOSE);
}

void check_seeds() {
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const Layout &l : layouts)
      check_against_cpu(name(dtype, NUM_ROWS, 1000, l), [&] { return Case(dtype, NUM_ROWS, 1000, l); }, CLOSE, SEEDS);
}

// A row's loss and gradient have the same bits at any alignment and beside any rows.
void check_rows_alone() {
  const gt_stream stream = cuda("fwd");
  const int64_t v = 777;
  const Case all(GT_BF16, NUM_ROWS, v, layouts[3]);
  bool same = !all.run(stream);
  for (int64_t r = 0; r < NUM_ROWS; ++r) {
    const Rows x(GT_BF16, 1, v, 0, r % 8), d(GT_BF16, 1, v, 0, r % 3), loss(GT_F32, 1, 1), row_loss(GT_F32, 1, 1);
    const Rows target(GT_I32, 1, 1), scale(GT_F32, 1, 1), workspace(GT_U8, 1, 20);
    memcpy(x.at(0, 0), all.logits.at(r, 0), 2 * v);
    target.integer_at<int32_t>(0, 0) = all.targets.integer_at<int32_t>(0, r);
    scale.set(0, 0, 3.5f / 9);  // 9 of the 11 rows count
    const gt_tensor tx = x.tensor(), td = d.tensor(), tloss = loss.vector(), trow = row_loss.vector();
    const gt_tensor ttarget = target.vector(), tscale = scale.vector(), tworkspace = workspace.vector();
    same &= !gt_cross_entropy(&stream, &tloss, &trow, &td, &tx, &ttarget, IGNORED, 1, &tscale, &tworkspace) &&
            !memcmp(d.at(0, 0), all.dlogits.at(r, 0), 2 * v) && !memcmp(row_loss.at(0, 0), all.row_losses.at(0, r), 4);
  }
  expect(same, "a row alone has other bits");
}

void check_empty_and_errors() {
  const Case c(GT_F32, 2, 8, layouts[0]);
  gt_stream stream = cuda("no such order");
  expect(c.run(stream) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "cross_entropy: ", 15),
         "a launch that fails: '%s'", gt_last_error());
  stream = cuda("fwd");
  const gt_tensor loss = c.loss.vector(), none = {nullptr, GT_F32, 2, {0, 8}, {8, 1}};
  const gt_tensor no_targets = {nullptr, GT_I32, 1, {0}, {1}};
  expect(gt_cross_entropy(&stream, &loss, nullptr, nullptr, &none, &no_targets, IGNORED, 0, nullptr, nullptr) ==
                 GT_OK && c.loss.get(0, 0) == 0,
         "no rows: %s", gt_last_error());
}

}  // namespace

int main() {
  check_all_layouts();
  if (!IS_INSTRUMENTED) check_seeds();
  check_rows_alone();
  check_empty_and_errors();
  return summary();
}
