// Which tensors does a loss walk over together? All have one shape; those that there are not are left out.
#pragma once

#include "check.h"
#include "chunks.h"
#include "gatun/types.h"

namespace gt {

struct LossOperands {
  const gt_tensor *tensor[4];
  int count = 0;

  // Where t is; 0 where there is none: the first one always is.
  int add(const gt_tensor *t) {
    if (!t) return 0;
    tensor[count] = t;
    return count++;
  }
};

// [B] as a tensor of x's shape [B, ...].
static inline gt_tensor over_samples(const gt_tensor &weight, const gt_tensor &x) {
  gt_tensor spread = x;
  spread.data = weight.data;
  spread.dtype = weight.dtype;
  for (int d = 0; d < x.rank; ++d) spread.stride[d] = d == 0 ? weight.stride[0] : 0;
  return spread;
}

// Of the sums of up to MAX_CHUNKS groups of runs, whatever x's strides are.
static inline int64_t loss_workspace_bytes(const gt_tensor &x) {
  const int64_t n = elements(x);
  return n > 1 ? (n < MAX_CHUNKS ? n : MAX_CHUNKS) * 8 : 0;
}

}  // namespace gt
