// How an op's entry checks its arguments: one Check per call, which keeps the first thing that is wrong as the
// thread's last-error text (op, operand, expected, found). Inner code relies on these checks and repeats none.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "gatun/types.h"

namespace gt {

// Stores a message for gt_last_error and returns status.
gt_status fail(gt_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

static constexpr uint64_t dtype_bit(gt_dtype dtype) { return uint64_t{1} << dtype; }
constexpr uint64_t FLOATS = dtype_bit(GT_F32) | dtype_bit(GT_BF16) | dtype_bit(GT_F16);
constexpr uint64_t INTEGERS = dtype_bit(GT_I32) | dtype_bit(GT_I64) | dtype_bit(GT_U8);
constexpr uint64_t F8 = dtype_bit(GT_F8_E4M3);
constexpr uint64_t F32 = dtype_bit(GT_F32);
constexpr uint64_t I32 = dtype_bit(GT_I32);
constexpr uint64_t I64 = dtype_bit(GT_I64);

const char *dtype_name(gt_dtype dtype);
int64_t dtype_bytes(gt_dtype dtype);

// Of a tensor that Check::tensor has let pass, where they are fewer than 2^63.
static inline int64_t elements(const gt_tensor &t) {
  int64_t n = 1;
  for (int i = 0; i < t.rank; ++i) n *= t.shape[i];
  return n;
}

// A tensor [..., C] seen as rows: N rows of C, stride elements apart. Requires Check::rows to have passed.
struct Rows {
  int64_t n, c, stride;
};
Rows rows_of(const gt_tensor &t);

// Of images y, x [B, S, C] that have one layout: is it C that is contiguous, or S? With one pixel either may be.
static inline bool is_channels_last(const gt_tensor &y, const gt_tensor &x) {
  const auto last = [](const gt_tensor &t) { return t.shape[2] == 1 || t.stride[2] == 1; };
  return last(x) && (x.shape[1] > 1 || last(y));
}

class Check {
 public:
  Check(const char *op, const gt_stream *stream);

  // The tensor exists, has a legal rank and non-negative shape, one of the dtypes, and data unless it is empty.
  Check &tensor(const char *name, const gt_tensor *t, uint64_t dtypes);
  Check &optional(const char *name, const gt_tensor *t, uint64_t dtypes) { return t ? tensor(name, t, dtypes) : *this; }
  Check &rank(const char *name, const gt_tensor *t, int rank);
  // Exact shape; -1 matches anything.
  Check &shape(const char *name, const gt_tensor *t, std::initializer_list<int64_t> shape);
  Check &same_shape(const char *name, const gt_tensor *t, const char *other_name, const gt_tensor *other);
  Check &same_dtype(const char *name, const gt_tensor *t, const char *other_name, const gt_tensor *other);
  Check &contiguous(const char *name, const gt_tensor *t);
  Check &last_contiguous(const char *name, const gt_tensor *t);
  // Rank >= 1, last dimension contiguous, outer dimensions collapse to one row stride.
  Check &rows(const char *name, const gt_tensor *t);
  // The dimensions from `first` on, 0 counting as 1, have a product of at most `most`; nothing overflows on the way.
  Check &elements_at_most(const char *name, const gt_tensor *t, int first, int64_t most);
  // u8 [n], contiguous, with at least `bytes` bytes, 16-byte aligned; may be NULL where bytes is 0.
  Check &workspace(const gt_tensor *t, int64_t bytes);
  Check &require(bool condition, const char *format, ...) __attribute__((format(printf, 3, 4)));

  bool ok() const { return status_ == GT_OK; }
  gt_status status() const { return status_; }

 private:
  const char *op_;
  gt_status status_ = GT_OK;
};

}  // namespace gt
