// What does a convolution through the stand-in for cuDNN go through? The legacy API; cudnn_problem.h has the rules.
//
// Like the real library it offers algorithms whose sums come out in another order at each run beside those that repeat
// their bits, and says which is which.
#include <atomic>
#include <cstdio>
#include <cstring>

#include "cudnn_problem.h"
#include "gpu.h"

using namespace softgpu;
using namespace softgpu::dnn;

namespace {

struct Handle {
  void *stream = nullptr;
};

struct Performance {  // cudnnConvolution{Fwd,BwdData,BwdFilter}AlgoPerf_t
  int algorithm, status;
  float time;
  size_t workspace_bytes;
  int is_deterministic, math;
  int reserved[3];
};
static_assert(sizeof(Performance) == 48);

struct Algorithm {
  int number;
  bool is_deterministic, needs_workspace;
};
// Best first.
constexpr Algorithm FORWARD[] = {{1, true, true}, {0, true, false}};
constexpr Algorithm BACKWARD_DATA[] = {{0, false, false}, {1, true, true}};
constexpr Algorithm BACKWARD_FILTER[] = {{0, false, false}, {1, true, true}, {3, false, true}};

struct StatusText {
  int status;
  const char *name;
};
constexpr StatusText TEXTS[] = {
    {0, "CUDNN_STATUS_SUCCESS"},
    {1001, "CUDNN_STATUS_NOT_INITIALIZED"},
    {2000, "CUDNN_STATUS_BAD_PARAM"},
    {2002, "CUDNN_STATUS_BAD_PARAM_NULL_POINTER"},
    {3000, "CUDNN_STATUS_NOT_SUPPORTED"},
    {3007, "CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH"},
    {4000, "CUDNN_STATUS_INTERNAL_ERROR"},
    {4003, "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"},
    {4004, "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"},
    {5000, "CUDNN_STATUS_EXECUTION_FAILED"},
    {5003, "CUDNN_STATUS_EXECUTION_FAILED_CUDART"},
};

size_t workspace_of(const Algorithm &algorithm, const Convolution &conv) {
  const Geometry &g = conv.geometry;
  const int64_t filter = g.groups * g.k * g.c * g.kernel.d * g.kernel.h * g.kernel.w;
  return algorithm.needs_workspace ? static_cast<size_t>((filter * 4 + 255) / 256 * 256) : 0;
}

template <size_t N>
const Algorithm *find(const Algorithm (&algorithms)[N], int number) {
  for (const Algorithm &algorithm : algorithms)
    if (algorithm.number == number) return &algorithm;
  return nullptr;
}

template <size_t N>
int query(const Algorithm (&algorithms)[N], const Convolution &conv, const Descriptor &d, int requested, int *returned,
          Performance *results) {
  if (requested < 1 || !returned || !results) return refuse(BAD_PARAM, "no room for results");
  *returned = 0;
  for (const Algorithm &algorithm : algorithms)
    if (*returned < requested)
      results[(*returned)++] = {algorithm.number,           SUCCESS, -1.0f, workspace_of(algorithm, conv),
                                algorithm.is_deterministic, d.math,  {}};
  return SUCCESS;
}

template <size_t N>
int workspace_size(const Algorithm (&algorithms)[N], const Convolution &conv, int number, size_t *bytes) {
  const Algorithm *algorithm = find(algorithms, number);
  if (!bytes) return refuse(BAD_PARAM, "nowhere to put the size");
  if (!algorithm) return refuse(NOT_SUPPORTED, "the stand-in does not know this algorithm");
  *bytes = workspace_of(*algorithm, conv);
  return SUCCESS;
}

bool is_there(const Image &image, const Extent &size, int64_t n, int64_t c, const char *name, std::string &why) {
  const int64_t last = (n - 1) * image.n_stride + (c - 1) * image.c_stride + (size.d - 1) * image.stride.d +
                       (size.h - 1) * image.stride.h + (size.w - 1) * image.stride.w;
  return is_accessible(image.data, static_cast<size_t>((last + 1) * bytes_of(image.type)), name, why);
}

struct Workspace {
  void *data;
  size_t bytes;
};

template <size_t N>
int enqueue(const Handle *handle, const Algorithm (&algorithms)[N], int number, Convolution conv, const void *alpha,
            const void *beta, Workspace given, void (*compute)(const Convolution &)) {
  if (!handle) return NOT_INITIALIZED;
  const Algorithm *algorithm = find(algorithms, number);
  if (!algorithm) return refuse(NOT_SUPPORTED, "the stand-in does not know this algorithm");
  if (!alpha || !beta || !conv.x.data || !conv.w.data || !conv.y.data) return refuse(BAD_PARAM, "a pointer is NULL");
  const size_t needed = workspace_of(*algorithm, conv);
  if (given.bytes < needed || (needed && !given.data)) return refuse(BAD_PARAM, "the workspace is too small");
  memcpy(&conv.alpha, alpha, sizeof conv.alpha);
  memcpy(&conv.beta, beta, sizeof conv.beta);
  const bool is_deterministic = algorithm->is_deterministic;
  void *const workspace = given.data;
  const int code = enqueue_product(handle->stream, [=](std::string &why) -> int {
    const Geometry &g = conv.geometry;
    if (!is_there(conv.x, g.in, g.n, g.groups * g.c, "cuDNN: input", why) ||
        !is_there(conv.w, g.kernel, g.groups * g.k, g.c, "cuDNN: filter", why) ||
        !is_there(conv.y, g.out, g.n, g.groups * g.k, "cuDNN: output", why) ||
        !is_accessible(workspace, needed, "cuDNN: workspace", why))
      return ILLEGAL_ADDRESS;
    if (needed) memset(workspace, 0xff, needed);  // whoever else keeps something there shall notice
    static std::atomic<unsigned> runs{0};
    Convolution now = conv;
    now.is_backwards = !is_deterministic && runs++ % 2;
    compute(now);
    return OK;
  });
  return code
             ? refuse(EXECUTION_FAILED, "the stream does not take the convolution: cudaError_t " + std::to_string(code))
             : SUCCESS;
}

template <class T>
int create(T **out) {
  if (!out) return BAD_PARAM;
  *out = new T();
  add_to_counter(SOFTGPU_LIVE_DESCRIPTORS, 1);
  return SUCCESS;
}

template <class T>
int destroy(T *descriptor) {
  if (!descriptor) return SUCCESS;
  delete descriptor;
  add_to_counter(SOFTGPU_LIVE_DESCRIPTORS, -1);
  return SUCCESS;
}

bool all_at_least(const int *values, int count, int least) {
  for (int i = 0; i < count; ++i)
    if (values[i] < least) return false;
  return true;
}

}  // namespace

#define COUNT_USE(name) \
  if (const int status = count_use(Symbol::name)) return status

extern "C" {

SOFTGPU_API int cudnnCreate(Handle **handle) {
  COUNT_USE(cudnnCreate);
  if (!handle) return BAD_PARAM;
  if (!has_device()) return NOT_INITIALIZED;
  *handle = new Handle();
  add_to_counter(SOFTGPU_LIVE_HANDLES, 1);
  return SUCCESS;
}

SOFTGPU_API int cudnnDestroy(Handle *handle) {
  COUNT_USE(cudnnDestroy);
  if (!handle) return SUCCESS;
  delete handle;
  add_to_counter(SOFTGPU_LIVE_HANDLES, -1);
  return SUCCESS;
}

SOFTGPU_API int cudnnSetStream(Handle *handle, void *stream) {
  COUNT_USE(cudnnSetStream);
  if (!handle) return BAD_PARAM;
  handle->stream = stream;
  return SUCCESS;
}

SOFTGPU_API size_t cudnnGetVersion(void) {
  count_use(Symbol::cudnnGetVersion);
  return 92400;
}

SOFTGPU_API const char *cudnnGetErrorString(int status) {
  count_use(Symbol::cudnnGetErrorString);
  for (const StatusText &t : TEXTS)
    if (t.status == status) return t.name;
  return "CUDNN_UNKNOWN_STATUS";
}

SOFTGPU_API void cudnnGetLastErrorString(char *message, size_t max_bytes) {
  count_use(Symbol::cudnnGetLastErrorString);
  if (message && max_bytes) snprintf(message, max_bytes, "%s", last_error().c_str());
}

SOFTGPU_API int cudnnCreateTensorDescriptor(Tensor **out) {
  COUNT_USE(cudnnCreateTensorDescriptor);
  return create(out);
}

SOFTGPU_API int cudnnSetTensorNdDescriptor(Tensor *tensor, int data_type, int num_dims, const int *dims,
                                           const int *strides) {
  COUNT_USE(cudnnSetTensorNdDescriptor);
  if (!tensor || !dims || !strides) return refuse(BAD_PARAM, "cudnnSetTensorNdDescriptor: a pointer is NULL");
  Type type;
  if (num_dims < MIN_DIMS || num_dims > MAX_DIMS || !type_of(data_type, type))
    return refuse(NOT_SUPPORTED, "cudnnSetTensorNdDescriptor: 4 or 5 dimensions of f32, f16 or bf16");
  if (!all_at_least(dims, num_dims, 1) || !all_at_least(strides, num_dims, 1))
    return refuse(BAD_PARAM, "cudnnSetTensorNdDescriptor: dimensions and strides are positive");
  *tensor = {};
  tensor->data_type = data_type;
  tensor->num_dims = num_dims;
  memcpy(tensor->dims, dims, sizeof(int) * static_cast<size_t>(num_dims));
  memcpy(tensor->strides, strides, sizeof(int) * static_cast<size_t>(num_dims));
  return SUCCESS;
}

SOFTGPU_API int cudnnDestroyTensorDescriptor(Tensor *tensor) {
  COUNT_USE(cudnnDestroyTensorDescriptor);
  return destroy(tensor);
}

SOFTGPU_API int cudnnCreateFilterDescriptor(Filter **out) {
  COUNT_USE(cudnnCreateFilterDescriptor);
  return create(out);
}

SOFTGPU_API int cudnnSetFilterNdDescriptor(Filter *filter, int data_type, int format, int num_dims, const int *dims) {
  COUNT_USE(cudnnSetFilterNdDescriptor);
  if (!filter || !dims) return refuse(BAD_PARAM, "cudnnSetFilterNdDescriptor: a pointer is NULL");
  Type type;
  if (num_dims < MIN_DIMS || num_dims > MAX_DIMS || !type_of(data_type, type) || format < FORMAT_NCHW ||
      format > FORMAT_NHWC)
    return refuse(NOT_SUPPORTED, "cudnnSetFilterNdDescriptor: 4 or 5 dimensions of f32, f16 or bf16 in NCHW or NHWC");
  if (!all_at_least(dims, num_dims, 1)) return refuse(BAD_PARAM, "cudnnSetFilterNdDescriptor: dimensions are positive");
  *filter = {};
  filter->data_type = data_type;
  filter->format = format;
  filter->num_dims = num_dims;
  memcpy(filter->dims, dims, sizeof(int) * static_cast<size_t>(num_dims));
  return SUCCESS;
}

SOFTGPU_API int cudnnDestroyFilterDescriptor(Filter *filter) {
  COUNT_USE(cudnnDestroyFilterDescriptor);
  return destroy(filter);
}

SOFTGPU_API int cudnnCreateConvolutionDescriptor(Descriptor **out) {
  COUNT_USE(cudnnCreateConvolutionDescriptor);
  return create(out);
}

SOFTGPU_API int cudnnSetConvolutionNdDescriptor(Descriptor *d, int num_dims, const int *padding, const int *stride,
                                                const int *dilation, int mode, int compute_type) {
  COUNT_USE(cudnnSetConvolutionNdDescriptor);
  if (!d || !padding || !stride || !dilation)
    return refuse(BAD_PARAM, "cudnnSetConvolutionNdDescriptor: a pointer is NULL");
  if (num_dims < MIN_DIMS - 2 || num_dims > MAX_DIMS - 2)
    return refuse(NOT_SUPPORTED, "cudnnSetConvolutionNdDescriptor: 2 or 3 spatial dimensions");
  if (!all_at_least(padding, num_dims, 0) || !all_at_least(stride, num_dims, 1) ||
      !all_at_least(dilation, num_dims, 1) || mode < CONVOLUTION || mode > CROSS_CORRELATION)
    return refuse(BAD_PARAM, "cudnnSetConvolutionNdDescriptor: padding, stride, dilation or mode");
  const int groups = d->groups, math = d->math;
  *d = {};
  d->groups = groups;
  d->math = math;
  d->num_dims = num_dims;
  memcpy(d->padding, padding, sizeof(int) * static_cast<size_t>(num_dims));
  memcpy(d->stride, stride, sizeof(int) * static_cast<size_t>(num_dims));
  memcpy(d->dilation, dilation, sizeof(int) * static_cast<size_t>(num_dims));
  d->mode = mode;
  d->compute_type = compute_type;
  return SUCCESS;
}

SOFTGPU_API int cudnnSetConvolutionGroupCount(Descriptor *d, int groups) {
  COUNT_USE(cudnnSetConvolutionGroupCount);
  if (!d || groups < 1) return refuse(BAD_PARAM, "cudnnSetConvolutionGroupCount");
  d->groups = groups;
  return SUCCESS;
}

SOFTGPU_API int cudnnSetConvolutionMathType(Descriptor *d, int math) {
  COUNT_USE(cudnnSetConvolutionMathType);
  if (!d || math < DEFAULT_MATH || math > FMA_MATH) return refuse(BAD_PARAM, "cudnnSetConvolutionMathType");
  d->math = math;
  return SUCCESS;
}

SOFTGPU_API int cudnnDestroyConvolutionDescriptor(Descriptor *d) {
  COUNT_USE(cudnnDestroyConvolutionDescriptor);
  return destroy(d);
}

SOFTGPU_API int cudnnGetConvolutionNdForwardOutputDim(const Descriptor *d, const Tensor *x, const Filter *w,
                                                      int num_dims, int *dims) {
  COUNT_USE(cudnnGetConvolutionNdForwardOutputDim);
  if (!d || !x || !w || !dims) return refuse(BAD_PARAM, "cudnnGetConvolutionNdForwardOutputDim: a pointer is NULL");
  if (num_dims != x->num_dims || num_dims != w->num_dims || num_dims != d->num_dims + 2 ||
      x->dims[1] != w->dims[1] * d->groups)
    return refuse(BAD_PARAM, "cudnnGetConvolutionNdForwardOutputDim: the descriptors do not fit");
  dims[0] = x->dims[0];
  dims[1] = w->dims[0];
  for (int i = 0; i < d->num_dims; ++i) dims[2 + i] = output_size(*d, i, x->dims[2 + i], w->dims[2 + i]);
  return all_at_least(dims, num_dims, 1) ? SUCCESS : refuse(BAD_PARAM, "the filter is larger than the padded input");
}

SOFTGPU_API int cudnnGetConvolutionForwardAlgorithm_v7(const Handle *handle, const Tensor *x, const Filter *w,
                                                       const Descriptor *d, const Tensor *y, int requested,
                                                       int *returned, Performance *results) {
  COUNT_USE(cudnnGetConvolutionForwardAlgorithm_v7);
  if (!handle) return NOT_INITIALIZED;
  Convolution conv;
  if (const int status = read_problem(x, w, d, y, conv)) return status;
  return query(FORWARD, conv, *d, requested, returned, results);
}

SOFTGPU_API int cudnnGetConvolutionForwardWorkspaceSize(const Handle *handle, const Tensor *x, const Filter *w,
                                                        const Descriptor *d, const Tensor *y, int algorithm,
                                                        size_t *bytes) {
  COUNT_USE(cudnnGetConvolutionForwardWorkspaceSize);
  if (!handle) return NOT_INITIALIZED;
  Convolution conv;
  if (const int status = read_problem(x, w, d, y, conv)) return status;
  return workspace_size(FORWARD, conv, algorithm, bytes);
}

SOFTGPU_API int cudnnConvolutionForward(const Handle *handle, const void *alpha, const Tensor *x, const void *x_data,
                                        const Filter *w, const void *w_data, const Descriptor *d, int algorithm,
                                        void *workspace, size_t workspace_bytes, const void *beta, const Tensor *y,
                                        void *y_data) {
  COUNT_USE(cudnnConvolutionForward);
  Convolution conv;
  if (const int status = read_problem(x, w, d, y, conv)) return status;
  conv.x.data = const_cast<void *>(x_data);
  conv.w.data = const_cast<void *>(w_data);
  conv.y.data = y_data;
  return enqueue(handle, FORWARD, algorithm, conv, alpha, beta, {workspace, workspace_bytes}, convolve);
}

SOFTGPU_API int cudnnGetConvolutionBackwardDataAlgorithm_v7(const Handle *handle, const Filter *w, const Tensor *dy,
                                                            const Descriptor *d, const Tensor *dx, int requested,
                                                            int *returned, Performance *results) {
  COUNT_USE(cudnnGetConvolutionBackwardDataAlgorithm_v7);
  if (!handle) return NOT_INITIALIZED;
  Convolution conv;
  if (const int status = read_problem(dx, w, d, dy, conv)) return status;
  return query(BACKWARD_DATA, conv, *d, requested, returned, results);
}

SOFTGPU_API int cudnnGetConvolutionBackwardDataWorkspaceSize(const Handle *handle, const Filter *w, const Tensor *dy,
                                                             const Descriptor *d, const Tensor *dx, int algorithm,
                                                             size_t *bytes) {
  COUNT_USE(cudnnGetConvolutionBackwardDataWorkspaceSize);
  if (!handle) return NOT_INITIALIZED;
  Convolution conv;
  if (const int status = read_problem(dx, w, d, dy, conv)) return status;
  return workspace_size(BACKWARD_DATA, conv, algorithm, bytes);
}

SOFTGPU_API int cudnnConvolutionBackwardData(const Handle *handle, const void *alpha, const Filter *w,
                                             const void *w_data, const Tensor *dy, const void *dy_data,
                                             const Descriptor *d, int algorithm, void *workspace,
                                             size_t workspace_bytes, const void *beta, const Tensor *dx,
                                             void *dx_data) {
  COUNT_USE(cudnnConvolutionBackwardData);
  Convolution conv;
  if (const int status = read_problem(dx, w, d, dy, conv)) return status;
  conv.x.data = dx_data;
  conv.w.data = const_cast<void *>(w_data);
  conv.y.data = const_cast<void *>(dy_data);
  return enqueue(handle, BACKWARD_DATA, algorithm, conv, alpha, beta, {workspace, workspace_bytes},
                 convolve_backward_data);
}

SOFTGPU_API int cudnnGetConvolutionBackwardFilterAlgorithm_v7(const Handle *handle, const Tensor *x, const Tensor *dy,
                                                              const Descriptor *d, const Filter *dw, int requested,
                                                              int *returned, Performance *results) {
  COUNT_USE(cudnnGetConvolutionBackwardFilterAlgorithm_v7);
  if (!handle) return NOT_INITIALIZED;
  Convolution conv;
  if (const int status = read_problem(x, dw, d, dy, conv)) return status;
  return query(BACKWARD_FILTER, conv, *d, requested, returned, results);
}

SOFTGPU_API int cudnnGetConvolutionBackwardFilterWorkspaceSize(const Handle *handle, const Tensor *x, const Tensor *dy,
                                                               const Descriptor *d, const Filter *dw, int algorithm,
                                                               size_t *bytes) {
  COUNT_USE(cudnnGetConvolutionBackwardFilterWorkspaceSize);
  if (!handle) return NOT_INITIALIZED;
  Convolution conv;
  if (const int status = read_problem(x, dw, d, dy, conv)) return status;
  return workspace_size(BACKWARD_FILTER, conv, algorithm, bytes);
}

SOFTGPU_API int cudnnConvolutionBackwardFilter(const Handle *handle, const void *alpha, const Tensor *x,
                                               const void *x_data, const Tensor *dy, const void *dy_data,
                                               const Descriptor *d, int algorithm, void *workspace,
                                               size_t workspace_bytes, const void *beta, const Filter *dw,
                                               void *dw_data) {
  COUNT_USE(cudnnConvolutionBackwardFilter);
  Convolution conv;
  if (const int status = read_problem(x, dw, d, dy, conv)) return status;
  conv.x.data = const_cast<void *>(x_data);
  conv.w.data = dw_data;
  conv.y.data = const_cast<void *>(dy_data);
  return enqueue(handle, BACKWARD_FILTER, algorithm, conv, alpha, beta, {workspace, workspace_bytes},
                 convolve_backward_filter);
}

// db[c] = alpha * sum of dy[n, c, ...] + beta * db[c]
SOFTGPU_API int cudnnConvolutionBackwardBias(const Handle *handle, const void *alpha, const Tensor *dy,
                                             const void *dy_data, const void *beta, const Tensor *db, void *db_data) {
  COUNT_USE(cudnnConvolutionBackwardBias);
  if (!handle) return NOT_INITIALIZED;
  if (!alpha || !beta || !dy || !dy_data || !db || !db_data) return refuse(BAD_PARAM, "a pointer is NULL");
  Type type;
  if (!type_of(dy->data_type, type) || db->data_type != dy->data_type)
    return refuse(NOT_SUPPORTED, "dy and db have one type");
  bool is_vector = db->num_dims == dy->num_dims && db->dims[1] == dy->dims[1];
  for (int i = 0; i < db->num_dims; ++i) is_vector &= i == 1 || db->dims[i] == 1;
  if (!is_vector) return refuse(BAD_PARAM, "db is not [1, C, 1, ...] with dy's C");
  const Image from = image_of(*dy, type, const_cast<void *>(dy_data)), to = image_of(*db, type, db_data);
  const Extent size = extent_of(dy->dims, 2, dy->num_dims, 1);
  const int64_t n = dy->dims[0], c = dy->dims[1];
  float scale, keep;
  memcpy(&scale, alpha, sizeof scale);
  memcpy(&keep, beta, sizeof keep);
  const int code = enqueue_product(handle->stream, [=](std::string &why) -> int {
    if (!is_there(from, size, n, c, "cuDNN: dy", why) || !is_there(to, {1, 1, 1}, 1, c, "cuDNN: db", why))
      return ILLEGAL_ADDRESS;
    sum_channels(from, to, size, n, c, scale, keep);
    return OK;
  });
  return code ? refuse(EXECUTION_FAILED, "the stream does not take the sum: cudaError_t " + std::to_string(code))
              : SUCCESS;
}

}  // extern "C"
