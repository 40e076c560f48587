// Are copies late where CUDA's are, done where CUDA's are, and counted?
#include <cmath>

#include "harness.h"

using namespace harness;

TEST(copies_read_pinned_memory_when_they_run) {
  void *stream = new_stream();
  float *p = device_floats(2), *host = pinned_floats(2, 1);
  EXPECT_EQUAL(0, cudaMemcpyAsync(p, host, 8, cudaMemcpyHostToDevice, stream));
  EXPECT(std::isnan(p[0]));
  host[0] = 2;
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(p[0] == 2 && p[1] == 1);
}

TEST(copies_to_pinned_memory_arrive_late) {
  void *stream = new_stream();
  float *p = device_floats(2), *host = pinned_floats(2, 1);
  EXPECT_EQUAL(0, cudaMemsetAsync(p, 0, 8, stream));
  EXPECT_EQUAL(0, cudaMemcpyAsync(host, p, 8, cudaMemcpyDeviceToHost, stream));
  EXPECT(host[0] == 1);
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(host[0] == 0);
}

TEST(copies_stage_pageable_memory) {
  void *stream = new_stream();
  float *p = device_floats(2), host[2] = {1, 2}, back[2] = {};
  EXPECT_EQUAL(0, cudaMemcpyAsync(p, host, 8, cudaMemcpyHostToDevice, stream));
  EXPECT(std::isnan(p[0]));
  host[0] = 5;
  EXPECT_EQUAL(0, cudaMemcpyAsync(back, p, 8, cudaMemcpyDeviceToHost, stream));  // waits
  EXPECT(back[0] == 1 && back[1] == 2);
  EXPECT_EQUAL(16, counter(SOFTGPU_BYTES_PAGEABLE));
  EXPECT_EQUAL(8, counter(SOFTGPU_BYTES_H2D));
  EXPECT_EQUAL(8, counter(SOFTGPU_BYTES_D2H));
}

TEST(copies_are_counted_when_given) {
  void *stream = new_stream();
  float *p = device_floats(4), *q = device_floats(4), *host = pinned_floats(4, 1);
  EXPECT_EQUAL(0, cudaMemcpyAsync(p, host, 16, cudaMemcpyHostToDevice, stream));
  EXPECT_EQUAL(0, cudaMemcpyAsync(q, p, 12, cudaMemcpyDefault, stream));
  EXPECT_EQUAL(0, cudaMemcpyAsync(host, q, 8, cudaMemcpyDeviceToHost, stream));
  EXPECT_EQUAL(0, cudaMemcpyAsync(host, host + 2, 0, cudaMemcpyDeviceToHost, stream));
  EXPECT_EQUAL(16, counter(SOFTGPU_BYTES_H2D));
  EXPECT_EQUAL(12, counter(SOFTGPU_BYTES_D2D));
  EXPECT_EQUAL(8, counter(SOFTGPU_BYTES_D2H));
  EXPECT_EQUAL(1, counter(SOFTGPU_COPIES_H2D));
  EXPECT_EQUAL(1, counter(SOFTGPU_COPIES_D2H));
  EXPECT_EQUAL(0, counter(SOFTGPU_BYTES_PAGEABLE));
  softgpu_clear_counters();
  EXPECT_EQUAL(0, counter(SOFTGPU_BYTES_H2D));
  EXPECT_EQUAL(2, counter(SOFTGPU_LIVE_ALLOCATIONS));
  EXPECT_EQUAL(32, counter(SOFTGPU_PEAK_BYTES));
}

TEST(copies_beyond_a_block_or_in_the_wrong_direction_are_refused) {
  void *stream = new_stream();
  float *p = device_floats(4), *host = pinned_floats(4, 1), pageable[8] = {};
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemcpyAsync(p + 1, pageable, 16, cudaMemcpyHostToDevice, stream));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemcpyAsync(p, host + 1, 16, cudaMemcpyHostToDevice, stream));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemcpyAsync(p, host, 16, cudaMemcpyDeviceToHost, stream));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemcpyAsync(pageable, p, 16, cudaMemcpyHostToDevice, stream));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemcpyAsync(p, pageable, 16, cudaMemcpyDeviceToDevice, stream));
  EXPECT_EQUAL(21, cudaMemcpyAsync(p, host, 16, 7, stream));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemcpyAsync(nullptr, host, 16, cudaMemcpyHostToDevice, stream));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemsetAsync(p, 0, 17, stream));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaMemsetAsync(pageable, 0, 4, stream));
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, cudaMemsetAsync(p, 0, 4, &pageable));
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, cudaGetLastError());
  EXPECT_EQUAL(0, counter(SOFTGPU_BYTES_H2D));
}
