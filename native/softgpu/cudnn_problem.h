// What do cuDNN's descriptors hold, and which convolutions follow from them?
//
// Like the real library the stand-in takes descriptors of 4 and 5 dimensions only (a 1-d convolution is a 2-d one of
// height 1), and rounds f32 to TF32 unless the descriptor says CUDNN_FMA_MATH.
#pragma once

#include <string>

#include "convolution.h"

namespace softgpu::dnn {

enum Status : int {  // cudnnStatus_t
  SUCCESS = 0,
  NOT_INITIALIZED = 1001,
  BAD_PARAM = 2000,
  NOT_SUPPORTED = 3000,
  EXECUTION_FAILED = 5000,
};
enum { DATA_FLOAT = 0, DATA_HALF = 2, DATA_BFLOAT16 = 9 };  // cudnnDataType_t
enum { FORMAT_NCHW = 0, FORMAT_NHWC = 1 };
enum { CONVOLUTION = 0, CROSS_CORRELATION = 1 };
enum { DEFAULT_MATH = 0, FMA_MATH = 3 };
constexpr int MIN_DIMS = 4, MAX_DIMS = 5;

struct Tensor {
  int data_type = -1, num_dims = 0;
  int dims[MAX_DIMS] = {}, strides[MAX_DIMS] = {};
};

struct Filter {
  int data_type = -1, format = FORMAT_NCHW, num_dims = 0;
  int dims[MAX_DIMS] = {};
};

struct Descriptor {  // cudnnConvolutionDescriptor_t
  int num_dims = 0;  // spatial
  int padding[3] = {}, stride[3] = {}, dilation[3] = {};
  int mode = CROSS_CORRELATION, compute_type = -1, groups = 1, math = DEFAULT_MATH;
};

// Notes why, for softgpu_last_fault and cudnnGetLastErrorString; returns the status.
int refuse(int status, const std::string &why);
const std::string &last_error();  // of this thread

bool type_of(int data_type, Type &type);

// The last three of values[from .. num_dims); missing ones are `missing`.
Extent extent_of(const int *values, int from, int num_dims, int64_t missing);

Image image_of(const Tensor &tensor, Type type, void *data);

int output_size(const Descriptor &d, int axis, int in, int kernel);

// The problem that descriptors describe, without addresses, or a status.
int read_problem(const Tensor *x, const Filter *w, const Descriptor *d, const Tensor *y, Convolution &conv);

}  // namespace softgpu::dnn
