// What the library says of itself: ABI version, struct sizes, build, last error, and the CPU instruction set it picked.
#include <cstdio>

#include "check.h"
#include "cpu/isa.h"

namespace gt {

const char *last_error_text();

Isa detect_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return Isa::avx512;
  if (__builtin_cpu_supports("x86-64-v3")) return Isa::avx2;
  return Isa::none;
#else
  return Isa::generic;
#endif
}

Isa cpu_isa() {
  static const Isa isa = detect_isa();
  return isa;
}

static const char *isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    case Isa::generic: return "generic";
    default: return "none (AVX2 and FMA are needed)";
  }
}

#ifndef GT_FLAVOUR
#define GT_FLAVOUR "cpu"
#endif
#ifndef GT_CUDA_ARCHS
#define GT_CUDA_ARCHS "none"
#endif

}  // namespace gt

extern "C" {

int32_t gt_abi_version(void) { return GT_ABI_VERSION; }

gt_status gt_abi_sizes(int64_t *tensor_bytes, int64_t *stream_bytes) {
  if (!tensor_bytes || !stream_bytes)
    return gt::fail(GT_INVALID_ARGUMENT, "abi_sizes: an output pointer is NULL, expected two");
  *tensor_bytes = sizeof(gt_tensor);
  *stream_bytes = sizeof(gt_stream);
  return GT_OK;
}

const char *gt_last_error(void) { return gt::last_error_text(); }

const char *gt_build_info(void) {
  static const struct Text {
    char s[200];
    Text() {
      snprintf(s, sizeof s, "flavour %s, cpu %s, cuda archs %s, compiled by %s", GT_FLAVOUR,
               gt::isa_name(gt::cpu_isa()), GT_CUDA_ARCHS,
#if defined(__clang__)
               "clang " __clang_version__
#else
               "gcc " __VERSION__
#endif
      );
    }
  } text;
  return text.s;
}

}  // extern "C"
