// How does a test of a PTX wrapper get memory that kernels and the host both see, run a kernel, and count what failed?
//
// The same program runs on a GPU (nvcc) and on the emulator (g++ -DGT_SIMT=1).
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "lib/cuda.h"

namespace ptx {

// `count` objects, every byte of them 0xff.
template <class T> class Shared {
 public:
  explicit Shared(size_t count) : count_(count) {
#if defined(__CUDACC__)
    if (cudaMallocManaged(&data_, count * sizeof(T)) != cudaSuccess) exit(2);
#else
    data_ = static_cast<T *>(malloc(count * sizeof(T)));
    if (!data_) exit(2);
#endif
    memset(static_cast<void *>(data_), 0xff, count * sizeof(T));
  }
  Shared(const Shared &) = delete;
  Shared &operator=(const Shared &) = delete;
  ~Shared() {
#if defined(__CUDACC__)
    cudaFree(data_);
#else
    free(data_);
#endif
  }
  T *data() const { return data_; }
  size_t size() const { return count_; }
  T &operator[](size_t i) const { return data_[i]; }

 private:
  T *data_ = nullptr;
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

// One block, waited for. A failure counts, with the kernel's name; memory is then as it was left.
template <class... Params, class... Args>
bool run(const char *name, void (*kernel)(Params...), dim3 block, size_t smem_bytes, Args... args) {
  int status = gt::launch(kernel, dim3(1), block, smem_bytes, nullptr, args...);
#if defined(__CUDACC__)
  if (!status) status = static_cast<int>(cudaDeviceSynchronize());
#endif
  if (status) expect(false, "%s: %s", name, gt::launch_error(status));
  return status == 0;
}

// What main returns.
inline int summary() {
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}

}  // namespace ptx
