// What do resampling ops of images and their gradients ask of their arguments? A gradient has the operands of its op:
// the names are the caller's.
#pragma once

#include "check.h"
#include "gatun/image.h"

namespace gt {

// y is what the op computes from x.
struct Resampling {
  const char *y_name, *x_name;
  const gt_tensor *y, *x;
};

static inline void check_resampling(Check &check, const Resampling &r) {
  check.tensor(r.y_name, r.y, FLOATS).rank(r.y_name, r.y, 4).tensor(r.x_name, r.x, FLOATS);
  check.same_dtype(r.x_name, r.x, r.y_name, r.y);
  if (check.ok()) check.shape(r.x_name, r.x, {r.y->shape[0], -1, -1, r.y->shape[3]});
}

static inline void check_upsampling(Check &check, const Resampling &r) {
  check_resampling(check, r);
  if (!check.ok() || elements(*r.y) == 0) return;
  check.require(elements(*r.x) > 0, "%s has no pixels, expected at least one for the %lld x %lld of %s", r.x_name,
                static_cast<long long>(r.y->shape[1]), static_cast<long long>(r.y->shape[2]), r.y_name);
}

static inline void check_average_pool(Check &check, const Resampling &r, int64_t size) {
  check_resampling(check, r);
  check.require(size >= 1, "size is %lld, expected at least 1", static_cast<long long>(size));
  if (check.ok())
    check.shape(r.y_name, r.y, {r.x->shape[0], r.x->shape[1] / size, r.x->shape[2] / size, r.x->shape[3]});
}

constexpr int64_t MAX_POOL_SIZE = 1 << 15;  // so that squares and sums of sizes do not overflow

static inline void check_max_pool(Check &check, const Resampling &r, int64_t size, int64_t stride, int64_t pad) {
  check_resampling(check, r);
  check.require(size >= 1 && size <= MAX_POOL_SIZE, "size is %lld, expected 1 to 2^15", static_cast<long long>(size));
  check.require(stride >= 1 && stride <= MAX_POOL_SIZE, "stride is %lld, expected 1 to 2^15",
                static_cast<long long>(stride));
  check.require(pad >= 0 && pad <= size / 2, "%s is padded by %lld, expected 0 to half the size of %lld", r.x_name,
                static_cast<long long>(pad), static_cast<long long>(size));
  if (!check.ok()) return;
  const auto outputs = [&](int64_t in) { return in + 2 * pad < size ? 0 : (in + 2 * pad - size) / stride + 1; };
  check.shape(r.y_name, r.y, {r.x->shape[0], outputs(r.x->shape[1]), outputs(r.x->shape[2]), r.x->shape[3]});
}

}  // namespace gt
