// What does a loop over the n contiguous elements of a row need besides whole vectors?
#pragma once

#include "cpu/vec.h"

namespace gt::GT_ISA {

// The next W of left elements, or the left < W that remain; fill stands for those beyond.
template <class T>
GT_INLINE vf load_up_to(const T *p, int64_t left, float fill = 0) {
  return left >= W ? load(p) : load_part(p, left, fill);
}
template <class T>
GT_INLINE void store_up_to(T *p, vf v, int64_t left) {
  left >= W ? store(p, v) : store_part(p, v, left);
}

template <class T>
GT_INLINE void fill_row(T *p, float value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) from_float(value, p + i);
}

}  // namespace gt::GT_ISA
