// Where does shared memory live on the CPU, and what is in it before a kernel writes?
//
// Dynamic: one heap block of exactly the size asked for, so that AddressSanitizer sees the first byte past its end.
// Static: ordinary static variables, one copy for blocks run one at a time, found by name (object.h). Both are filled
// with 0xff before each block: NaN as f32, bf16 and f16, -1 as an integer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <vector>

#include "simt/block.h"
#include "simt/object.h"

namespace simt {

constexpr size_t DYNAMIC_SHARED_ALIGNMENT = 1024;          // what GT_DYNAMIC_SMEM promises under nvcc too
constexpr size_t MAX_SHARED_BYTES = 227 * 1024;            // of an sm_90 block, static and dynamic together

class DynamicShared {
 public:
  explicit DynamicShared(size_t bytes) {
    if (bytes && posix_memalign(&base_, DYNAMIC_SHARED_ALIGNMENT, bytes)) throw std::bad_alloc();
  }
  DynamicShared(const DynamicShared &) = delete;
  DynamicShared &operator=(const DynamicShared &) = delete;
  ~DynamicShared() { free(base_); }
  void *get() const { return base_; }

 private:
  void *base_ = nullptr;
};

// The static shared variables that `kernel` may have; they are looked for once.
inline const std::vector<SharedVariable> &static_shared_of(uintptr_t kernel) {
  static std::map<uintptr_t, std::vector<SharedVariable>> known;
  const auto found = known.find(kernel);
  return found != known.end() ? found->second
                              : known.emplace(kernel, shared_variables_of(object_of(kernel), kernel)).first->second;
}

// What the kernel has of static shared memory at least: whose the variables of device functions are, no symbol tells.
// Dynamic memory begins behind it, at a multiple of its alignment.
inline size_t own_static_bytes(uintptr_t kernel) {
  size_t bytes = 0;
  for (const SharedVariable &variable : static_shared_of(kernel))
    if (variable.is_own) bytes += variable.bytes;
  return (bytes + DYNAMIC_SHARED_ALIGNMENT - 1) / DYNAMIC_SHARED_ALIGNMENT * DYNAMIC_SHARED_ALIGNMENT;
}

inline void fill_shared(Block &block) {
  if (block.dynamic_shared_bytes) memset(block.dynamic_shared, 0xff, block.dynamic_shared_bytes);
  for (const SharedVariable &variable : *block.static_shared) memset(variable.address, 0xff, variable.bytes);
}

}  // namespace simt
