// What do the entries of the norms of images check alike?
#pragma once

#include "check.h"

namespace gt {

constexpr int64_t MOST_ELEMENTS = int64_t{1} << 48;  // of an image operand: the bytes of a workspace can be counted

static inline void check_layout(Check &check, const char *name, const gt_tensor *t, bool last) {
  const int dimension = last ? 2 : 1;
  check.require(t->shape[dimension] == 1 || t->stride[dimension] == 1,
                "%s has strides [%lld, %lld, %lld], expected 1 for the %s, as x has it (or copy it first)", name,
                static_cast<long long>(t->stride[0]), static_cast<long long>(t->stride[1]),
                static_cast<long long>(t->stride[2]), last ? "channels" : "pixels");
}

static inline void check_parameter(Check &check, const char *name, const gt_tensor *t, const gt_tensor *x) {
  if (check.ok())
    check.tensor(name, t, F32 | dtype_bit(x->dtype)).shape(name, t, {x->shape[2]}).contiguous(name, t);
}

static inline void check_groups(Check &check, const gt_tensor *x, int64_t groups) {
  if (check.ok())
    check.require(groups > 0 && x->shape[2] % groups == 0, "x has %lld channels in %lld groups, expected a multiple",
                  static_cast<long long>(x->shape[2]), static_cast<long long>(groups));
}

}  // namespace gt
