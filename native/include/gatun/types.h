/* The ABI that every op shares: status codes, dtypes, streams, tensors, and how a caller asks what went wrong.
 *
 * Rules: strict C11; every op returns a gt_status and nothing prints, exits, aborts or throws; a bad argument is an
 * error, never a crash. An op neither allocates nor synchronises. Shapes use one alphabet: B batch, T query length,
 * S key length, H heads, G key/value heads, D head dim, C channels, F ffn width, V vocabulary, N rows, P page size. */
#ifndef GATUN_TYPES_H
#define GATUN_TYPES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GT_API __attribute__((visibility("default")))
#else
#define GT_API
#endif

/* Raised whenever a struct, an enum value or a signature changes. The loader refuses any other number. */
#define GT_ABI_VERSION 3

#define GT_MAX_RANK 5

typedef int32_t gt_status;
enum {
  GT_OK = 0,
  GT_INVALID_ARGUMENT = 1, /* a shape, dtype, stride, pointer or scalar is wrong: gt_last_error() names it */
  GT_UNSUPPORTED = 2,      /* valid, but this build or device has no kernel for it */
  GT_OUT_OF_MEMORY = 3,
  GT_DEVICE_ERROR = 4,     /* the device or its driver reported a fault */
  GT_INTERNAL = 5
};

typedef int32_t gt_dtype;
enum {
  GT_F32 = 1,
  GT_BF16 = 2,
  GT_F16 = 3,
  /* 4..15 are kept for 8-bit floats, 16.. are integers, 32.. will be block formats */
  GT_F8_E4M3 = 4, /* OCP OFP8 E4M3: 4 bits of exponent, 3 of mantissa, up to 448, no infinity: gatun/fp8.h */
  GT_I32 = 16,
  GT_I64 = 17,
  GT_U8 = 18
};

typedef int32_t gt_device_kind;
enum { GT_CPU = 1, GT_CUDA = 2 };

/* An activation that an op applies to its result before it is stored. */
typedef int32_t gt_activation;
enum {
  GT_ACTIVATION_NONE = 0,
  GT_ACTIVATION_SILU = 1, /* x * sigmoid(x) */
  GT_ACTIVATION_RELU = 2,
  GT_ACTIVATION_TANH = 3
};

/* Where and in which order work runs. */
typedef struct gt_stream {
  gt_device_kind device;
  int32_t ordinal;     /* device number, 0 for the CPU */
  void *handle;        /* cudaStream_t; NULL for the CPU, where an op has finished when it returns */
  int32_t num_threads; /* CPU threads an op may use, >= 1; results do not depend on it */
  int32_t reserved;    /* 0 */
} gt_stream;

/* A strided view of device memory. Strides count elements. Dimensions beyond rank are ignored. */
typedef struct gt_tensor {
  void *data;
  gt_dtype dtype;
  int32_t rank; /* 0 .. GT_MAX_RANK */
  int64_t shape[GT_MAX_RANK];
  int64_t stride[GT_MAX_RANK];
} gt_tensor;

/* GT_ABI_VERSION of the library that was loaded. */
GT_API int32_t gt_abi_version(void);

/* sizeof(gt_tensor) and sizeof(gt_stream) as the library was compiled. Neither pointer may be NULL. */
GT_API gt_status gt_abi_sizes(int64_t *tensor_bytes, int64_t *stream_bytes);

/* What the last failing call on this thread found: op, operand, expected, actual. Never NULL; valid until the next
 * failing call on the same thread. */
GT_API const char *gt_last_error(void);

/* One line: flavour (cpu, cuda, soft), CPU instruction set in use, CUDA architectures, compiler. Never NULL. */
GT_API const char *gt_build_info(void);

#ifdef __cplusplus
}
#endif
#endif
