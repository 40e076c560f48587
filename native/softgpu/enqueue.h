// How does the soft flavour of libgatun give a kernel to a stream? The only thing that native/simt knows of softgpu.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// A word of a kernel's parameters: a parameter that is a pointer, or eight bytes of a struct that may hold one.
struct softgpu_operand {
  uintptr_t word;
  bool is_pointer;
};

// A launch as a value: how to copy it, run it (any number of times, on any thread) and throw it away.
struct softgpu_launch {
  void *(*clone)(const void *launch);
  void (*destroy)(void *launch);
  // Returns a cudaError_t and points *fault at its text.
  int (*run)(void *launch, const char **fault);
  // Says which kernel this is: asked for reports only.
  void (*describe)(const void *launch, char *text, size_t size);
};

// Gives a kernel to a stream, or records it where the stream is being captured. Returns a cudaError_t. The operands are
// looked at when the kernel runs: a pointer to freed memory, or one that is neither device nor pinned memory, loses the
// device.
__attribute__((visibility("default"))) int softgpu_enqueue(void *stream, const softgpu_launch *functions,
                                                           const void *launch, const softgpu_operand *operands,
                                                           size_t num_operands);
}
