// How does g++ compile a CUDA kernel and run it on the CPU?
//
// Every CUDA thread is a fiber. A block's fibers take turns on one OS thread; they switch only where CUDA would wait.
// Kernels include lib/cuda.h, which includes this; nothing here is for nvcc. One file per idea:
//   keywords.h    __global__, __shared__ and the rest      types.h, intrinsics.h   built-in types, per-thread functions
//   fiber.h       stacks and the switch                     order.h                 the order of lanes and blocks
//   block.h       the state of the running block            scheduler.h             who runs next
//   report.h      messages                                  shared.h                shared memory, NaN at first
//   barrier.h     __syncthreads, named barriers             warp.h                  shuffles, votes, reductions
//   atomics.h     atomics                                   race.h                  shared-memory races (race builds)
//   launch.h      a grid; status and last_error             source_line.h           from a program counter to file:line
//   cluster.h     blocks that reach each other's memory     resident.h              what a GPU has room for
//   object.h      which __shared__ variables there are
// and what only the wrappers of native/lib include:
//   async_copy.h  cp.async                                  mma.h                   mma.sync, ldmatrix
//   mbarrier.h    mbarriers                                 tma.h                   the copy engine
//   wgmma.h       products of warpgroups                    shared_address.h        shared memory as PTX addresses it
//   engine.h      what works beside the threads             grid_dependency.h       who waited for the grids before
//   registers.h   setmaxnreg                                graph_memory.h          what grids in front write
//
// It cannot show: effects of weak memory ordering, bank conflicts, occupancy, that what device functions have of static
// shared memory makes a block's too large (a kernel's own is counted), the error of approximate intrinsics, how tensor
// cores round, races in global memory, and blocks that wait for later blocks (they hang). A loop that spins on a flag
// hangs as well. Misaligned loads and stores, which x86 allows and a GPU does not, UBSan reports in the ASan builds
// alone; there too a static array of floats read as vectors passes, which nvcc aligns to 4 bytes and g++ to 16 or more.
// Whether the PTX of a wrapper is right only a GPU can tell: native/test/ptx has a test of each.
#pragma once

#include "simt/keywords.h"

#include "simt/types.h"
#include "simt/intrinsics.h"

#include "simt/atomics.h"
#include "simt/barrier.h"
#include "simt/launch.h"
#include "simt/warp.h"
