// Which problems does the stand-in for cuDNN accept?
#include "cudnn_problem.h"

#include "gpu.h"

namespace softgpu::dnn {

static thread_local std::string last_refusal;

const std::string &last_error() { return last_refusal; }

int refuse(int status, const std::string &why) {
  last_refusal = why;
  explain("cuDNN: " + why);
  return status;
}

bool type_of(int data_type, Type &type) {
  switch (data_type) {
    case DATA_FLOAT: type = Type::F32; return true;
    case DATA_HALF: type = Type::F16; return true;
    case DATA_BFLOAT16: type = Type::BF16; return true;
    default: return false;
  }
}

Extent extent_of(const int *values, int from, int num_dims, int64_t missing) {
  const int count = num_dims - from;
  return {count > 2 ? values[num_dims - 3] : missing, count > 1 ? values[num_dims - 2] : missing, values[num_dims - 1]};
}

Image image_of(const Tensor &tensor, Type type, void *data) {
  return {data, type, tensor.strides[0], tensor.strides[1], extent_of(tensor.strides, 2, tensor.num_dims, 0)};
}

static Image image_of(const Filter &filter, Type type, void *data) {
  const int64_t c = filter.dims[1];
  const Extent size = extent_of(filter.dims, 2, filter.num_dims, 1);
  const int64_t volume = size.d * size.h * size.w;
  if (filter.format == FORMAT_NHWC) return {data, type, volume * c, 1, {size.h * size.w * c, size.w * c, c}};
  return {data, type, volume * c, volume, {size.h * size.w, size.w, 1}};
}

static bool is_channels_last(const Tensor &tensor) {
  int64_t expected = 1;
  if (tensor.dims[1] > 1 && tensor.strides[1] != 1) return false;
  expected = tensor.dims[1];
  for (int i = tensor.num_dims - 1; i >= 2; --i) {
    if (tensor.dims[i] > 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.dims[i];
  }
  return tensor.dims[0] == 1 || tensor.strides[0] == expected;
}

int output_size(const Descriptor &d, int axis, int in, int kernel) {
  return 1 + (in + 2 * d.padding[axis] - ((kernel - 1) * d.dilation[axis] + 1)) / d.stride[axis];
}

int read_problem(const Tensor *x, const Filter *w, const Descriptor *d, const Tensor *y, Convolution &conv) {
  if (!x || !w || !d || !y) return refuse(BAD_PARAM, "a descriptor is NULL");
  if (x->num_dims == 0 || w->num_dims == 0 || d->num_dims == 0 || y->num_dims == 0)
    return refuse(BAD_PARAM, "a descriptor has not been set");
  if (x->num_dims != w->num_dims || x->num_dims != y->num_dims || d->num_dims != x->num_dims - 2)
    return refuse(BAD_PARAM, "the descriptors differ in their number of dimensions");
  Type type;
  if (!type_of(x->data_type, type) || w->data_type != x->data_type || y->data_type != x->data_type)
    return refuse(NOT_SUPPORTED, "input, filter and output have one type: f32, f16 or bf16");
  if (d->compute_type != DATA_FLOAT) return refuse(NOT_SUPPORTED, "the compute type is not CUDNN_DATA_FLOAT");
  if (w->format == FORMAT_NHWC && (!is_channels_last(*x) || !is_channels_last(*y)))
    return refuse(NOT_SUPPORTED, "a filter in NHWC needs input and output in NHWC");
  if (x->dims[1] != w->dims[1] * d->groups || w->dims[0] % d->groups || y->dims[1] != w->dims[0] ||
      y->dims[0] != x->dims[0])
    return refuse(BAD_PARAM, "the channels, groups or batch sizes of input, filter and output do not fit");
  for (int i = 0; i < d->num_dims; ++i)
    if (y->dims[2 + i] < 1 || y->dims[2 + i] != output_size(*d, i, x->dims[2 + i], w->dims[2 + i]))
      return refuse(BAD_PARAM, "the output does not have the size that the convolution gives");
  Geometry &g = conv.geometry;
  g.n = x->dims[0];
  g.groups = d->groups;
  g.c = w->dims[1];
  g.k = w->dims[0] / d->groups;
  g.in = extent_of(x->dims, 2, x->num_dims, 1);
  g.kernel = extent_of(w->dims, 2, w->num_dims, 1);
  g.out = extent_of(y->dims, 2, y->num_dims, 1);
  g.padding = extent_of(d->padding, 0, d->num_dims, 0);
  g.stride = extent_of(d->stride, 0, d->num_dims, 1);
  g.dilation = extent_of(d->dilation, 0, d->num_dims, 1);
  g.is_flipped = d->mode == CONVOLUTION;
  conv.x = image_of(*x, type, nullptr);
  conv.w = image_of(*w, type, nullptr);
  conv.y = image_of(*y, type, nullptr);
  conv.has_tf32 = d->math != FMA_MATH;
  conv.is_backwards = false;
  return SUCCESS;
}

}  // namespace softgpu::dnn
