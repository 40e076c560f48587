// Does gt_embedding_backward in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"

namespace {

using namespace test;

// How the ids of n tokens are spread over a table of v rows.
enum class Spread { EVEN, FEW, ONE, BAD };

struct Layout {
  const char *name;
  gt_dtype ids;
  Spread spread;
  int64_t pad_table, offset_table, pad_dy, offset_dy;
};
const Layout layouts[] = {
    {"i32, even", GT_I32, Spread::EVEN, 0, 0, 0, 0},
    {"i64, few ids", GT_I64, Spread::FEW, 8, 0, 8, 0},
    {"i32, one id, table unaligned", GT_I32, Spread::ONE, 1, 3, 0, 0},
    {"i64, bad ids, dy unaligned", GT_I64, Spread::BAD, 0, 0, 3, 1},
};

int64_t id_of(Spread spread, int64_t r, int64_t v) {
  const int64_t bad[] = {-1, v, INT64_MIN, INT64_MAX, (int64_t{1} << 32) + 1};
  switch (spread) {
    case Spread::EVEN: return (r * 7 + 3) % v;
    case Spread::FEW: return r % 3 == 0 ? (r * 7 + 3) % v : r % 5 == 0 ? 0 : v - 1;
    case Spread::ONE: return v / 2;
    default: return r % 2 ? bad[r / 2 % 5] : r % v;
  }
}

struct Case {
  Rows dtable, dy, ids, workspace;

  Case(gt_dtype dtype, int64_t n, int64_t v, int64_t c, const Layout &l)
      : dtable(GT_F32, v, c, l.pad_table, l.offset_table), dy(dtype, n, c, l.pad_dy, l.offset_dy), ids(l.ids, 1, n),
        workspace(GT_U8, 1, 16 * n) {
    fill_uniform(dy, 1);
    for (int64_t r = 0; r < n; ++r) {
      const int64_t id = id_of(l.spread, r, v);
      if (l.ids == GT_I64)
        ids.integer_at<int64_t>(0, r) = id;
      else
        ids.integer_at<int32_t>(0, r) = static_cast<int32_t>(id);
    }
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor table = dtable.tensor(), gradient = dy.tensor(), tids = ids.vector(), memory = workspace.vector();
    return gt_embedding_backward(&stream, &table, &gradient, &tids, &memory);
  }
  std::vector<const Rows *> outputs() const { return {&dtable}; }
  std::vector<const Rows *> operands() const { return {&dtable, &dy, &ids, &workspace}; }
};

// Up to n terms of up to 2 that may cancel, in two orders; up to 32 are added in one order.
Tolerance tolerance_of(int64_t n) { return {0, n <= 32 ? 0 : 2e-7 * static_cast<double>(n)}; }

void check(gt_dtype dtype, int64_t n, int64_t v, int64_t c, const Layout &l,
           std::initializer_list<const char *> orders = ORDERS) {
  const std::string shape = " N = " + std::to_string(n) + " [" + std::to_string(v) + ", " + std::to_string(c) + "] ";
  check_against_cpu(name_of(dtype) + shape + l.name, [&] { return Case(dtype, n, v, c, l); }, tolerance_of(n), orders);
}

// Numbers of tokens on both sides of what a warp sums alone and of what a block sorts.
void check_all_layouts() {
  for (const int64_t c : {1, 3, 8, 31, 33, 127, 257})
    for (const int64_t n : {1, 3, 32, 37})
      for (const gt_dtype dtype : FLOATS)
        for (const Layout &l : layouts) check(dtype, n, 11, c, l);
  for (const int64_t n : {33, 64, 255, 256, 257, 600})
    for (const Layout &l : layouts)
      for (const int64_t v : {5, 300})
        if (!IS_INSTRUMENTED || v == 5) check(GT_F32, n, v, 12, l);
  check(GT_BF16, 32 * 256 + 40, 70, 1, layouts[1], {"fwd", "rev"});  // more chunks than a warp has lanes
}

void check_seeds() {
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const Layout &l : layouts) check(dtype, 300, 11, 33, l, SEEDS);
}

void check_empty_and_errors() {
  const Case c(GT_F32, 2, 3, 8, layouts[0]);
  expect(c.run(cuda("no such order")) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "embedding_backward: ", 20),
         "a launch that fails: '%s'", gt_last_error());
  const gt_stream stream = cuda("fwd");
  const gt_tensor table = c.dtable.tensor(), no_rows = {nullptr, GT_F32, 2, {0, 8}, {8, 1}};
  const gt_tensor no_ids = {nullptr, GT_I32, 1, {0}, {1}}, ids = c.ids.vector(), dy = c.dy.tensor();
  const gt_tensor workspace = c.workspace.vector();
  expect(gt_embedding_backward(&stream, &table, &no_rows, &no_ids, nullptr) == GT_OK && c.dtable.get(2, 7) == 0,
         "no tokens: %s", gt_last_error());
  expect(gt_embedding_backward(&stream, &no_rows, &dy, &ids, &workspace) == GT_OK, "no table: %s", gt_last_error());
}

}  // namespace

int main() {
  check_all_layouts();
  if (!IS_INSTRUMENTED) check_seeds();
  check_empty_and_errors();
  return summary();
}
