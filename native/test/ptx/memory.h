// How does a test of a PTX wrapper get memory that kernels and the host both see, run a kernel, and count what failed?
//
// The same program runs on a GPU (nvcc) and on the emulator (g++ -DGT_SIMT=1).
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "lib/cuda.h"

namespace ptx {

// What run() copies to the device before a kernel and back after it.
struct Mirror {
  void *host, *device;
  size_t bytes;
};
inline std::vector<Mirror> mirrors;

// `count` objects, every byte of them 0xff: the host's by index, the kernels' at data().
template <class T> class Shared {
 public:
  explicit Shared(size_t count) : host_(static_cast<T *>(malloc(count * sizeof(T)))), count_(count) {
    if (!host_) exit(2);
    memset(static_cast<void *>(host_), 0xff, count * sizeof(T));
#if defined(__CUDACC__)
    if (cudaMalloc(&device_, count * sizeof(T)) != cudaSuccess) exit(2);
    mirrors.push_back({host_, device_, count * sizeof(T)});
#else
    device_ = host_;
#endif
  }
  Shared(const Shared &) = delete;
  Shared &operator=(const Shared &) = delete;
  ~Shared() {
#if defined(__CUDACC__)
    mirrors.pop_back();  // objects of one scope end in the opposite order
    cudaFree(device_);
#endif
    free(host_);
  }
  T *data() const { return device_; }
  size_t size() const { return count_; }
  T &operator[](size_t i) const { return host_[i]; }

 private:
  T *host_ = nullptr, *device_ = nullptr;
  size_t count_;
};

inline int passed = 0, failed = 0;

__attribute__((format(printf, 2, 3))) inline void expect(bool condition, const char *format, ...) {
  ++(condition ? passed : failed);
  if (condition || failed > 40) return;
  va_list arguments;
  va_start(arguments, format);
  printf("FAIL  ");
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
}

// Waited for. A failure counts, with the kernel's name; memory is then as it was left.
template <class... Params, class... Args>
bool run_blocks(const char *name, void (*kernel)(Params...), int blocks, dim3 block, size_t smem_bytes, Args... args) {
#if defined(__CUDACC__)
  for (const Mirror &m : mirrors) cudaMemcpy(m.device, m.host, m.bytes, cudaMemcpyHostToDevice);
  int status = gt::launch(kernel, dim3(static_cast<unsigned>(blocks)), block, smem_bytes, nullptr, args...);
  if (!status) status = static_cast<int>(cudaDeviceSynchronize());
  for (const Mirror &m : mirrors) cudaMemcpy(m.host, m.device, m.bytes, cudaMemcpyDeviceToHost);
#else
  const int status = gt::launch(kernel, dim3(static_cast<unsigned>(blocks)), block, smem_bytes, nullptr, args...);
#endif
  if (status) expect(false, "%s: %s", name, gt::launch_error(status));
  return status == 0;
}

// One block.
template <class... Params, class... Args>
bool run(const char *name, void (*kernel)(Params...), dim3 block, size_t smem_bytes, Args... args) {
  return run_blocks(name, kernel, 1, block, smem_bytes, args...);
}

#if defined(GT_SIMT)
// The launch failed, and the emulator's report holds the text.
inline void expect_reported(const char *name, int status, const char *text) {
  expect(status && strstr(gt::launch_error(status), text), "%s: %s", name,
         status ? gt::launch_error(status) : "not reported");
}
#endif

// What main returns.
inline int summary() {
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}

}  // namespace ptx
