// How often is the driver asked how much dynamic shared memory a kernel may have?
//
// Once for each kernel and device: what a kernel was granted it keeps, whichever thread launches it. Asking before each
// launch would be a second call of the driver in each, which steps without a graph pay. CUDA Runtime API,
// "cudaFuncSetAttribute".
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>

namespace gt {

class SharedConsent {
 public:
  // Sees to it that a kernel may have so many bytes on this device, the current one. The driver's calls return a
  // cudaError_t, 0 = OK, as this does: ask(&most) tells how many they may be now, set(bytes) raises that. One thread at
  // a time: a smaller wish that was read before a larger one was granted must not be written after it.
  template <class Ask, class Set>
  int require(const void *kernel, int device, size_t bytes, Ask ask, Set set) {
    const Lock lock(&mutex_);
    Entry *const entry = place_of(kernel, device);
    if (entry && entry->kernel && bytes <= entry->bytes) return 0;
    size_t most = 0;
    if (const int error = ask(&most)) return error;
    if (bytes > most) {
      if (const int error = set(bytes)) return error;
      most = bytes;
    }
    if (entry) *entry = {kernel, device, most};
    return 0;
  }

 private:
  // Far more kernels than libgatun has; where they are on many devices and no place is left, the driver is asked.
  static constexpr size_t PLACES = 2048;

  // std::mutex can throw, and the parts of libstdc++ that come with it need glibc 2.36.
  struct Lock {
    explicit Lock(pthread_mutex_t *mutex) : held(mutex) { pthread_mutex_lock(held); }
    ~Lock() { pthread_mutex_unlock(held); }
    Lock(const Lock &) = delete;
    Lock &operator=(const Lock &) = delete;
    pthread_mutex_t *const held;
  };

  struct Entry {
    const void *kernel;  // null: a free place
    int device;
    size_t bytes;
  };

  // This kernel's place, or a free one for it; null: there is none.
  Entry *place_of(const void *kernel, int device) {
    const size_t first = reinterpret_cast<uintptr_t>(kernel) / 16 + static_cast<size_t>(device) * 257;
    for (size_t i = 0; i < PLACES; ++i) {
      Entry &entry = entries_[(first + i) % PLACES];
      if (!entry.kernel || (entry.kernel == kernel && entry.device == device)) return &entry;
    }
    return nullptr;
  }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  Entry entries_[PLACES] = {};
};

}  // namespace gt
