/* How does a test steer the stand-ins for CUDA, and what do they say they have done?
 *
 * Exported by the stand-in libcudart.so.13, beside NVIDIA's own names. Strict C11. Every function may be called from
 * any thread, none fails unless its comment says so, and none counts as a use of a CUDA symbol.
 *
 * The setters hold until softgpu_reset. GATUN_SOFTGPU_ORDER in the environment gives the first stream order. */
#ifndef GATUN_SOFTGPU_H
#define GATUN_SOFTGPU_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOFTGPU_API __attribute__((visibility("default")))

/* The machine */

/* Gives back all memory, streams, events and graphs, drops pending work, revives a lost device, clears faults, counters
 * and settings. Handles from before are invalid, addresses from before count as freed. Descriptors and handles of
 * cublasLt and cuDNN stay. Waits for work that is running on another thread. */
SOFTGPU_API void softgpu_reset(void);

/* Device memory of each device; 8 GiB at first. What is allocated already stays. */
SOFTGPU_API void softgpu_set_capacity(int64_t bytes);

/* 1 at first; 0: every call answers cudaErrorNoDevice. */
SOFTGPU_API void softgpu_set_device_count(int32_t count);

/* 9.0 at first. */
SOFTGPU_API void softgpu_set_compute_capability(int32_t major, int32_t minor);

/* 13000 at first. A driver older than 13.0 makes every call answer cudaErrorInsufficientDriver. */
SOFTGPU_API void softgpu_set_driver_version(int32_t version);

/* In which order do streams run that no event orders?
 *   0  lazily: only what a waiting host thread needs; among equals the stream created last comes first. The default
 *   1  everything else first: the stream created last, as far as it can go, before what the host waits for
 *   2  and up: any runnable stream, drawn from the seed */
SOFTGPU_API void softgpu_set_stream_order(int64_t seed);

/* 1: kernels, products, convolutions, copies and fills are counted and dropped, events and waits stay: what remains
 * is the cost on the host. 0: normal. */
SOFTGPU_API void softgpu_set_kernels_empty(int32_t empty);

/* Faults */

/* The nth use of a symbol from now (1 = the next) returns code, a cudaError_t, cublasStatus_t or cudnnStatus_t, and
 * does nothing else. The launch of a kernel of the soft libgatun is the symbol softgpu_enqueue. Of cudart, a code that
 * ends a context (700, 719, ...) loses the device. One fault per symbol at a time.
 * Returns 0, or 1: no such symbol, 2: nth < 1. */
SOFTGPU_API int32_t softgpu_fail(const char *symbol, int64_t nth_use, int32_t code);

/* The nth piece of work given to any stream from now (a kernel, product, convolution, copy, fill or whole graph) loses
 * the device with this cudaError_t when it runs, which is later. Returns 0, or 2: nth < 1. */
SOFTGPU_API int32_t softgpu_fail_work(int64_t nth, int32_t code);

/* Forgets faults that have not happened yet. */
SOFTGPU_API void softgpu_clear_faults(void);

/* What lost the device, else what the last refused call was: for a kernel block, thread, file and line, for a pointer
 * what it points at. Empty at first. Valid on the calling thread until its next call of this. */
SOFTGPU_API const char *softgpu_last_fault(void);

/* Looks at the red zones of all memory and for writes to freed memory (the first MiB of each freed block). Returns how
 * many blocks were damaged; mends them; softgpu_last_fault names the last one. Runs no pending work. When the host
 * waits and when memory is freed, red zones are looked at anyway, and damage loses the device with
 * cudaErrorIllegalAddress. */
SOFTGPU_API int32_t softgpu_check(void);

/* Counters */

enum {
  SOFTGPU_BYTES_H2D = 0,        /* copied to devices: pinned and pageable */
  SOFTGPU_BYTES_D2H = 1,        /* copied to the host: pinned and pageable */
  SOFTGPU_BYTES_D2D = 2,
  SOFTGPU_BYTES_PAGEABLE = 3,   /* those of the first two whose host side was not pinned */
  SOFTGPU_COPIES_H2D = 4,       /* how many */
  SOFTGPU_COPIES_D2H = 5,
  SOFTGPU_LIVE_ALLOCATIONS = 6, /* device memory, now */
  SOFTGPU_LIVE_BYTES = 7,
  SOFTGPU_PEAK_BYTES = 8,
  SOFTGPU_LIVE_PINNED = 9,      /* cudaHostAlloc, now */
  SOFTGPU_LIVE_PINNED_BYTES = 10,
  SOFTGPU_LIVE_STREAMS = 11,
  SOFTGPU_LIVE_EVENTS = 12,
  SOFTGPU_LIVE_GRAPHS = 13,
  SOFTGPU_LIVE_EXECS = 14,      /* cudaGraphExec_t */
  SOFTGPU_LIVE_HANDLES = 15,    /* cublasLt and cuDNN handles */
  SOFTGPU_LIVE_DESCRIPTORS = 16,
  SOFTGPU_LAUNCHES = 17,        /* kernels, products and convolutions given to a stream, not through a graph */
  SOFTGPU_GRAPH_LAUNCHES = 18,
  SOFTGPU_GRAPH_NODES = 19,     /* nodes in those graphs: kernels, copies and fills */
  SOFTGPU_RED_ZONE_HITS = 20,
  SOFTGPU_FREED_HITS = 21,      /* freed memory used as an operand, or written */
  SOFTGPU_NUM_COUNTERS = 22
};

/* A counter, or -1. What a stream was given counts at once, although it runs later; a captured copy counts at each
 * launch. */
SOFTGPU_API int64_t softgpu_counter(int32_t counter);

/* Sums and symbol uses become 0, the peak what is live. */
SOFTGPU_API void softgpu_clear_counters(void);

/* The exported CUDA symbols, and softgpu_enqueue: index 0 to softgpu_num_symbols() - 1. NULL and -1 outside. */
SOFTGPU_API int32_t softgpu_num_symbols(void);
SOFTGPU_API const char *softgpu_symbol_name(int32_t index);
SOFTGPU_API int64_t softgpu_symbol_calls(int32_t index);

#ifdef __cplusplus
}
#endif
#endif
