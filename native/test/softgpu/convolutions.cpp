// Does the stand-in for cuDNN convolve, forwards and backwards, and refuse what the real library refuses?
//
// The gradients are checked against the forward pass: it is linear in input and filter, so <conv(x, w), dy> = <x, dx> =
// <w, dw> for the input's and the filter's gradients.
#include <cmath>
#include <cstring>

#include "harness.h"
#include "softgpu/number.h"

using namespace harness;
using softgpu::Type;

namespace {

struct Problem {
  int num_spatial = 2;
  int n = 2, c = 4, k = 6, groups = 1;  // c, k: over all groups
  int in[3] = {5, 7, 4}, kernel[3] = {3, 2, 2}, padding[3] = {1, 1, 0}, stride[3] = {1, 2, 1}, dilation[3] = {1, 2, 1};
  int type = CUDNN_DATA_FLOAT, format = CUDNN_TENSOR_NCHW, mode = CUDNN_CROSS_CORRELATION, math = CUDNN_FMA_MATH;
};

Type type_of(int data_type) {
  return data_type == CUDNN_DATA_FLOAT ? Type::F32 : data_type == CUDNN_DATA_HALF ? Type::F16 : Type::BF16;
}

// A tensor of up to five dimensions in memory order NC... or N...C.
struct Data {
  std::vector<int> dims, strides;
  Type type;
  void *data = nullptr;
  int64_t count = 1;

  Data() = default;
  Data(std::vector<int> d, int format, Type t, int seed) : dims(std::move(d)), strides(dims.size()), type(t) {
    const int num_dims = static_cast<int>(dims.size());
    std::vector<int> order;  // from the innermost
    if (format == CUDNN_TENSOR_NHWC) order.push_back(1);
    for (int i = num_dims - 1; i > (format == CUDNN_TENSOR_NHWC ? 1 : 0); --i) order.push_back(i);
    order.push_back(0);
    for (const int i : order) {
      strides[i] = static_cast<int>(count);
      count *= dims[i];
    }
    EXPECT_EQUAL(0, cudaMalloc(&data, static_cast<size_t>(count * bytes_of(type))));
    for (int64_t i = 0; seed && i < count; ++i) set(i, std::sin(static_cast<float>(seed + i) * 0.9f));
  }
  float get(int64_t i) const { return load(type, static_cast<const char *>(data) + i * bytes_of(type)); }
  void set(int64_t i, float x) const { store(type, static_cast<char *>(data) + i * bytes_of(type), x); }
  float at(const std::vector<int> &index) const {
    int64_t i = 0;
    for (size_t a = 0; a < dims.size(); ++a) i += int64_t{index[a]} * strides[a];
    return get(i);
  }
  static double dot(const Data &a, const Data &b) {
    double sum = 0;
    for (int64_t i = 0; i < a.count; ++i) sum += static_cast<double>(a.get(i)) * b.get(i);
    return sum;
  }
};

class Run {
 public:
  explicit Run(const Problem &problem) : p(problem) {
    EXPECT_EQUAL(0, cudnnCreate(&handle));
    EXPECT_EQUAL(0, cudnnSetStream(handle, stream = new_stream()));
    EXPECT_EQUAL(0, cudnnCreateTensorDescriptor(&x_desc));
    EXPECT_EQUAL(0, cudnnCreateTensorDescriptor(&y_desc));
    EXPECT_EQUAL(0, cudnnCreateTensorDescriptor(&bias_desc));
    EXPECT_EQUAL(0, cudnnCreateFilterDescriptor(&w_desc));
    EXPECT_EQUAL(0, cudnnCreateConvolutionDescriptor(&desc));
    const int num_dims = p.num_spatial + 2;
    std::vector<int> x_dims = {p.n, p.c}, w_dims = {p.k, p.c / p.groups}, y_dims(static_cast<size_t>(num_dims));
    x_dims.insert(x_dims.end(), p.in, p.in + p.num_spatial);
    w_dims.insert(w_dims.end(), p.kernel, p.kernel + p.num_spatial);
    const Type type = type_of(p.type);
    x = Data(x_dims, p.format, type, 1);
    w = Data(w_dims, p.format, type, 500);
    EXPECT_EQUAL(0, cudnnSetTensorNdDescriptor(x_desc, p.type, num_dims, x.dims.data(), x.strides.data()));
    EXPECT_EQUAL(0, cudnnSetFilterNdDescriptor(w_desc, p.type, p.format, num_dims, w.dims.data()));
    EXPECT_EQUAL(0, cudnnSetConvolutionNdDescriptor(desc, p.num_spatial, p.padding, p.stride, p.dilation, p.mode,
                                                    CUDNN_DATA_FLOAT));
    EXPECT_EQUAL(0, cudnnSetConvolutionGroupCount(desc, p.groups));
    EXPECT_EQUAL(0, cudnnSetConvolutionMathType(desc, p.math));
    EXPECT_EQUAL(0, cudnnGetConvolutionNdForwardOutputDim(desc, x_desc, w_desc, num_dims, y_dims.data()));
    y = Data(y_dims, p.format, type, 0);
    EXPECT_EQUAL(0, cudnnSetTensorNdDescriptor(y_desc, p.type, num_dims, y.dims.data(), y.strides.data()));
    EXPECT_EQUAL(0, cudaMalloc(&workspace, WORKSPACE_BYTES));
  }
  ~Run() {
    for (void *tensor : {x_desc, y_desc, bias_desc}) cudnnDestroyTensorDescriptor(tensor);
    cudnnDestroyFilterDescriptor(w_desc);
    cudnnDestroyConvolutionDescriptor(desc);
    cudnnDestroy(handle);
  }

  int forward(int algorithm, float alpha = 1, float beta = 0) {
    return cudnnConvolutionForward(handle, &alpha, x_desc, x.data, w_desc, w.data, desc, algorithm, workspace,
                                   WORKSPACE_BYTES, &beta, y_desc, y.data);
  }
  int backward_data(int algorithm, const Data &dy, const Data &dx) {
    return cudnnConvolutionBackwardData(handle, &ONE, w_desc, w.data, y_desc, dy.data, desc, algorithm, workspace,
                                        WORKSPACE_BYTES, &ZERO, x_desc, dx.data);
  }
  int backward_filter(int algorithm, const Data &dy, const Data &dw) {
    return cudnnConvolutionBackwardFilter(handle, &ONE, x_desc, x.data, y_desc, dy.data, desc, algorithm, workspace,
                                          WORKSPACE_BYTES, &ZERO, w_desc, dw.data);
  }
  void wait() { EXPECT_EQUAL(0, cudaStreamSynchronize(stream)); }

  // The definition, in double.
  double expected(int n, int k, const int *out) const {
    const int group = k / (p.k / p.groups), num_channels = p.c / p.groups;
    double sum = 0;
    int tap[3] = {};
    const int kernel[3] = {p.kernel[0], p.kernel[1], p.num_spatial == 3 ? p.kernel[2] : 1};
    for (int c = 0; c < num_channels; ++c)
      for (tap[0] = 0; tap[0] < kernel[0]; ++tap[0])
        for (tap[1] = 0; tap[1] < kernel[1]; ++tap[1])
          for (tap[2] = 0; tap[2] < kernel[2]; ++tap[2]) {
            std::vector<int> xi = {n, group * num_channels + c}, wi = {k, c};
            bool inside = true;
            for (int a = 0; a < p.num_spatial; ++a) {
              const int at = out[a] * p.stride[a] + tap[a] * p.dilation[a] - p.padding[a];
              inside &= at >= 0 && at < p.in[a];
              xi.push_back(at);
              wi.push_back(p.mode == CUDNN_CONVOLUTION ? kernel[a] - 1 - tap[a] : tap[a]);
            }
            if (inside) sum += static_cast<double>(x.at(xi)) * w.at(wi);
          }
    return sum;
  }
  double worst_error(float alpha = 1) const {
    const double unit = x.type == Type::F32 ? 1e-6 : x.type == Type::BF16 ? 1.0 / 256 : 1.0 / 2048;
    double worst = 0;
    int out[3] = {};
    for (int n = 0; n < p.n; ++n)
      for (int k = 0; k < p.k; ++k)
        for (out[0] = 0; out[0] < y.dims[2]; ++out[0])
          for (out[1] = 0; out[1] < y.dims[3]; ++out[1])
            for (out[2] = 0; out[2] < (p.num_spatial == 3 ? y.dims[4] : 1); ++out[2]) {
              std::vector<int> yi = {n, k};
              yi.insert(yi.end(), out, out + p.num_spatial);
              const double truth = alpha * expected(n, k, out);
              worst = std::fmax(worst, std::fabs(y.at(yi) - truth) / (unit * std::fabs(truth) + 3e-6));
              if (std::isnan(y.at(yi))) return INFINITY;
            }
    return worst;
  }

  static constexpr size_t WORKSPACE_BYTES = 1 << 16;
  static constexpr float ONE = 1, ZERO = 0;
  Problem p;
  void *handle = nullptr, *stream = nullptr, *x_desc = nullptr, *y_desc = nullptr, *bias_desc = nullptr,
       *w_desc = nullptr, *desc = nullptr, *workspace = nullptr;
  Data x, w, y;
};

std::vector<Problem> problems() {
  std::vector<Problem> all;
  for (const int type : {CUDNN_DATA_FLOAT, CUDNN_DATA_BFLOAT16, CUDNN_DATA_HALF})
    for (const int format : {CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC})
      for (const int num_spatial : {2, 3})
        for (const int groups : {1, 2}) {
          Problem p;
          p.type = type;
          p.format = format;
          p.num_spatial = num_spatial;
          p.groups = groups;
          p.mode = groups == 1 && num_spatial == 3 ? CUDNN_CONVOLUTION : CUDNN_CROSS_CORRELATION;
          all.push_back(p);
        }
  Problem one_dimensional;
  one_dimensional.in[0] = one_dimensional.kernel[0] = 1;
  one_dimensional.padding[0] = 0;
  all.push_back(one_dimensional);
  return all;
}

}  // namespace

TEST(convolutions_forward) {
  for (const Problem &p : problems()) {
    softgpu_reset();
    Run run(p);
    EXPECT_EQUAL(0, run.forward(0));
    EXPECT(std::isnan(run.y.get(0)));  // late
    run.wait();
    EXPECT(run.worst_error() <= 1.5);
    EXPECT_EQUAL(0, run.forward(1, 2, -1));  // 2 y - y
    run.wait();
    EXPECT(run.worst_error() <= 3);
  }
}

TEST(convolutions_gradients) {
  for (const Problem &p : problems()) {
    if (p.type != CUDNN_DATA_FLOAT) continue;
    softgpu_reset();
    Run run(p);
    const Data dy(run.y.dims, p.format, Type::F32, 900), dx(run.x.dims, p.format, Type::F32, 0),
        dw(run.w.dims, p.format, Type::F32, 0), db({1, p.k, 1, 1, 1}, 0, Type::F32, 0);
    EXPECT_EQUAL(0, run.forward(0));
    EXPECT_EQUAL(0, run.backward_data(1, dy, dx));
    EXPECT_EQUAL(0, run.backward_filter(1, dy, dw));
    EXPECT_EQUAL(
        0, cudnnSetTensorNdDescriptor(run.bias_desc, p.type, p.num_spatial + 2, db.dims.data(), db.strides.data()));
    EXPECT_EQUAL(0, cudnnConvolutionBackwardBias(run.handle, &Run::ONE, run.y_desc, dy.data, &Run::ZERO, run.bias_desc,
                                                 db.data));
    run.wait();
    const double truth = Data::dot(run.y, dy), room = 1e-4 * (1 + std::fabs(truth));
    EXPECT(std::fabs(Data::dot(run.x, dx) - truth) < room);
    EXPECT(std::fabs(Data::dot(run.w, dw) - truth) < room);
    double sum = 0, bias = 0;
    for (int64_t i = 0; i < dy.count; ++i) sum += dy.get(i);
    for (int k = 0; k < p.k; ++k) bias += db.get(k);
    EXPECT(std::fabs(sum - bias) < 1e-4);
  }
}

TEST(convolutions_an_image_has_the_same_bits_in_any_batch) {
  Problem p;
  Run two(p);
  p.n = 1;
  Run one(p);
  EXPECT_EQUAL(0, two.forward(0));
  EXPECT_EQUAL(0, one.forward(0));
  EXPECT_EQUAL(0, cudaDeviceSynchronize());
  EXPECT(!memcmp(two.y.data, one.y.data, static_cast<size_t>(one.y.count) * 4));
}

TEST(convolutions_default_math_is_tf32) {
  Problem p;
  Run exact(p);
  p.math = CUDNN_DEFAULT_MATH;
  Run rounded(p);
  EXPECT_EQUAL(0, exact.forward(0));
  EXPECT_EQUAL(0, rounded.forward(0));
  EXPECT_EQUAL(0, cudaDeviceSynchronize());
  EXPECT(exact.worst_error() <= 1.5 && rounded.worst_error() > 10 && rounded.worst_error() < 3000);
}

TEST(convolutions_algorithms) {
  Problem p;
  p.n = 8;
  Run run(p);
  cudnnAlgoPerf results[8];
  int returned = 0;
  size_t bytes = 0;
  EXPECT_EQUAL(0, cudnnGetConvolutionForwardAlgorithm_v7(run.handle, run.x_desc, run.w_desc, run.desc, run.y_desc, 8,
                                                         &returned, results));
  EXPECT_EQUAL(2, returned);
  EXPECT(results[0].memory > 0 && results[1].memory == 0);
  EXPECT_EQUAL(0, cudnnGetConvolutionForwardWorkspaceSize(run.handle, run.x_desc, run.w_desc, run.desc, run.y_desc,
                                                          results[0].algo, &bytes));
  EXPECT_EQUAL(results[0].memory, bytes);
  EXPECT_EQUAL(CUDNN_STATUS_NOT_SUPPORTED, run.forward(6));
  EXPECT_EQUAL(CUDNN_STATUS_BAD_PARAM,
               cudnnConvolutionForward(run.handle, &Run::ONE, run.x_desc, run.x.data, run.w_desc, run.w.data, run.desc,
                                       results[0].algo, nullptr, 0, &Run::ZERO, run.y_desc, run.y.data));
  EXPECT_FAULT("workspace");
  char text[100] = "";
  cudnnGetLastErrorString(text, sizeof text);
  EXPECT(strstr(text, "workspace"));

  // An algorithm that says so does not repeat its bits; the other does.
  EXPECT_EQUAL(0, cudnnGetConvolutionBackwardFilterAlgorithm_v7(run.handle, run.x_desc, run.y_desc, run.desc,
                                                                run.w_desc, 2, &returned, results));
  EXPECT_EQUAL(2, returned);
  EXPECT(!results[0].determinism && results[1].determinism);
  const Data dy(run.y.dims, p.format, Type::F32, 900);
  for (const bool is_deterministic : {false, true}) {
    const Data first(run.w.dims, p.format, Type::F32, 0), second(run.w.dims, p.format, Type::F32, 0);
    EXPECT_EQUAL(0, run.backward_filter(results[is_deterministic].algo, dy, first));
    EXPECT_EQUAL(0, run.backward_filter(results[is_deterministic].algo, dy, second));
    run.wait();
    EXPECT_EQUAL(is_deterministic, !memcmp(first.data, second.data, static_cast<size_t>(first.count) * 4));
  }
}

TEST(convolutions_that_do_not_fit_are_refused) {
  Run run(Problem{});
  const int three[3] = {1, 1, 1}, dims[4] = {2, 4, 5, 7}, strides[4] = {140, 35, 7, 1}, wrong[4] = {2, 6, 9, 9};
  EXPECT_EQUAL(CUDNN_STATUS_NOT_SUPPORTED,
               cudnnSetTensorNdDescriptor(run.bias_desc, CUDNN_DATA_FLOAT, 3, three, three));
  EXPECT_EQUAL(CUDNN_STATUS_NOT_SUPPORTED, cudnnSetTensorNdDescriptor(run.bias_desc, 1, 4, dims, strides));
  EXPECT_EQUAL(CUDNN_STATUS_BAD_PARAM, cudnnSetConvolutionGroupCount(run.desc, 0));
  EXPECT_EQUAL(0, cudnnSetTensorNdDescriptor(run.y_desc, CUDNN_DATA_FLOAT, 4, wrong, strides));
  EXPECT_EQUAL(CUDNN_STATUS_BAD_PARAM, run.forward(0));
  EXPECT_FAULT("size that the convolution gives");
  EXPECT_EQUAL(0, cudnnSetTensorNdDescriptor(run.x_desc, CUDNN_DATA_HALF, 4, dims, strides));
  EXPECT_EQUAL(CUDNN_STATUS_NOT_SUPPORTED, run.forward(0));
  Problem p;
  Run last(p);
  EXPECT_EQUAL(0, cudnnSetFilterNdDescriptor(last.w_desc, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NHWC, 4, last.w.dims.data()));
  EXPECT_EQUAL(CUDNN_STATUS_NOT_SUPPORTED, last.forward(0));
  EXPECT(!strcmp("CUDNN_STATUS_NOT_SUPPORTED", cudnnGetErrorString(CUDNN_STATUS_NOT_SUPPORTED)));
}

TEST(convolutions_operands_are_looked_at_when_they_run) {
  Run run(Problem{});
  EXPECT_EQUAL(0, cudaFree(run.x.data));
  EXPECT_EQUAL(0, run.forward(0));
  EXPECT_EQUAL(cudaErrorIllegalAddress, cudaStreamSynchronize(run.stream));
  EXPECT_FAULT("cuDNN: input");
  EXPECT_EQUAL(5000, run.forward(0));
}
