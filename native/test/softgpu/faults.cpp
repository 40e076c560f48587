// Do errors come when they are asked for, stay when CUDA's stay, and go when CUDA's go?
#include <cstring>
#include <dlfcn.h>
#include <string>
#include <thread>

#include "harness.h"

using namespace harness;

TEST(faults_nth_use_of_a_symbol) {
  void *p = nullptr;
  EXPECT_EQUAL(1, softgpu_fail("cudaMallok", 1, 2));
  EXPECT_EQUAL(2, softgpu_fail("cudaMalloc", 0, 2));
  EXPECT_EQUAL(0, softgpu_fail("cudaMalloc", 2, cudaErrorMemoryAllocation));
  EXPECT_EQUAL(0, cudaMalloc(&p, 4));
  EXPECT_EQUAL(0, cudaFree(p));
  EXPECT_EQUAL(cudaErrorMemoryAllocation, cudaMalloc(&p, 4));
  EXPECT_FAULT("cudaMalloc failed with 2 as softgpu_fail asked");
  EXPECT_EQUAL(0, cudaMalloc(&p, 4));
  EXPECT_EQUAL(cudaErrorMemoryAllocation, cudaPeekAtLastError());
  EXPECT_EQUAL(cudaErrorMemoryAllocation, cudaGetLastError());
  EXPECT_EQUAL(cudaSuccess, cudaGetLastError());
  EXPECT_EQUAL(0, softgpu_fail("cudaFree", 1, cudaErrorInvalidValue));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaFree(p));
  EXPECT_EQUAL(1, counter(SOFTGPU_LIVE_ALLOCATIONS));  // the failed call did nothing
  EXPECT_EQUAL(0, softgpu_fail("cudaFree", 2, cudaErrorInvalidValue));
  EXPECT_EQUAL(0, cudaFree(nullptr));
  softgpu_clear_counters();  // does not move the fault
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaFree(p));
  EXPECT_EQUAL(0, softgpu_fail("cudaFree", 1, cudaErrorInvalidValue));
  softgpu_clear_faults();
  EXPECT_EQUAL(0, cudaFree(p));
}

TEST(faults_of_cublaslt_and_cudnn) {
  void *handle = nullptr;
  EXPECT_EQUAL(0, softgpu_fail("cublasLtCreate", 1, 1));
  EXPECT_EQUAL(1, cublasLtCreate(&handle));
  EXPECT_EQUAL(0, softgpu_fail("cudnnCreate", 1, 1001));
  EXPECT_EQUAL(1001, cudnnCreate(&handle));
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_HANDLES));
  EXPECT_EQUAL(0, cudaGetLastError());
}

TEST(faults_of_launches) {
  void *stream = new_stream();
  EXPECT_EQUAL(0, softgpu_fail("softgpu_enqueue", 2, 701));
  EXPECT_EQUAL(0, fail_when_run(stream, 0));
  EXPECT_EQUAL(701, fail_when_run(stream, 0));
  EXPECT_EQUAL(0, fail_when_run(stream, 0));
  EXPECT_EQUAL(2, counter(SOFTGPU_LAUNCHES));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
}

TEST(faults_of_kernels_lose_the_device) {
  void *stream = new_stream(), *p = nullptr;
  float *q = device_floats(4);
  EXPECT_EQUAL(0, fail_when_run(stream, cudaErrorLaunchFailure));
  log_work(stream, 1);
  EXPECT_EQUAL(0, cudaMalloc(&p, 4));  // nothing has run yet
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaStreamSynchronize(stream));
  EXPECT_FAULT("a fault of the test");
  EXPECT(take_log().empty());
  int count = 0;
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaMalloc(&p, 4));
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaGetLastError());
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaGetLastError());
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaStreamQuery(stream));
  EXPECT_EQUAL(cudaErrorLaunchFailure, fail_when_run(stream, 0));
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaGetDeviceCount(&count));
  EXPECT_EQUAL(1, cublasLtCreate(&p));
  EXPECT(!strcmp("cudaErrorLaunchFailure", cudaGetErrorName(cudaErrorLaunchFailure)));
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaFree(q));  // and yet released, so that leaks can be told
  EXPECT_EQUAL(cudaErrorLaunchFailure, cudaStreamDestroy(stream));
  EXPECT_EQUAL(1, counter(SOFTGPU_LIVE_ALLOCATIONS));
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_STREAMS));
  softgpu_reset();
  EXPECT_EQUAL(0, cudaMalloc(&p, 4));
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(stream));
}

TEST(faults_while_work_runs) {
  void *stream = new_stream();
  gate_work(stream);
  log_work(stream, 1);
  int code = 0;
  std::thread waiting([&] { code = cudaStreamSynchronize(stream); });
  // The device is lost, and the queue dropped, under the running work.
  EXPECT_EQUAL(0, softgpu_fail("cudaDeviceSynchronize", 1, cudaErrorIllegalAddress));
  wait_for_gate();
  EXPECT_EQUAL(cudaErrorIllegalAddress, cudaDeviceSynchronize());
  open_gate();
  waiting.join();
  EXPECT_EQUAL(cudaErrorIllegalAddress, code);
  EXPECT(take_log().empty());
}

TEST(faults_of_work_come_when_it_runs) {
  void *stream = new_stream(), *other = new_stream();
  float *p = device_floats(1);
  EXPECT_EQUAL(2, softgpu_fail_work(0, 700));
  EXPECT_EQUAL(0, softgpu_fail_work(2, cudaErrorIllegalAddress));
  log_work(stream, 1);
  EXPECT_EQUAL(0, cudaMemsetAsync(p, 0, 4, stream));
  log_work(other, 2);
  EXPECT_EQUAL(0, cudaStreamSynchronize(other));
  EXPECT_EQUAL(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
  EXPECT_FAULT("softgpu_fail_work");
  EXPECT_EQUAL(2, take_log().size());
  EXPECT_EQUAL(cudaErrorIllegalAddress, cudaDeviceSynchronize());
}

TEST(faults_that_end_the_context_stay) {
  for (const int code : {700, 716, 719, 999}) {
    softgpu_reset();
    EXPECT_EQUAL(0, softgpu_fail("cudaDeviceSynchronize", 1, code));
    EXPECT_EQUAL(code, cudaDeviceSynchronize());
    EXPECT_EQUAL(code, cudaDeviceSynchronize());
  }
  for (const int code : {1, 2, 9, 600}) {
    softgpu_reset();
    EXPECT_EQUAL(0, softgpu_fail("cudaDeviceSynchronize", 1, code));
    EXPECT_EQUAL(code, cudaDeviceSynchronize());
    EXPECT_EQUAL(0, cudaDeviceSynchronize());
  }
}

TEST(faults_machines_without_a_usable_device) {
  int count = 7, value = 0;
  softgpu_set_device_count(0);
  EXPECT_EQUAL(cudaErrorNoDevice, cudaGetDeviceCount(&count));
  EXPECT_EQUAL(0, count);
  EXPECT_EQUAL(cudaErrorNoDevice, cudaSetDevice(0));
  softgpu_set_device_count(2);
  EXPECT_EQUAL(0, cudaGetDeviceCount(&count));
  EXPECT_EQUAL(2, count);
  softgpu_set_compute_capability(7, 5);
  EXPECT_EQUAL(0, cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 1));
  EXPECT_EQUAL(7, value);
  EXPECT_EQUAL(cudaErrorInvalidDevice, cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 2));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaDeviceGetAttribute(&value, 12345, 1));
  char id[32] = "";
  EXPECT_EQUAL(0, cudaDeviceGetPCIBusId(id, sizeof id, 1));
  EXPECT(!strcmp("0000:02:00.0", id));
  softgpu_set_driver_version(12040);
  EXPECT_EQUAL(0, cudaDriverGetVersion(&value));
  EXPECT_EQUAL(12040, value);
  EXPECT_EQUAL(0, cudaRuntimeGetVersion(&value));
  EXPECT_EQUAL(13000, value);
  EXPECT_EQUAL(cudaErrorInsufficientDriver, cudaGetDeviceCount(&count));
  EXPECT(!strcmp("CUDA driver version is insufficient for CUDA runtime version",
                 cudaGetErrorString(cudaErrorInsufficientDriver)));
}

TEST(faults_empty_kernels) {
  void *stream = new_stream(), *event = new_event();
  float *p = device_floats(1), *host = pinned_floats(1, 5);
  EXPECT_EQUAL(0, cudaMemcpyAsync(p, host, 4, cudaMemcpyHostToDevice, stream));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT_EQUAL(0, cudaStreamBeginCapture(stream, 1));
  log_work(stream, 7);
  void *graph = nullptr, *exec = nullptr;
  EXPECT_EQUAL(0, cudaStreamEndCapture(stream, &graph));
  EXPECT_EQUAL(0, cudaGraphInstantiate(&exec, graph, 0));
  softgpu_set_kernels_empty(1);
  log_work(stream, 1);
  EXPECT_EQUAL(0, cudaMemsetAsync(p, 0, 4, stream));
  EXPECT_EQUAL(0, cudaMemcpyAsync(host, p, 4, cudaMemcpyDeviceToHost, stream));
  EXPECT_EQUAL(0, cudaGraphLaunch(exec, stream));
  EXPECT_EQUAL(0, cudaEventRecord(event, stream));
  EXPECT_EQUAL(cudaErrorNotReady, cudaEventQuery(event));
  EXPECT_EQUAL(0, cudaEventSynchronize(event));
  EXPECT(take_log().empty());
  EXPECT(p[0] == 5);
  EXPECT_EQUAL(1, counter(SOFTGPU_LAUNCHES));
  EXPECT_EQUAL(1, counter(SOFTGPU_GRAPH_LAUNCHES));
  EXPECT_EQUAL(4, counter(SOFTGPU_BYTES_D2H));
  softgpu_set_kernels_empty(0);
  EXPECT_EQUAL(0, cudaGraphLaunch(exec, stream));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT_EQUAL(1, take_log().size());
}

TEST(faults_symbols_are_listed_exported_and_counted) {
  int of_cudart = 0, of_cublaslt = 0, of_cudnn = 0;
  for (int i = 0; i < softgpu_num_symbols(); ++i) {
    const std::string name = softgpu_symbol_name(i);
    of_cudart += name == "softgpu_enqueue";
    EXPECT(dlsym(RTLD_DEFAULT, name.c_str()) != nullptr);
    of_cudart += name.rfind("cuda", 0) == 0;
    of_cublaslt += name.rfind("cublasLt", 0) == 0;
    of_cudnn += name.rfind("cudnn", 0) == 0;
    const bool is_last_error = name == "cudaGetLastError";
    const long long before = softgpu_symbol_calls(i);
    if (is_last_error) cudaGetLastError();
    EXPECT_EQUAL(before + is_last_error, softgpu_symbol_calls(i));
  }
  EXPECT(of_cudart >= 41 && of_cublaslt >= 16 && of_cudnn >= 27);
  EXPECT_EQUAL(softgpu_num_symbols(), of_cudart + of_cublaslt + of_cudnn);
  EXPECT(softgpu_symbol_name(-1) == nullptr && softgpu_symbol_name(softgpu_num_symbols()) == nullptr);
  EXPECT_EQUAL(-1, softgpu_symbol_calls(-1));
  EXPECT_EQUAL(-1, softgpu_counter(SOFTGPU_NUM_COUNTERS));
}
