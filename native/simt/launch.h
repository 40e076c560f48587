// How does a grid run, and how does its failure reach the caller?
//
// Blocks run one after another on the calling thread; a second caller waits. Nothing is thrown: the C ABI above must not
// see an exception. A status has the value of the cudaError_t that CUDA would give.
#pragma once

#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

#include "simt/scheduler.h"
#include "simt/shared.h"
#include "simt/source_line.h"
#if defined(GT_SOFTGPU)
#include "softgpu/enqueue.h"
#endif

namespace simt {

enum Status : int { OK = 0, OUT_OF_MEMORY = 2, BAD_CONFIGURATION = 9, KERNEL_FAILED = 719 };

inline thread_local char error_text[2048] = "";

// What the last launch of this thread that failed had to say.
inline const char *last_error() { return error_text; }

template <class... Arguments> inline int refuse(Status status, const char *format, Arguments... arguments) {
  snprintf(error_text, sizeof error_text, format, arguments...);
  return status;
}

inline int check_configuration(dim3 grid, dim3 extent, size_t shared_bytes, Order chosen) {
  if (chosen.kind == Order::UNKNOWN)
    return refuse(BAD_CONFIGURATION, "simt: unknown order; GATUN_SIMT_ORDER and set_order take fwd, rev, rand:SEED");
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return refuse(BAD_CONFIGURATION, "simt: grid (%u,%u,%u) is outside 1..(2147483647,65535,65535)", grid.x, grid.y, grid.z);
  const uint64_t threads = uint64_t{extent.x} * extent.y * extent.z;
  if (threads == 0 || threads > MAX_THREADS || extent.x > MAX_THREADS || extent.y > MAX_THREADS || extent.z > 64)
    return refuse(BAD_CONFIGURATION, "simt: block (%u,%u,%u) is outside 1..(1024,1024,64), 1024 threads in all", extent.x,
                  extent.y, extent.z);
  if (shared_bytes > MAX_DYNAMIC_SHARED_BYTES)
    return refuse(BAD_CONFIGURATION, "simt: %zu bytes of dynamic shared memory, at most %zu", shared_bytes,
                  MAX_DYNAMIC_SHARED_BYTES);
  return OK;
}

inline int report_failure(const Block &block) {
  const uint3 at = block.index;
  int used = snprintf(error_text, sizeof error_text, "simt: block (%u,%u,%u): %s", at.x, at.y, at.z, block.message);
  const char *label[2] = {"; now at ", ", before at "};
  for (int i = 0; i < 2; ++i)
    if (block.racing_pc[i]) {
      used += snprintf(error_text + used, sizeof error_text - used, "%s", label[i]);
      used += source_line(block.racing_pc[i], error_text + used, sizeof error_text - used);
    }
  return KERNEL_FAILED;
}

inline int run_grid(dim3 grid, dim3 extent, size_t shared_bytes, uintptr_t kernel, void (*run)(void *), void *arguments) {
  static std::mutex one_grid_at_a_time;  // static __shared__ memory exists once
  const std::lock_guard<std::mutex> lock(one_grid_at_a_time);
  static Block &block = *new Block();  // never destroyed: a launch may come from a late exit handler

  const Order chosen = order();
  if (const int status = check_configuration(grid, extent, shared_bytes, chosen)) return status;
  block.grid_extent = grid;
  block.extent = extent;
  block.num_threads = extent.x * extent.y * extent.z;
  block.num_warps = (block.num_threads + WARP - 1) / WARP;
  block.threads.resize(block.num_threads);
  block.warps.resize(block.num_warps);
  block.stacks.reserve(block.num_threads);
  const DynamicShared dynamic(shared_bytes);
  block.dynamic_shared = dynamic.get();
  block.dynamic_shared_bytes = shared_bytes;
  block.static_shared = &static_shared_of(kernel);
  block.kernel = run;
  block.arguments = arguments;
  block.racing_pc[0] = block.racing_pc[1] = nullptr;

  const BlockOrder blocks(chosen, uint64_t{grid.x} * grid.y * grid.z);
  current = &block;
  race::start_grid();
  bool failed = false;
  for (uint64_t i = 0; i < blocks.total && !failed; ++i) {
    const uint64_t number = blocks.at(i);
    fill_shared(block);
    run_block(block, {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                      static_cast<unsigned>(number / grid.x / grid.y)}, chosen, number);
    failed = block.failed;
  }
  current = nullptr;
  return failed ? report_failure(block) : OK;
}

// A kernel and the values of its parameters.
template <class... Params> struct Call {
  void (*kernel)(Params...);
  std::tuple<std::decay_t<Params>...> values;
  static void run(void *call) {
    const Call &self = *static_cast<Call *>(call);
    std::apply(self.kernel, self.values);
  }
};

template <class... Params> int run_call(Call<Params...> &call, dim3 grid, dim3 extent, size_t shared_bytes) {
  try {
    return run_grid(grid, extent, shared_bytes, reinterpret_cast<uintptr_t>(call.kernel), Call<Params...>::run, &call);
  } catch (const std::bad_alloc &) {
    return refuse(OUT_OF_MEMORY, "simt: out of memory for %u threads of a block", extent.x * extent.y * extent.z);
  } catch (const std::exception &e) {
    return refuse(KERNEL_FAILED, "simt: %s", e.what());
  }
}

#if defined(GT_SOFTGPU)

// The words of a kernel's parameters that are or may be addresses.
template <class T> constexpr size_t num_operands = std::is_pointer_v<T> ? 1 : sizeof(T) / sizeof(uintptr_t);

template <class T> void add_operands(const T &value, softgpu_operand *&next) {
  T copy = value;
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
  __builtin_clear_padding(&copy);  // holds whatever the stack held, an old address for one
#endif
  for (size_t i = 0; i < num_operands<T>; ++i, ++next) {
    memcpy(&next->word, reinterpret_cast<const char *>(&copy) + i * sizeof(uintptr_t), sizeof(uintptr_t));
    next->is_pointer = std::is_pointer_v<T>;
  }
}

// A launch as a value, for softgpu's streams and graphs.
template <class... Params> struct Launch {
  Call<Params...> call;
  dim3 grid, extent;
  size_t shared_bytes;

  static void *clone(const void *launch) { return new Launch(*static_cast<const Launch *>(launch)); }
  static void destroy(void *launch) { delete static_cast<Launch *>(launch); }
  static int run(void *launch, const char **fault) {
    Launch &self = *static_cast<Launch *>(launch);
    const int status = run_call(self.call, self.grid, self.extent, self.shared_bytes);
    *fault = error_text;
    return status;
  }
  static void describe(const void *launch, char *text, size_t size) {
    // source_line looks one byte before a return address
    const auto entry = reinterpret_cast<uintptr_t>(static_cast<const Launch *>(launch)->call.kernel);
    source_line(reinterpret_cast<const void *>(entry + 1), text, size);
  }
};

// gt::launch (native/lib/cuda.h) for the soft libgatun: the kernel runs when its stream does, as on a GPU.
template <class... Params, class... Args>
int launch(void (*kernel)(Params...), dim3 grid, dim3 extent, size_t shared_bytes, void *stream, Args &&...args) {
  if (const int status = check_configuration(grid, extent, shared_bytes, order())) return status;
  const Call<Params...> call{kernel, {static_cast<std::decay_t<Params>>(std::forward<Args>(args))...}};
  const Launch<Params...> launch{call, grid, extent, shared_bytes};
  softgpu_operand operands[1 + (num_operands<std::decay_t<Params>> + ... + 0)], *end = operands;
  std::apply([&](const auto &...value) { (add_operands(value, end), ...); }, call.values);
  using L = Launch<Params...>;
  static constexpr softgpu_launch functions = {L::clone, L::destroy, L::run, L::describe};
  const int status = softgpu_enqueue(stream, &functions, &launch, operands, static_cast<size_t>(end - operands));
  return status ? refuse(static_cast<Status>(status), "the stream does not take a kernel: cudaError_t %d", status) : OK;
}

#else

// gt::launch (native/lib/cuda.h) for g++. The stream is ignored: the kernel has run when this returns.
template <class... Params, class... Args>
int launch(void (*kernel)(Params...), dim3 grid, dim3 extent, size_t shared_bytes, void * /*stream*/, Args &&...args) {
  Call<Params...> call{kernel, {static_cast<std::decay_t<Params>>(std::forward<Args>(args))...}};
  return run_call(call, grid, extent, shared_bytes);
}

#endif

}  // namespace simt
