// What does the imagined GPU have room for?
//
// Tests make it smaller, to reach with small rows what kernels do with wide ones.
#pragma once

#include <cstdint>

namespace simt {

inline int num_multiprocessors = 3;           // few, so that a block has more than one piece of work
inline int resident_clusters = 2;             // likewise; 0: a GPU without clusters
inline int64_t max_dynamic_bytes = 225 << 10; // of a block's shared memory, less what a kernel has of fixed size

}  // namespace simt
