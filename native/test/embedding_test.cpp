// Does gt_embedding in CUDA, on the emulator, give what the CPU gives, bit for bit?
#include "family_test.h"

namespace {

using namespace test;

constexpr int64_t V = 11, M = 7;
constexpr Tolerance EXACT = {0, 0};

struct Layout {
  const char *name;
  gt_dtype ids;
  bool has_positions, has_bad_rows;
  int64_t pad_y, offset_y, pad_table, offset_table;
};
// pad 8 and offset 0 keep rows of a multiple of 8 aligned.
const Layout layouts[] = {
    {"i32", GT_I32, false, true, 0, 0, 0, 0},
    {"i64", GT_I64, false, true, 8, 0, 8, 0},
    {"i64, positions", GT_I64, true, true, 0, 0, 8, 0},
    {"i32, positions, y unaligned", GT_I32, true, false, 1, 3, 0, 0},
    {"i32, tables unaligned", GT_I32, true, true, 8, 0, 3, 1},
};

void set_id(const Rows &ids, int64_t n, int64_t id) {
  if (ids.dtype() == GT_I64)
    ids.integer_at<int64_t>(0, n) = id;
  else
    ids.integer_at<int32_t>(0, n) = static_cast<int32_t>(id);
}

struct Case {
  bool has_positions;
  Rows y, ids, table, positions, position_table;

  Case(gt_dtype dtype, int64_t n, int64_t c, const Layout &l)
      : has_positions(l.has_positions), y(dtype, n, c, l.pad_y, l.offset_y), ids(l.ids, 1, n, 0, 1),
        table(dtype, V, c, l.pad_table, l.offset_table), positions(GT_I32, 1, n),
        position_table(dtype, M, c, l.pad_table) {
    fill_uniform(table, 1);
    fill_uniform(position_table, 2);
    table.set(2, 0, -0.0f);
    table.set(3, c / 2, NAN);
    const int64_t bad_ids[] = {-1, V, INT32_MIN, INT32_MAX}, bad_positions[] = {M, -1, INT32_MAX, INT32_MIN};
    for (int64_t r = 0; r < n; ++r) {
      const bool is_bad = l.has_bad_rows && r % 5 == 1;
      set_id(ids, r, is_bad && r % 2 == 0 ? bad_ids[r / 5 % 4] : r * 3 % V);
      positions.integer_at<int32_t>(0, r) =
          static_cast<int32_t>(is_bad && r % 2 == 1 ? bad_positions[r / 5 % 4] : r % M);
    }
    if (l.ids == GT_I64 && n > 2 && l.has_bad_rows) set_id(ids, 2, (int64_t{1} << 32) + 1);  // must not become row 1
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = y.tensor(), tids = ids.vector(), ttable = table.tensor();
    const gt_tensor tpositions = positions.vector(), tposition_table = position_table.tensor();
    return gt_embedding(&stream, &ty, &tids, &ttable, has_positions ? &tpositions : nullptr,
                        has_positions ? &tposition_table : nullptr);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&y, &ids, &table, &positions, &position_table}; }
};

void check_all_layouts() {
  for (const int64_t c : {1, 3, 8, 31, 33, 127, 257, 768, 1000, 2050})
    for (const int64_t n : {1, 3, 37})
      for (const gt_dtype dtype : FLOATS)
        for (const Layout &l : layouts) {
          const std::string shape = " [" + std::to_string(n) + ", " + std::to_string(c) + "] ";
          check_against_cpu(name_of(dtype) + shape + l.name, [&] { return Case(dtype, n, c, l); }, EXACT);
        }
}

void check_seeds() {
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const Layout &l : layouts)
      check_against_cpu(std::string(name_of(dtype)) + " [37, 257] " + l.name, [&] { return Case(dtype, 37, 257, l); },
                        EXACT, SEEDS);
}

// More rows than one step of the grid takes, from a table of two numbers.
void check_many_rows() {
  const int64_t n = 65535 * 256 + 3;
  const Rows y(GT_BF16, 1, n), ids(GT_I32, 1, n), table(GT_BF16, 1, 2);
  table.set(0, 0, 1);
  table.set(0, 1, 2);
  for (int64_t r = 0; r < n; ++r) ids.integer_at<int32_t>(0, r) = r % 2;
  const gt_tensor ty = y.view({n, 1}, {1, 1}), tids = ids.vector(), ttable = table.view({2, 1}, {1, 1});
  const gt_stream stream = cuda("fwd");
  const gt_status status = gt_embedding(&stream, &ty, &tids, &ttable, nullptr, nullptr);
  int64_t wrong = 0;
  for (int64_t r = 0; r < n; ++r) wrong += y.get(0, r) != 1 + r % 2;
  expect(status == GT_OK && wrong == 0, "many rows: status %d, %ld wrong", status, static_cast<long>(wrong));
}

void check_empty_and_errors() {
  const Rows y(GT_F32, 2, 8), table(GT_F32, 3, 8), ids(GT_I32, 1, 2);
  gt_tensor ty = y.tensor(), tids = ids.vector();
  const gt_tensor ttable = table.tensor();
  gt_stream stream = cuda("no such order");
  expect(gt_embedding(&stream, &ty, &tids, &ttable, nullptr, nullptr) == GT_DEVICE_ERROR &&
             !strncmp(gt_last_error(), "embedding: ", 11),
         "a launch that fails: '%s'", gt_last_error());
  ty.shape[0] = tids.shape[0] = 0;  // nothing is launched: the order does not matter
  expect(gt_embedding(&stream, &ty, &tids, &ttable, nullptr, nullptr) == GT_OK, "no rows: %s", gt_last_error());
  stream = cuda("fwd");
  ty = y.tensor(), tids = ids.vector();
  const gt_tensor empty = {nullptr, GT_F32, 2, {0, 8}, {8, 1}};
  expect(gt_embedding(&stream, &ty, &tids, &empty, nullptr, nullptr) == GT_OK && std::isnan(y.get(1, 7)),
         "a table of no rows: %s", gt_last_error());
}

}  // namespace

int main() {
  check_all_layouts();
  if (!IS_INSTRUMENTED) check_seeds();
  if (!IS_INSTRUMENTED) check_many_rows();
  check_empty_and_errors();
  return summary();
}
