// Do kernels that are launched as those of the soft libgatun are go through the late streams, and do their faults
// arrive?
#include "harness.h"
#include "lib/cuda.h"

#include <cmath>

using namespace harness;

namespace {

__global__ void accumulate(float *x, const float *y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] += y ? y[i] : 1;
}

struct Operands {
  float *x;
  bool flag;  // followed by padding
  const float *y;
  int64_t n;
};
__global__ void accumulate_operands(Operands o) { o.x[threadIdx.x] += o.y[threadIdx.x]; }

__global__ void write_beyond(float *x, int n) { x[n + threadIdx.x] = 1; }

__global__ void write_to(float *const *table) { table[0][threadIdx.x] = 1; }

__global__ void diverge(float *x) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    x[0] = 1, __syncthreads();
}

template <class Kernel, class... Args>
int run(void *stream, Kernel kernel, Args... args) {
  return gt::launch(kernel, dim3(2), dim3(64), 0, stream, args...);
}

}  // namespace

TEST(kernels_run_late_and_in_graphs) {
  void *stream = new_stream(), *graph = nullptr, *exec = nullptr;
  float *x = device_floats(100);
  EXPECT_EQUAL(0, cudaMemsetAsync(x, 0, 400, stream));
  EXPECT_EQUAL(0, run(stream, accumulate, x, nullptr, 100));
  EXPECT(std::isnan(x[0]));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(x[0] == 1 && x[99] == 1);
  EXPECT_EQUAL(0, cudaStreamBeginCapture(stream, 1));
  EXPECT_EQUAL(0, run(stream, accumulate, x, static_cast<const float *>(x), 100));
  EXPECT_EQUAL(0, run(stream, accumulate_operands, Operands{x, true, x, 100}));
  EXPECT_EQUAL(0, cudaStreamEndCapture(stream, &graph));
  EXPECT_EQUAL(0, cudaGraphInstantiate(&exec, graph, 0));
  for (int i = 0; i < 3; ++i) EXPECT_EQUAL(0, cudaGraphLaunch(exec, stream));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(x[70] == 8);
  EXPECT(x[0] == 512);  // the second kernel's two blocks both take the first 64
  EXPECT_EQUAL(1, counter(SOFTGPU_LAUNCHES));
}

TEST(kernels_bad_configurations_are_refused_at_once) {
  void *stream = new_stream();
  float *x = device_floats(100);
  EXPECT_EQUAL(cudaErrorInvalidConfiguration, gt::launch(accumulate, dim3(0), dim3(64), 0, stream, x, nullptr, 100));
  EXPECT_EQUAL(cudaErrorInvalidConfiguration, gt::launch(accumulate, dim3(1), dim3(2048), 0, stream, x, nullptr, 100));
  EXPECT_EQUAL(cudaErrorInvalidConfiguration,
               gt::launch(accumulate, dim3(1, 65536), dim3(64), 0, stream, x, nullptr, 100));
  EXPECT_EQUAL(cudaErrorInvalidConfiguration,
               gt::launch(accumulate, dim3(1), dim3(64), 300 << 10, stream, x, nullptr, 100));
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, gt::launch(accumulate, dim3(1), dim3(64), 0, &stream, x, nullptr, 100));
  EXPECT_EQUAL(0, counter(SOFTGPU_LAUNCHES));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
}

TEST(kernels_faults_of_execution_lose_the_device) {
  void *stream = new_stream();
  float *x = device_floats(100);
  EXPECT_EQUAL(0, run(stream, diverge, x));
  EXPECT_EQUAL(0, run(stream, accumulate, x, nullptr, 100));
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaStreamSynchronize(stream));
  EXPECT_FAULT("divergent barrier");
  EXPECT_FAULT("kernels.cu:");
  EXPECT_FAULT("thread (");
  EXPECT_EQUAL(cudaErrorLaunchFailure, run(stream, accumulate, x, nullptr, 100));
}

TEST(kernels_that_write_out_of_bounds_are_found) {
  void *stream = new_stream();
  float *x = device_floats(100);
  EXPECT_EQUAL(0, run(stream, write_beyond, x, 100));
  EXPECT_EQUAL(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
  EXPECT_FAULT("written beyond the end of device block");
}

TEST(kernels_operands_are_looked_at_when_they_run) {
  float pageable[100] = {};
  for (int how = 0; how < 4; ++how) {
    softgpu_reset();
    void *stream = new_stream();
    float *x = device_floats(100), *y = device_floats(100);
    if (how < 2) EXPECT_EQUAL(0, cudaFree(y));
    switch (how) {
      case 0: EXPECT_EQUAL(0, run(stream, accumulate, x, static_cast<const float *>(y), 100)); break;
      case 1: EXPECT_EQUAL(0, run(stream, accumulate_operands, Operands{x, true, y, 100})); break;
      case 2: EXPECT_EQUAL(0, run(stream, accumulate, x, static_cast<const float *>(pageable), 100)); break;
      default:
        EXPECT_EQUAL(0, run(stream, accumulate, x + 100, nullptr, 0));  // an empty tensor at the end of a block is none
    }
    EXPECT_EQUAL(how < 3 ? cudaErrorIllegalAddress : 0, cudaStreamSynchronize(stream));
    if (how < 3) EXPECT_FAULT("kernels.cu:");
    if (how < 3) EXPECT_FAULT(how < 2 ? "is freed" : "neither device nor pinned memory");
  }
}

TEST(kernels_that_write_to_freed_memory_are_found) {
  void *stream = new_stream();
  float *x = device_floats(64), *table = device_floats(2);
  *reinterpret_cast<float **>(table) = x;
  EXPECT_EQUAL(0, cudaFree(x));
  EXPECT_EQUAL(0, run(stream, write_to, reinterpret_cast<float *const *>(table)));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT_EQUAL(1, softgpu_check());
  EXPECT_FAULT("freed memory was written");
}

TEST(kernels_missing_event_shows) {
  for (int seed = 0; seed < 2; ++seed) {
    softgpu_set_stream_order(seed);
    void *producer = new_stream(), *consumer = new_stream(), *event = new_event();
    float *x = device_floats(100), *y = device_floats(100), *host = pinned_floats(100, 3);
    for (const bool is_right : {false, true}) {
      EXPECT_EQUAL(0, cudaMemsetAsync(y, 0, 400, consumer));
      EXPECT_EQUAL(0, cudaMemcpyAsync(x, host, 400, cudaMemcpyHostToDevice, producer));
      if (is_right) {
        EXPECT_EQUAL(0, cudaEventRecord(event, producer));
        EXPECT_EQUAL(0, cudaStreamWaitEvent(consumer, event, 0));
      }
      EXPECT_EQUAL(0, run(consumer, accumulate, y, static_cast<const float *>(x), 100));
      EXPECT_EQUAL(0, cudaStreamSynchronize(seed == 0 ? consumer : producer));
      EXPECT_EQUAL(0, cudaDeviceSynchronize());
      EXPECT_EQUAL(is_right, y[50] == 3);
    }
  }
}
