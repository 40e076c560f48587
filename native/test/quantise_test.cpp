// Does gt_nearest_code in CUDA, on the emulator, give what the CPU gives?
//
// Both sum a distance as one chain in the same order, so that ids are equal, also where distances are.
#include "family_test.h"

namespace {

using namespace test;

struct Case {
  Rows ids, x, codebook;

  Case(gt_dtype dtype, int64_t n, int64_t k, int64_t c, bool is_whole, int64_t pad)
      : ids(GT_I32, 1, n), x(dtype, n, c, pad, pad), codebook(dtype, k, c, 2 * pad) {
    for (const Rows *rows : {&x, &codebook}) {
      const uint64_t salt = rows == &x ? 1 : 2;
      for (int64_t r = 0; r < rows->n(); ++r)
        for (int64_t i = 0; i < c; ++i) {
          const float v = uniform(salt, r * 65537 + i);
          rows->set(r, i, is_whole ? std::round(v) : v);
        }
    }
    if (n > 2) x.set(1, c - 1, NAN);
    if (n > 3) x.set(3, 0, INFINITY);
    if (k > 5) codebook.set(4, c / 2, NAN);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tids = ids.vector(), tx = x.tensor(), tcodebook = codebook.tensor();
    return gt_nearest_code(&stream, &tids, &tx, &tcodebook);
  }
  std::vector<const Rows *> outputs() const { return {&ids}; }
  std::vector<const Rows *> operands() const { return {&ids, &x, &codebook}; }
};

void check_all_sizes() {
  for (const gt_dtype dtype : FLOATS)
    for (const int64_t n : {1, 7, 35})
      for (const int64_t k : {1, 33, 300})
        for (const int64_t c : {1, 3, 8, 260})
          for (const bool is_whole : {false, true})
            check_against_cpu("nearest_code " + std::string(name_of(dtype)) + " N=" + std::to_string(n) +
                                  " K=" + std::to_string(k) + " C=" + std::to_string(c) + (is_whole ? " whole" : ""),
                              [&] { return Case(dtype, n, k, c, is_whole, n % 2 * 3); }, Tolerance{0, 0});
}

void check_empty_and_errors() {
  const Case c(GT_F32, 2, 3, 4, false, 0);
  expect(c.run(cuda("no such order")) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "nearest_code: ", 14),
         "a launch that fails: '%s'", gt_last_error());
  const gt_tensor empty = {nullptr, GT_F32, 2, {0, 4}, {4, 1}}, ids = {nullptr, GT_I32, 1, {0}, {1}};
  const gt_tensor codebook = c.codebook.tensor();
  const gt_stream stream = cuda("no such order");  // nothing is launched: the order does not matter
  expect(gt_nearest_code(&stream, &ids, &empty, &codebook) == GT_OK, "no rows: %s", gt_last_error());
}

}  // namespace

int main() {
  check_all_sizes();
  check_empty_and_errors();
  return summary();
}
