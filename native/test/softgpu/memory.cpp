// Does device memory notice what is done to it?
#include <cmath>
#include <cstring>

#include "harness.h"

using namespace harness;

TEST(memory_is_poison_before_and_after_its_life) {
  for (const int count : {3, 1000, 1 << 20}) {  // written poison and mapped poison
    float *p = device_floats(count);
    EXPECT(std::isnan(p[0]) && std::isnan(p[count / 2]) && std::isnan(p[count - 1]));
    for (int i = 0; i < count; ++i) p[i] = 1;
    EXPECT_EQUAL(0, cudaFree(p));
    EXPECT(std::isnan(p[0]) && std::isnan(p[count / 2]) && std::isnan(p[count - 1]));
  }
  EXPECT_EQUAL(0, softgpu_check());
}

TEST(memory_is_aligned_as_cuda_promises_and_no_better) {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{8} << 20}) {
    void *device = nullptr, *pinned = nullptr;
    EXPECT_EQUAL(0, cudaMalloc(&device, bytes));
    EXPECT_EQUAL(0, cudaHostAlloc(&pinned, bytes, 0));
    EXPECT_EQUAL(256, reinterpret_cast<uintptr_t>(device) % 512);
    EXPECT_EQUAL(0, reinterpret_cast<uintptr_t>(pinned) % 4096);
    EXPECT_EQUAL(0, cudaFree(device));
    EXPECT_EQUAL(0, cudaFreeHost(pinned));
  }
}

TEST(memory_untouched_costs_nothing) {
  softgpu_set_capacity(int64_t{1} << 40);
  void *p = nullptr;
  EXPECT_EQUAL(0, cudaMalloc(&p, size_t{64} << 30));
  auto *bytes = static_cast<unsigned char *>(p);
  EXPECT_EQUAL(0xff, bytes[size_t{63} << 30]);
  bytes[size_t{33} << 30] = 1;
  EXPECT_EQUAL(0, cudaFree(p));
  EXPECT_EQUAL(0xff, bytes[size_t{33} << 30]);
}

TEST(memory_freed_does_not_use_up_the_mappings) {
  softgpu_set_capacity(int64_t{1} << 40);
  for (int i = 0; i < 8; ++i) {
    void *p = nullptr;
    EXPECT_EQUAL(0, cudaMalloc(&p, size_t{64} << 30));  // 4096 mappings
    EXPECT_EQUAL(0, cudaFree(p));
  }
  for (int i = 0; i < 3000; ++i) EXPECT_EQUAL(0, cudaFree(device_floats(50000)));
  int lines = 0;
  if (FILE *maps = fopen("/proc/self/maps", "r")) {
    for (int c; (c = fgetc(maps)) != EOF;) lines += c == '\n';
    fclose(maps);
  }
  EXPECT(lines < 10000);
}

TEST(memory_capacity_and_counters) {
  softgpu_set_capacity(1 << 20);
  size_t free = 0, total = 0;
  void *first = nullptr, *second = nullptr, *empty = &first;
  EXPECT_EQUAL(0, cudaMalloc(&first, 600 << 10));
  EXPECT_EQUAL(0, cudaMemGetInfo(&free, &total));
  EXPECT_EQUAL(1 << 20, total);
  EXPECT_EQUAL((1 << 20) - (600 << 10), free);
  EXPECT_EQUAL(cudaErrorMemoryAllocation, cudaMalloc(&second, 600 << 10));
  EXPECT(second == nullptr);
  EXPECT_EQUAL(cudaErrorMemoryAllocation, cudaGetLastError());
  EXPECT_EQUAL(cudaSuccess, cudaGetLastError());
  EXPECT_EQUAL(cudaErrorMemoryAllocation, cudaMalloc(&second, ~size_t{0}));
  EXPECT_EQUAL(0, cudaMalloc(&empty, 0));
  EXPECT(empty == nullptr);
  EXPECT_EQUAL(1, counter(SOFTGPU_LIVE_ALLOCATIONS));
  EXPECT_EQUAL(600 << 10, counter(SOFTGPU_LIVE_BYTES));
  EXPECT_EQUAL(0, cudaFree(first));
  EXPECT_EQUAL(0, cudaFree(nullptr));
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_ALLOCATIONS));
  EXPECT_EQUAL(600 << 10, counter(SOFTGPU_PEAK_BYTES));
  EXPECT_EQUAL(0, cudaMalloc(&second, 1 << 20));
  EXPECT_EQUAL(0, cudaFree(second));
}

TEST(memory_red_zones_are_looked_at_on_demand_at_free_and_when_waiting) {
  for (const int place : {-1, 10}) {
    for (const int how : {0, 1, 2, 3}) {
      softgpu_reset();
      float *p = device_floats(10);
      void *stream = new_stream();
      p[place] = 1;
      if (how == 0) {
        EXPECT_EQUAL(1, softgpu_check());
        EXPECT_EQUAL(0, softgpu_check());
        EXPECT_EQUAL(0, cudaFree(p));
      } else {
        const int code = how == 1 ? cudaFree(p) : how == 2 ? cudaStreamSynchronize(stream) : cudaDeviceSynchronize();
        EXPECT_EQUAL(cudaErrorIllegalAddress, code);
        EXPECT_EQUAL(cudaErrorIllegalAddress, cudaGetLastError());
        EXPECT_EQUAL(cudaErrorIllegalAddress, cudaGetLastError());
      }
      EXPECT_FAULT(place < 0 ? "before the start of device block" : "beyond the end of device block");
      EXPECT_FAULT("40 bytes at");
      EXPECT_EQUAL(1, counter(SOFTGPU_RED_ZONE_HITS));
    }
  }
}

TEST(memory_freed_is_reported) {
  void *stream = new_stream();
  float *p = device_floats(4), *q = device_floats(4), *host = pinned_floats(4, 1);
  EXPECT_EQUAL(0, cudaFree(p));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaFree(p));
  EXPECT_FAULT("is freed");
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemcpyAsync(p, host, 16, cudaMemcpyHostToDevice, stream));
  EXPECT_FAULT("target: 16 bytes");
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemcpyAsync(q, p, 16, cudaMemcpyDeviceToDevice, stream));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemsetAsync(p, 0, 16, stream));
  p[3] = 0;
  EXPECT_EQUAL(1, softgpu_check());
  EXPECT_FAULT("freed memory was written");
  EXPECT_EQUAL(0, softgpu_check());
  EXPECT_EQUAL(cudaSuccess, cudaStreamSynchronize(stream));
}

TEST(memory_kinds_are_told_apart) {
  float *p = device_floats(4), *host = pinned_floats(4, 1), pageable[4];
  void *q = nullptr;
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaFree(host));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaFreeHost(p));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaFree(p + 1));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaFree(pageable));
  EXPECT_EQUAL(0, cudaHostGetDevicePointer(&q, host + 1, 0));
  EXPECT(q == host + 1);
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaHostGetDevicePointer(&q, p, 0));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaHostGetDevicePointer(&q, pageable, 0));
  EXPECT_EQUAL(1, counter(SOFTGPU_LIVE_PINNED));
  EXPECT_EQUAL(0, cudaFreeHost(host));
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_PINNED_BYTES));
}

TEST(memory_freeing_waits_for_the_device) {
  void *stream = new_stream();
  float *p = device_floats(4);
  log_work(stream, 1);
  EXPECT(take_log().empty());
  EXPECT_EQUAL(0, cudaFree(p));
  EXPECT_EQUAL(1, take_log().size());
}

TEST(memory_many_blocks_come_and_go) {
  for (int i = 0; i < 3000; ++i) {
    float *p = device_floats(i % 7 ? 100 : 100000);
    p[0] = 1;
    EXPECT_EQUAL(0, cudaFree(p));
  }
  EXPECT_EQUAL(0, softgpu_check());
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_BYTES));
}
