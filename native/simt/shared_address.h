// Where in shared memory does a pointer point, and how do instructions that take 32-bit addresses get back?
//
// Their operands must lie in dynamic shared memory: it begins at a multiple of 1024 and at address 0.
#pragma once

#include "simt/report.h"

namespace simt {

inline bool lies_in(const void *p, size_t bytes, const void *memory, size_t memory_bytes) {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(memory);
  return offset < memory_bytes && bytes <= memory_bytes - offset;
}

inline bool is_dynamic_shared(const void *p, size_t bytes) {
  return lies_in(p, bytes, current->dynamic_shared, current->dynamic_shared_bytes);
}

inline bool is_shared(const void *p, size_t bytes) {
  if (is_dynamic_shared(p, bytes)) return true;
  for (const SharedVariable &variable : *current->static_shared)
    if (lies_in(p, bytes, variable.address, variable.bytes)) return true;
  return false;
}

// The last synchronisation of a thread is what reports name.
inline void begin_call(const char *operation, Site site) {
  current->running->operation = operation;
  current->running->site = site;
}

// Of an engine that keeps the state of one block only.
inline void expect_no_cluster(const char *what) {
  if (current->num_in_cluster > 1)
    fail("the emulator knows %s only where a block is its own cluster: %s", what, describe(*current->running).text);
}

inline uint32_t shared_address(const void *p) {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(current->dynamic_shared);
  if (offset > current->dynamic_shared_bytes)
    fail("shared_address of something outside dynamic shared memory: %s", describe(*current->running).text);
  return static_cast<uint32_t>(offset);
}

// What lies at an address; it may be outside.
inline char *at_shared_address(uint32_t address) { return static_cast<char *>(current->dynamic_shared) + address; }

}  // namespace simt
