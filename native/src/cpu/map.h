// How does a function of contiguous vectors become an op on operands with any strides?
//
// Runs along the dimension where the first operand is densest (cpu/strided.h); an operand that is not contiguous there
// passes through a buffer.
#pragma once

#include "cpu/row.h"
#include "cpu/strided.h"

namespace gt::GT_ISA {

constexpr int64_t CHEAP = 1, TRANSCENDENTAL = 16;  // cost of an element in the units of parallel_for

template <int BYTES>
static inline void copy_words(char *to, int64_t to_stride, const char *from, int64_t from_stride, int64_t n) {
  for (int64_t i = 0; i < n; ++i) memcpy(to + i * to_stride, from + i * from_stride, BYTES);
}

// n elements; strides in bytes.
static inline void copy_run(char *to, int64_t to_stride, const char *from, int64_t from_stride, int64_t bytes,
                            int64_t n) {
  if (to_stride == bytes && from_stride == bytes)
    memmove(to, from, static_cast<size_t>(n * bytes));
  else if (bytes == 8)
    copy_words<8>(to, to_stride, from, from_stride, n);
  else if (bytes == 4)
    copy_words<4>(to, to_stride, from, from_stride, n);
  else if (bytes == 2)
    copy_words<2>(to, to_stride, from, from_stride, n);
  else
    copy_words<1>(to, to_stride, from, from_stride, n);
}

// The run of operand t as contiguous memory: where it lies, or copied to buffer.
static inline const char *contiguous_run(const Loop &loop, int t, const char *data, int64_t n, char *buffer) {
  if (is_contiguous(loop, t)) return data;
  copy_run(buffer, loop.bytes[t], data, stride_in_run(loop, t), loop.bytes[t], n);
  return buffer;
}

// A run of n contiguous elements, n a multiple of W. data: outputs, then inputs, then the first input again in place of
// operands that the op does not have.
using Kernel = void (*)(char *const *data, int64_t n, float parameter);

// Any n: the last n % W elements go through zero-padded vectors, so that kernels need no second loop for them.
static inline void run_kernel(const Loop &loop, int num_outputs, Kernel kernel, char **data, int64_t n,
                              float parameter) {
  const int64_t whole = n / W * W, rest = n - whole;
  if (whole > 0) kernel(data, whole, parameter);
  if (rest == 0) return;
  char padded[MAX_OPERANDS][VECTOR_BYTES] = {}, *last[MAX_OPERANDS];
  for (int t = 0; t < MAX_OPERANDS; ++t) last[t] = padded[t < loop.num_operands ? t : num_outputs];
  for (int t = num_outputs; t < loop.num_operands; ++t)
    memcpy(padded[t], data[t] + whole * loop.bytes[t], static_cast<size_t>(rest * loop.bytes[t]));
  kernel(last, W, parameter);
  for (int t = 0; t < num_outputs; ++t)
    memcpy(data[t] + whole * loop.bytes[t], padded[t], static_cast<size_t>(rest * loop.bytes[t]));
}

// tensors: outputs, then at least one input. An output may be an input: kernels read a vector before they write it.
static inline void run(const gt_stream *stream, const gt_tensor *const *tensors, int num_outputs, int num_operands,
                       Kernel kernel, int64_t cost, float parameter) {
  const Loop loop = loop_over(tensors, num_operands);
  for_runs(stream, loop, cost, [&](char *const *data, int64_t n) {
    alignas(64) char buffer[MAX_OPERANDS][RUN * sizeof(float)];
    char *runs[MAX_OPERANDS] = {};
    for (int t = 0; t < num_operands; ++t) {
      if (t < num_outputs)
        runs[t] = is_contiguous(loop, t) ? data[t] : buffer[t];
      else
        runs[t] = const_cast<char *>(contiguous_run(loop, t, data[t], n, buffer[t]));
    }
    for (int t = num_operands; t < MAX_OPERANDS; ++t) runs[t] = runs[num_outputs];
    run_kernel(loop, num_outputs, kernel, runs, n, parameter);
    for (int t = 0; t < num_outputs; ++t)
      if (!is_contiguous(loop, t))
        copy_run(data[t], stride_in_run(loop, t), buffer[t], loop.bytes[t], loop.bytes[t], n);
  });
}

// One output and up to three inputs of one dtype, on vectors: F::of(a, b, c, parameter), the first input in place of
// those that there are not.
template <class T, class F>
void map_run(char *const *data, int64_t n, float parameter) {
  T *const y = reinterpret_cast<T *>(data[0]);
  const T *const a = reinterpret_cast<const T *>(data[1]);
  const T *const b = reinterpret_cast<const T *>(data[2]);
  const T *const c = reinterpret_cast<const T *>(data[3]);
  for (int64_t i = 0; i < n; i += W) store(y + i, F::of(load(a + i), load(b + i), load(c + i), parameter));
}

// tensors: y and one to three inputs.
template <class F, int OPERANDS>
gt_status map(const gt_stream *stream, const gt_tensor *const (&tensors)[OPERANDS], int64_t cost,
              float parameter = 0) {
  with_float(tensors[0]->dtype, [&](auto zero) {
    run(stream, tensors, 1, OPERANDS, map_run<decltype(zero), F>, cost, parameter);
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA
