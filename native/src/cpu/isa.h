// How one kernels/<family>.cpp becomes several: CMake compiles it once as the entry (checks and dispatch, any CPU) and
// once per instruction set with GT_ISA naming the set and its namespace. GT_RUN picks at run time.
//
// Code for an instruction set lives in namespace gt::GT_ISA and uses nothing of the standard library that is not
// inlined: a shared inline function compiled for AVX-512 could otherwise be the one the linker keeps for AVX2.
#pragma once

#include "gatun/types.h"

namespace gt {

enum class Isa { none, generic, avx2, avx512 };
Isa cpu_isa();
gt_status fail(gt_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace gt

// The implementations of an op have the type of its entry point.
#if defined(__x86_64__)
#define GT_DECLARE_OP(op)                                      \
  namespace gt::avx2 { decltype(gt_##op) op##_cpu; }           \
  namespace gt::avx512 { decltype(gt_##op) op##_cpu; }         \
  namespace gt { decltype(gt_##op) op##_cuda __attribute__((weak)); }
#define GT_RUN_CPU(op, ...)                                             \
  (gt::cpu_isa() == gt::Isa::avx512 ? gt::avx512::op##_cpu(__VA_ARGS__) \
   : gt::cpu_isa() == gt::Isa::avx2 ? gt::avx2::op##_cpu(__VA_ARGS__)   \
   : gt::fail(GT_UNSUPPORTED, #op ": this CPU has no AVX2 and FMA, which libgatun needs"))
#else
#define GT_DECLARE_OP(op)                                      \
  namespace gt::generic { decltype(gt_##op) op##_cpu; }        \
  namespace gt { decltype(gt_##op) op##_cuda __attribute__((weak)); }
#define GT_RUN_CPU(op, ...) gt::generic::op##_cpu(__VA_ARGS__)
#endif

// Runs an op on the device of the stream. A build without the CUDA kernel has a null op##_cuda.
#define GT_RUN(op, stream, ...)                                                                         \
  ((stream)->device == GT_CPU ? GT_RUN_CPU(op, stream, __VA_ARGS__)                                     \
   : gt::op##_cuda            ? gt::op##_cuda(stream, __VA_ARGS__)                                      \
                              : gt::fail(GT_UNSUPPORTED, #op ": this libgatun has no CUDA kernel for it"))
