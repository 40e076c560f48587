// How does a grid run, and how does its failure reach the caller?
//
// Blocks run one after another on the calling thread, those of a cluster in turns; a second caller waits. Nothing is
// thrown: the C ABI above must not see an exception. A status has the value of the cudaError_t that CUDA would give.
#pragma once

#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

#include "simt/cluster.h"
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

// How a kernel is launched.
struct Configuration {
  dim3 grid, extent;  // blocks, threads of each
  size_t shared_bytes;
  unsigned num_in_cluster = 1;  // blocks, along x
};

inline int check_configuration(const Configuration &c, Order chosen) {
  const dim3 &grid = c.grid, &extent = c.extent;
  if (chosen.kind == Order::UNKNOWN)
    return refuse(BAD_CONFIGURATION, "simt: unknown order; GATUN_SIMT_ORDER and set_order take fwd, rev, rand:SEED");
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return refuse(BAD_CONFIGURATION, "simt: grid (%u,%u,%u) is outside 1..(2147483647,65535,65535)", grid.x, grid.y,
                  grid.z);
  const uint64_t threads = uint64_t{extent.x} * extent.y * extent.z;
  if (threads == 0 || threads > MAX_THREADS || extent.x > MAX_THREADS || extent.y > MAX_THREADS || extent.z > 64)
    return refuse(BAD_CONFIGURATION, "simt: block (%u,%u,%u) is outside 1..(1024,1024,64), 1024 threads in all",
                  extent.x, extent.y, extent.z);
  if (c.shared_bytes > MAX_SHARED_BYTES)
    return refuse(BAD_CONFIGURATION, "simt: %zu bytes of dynamic shared memory, at most %zu", c.shared_bytes,
                  MAX_SHARED_BYTES);
  if (c.num_in_cluster < 1 || c.num_in_cluster > MAX_CLUSTER || grid.x % c.num_in_cluster)
    return refuse(BAD_CONFIGURATION, "simt: %u blocks in clusters of %u, expected a multiple of 1..%u", grid.x,
                  c.num_in_cluster, MAX_CLUSTER);
  return OK;
}

inline int check_shared(const Configuration &c, uintptr_t kernel) {
  const size_t own = c.shared_bytes ? own_static_bytes(kernel) : 0;
  if (own + c.shared_bytes <= MAX_SHARED_BYTES) return OK;
  return refuse(BAD_CONFIGURATION,
                "simt: %zu bytes of dynamic shared memory beside %zu of the kernel's own, at most %zu", c.shared_bytes,
                own, MAX_SHARED_BYTES);
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

// What a block has for all of a grid.
inline void set_up(Block &block, const Configuration &c, const DynamicShared &dynamic, uintptr_t kernel) {
  block.grid_extent = c.grid;
  block.extent = c.extent;
  block.num_in_cluster = c.num_in_cluster;
  block.num_threads = c.extent.x * c.extent.y * c.extent.z;
  block.num_warps = (block.num_threads + WARP - 1) / WARP;
  block.threads.resize(block.num_threads);
  block.warps.resize(block.num_warps);
  block.stacks.reserve(block.num_threads);
  block.dynamic_shared = dynamic.get();
  block.dynamic_shared_bytes = c.shared_bytes;
  block.static_shared = &static_shared_of(kernel);
  size_t static_bytes = 0;
  for (const SharedVariable &variable : *block.static_shared) static_bytes += variable.bytes;
  block.static_aside.resize(c.num_in_cluster > 1 ? static_bytes : 0);
  block.racing_pc[0] = block.racing_pc[1] = nullptr;
}

inline int run_grid(const Configuration &c, uintptr_t kernel, void (*run)(void *), void *arguments) {
  static std::mutex one_grid_at_a_time;  // static __shared__ memory exists once
  const std::lock_guard<std::mutex> lock(one_grid_at_a_time);
  static Block *const all = new Block[MAX_CLUSTER];  // never destroyed: a launch may come from a late exit handler

  const Order chosen = order();
  if (const int status = check_configuration(c, chosen)) return status;
  if (const int status = check_shared(c, kernel)) return status;
  std::vector<std::unique_ptr<DynamicShared>> dynamic;
  Cluster cluster;
  for (unsigned rank = 0; rank < c.num_in_cluster; ++rank) {
    Block &block = all[rank];
    current = &block;
    cluster.blocks.push_back(&block);
    dynamic.push_back(std::make_unique<DynamicShared>(c.shared_bytes));
    block.rank = rank;
    block.cluster = &cluster;
    block.kernel = run;
    block.arguments = arguments;
    set_up(block, c, *dynamic.back(), kernel);
    race::watch_shared();
  }

  const unsigned width = c.grid.x / c.num_in_cluster;
  const BlockOrder clusters(chosen, uint64_t{width} * c.grid.y * c.grid.z);
  bool failed = false;
  for (uint64_t i = 0; i < clusters.total && !failed; ++i) {
    const uint64_t number = clusters.at(i);
    cluster.num_barriers = 0;
    race::start_cluster();
    for (Block *block : cluster.blocks) {
      const unsigned x = static_cast<unsigned>(number % width) * c.num_in_cluster + block->rank;
      current = block;
      start_block(*block, {x, static_cast<unsigned>(number / width % c.grid.y),
                           static_cast<unsigned>(number / width / c.grid.y)}, chosen,
                  number * c.num_in_cluster + block->rank);
      fill_shared(*block);
      put_static_aside(*block);
    }
    failed = !run_cluster(cluster, chosen, number);
  }
  const int status = failed ? report_failure(*current) : OK;
  current = nullptr;
  return status;
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

template <class... Params> int run_call(Call<Params...> &call, const Configuration &c) {
  try {
    return run_grid(c, reinterpret_cast<uintptr_t>(call.kernel), Call<Params...>::run, &call);
  } catch (const std::bad_alloc &) {
    return refuse(OUT_OF_MEMORY, "simt: out of memory for %u threads of a block", c.extent.x * c.extent.y * c.extent.z);
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
  Configuration configuration;

  static void *clone(const void *launch) { return new Launch(*static_cast<const Launch *>(launch)); }
  static void destroy(void *launch) { delete static_cast<Launch *>(launch); }
  static int run(void *launch, const char **fault) {
    Launch &self = *static_cast<Launch *>(launch);
    const int status = run_call(self.call, self.configuration);
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
int launch(void (*kernel)(Params...), const Configuration &c, void *stream, Args &&...args) {
  if (const int status = check_configuration(c, order())) return status;
  const Call<Params...> call{kernel, {static_cast<std::decay_t<Params>>(std::forward<Args>(args))...}};
  const Launch<Params...> launch{call, c};
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
int launch(void (*kernel)(Params...), const Configuration &c, void * /*stream*/, Args &&...args) {
  Call<Params...> call{kernel, {static_cast<std::decay_t<Params>>(std::forward<Args>(args))...}};
  return run_call(call, c);
}

#endif

}  // namespace simt
