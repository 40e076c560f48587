// What does launch do with wrong configurations, failures, other threads and stacks?
//
// The only test file that names the emulator: these are promises of launch itself.
#include "harness.h"
#include "lib/cuda.h"
#include "lib/shared_consent.h"

#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

__global__ void add_one(float *out) { out[blockIdx.x * blockDim.x + threadIdx.x] += 1; }

void expect_refused(dim3 grid, dim3 block, size_t smem, const char *text) {
  float unused[1];
  const int status = gt::launch(add_one, grid, block, smem, nullptr, unused);
  GT_CHECK(status == simt::BAD_CONFIGURATION, "%s: status %d", text, status);
  GT_CHECK(strstr(gt::launch_error(status), text), "expected '%s' in: %s", text, gt::launch_error(status));
}
GT_TEST(launch_refuses_configurations, ANY) {
  expect_refused(0, 32, 0, "grid (0,1,1)");
  expect_refused(dim3(1, 65536), 32, 0, "grid (1,65536,1)");
  expect_refused(0x80000000u, 32, 0, "grid (2147483648,1,1)");
  expect_refused(1, 0, 0, "block (0,1,1)");
  expect_refused(1, 1025, 0, "block (1025,1,1)");
  expect_refused(1, dim3(64, 32), 0, "block (64,32,1)");
  expect_refused(1, dim3(1, 1, 65), 0, "block (1,1,65)");
  expect_refused(1, dim3(65536, 65536), 0, "block (65536,65536,1)");
  expect_refused(1, 32, 227 * 1024 + 1, "dynamic shared memory");
}

// Of a block's 227 KiB a kernel's own shared memory is a part, in whole kilobytes.
template <class T> __global__ void has_own_shared(int *out) {
  __shared__ T own[1024];
  __shared__ int flag;
  GT_DYNAMIC_SMEM(int, asked);
  own[threadIdx.x] = T(1);
  asked[threadIdx.x] = flag = 2;
  out[threadIdx.x] = static_cast<int>(own[threadIdx.x]) + asked[threadIdx.x] + flag;
}
GT_TEST(launch_refuses_more_shared_memory_than_a_block_has, ANY) {
  int out[1];
  const auto check = [&](auto kernel, size_t own) {
    harness::expect_ok(gt::launch(kernel, 1, 1, (227 << 10) - own, nullptr, out), "fwd");
    GT_CHECK(out[0] == 5, "%d", out[0]);
    const int status = gt::launch(kernel, 1, 1, (227 << 10) - own + 4, nullptr, out);
    GT_CHECK(status == simt::BAD_CONFIGURATION && strstr(gt::launch_error(status), "of the kernel's own"),
             "status %d: %s", status, gt::launch_error(status));
  };
  check(has_own_shared<int>, 5 << 10);
  check(has_own_shared<double>, 9 << 10);
}

GT_TEST(launch_refuses_an_unknown_order, ANY) {
  for (const char *order : {"forward", "rand", "rand:", "rand:x", "rand:1x", "REV"}) {
    harness::use_order(order);
    expect_refused(1, 32, 0, "GATUN_SIMT_ORDER");
  }
  harness::use_order("fwd");
}

__global__ void fails_in_block(unsigned which, float *out) {
  out[blockIdx.x] = 1;
  __syncthreads();
  if (blockIdx.x == which) __trap();
}
GT_TEST(launch_stops_at_the_first_failure_and_recovers, ANY) {
  std::vector<float> out(64);
  const int status = gt::launch(fails_in_block, 8, 64, 0, nullptr, 5, out.data());
  GT_CHECK(status == simt::KERNEL_FAILED && strstr(simt::last_error(), "block (5,0,0)"), "%s", simt::last_error());
  GT_CHECK(out[5] == 1 && out[6] == 0, "block 6 ran after block 5 failed");
  std::fill(out.begin(), out.end(), 0.0f);
  harness::expect_ok(gt::launch(add_one, 2, 32, 0, nullptr, out.data()), "after a failure");
  for (int i = 0; i < 64; ++i) GT_CHECK(out[i] == 1, "element %d is %g", i, out[i]);
}

__global__ void log_blocks(int *log, int *length) {
  if (threadIdx.x == 0) log[(*length)++] = blockIdx.x;
}
__global__ void log_lanes(int *log, int *length) { log[(*length)++] = threadIdx.x; }

std::vector<int> logged(void (*kernel)(int *, int *), unsigned grid, unsigned block, const std::string &order) {
  std::vector<int> log(64, -1);
  int length = 0;
  harness::use_order(order);
  harness::expect_ok(gt::launch(kernel, grid, block, 0, nullptr, log.data(), &length), order.c_str());
  harness::use_order("fwd");
  return log;
}
void check_orders(void (*kernel)(int *, int *), unsigned grid, unsigned block) {
  std::vector<int> ascending(64);
  for (int i = 0; i < 64; ++i) ascending[i] = i;
  const std::vector<int> descending(ascending.rbegin(), ascending.rend());
  GT_CHECK(logged(kernel, grid, block, "fwd") == ascending, "fwd does not ascend");
  GT_CHECK(logged(kernel, grid, block, "rev") == descending, "rev does not descend");
  std::set<std::vector<int>> seen = {ascending, descending};
  for (int seed = 0; seed < 5; ++seed) {
    const std::string order = "rand:" + std::to_string(seed);
    const std::vector<int> log = logged(kernel, grid, block, order);
    GT_CHECK(log == logged(kernel, grid, block, order), "%s does not repeat", order.c_str());
    GT_CHECK(std::set<int>(log.begin(), log.end()).size() == 64, "%s misses one", order.c_str());
    GT_CHECK(seen.insert(log).second, "%s is not new", order.c_str());
  }
}
GT_TEST(launch_orders_of_blocks, ANY) { check_orders(log_blocks, 64, 1); }
GT_TEST(launch_orders_of_lanes, ANY) { check_orders(log_lanes, 1, 64); }

// 1024 stacks of 64 KiB in use at once.
__global__ void deep_stack(int *out) {
  volatile char large[64 * 1024];
  for (size_t i = 0; i < sizeof large; i += 512) large[i] = static_cast<char>(threadIdx.x);
  __syncthreads();
  int wrong = 0;
  for (size_t i = 0; i < sizeof large; i += 512) wrong += large[i] != static_cast<char>(threadIdx.x);
  out[threadIdx.x] = wrong;
}
GT_TEST(launch_deep_stacks, ANY) {
  std::vector<int> out(1024, -1);
  harness::expect_ok(gt::launch(deep_stack, 1, 1024, 0, nullptr, out.data()), "fwd");
  for (int t = 0; t < 1024; ++t) GT_CHECK(out[t] == 0, "thread %d: %d bytes of its stack were overwritten", t, out[t]);
}

// Grids of two host threads take turns; each has its own last error.
__global__ void turns(int *shared_counter, int *out) {
  const int seen = *shared_counter;
  __syncthreads();
  if (threadIdx.x == 0) ++*shared_counter;
  __syncthreads();
  if (*shared_counter != seen + 1) atomicAdd(out, 1);
}
GT_TEST(launch_from_two_host_threads, ANY) {
  int counter = 0, interleaved = 0, statuses = 0;
  std::string error;
  const auto work = [&] {
    for (int i = 0; i < 50; ++i) statuses |= gt::launch(turns, 1, 64, 0, nullptr, &counter, &interleaved);
  };
  expect_refused(0, 1, 0, "grid (0,1,1)");
  std::thread other([&] {
    work();
    error = simt::last_error();
  });
  work();
  other.join();
  GT_CHECK(counter == 100 && interleaved == 0 && statuses == 0, "counter %d, interleaved %d", counter, interleaved);
  GT_CHECK(error.empty() && *simt::last_error(), "last_error crossed threads");
}

// Arguments are converted to the parameters' types, and copied.
struct Scales { float a, b; };
__global__ void arguments(float *out, double d, int64_t i, Scales s, const float *nothing) {
  out[0] = static_cast<float>(d);
  out[1] = static_cast<float>(i);
  out[2] = s.a + s.b;
  out[3] = nothing == nullptr;
}
GT_TEST(launch_converts_arguments, ANY) {
  float out[4];
  harness::expect_ok(gt::launch(arguments, 1, 1, 0, nullptr, out, 0.5f, 7, Scales{1, 2}, nullptr), "fwd");
  GT_CHECK(out[0] == 0.5f && out[1] == 7 && out[2] == 3 && out[3] == 1, "%g %g %g %g", out[0], out[1], out[2], out[3]);
}

// A driver that counts what it is asked.
struct CountingDriver {
  size_t limit = 48 << 10;
  int asked = 0, set = 0, failure = 0;

  int require(gt::SharedConsent &consent, const void *kernel, int device, size_t bytes) {
    return consent.require(
        kernel, device, bytes,
        [this](size_t *most) { return ++asked, *most = limit, failure; },
        [this](size_t granted) { return ++set, limit = granted, failure; });
  }
};
GT_TEST(shared_consent_asks_once_a_kernel_and_device, ANY) {
  auto &consent = *new gt::SharedConsent();
  int kernels[3];
  CountingDriver driver;
  for (int i = 0; i < 10; ++i) driver.require(consent, &kernels[0], 0, 40 << 10);
  GT_CHECK(driver.asked == 1 && driver.set == 0, "asked %d times, set %d times", driver.asked, driver.set);
  for (int i = 0; i < 10; ++i) driver.require(consent, &kernels[0], 0, i % 2 ? 40 << 10 : 100 << 10);
  GT_CHECK(driver.asked == 2 && driver.set == 1 && driver.limit == 100 << 10, "asked %d times, set %d times to %zu",
           driver.asked, driver.set, driver.limit);
  CountingDriver other;
  for (int i = 0; i < 10; ++i)
    for (int device = 0; device < 2; ++device) other.require(consent, &kernels[1], device, 1000);
  GT_CHECK(other.asked == 2, "asked %d times of two devices", other.asked);
  CountingDriver faulty;
  faulty.failure = 1;
  GT_CHECK(faulty.require(consent, &kernels[2], 0, 1) == 1, "the driver's error got lost");
  faulty.failure = 0;
  GT_CHECK(faulty.require(consent, &kernels[2], 0, 1) == 0 && faulty.asked == 2, "a failure was kept");
  delete &consent;
}
GT_TEST(shared_consent_works_where_no_place_is_left, ANY) {
  auto &consent = *new gt::SharedConsent();
  std::vector<char> kernels(5000);
  CountingDriver driver;
  for (int round = 0; round < 2; ++round)
    for (char &kernel : kernels) GT_CHECK(driver.require(consent, &kernel, 0, 1) == 0, "refused");
  GT_CHECK(driver.asked > 5000 && driver.asked < 10000, "asked %d times", driver.asked);
  delete &consent;
}

// A kernel is given the shared variables of its own source file: of the others, here those of bugs.cu, none.
__global__ void has_shared_of_launches(int *out) {
  __shared__ int of_launches;
  of_launches = 1;
  *out = of_launches;
}
GT_TEST(shared_variables_of_other_files_are_left_alone, ANY) {
  std::set<std::string> names;
  for (const auto &variable : simt::static_shared_of(reinterpret_cast<uintptr_t>(has_shared_of_launches)))
    names.insert(variable.name);
  GT_CHECK(names.count("of_launches") == 1, "the kernel's own is not among the %zu that were found", names.size());
  GT_CHECK(names.count("tile") == 0, "a variable of another file is among the %zu that were found", names.size());
}

}  // namespace
