// How does one OS thread hold up to 1024 CUDA threads, each with a stack of its own?
//
// A fiber is a stack and the place where it stopped. On x86-64 the switch is a dozen instructions (12 ns, against 193
// ns for swapcontext, which also makes two system calls); elsewhere swapcontext does it. AddressSanitizer is told of
// every switch, else it would take a fiber's stack for a wild pointer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <sys/mman.h>
#if !defined(__x86_64__)
#define GT_SIMT_UCONTEXT 1
#endif
#if defined(GT_SIMT_UCONTEXT)
#include <ucontext.h>
#endif

#include "simt/keywords.h"
#if defined(GT_SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

struct Fiber {
#if defined(GT_SIMT_UCONTEXT)
  ucontext_t context;
#else
  void *stack_pointer = nullptr;
#endif
  const void *stack_low = nullptr;  // the host's own stack: filled in by ASan at the first switch away from it
  size_t stack_bytes = 0;
  void *asan_fake_stack = nullptr;
};

// Stacks

#if defined(GT_SIMT_ASAN)
constexpr size_t STACK_BYTES = 512 * 1024;  // red zones around every local make frames several times larger
#else
constexpr size_t STACK_BYTES = 128 * 1024;  // untouched pages cost nothing
#endif
constexpr size_t GUARD_BYTES = 16 * 1024;   // below each stack: an overflow faults instead of hitting the neighbour

// The stacks of one block, kept from launch to launch.
class StackPool {
 public:
  StackPool() = default;
  StackPool(const StackPool &) = delete;
  StackPool &operator=(const StackPool &) = delete;
  ~StackPool() { unmap(); }

  void reserve(size_t count) {
    if (count <= count_) return;
    unmap();
    void *p =
        mmap(nullptr, count * SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char *>(p);
    count_ = count;
    for (size_t i = 0; i < count; ++i) mprotect(base_ + i * SLOT_BYTES, GUARD_BYTES, PROT_NONE);
  }

  char *low(size_t i) const { return base_ + i * SLOT_BYTES + GUARD_BYTES; }

 private:
  static constexpr size_t SLOT_BYTES = GUARD_BYTES + STACK_BYTES;
  void unmap() {
    if (base_) munmap(base_, count_ * SLOT_BYTES);
    base_ = nullptr;
    count_ = 0;
  }
  char *base_ = nullptr;
  size_t count_ = 0;
};

// Switching

#if !defined(GT_SIMT_UCONTEXT)
// Saves the callee-saved registers and the stack pointer of one fiber, restores those of another.
// noipa: other threads write to any memory meanwhile, whatever g++ can see in here.
__attribute__((naked, noipa)) GT_SIMT_UNWATCHED inline void raw_switch(void ** /*save: rdi*/, void * /*load: rsi*/) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n"
      "movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
      // jmp, not ret: the CPU predicts a return from its own call stack, and would be wrong at every switch
      "popq %rdx\n jmp *%rdx\n");
}
#endif

inline Fiber *switched_from = nullptr;  // whose stack the running fiber came from

// First thing on a stack that has just been switched to.
inline void after_switch(void *fake_stack) {
#if defined(GT_SIMT_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack, &switched_from->stack_low, &switched_from->stack_bytes);
#else
  (void)fake_stack;
#endif
}

// Runs `to` until something switches back. A fiber that never runs again says so: ASan then frees its fake stack.
inline void switch_fiber(Fiber &from, Fiber &to, bool from_is_done = false) {
  switched_from = &from;
#if defined(GT_SIMT_ASAN)
  __sanitizer_start_switch_fiber(from_is_done ? nullptr : &from.asan_fake_stack, to.stack_low, to.stack_bytes);
#else
  (void)from_is_done;
#endif
#if defined(GT_SIMT_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  raw_switch(&from.stack_pointer, to.stack_pointer);
#endif
  after_switch(from.asan_fake_stack);
}

// Makes the next switch to the fiber call entry(), which must call after_switch(nullptr) first and never return.
// `rank` staggers the tops of the stacks, 5 cache lines apart within a page: equal frames of all threads would else
// compete for the same few L1 sets.
inline void prepare_fiber(Fiber &fiber, char *stack_low, void (*entry)(), unsigned rank) {
  fiber.stack_low = stack_low;
  fiber.stack_bytes = STACK_BYTES;
  fiber.asan_fake_stack = nullptr;
#if defined(GT_SIMT_ASAN)
  __asan_unpoison_memory_region(stack_low, STACK_BYTES);  // the last user of this stack never unwound it
#endif
  const size_t usable = STACK_BYTES - rank * 320 % 4096;
#if defined(GT_SIMT_UCONTEXT)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack_low;
  fiber.context.uc_stack.ss_size = usable;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  void **top = reinterpret_cast<void **>(stack_low + usable);
  *--top = nullptr;  // entry's return address: ends a debugger's backtrace, and aligns rsp as a call would
  *--top = reinterpret_cast<void *>(entry);
  for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = nullptr;
  fiber.stack_pointer = top;
#endif
}

}  // namespace simt
