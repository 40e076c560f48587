// Sums in f64 over chunks of elements, the same for any number of threads.
#pragma once

#include "chunks.h"
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {

typedef double vd __attribute__((vector_size(VECTOR_BYTES)));
typedef float vf_half __attribute__((vector_size(VECTOR_BYTES / 2)));

// W sums in f64.
struct WideSum {
  vd low{}, high{};

  // The halves of v as doubles.
  GT_INLINE vd widen(vf v, int half) {
    vf_half part;
    memcpy(&part, reinterpret_cast<const char *>(&v) + half * sizeof part, sizeof part);
    return __builtin_convertvector(part, vd);
  }
  inline __attribute__((always_inline)) void add(vf v) {
    low += widen(v, 0);
    high += widen(v, 1);
  }
  inline __attribute__((always_inline)) void add_square(vf v) {
    const vd a = widen(v, 0), b = widen(v, 1);
    low += a * a;
    high += b * b;
  }
  inline __attribute__((always_inline)) double total() const {
    const vd both = low + high;
    double sum = 0;
    for (int i = 0; i < W / 2; ++i) sum += both[i];
    return sum;
  }
};

// The sum of f(begin, end) over the chunks of elements; cost of an element in the units of parallel_for. workspace: of
// workspace_bytes(chunks).
template <class F>
static inline double chunked_sum(const gt_stream *stream, const Chunks &chunks, int64_t cost, void *workspace,
                                 const F &f) {
  if (chunks.count == 1) return f(int64_t{0}, chunks.n);
  double *const sums = static_cast<double *>(workspace);
  parallel_for(stream, chunks.count, chunks.size * cost, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = c * chunks.size, beyond = first + chunks.size;
      sums[c] = f(first, beyond < chunks.n ? beyond : chunks.n);
    }
  });
  double total = 0;
  for (int64_t c = 0; c < chunks.count; ++c) total += sums[c];
  return total;
}

}  // namespace gt::GT_ISA
