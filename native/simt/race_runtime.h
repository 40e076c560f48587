// What does g++ call in a race build?
//
// The entry points of -fsanitize=thread, defined here instead of linked from libtsan. Plain accesses go to the race
// check. Compiler-made atomics (guards of static locals, std::shared_ptr) only have to work: kernels use atomics.h.
#pragma once

#include <cstddef>
#include <cstdint>

#define GT_TSAN extern "C" inline __attribute__((used, noinline)) GT_SIMT_UNWATCHED
#define GT_TSAN_PC __builtin_return_address(0)

#define GT_TSAN_ACCESS(name, kind, bytes) \
  GT_TSAN void __tsan_##name(void *p) { simt::race::access(p, bytes, simt::race::Access::kind, GT_TSAN_PC); }
#define GT_TSAN_ACCESSES(bytes)                            \
  GT_TSAN_ACCESS(read##bytes, READ, bytes)                 \
  GT_TSAN_ACCESS(write##bytes, WRITE, bytes)               \
  GT_TSAN_ACCESS(unaligned_read##bytes, READ, bytes)       \
  GT_TSAN_ACCESS(unaligned_write##bytes, WRITE, bytes)
GT_TSAN_ACCESSES(1)
GT_TSAN_ACCESSES(2)
GT_TSAN_ACCESSES(4)
GT_TSAN_ACCESSES(8)
GT_TSAN_ACCESSES(16)
GT_TSAN void __tsan_read_range(void *p, long bytes) {
  simt::race::access(p, static_cast<size_t>(bytes), simt::race::Access::READ, GT_TSAN_PC);
}
GT_TSAN void __tsan_write_range(void *p, long bytes) {
  simt::race::access(p, static_cast<size_t>(bytes), simt::race::Access::WRITE, GT_TSAN_PC);
}

// Signatures as g++ declares its builtins of these names.
#define GT_TSAN_FETCH(bits, T, operation)                                                      \
  GT_TSAN T __tsan_atomic##bits##_fetch_##operation(volatile void *p, T value, int) {          \
    return __atomic_fetch_##operation(static_cast<volatile T *>(p), value, __ATOMIC_SEQ_CST);  \
  }
#define GT_TSAN_COMPARE_EXCHANGE(bits, T, strength)                                                              \
  GT_TSAN bool __tsan_atomic##bits##_compare_exchange_##strength(volatile void *p, void *expected, T value, int, \
                                                                 int) {                                          \
    return __atomic_compare_exchange_n(static_cast<volatile T *>(p), static_cast<T *>(expected), value, false,   \
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                      \
  }
#define GT_TSAN_ATOMICS(bits, T)                                                               \
  GT_TSAN T __tsan_atomic##bits##_load(const volatile void *p, int) {                          \
    return __atomic_load_n(static_cast<const volatile T *>(p), __ATOMIC_SEQ_CST);              \
  }                                                                                            \
  GT_TSAN void __tsan_atomic##bits##_store(volatile void *p, T value, int) {                   \
    __atomic_store_n(static_cast<volatile T *>(p), value, __ATOMIC_SEQ_CST);                   \
  }                                                                                            \
  GT_TSAN T __tsan_atomic##bits##_exchange(volatile void *p, T value, int) {                   \
    return __atomic_exchange_n(static_cast<volatile T *>(p), value, __ATOMIC_SEQ_CST);         \
  }                                                                                            \
  GT_TSAN_FETCH(bits, T, add)                                                                  \
  GT_TSAN_FETCH(bits, T, sub)                                                                  \
  GT_TSAN_COMPARE_EXCHANGE(bits, T, strong)                                                    \
  GT_TSAN_COMPARE_EXCHANGE(bits, T, weak)
GT_TSAN_ATOMICS(8, uint8_t)
GT_TSAN_ATOMICS(16, uint16_t)
GT_TSAN_ATOMICS(32, uint32_t)
GT_TSAN_ATOMICS(64, uint64_t)
GT_TSAN void __tsan_atomic_thread_fence(int) {}

GT_TSAN void __tsan_init() {}
GT_TSAN void __tsan_func_entry(void *) {}
GT_TSAN void __tsan_func_exit(void *) {}
GT_TSAN void __tsan_vptr_update(void *, void *) {}
GT_TSAN void __tsan_vptr_read(void *) {}
