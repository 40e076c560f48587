// Where do the splits of a sequence's keys begin?
//
// At fixed positions, so that a row's bits depend on nothing else: short ones first, because a short sequence alone
// must fill the device, long ones later, because each leaves a result to be added. All are whole pages.
//   splits    0 .. 7    8 .. 11      12 .. 39      40 ..
//   keys      64        128          256           1024
//   from      0         512          1024          8192
#pragma once

#include "lib/cuda.h"

namespace gt::attention {

constexpr int MIN_SPLIT = 64, MAX_SPLIT = 1024;  // keys

__host__ __device__ constexpr int split_begin(int split) {
  return split < 8    ? split * 64
         : split < 12 ? 512 + (split - 8) * 128
         : split < 40 ? 1024 + (split - 12) * 256
                      : 8192 + (split - 40) * 1024;
}

// Of so many keys.
__host__ __device__ constexpr int num_splits_of(int keys) {
  return keys <= 512    ? (keys + 63) / 64
         : keys <= 1024 ? 8 + (keys - 512 + 127) / 128
         : keys <= 8192 ? 12 + (keys - 1024 + 255) / 256
                        : 40 + (keys - 8192 + 1023) / 1024;
}

static_assert(split_begin(8) == 512 && split_begin(12) == 1024 && split_begin(40) == 8192 && num_splits_of(0) == 0);
static_assert(num_splits_of(512) == 8 && num_splits_of(1024) == 12 && num_splits_of(8192) == 40);

}  // namespace gt::attention
