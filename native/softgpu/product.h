// What does a matrix product compute, once cublasLt's descriptors have been read?
#pragma once

#include "number.h"

namespace softgpu {

// Element (row, column) of batch b is at data + (row * row_stride + column * column_stride + b * batch_stride)
// elements.
struct Matrix {
  void *data;
  Type type;
  int64_t row_stride, column_stride, batch_stride;
};

// D[m,n] = gelu(alpha * scale_a[m] * scale_b[n] * sum_k A[m,k] B[k,n] + beta * C[m,n] + bias[m])
struct Product {
  int64_t m, n, k, num_batches;
  Matrix a, b, c, d;
  float alpha, beta;  // beta 0: C is not read
  const void *bias;   // NULL: none
  Type bias_type;
  int64_t bias_batch_stride;
  const float *scale_a, *scale_b;  // NULL: 1; a vector, or a single element for all where scales_are_vectors is false
  bool scales_are_vectors;
  bool has_gelu;  // the tanh form
  bool has_tf32;  // A and B are rounded to TF32
  int split_k;    // the sum is made of this many parts, each summed on its own; 1: a single chain in ascending k
};

// An output's bits depend on its row of A, its column of B and split_k, not on m, n or the number of batches.
void multiply(const Product &product);

}  // namespace softgpu
