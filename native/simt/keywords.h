// What do CUDA's keywords mean to g++?
//
// A kernel is a plain function that every fiber of a block calls. Where CUDA's keyword carries no information that the
// emulator needs, it expands to nothing.
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))  // unlike alignas, also right after __shared__
#define __constant__ static
#ifndef __restrict__
#define __restrict__ __restrict
#endif

// Blocks run one after another, so one copy of a static __shared__ variable serves them all. The tag becomes part of
// its symbol's name, by which shared.h finds it, to fill it with NaN before each block and to watch it for races. (A
// section of its own would be simpler, but g++ ignores section attributes inside templates.) used: a variable that is
// read and never written must stay in memory, or it would read as zero.
#define __shared__ static __attribute__((abi_tag("gt_shared"), used))

// Race builds instrument kernels with -fsanitize=thread; the emulator's own reads and writes must stay out of the
// books.
#if defined(__SANITIZE_THREAD__)
#define GT_SIMT_RACE 1
#define GT_SIMT_UNWATCHED __attribute__((no_sanitize("thread")))
#else
#define GT_SIMT_UNWATCHED
#endif

#if defined(__SANITIZE_ADDRESS__)
#define GT_SIMT_ASAN 1
#endif
