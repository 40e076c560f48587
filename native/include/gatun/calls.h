/* A vendor's library on the threads of a CPU stream, where its results would depend on how many threads it has.
 *
 * The caller cuts the work into parts, whose number depends on the sizes alone, plans each part for one thread, and has
 * the parts called side by side. */
#ifndef GATUN_CALLS_H
#define GATUN_CALLS_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What each call runs, such as oneDNN's dnnl_primitive_execute: 0 is success. */
typedef int32_t (*gt_call)(const void *primitive, void *context, int32_t count, const void *arguments);

/* function(primitives[i], context, count, arguments[i]) for i = 0 .. n - 1, each once, in any order, several at a time.
 * OpenMP regions inside of a call run on its thread alone. The calls may not touch each other's results. CPU streams
 * only.
 * Errors: INVALID_ARGUMENT for a NULL, a negative n or a stream that is not of the CPU; INTERNAL with the first result
 * that is not 0, after all calls. Cost: that of the calls. */
GT_API gt_status gt_call_each(const gt_stream *stream, gt_call function, const void *const *primitives, void *context,
                              int32_t count, const void *const *arguments, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
