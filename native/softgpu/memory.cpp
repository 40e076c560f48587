// What is device memory made of, what surrounds it, and what is in it before and after its life?
//
// A block is a mapping of its own: red zone, data, red zone. Data is 0xff before the first write and again when freed:
// NaN as f32, bf16 and f16, -1 as an integer. A large block is mapped, copy on write, from one file of 0xff, so that
// memory nobody writes to costs nothing. A freed block stays mapped for a while: its use is reported, and does not end
// the process.
#include <algorithm>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"

namespace softgpu {

namespace {

constexpr size_t PAGE = 4096;
constexpr size_t RED_ZONE = 512;                // on each side, looked at
constexpr size_t ALIGNMENT = 256;               // of device memory, and no more: what CUDA promises
constexpr size_t POISONED_BY_MAP = 128 * 1024;  // bytes of data from which poison is mapped, not written
constexpr size_t POISON_FILE = 16 << 20;
constexpr size_t FREED_BLOCKS = 1024;             // kept; at most 128 MiB of them written memory
constexpr size_t FREED_BYTES = size_t{64} << 30;  // kept: 4096 of the 65530 mappings that a process may have
constexpr size_t CHECKED_OF_FREED = 1 << 20;
constexpr unsigned char POISON = 0xff, RED = 0xb5;
constexpr int FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

const unsigned char *red_pattern() {
  static const std::vector<unsigned char> pattern(RED_ZONE, RED);
  return pattern.data();
}

// -1: this system has no such file, poison is written then.
int poison_file() {
  static const int file = [] {
    const int fd = memfd_create("softgpu-poison", MFD_CLOEXEC);
    if (fd < 0) return -1;
    const std::vector<unsigned char> bytes(POISON_FILE, POISON);
    for (size_t at = 0; at < POISON_FILE;) {
      const ssize_t n = pwrite(fd, bytes.data() + at, POISON_FILE - at, static_cast<off_t>(at));
      if (n <= 0) {
        close(fd);
        return -1;
      }
      at += static_cast<size_t>(n);
    }
    return fd;
  }();
  return file;
}

// Fills [data, data + bytes); its whole pages by mapping if it is large.
void poison(char *data, size_t bytes) {
  char *const begin = reinterpret_cast<char *>(round_up(reinterpret_cast<uintptr_t>(data), PAGE));
  char *const end = reinterpret_cast<char *>(reinterpret_cast<uintptr_t>(data + bytes) / PAGE * PAGE);
  if (bytes < POISONED_BY_MAP || poison_file() < 0) {
    memset(data, POISON, bytes);
    return;
  }
  memset(data, POISON, begin - data);
  memset(end, POISON, data + bytes - end);
  for (char *at = begin; at < end; at += POISON_FILE) {
    const size_t piece = std::min<size_t>(POISON_FILE, end - at);
    if (mmap(at, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, poison_file(), 0) ==
        MAP_FAILED)
      memset(at, POISON, piece);
  }
}

Block *allocate(size_t bytes, bool is_pinned) {
  State &s = state();
  const size_t before = PAGE + (is_pinned ? 0 : ALIGNMENT);  // pinned memory begins with a page
  const size_t map_bytes = round_up(before + bytes + RED_ZONE, PAGE);
  void *map = mmap(nullptr, map_bytes, PROT_READ | PROT_WRITE, FLAGS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  Block block{static_cast<char *>(map), map_bytes,      static_cast<char *>(map) + before, bytes, is_pinned,
              current_device(),         s.next_number++};
  poison(block.data, bytes);
  memset(block.data - RED_ZONE, RED, RED_ZONE);
  memset(block.data + bytes, RED, RED_ZONE);
  return &s.live.emplace(reinterpret_cast<uintptr_t>(block.data), block).first->second;
}

std::string name_of(const Block &block) {
  return format("%s block %llu (%zu bytes at %p)", block.is_pinned ? "pinned" : "device",
                static_cast<unsigned long long>(block.number), block.bytes, static_cast<void *>(block.data));
}

// Offset of the first byte that differs from the red pattern, or RED_ZONE.
size_t first_damage(const char *zone) {
  if (!memcmp(zone, red_pattern(), RED_ZONE)) return RED_ZONE;
  return std::mismatch(zone, zone + RED_ZONE, red_pattern(),
                       [](char a, unsigned char b) { return static_cast<unsigned char>(a) == b; })
             .first -
         zone;
}

// Says so and mends the zones.
bool is_damaged(const Block &block) {
  char *const before = block.data - RED_ZONE, *const after = block.data + block.bytes;
  const size_t low = first_damage(before), high = first_damage(after);
  if (low == RED_ZONE && high == RED_ZONE) return false;
  ++state().counters[SOFTGPU_RED_ZONE_HITS];
  if (high < RED_ZONE)
    refuse_text("written beyond the end of %s, %zu bytes past it", name_of(block).c_str(), high);
  else
    refuse_text("written before the start of %s, %zu bytes before it", name_of(block).c_str(), RED_ZONE - low);
  memset(before, RED, RED_ZONE);
  memset(after, RED, RED_ZONE);
  return true;
}

bool is_written_after_free(const Block &block) {
  const size_t bytes = std::min(block.bytes, CHECKED_OF_FREED);
  const auto *begin = reinterpret_cast<const unsigned char *>(block.data);
  const auto *damage = std::find_if(begin, begin + bytes, [](unsigned char c) { return c != POISON; });
  if (damage == begin + bytes) return false;
  ++state().counters[SOFTGPU_FREED_HITS];
  refuse_text("freed memory was written: %s, at byte %zd", name_of(block).c_str(), damage - begin);
  poison(block.data, block.bytes);
  return true;
}

void release(std::map<uintptr_t, Block>::iterator at) {
  State &s = state();
  const Block block = at->second;
  s.live.erase(at);
  s.counters[block.is_pinned ? SOFTGPU_LIVE_PINNED : SOFTGPU_LIVE_ALLOCATIONS] -= 1;
  s.counters[block.is_pinned ? SOFTGPU_LIVE_PINNED_BYTES : SOFTGPU_LIVE_BYTES] -= static_cast<int64_t>(block.bytes);
  poison(block.data, block.bytes);
  s.freed.emplace(reinterpret_cast<uintptr_t>(block.data), block);
  s.freed_order.push_back(reinterpret_cast<uintptr_t>(block.data));
  s.freed_bytes += block.bytes;
  while (s.freed_order.size() > 1 && (s.freed_order.size() > FREED_BLOCKS || s.freed_bytes > FREED_BYTES)) {
    const auto oldest = s.freed.find(s.freed_order.front());
    is_written_after_free(oldest->second);
    munmap(oldest->second.map, oldest->second.map_bytes);
    s.freed_bytes -= oldest->second.bytes;
    s.freed.erase(oldest);
    s.freed_order.pop_front();
  }
}

int64_t live_bytes_of(int device) {
  int64_t bytes = 0;
  for (const auto &[address, block] : state().live)
    if (!block.is_pinned && block.device == device) bytes += static_cast<int64_t>(block.bytes);
  return bytes;
}

const Block *block_with(const std::map<uintptr_t, Block> &blocks, uintptr_t address) {
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin()) return nullptr;
  const Block &block = (--after)->second;
  // The address behind the last byte belongs to the block as well: an empty tensor may lie there.
  return address - reinterpret_cast<uintptr_t>(block.data) <= block.bytes ? &block : nullptr;
}

// cudaFree and cudaFreeHost wait until nothing can use the block any more.
int free_block(Call &call, void *address, bool is_pinned, const char *name) {
  State &s = state();
  if (!address) return OK;
  if (!s.lost)
    if (const int conflict = capture_conflict_of_unsafe_call()) return conflict;
  auto at = s.live.find(reinterpret_cast<uintptr_t>(address));
  if (at == s.live.end() || at->second.is_pinned != is_pinned) {
    refuse_text("%s: %s, not the start of a live block", name, describe(address).c_str());
    return INVALID_VALUE;
  }
  wait_for_device(call.lock(), at->second.device);
  at = s.live.find(reinterpret_cast<uintptr_t>(address));  // the mutex was released meanwhile
  if (at == s.live.end()) return INVALID_VALUE;
  const bool damaged = is_damaged(at->second);
  release(at);
  return damaged ? ILLEGAL_ADDRESS : OK;
}

}  // namespace

Place place_of(const void *address) {
  const uintptr_t a = reinterpret_cast<uintptr_t>(address);
  const Block *block = block_with(state().live, a);
  Where where = !block ? Where::FREED : block->is_pinned ? Where::PINNED : Where::DEVICE;
  if (!block) block = block_with(state().freed, a);
  if (!block) return {Where::UNKNOWN, nullptr, 0};
  return {where, block, block->bytes - (a - reinterpret_cast<uintptr_t>(block->data))};
}

std::string describe(const void *address) {
  const Place place = place_of(address);
  if (!place.block) return format("%p is neither device nor pinned memory", address);
  return format("%p is %s%s, byte %zu", address, place.where == Where::FREED ? "freed: " : "in ",
                name_of(*place.block).c_str(), place.block->bytes - place.room);
}

int check_red_zones() {
  int damaged = 0;
  for (const auto &[address, block] : state().live) damaged += is_damaged(block);
  return damaged;
}

int check_freed() {
  int damaged = 0;
  for (const auto &[address, block] : state().freed) damaged += is_written_after_free(block);
  return damaged;
}

void free_everything() {
  while (!state().live.empty()) release(state().live.begin());
}

bool is_accessible(const void *address, size_t bytes, const char *what, std::string &why) {
  const Lock lock(state().mutex);
  if (bytes == 0) return true;
  const Place place = place_of(address);
  if (place.where == Where::FREED) ++state().counters[SOFTGPU_FREED_HITS];
  if ((place.where == Where::DEVICE || place.where == Where::PINNED) && place.room >= bytes) return true;
  why += format("%s: %zu bytes needed, %s", what, bytes, describe(address).c_str());
  return false;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

SOFTGPU_API int cudaMalloc(void **out, size_t bytes) {
  Call call(Symbol::cudaMalloc);
  if (call.is_refused()) return call.refusal();
  if (!out) return call.finish(INVALID_VALUE);
  *out = nullptr;
  if (const int conflict = capture_conflict_of_unsafe_call()) return call.finish(conflict);
  if (bytes == 0) return call.finish(OK);
  State &s = state();
  const int64_t room = s.settings.capacity - live_bytes_of(current_device());
  if (room < 0 || bytes > static_cast<size_t>(room)) return call.finish(OUT_OF_MEMORY);
  const Block *block = allocate(bytes, false);
  if (!block) return call.finish(OUT_OF_MEMORY);
  s.counters[SOFTGPU_LIVE_ALLOCATIONS] += 1;
  s.counters[SOFTGPU_LIVE_BYTES] += static_cast<int64_t>(bytes);
  s.counters[SOFTGPU_PEAK_BYTES] = std::max(s.counters[SOFTGPU_PEAK_BYTES], s.counters[SOFTGPU_LIVE_BYTES]);
  *out = block->data;
  return call.finish(OK);
}

SOFTGPU_API int cudaFree(void *address) {
  Call call(Symbol::cudaFree);
  if (call.is_refused_release()) return call.refusal();
  return call.finish(free_block(call, address, false, "cudaFree"));
}

SOFTGPU_API int cudaHostAlloc(void **out, size_t bytes, unsigned flags) {
  Call call(Symbol::cudaHostAlloc);
  if (call.is_refused()) return call.refusal();
  constexpr unsigned PORTABLE_MAPPED_WRITE_COMBINED = 1 | 2 | 4;
  if (!out || flags & ~PORTABLE_MAPPED_WRITE_COMBINED) return call.finish(INVALID_VALUE);
  *out = nullptr;
  if (const int conflict = capture_conflict_of_unsafe_call()) return call.finish(conflict);
  if (bytes == 0) return call.finish(OK);
  const Block *block = allocate(bytes, true);
  if (!block) return call.finish(OUT_OF_MEMORY);
  state().counters[SOFTGPU_LIVE_PINNED] += 1;
  state().counters[SOFTGPU_LIVE_PINNED_BYTES] += static_cast<int64_t>(bytes);
  *out = block->data;
  return call.finish(OK);
}

SOFTGPU_API int cudaFreeHost(void *address) {
  Call call(Symbol::cudaFreeHost);
  if (call.is_refused_release()) return call.refusal();
  return call.finish(free_block(call, address, true, "cudaFreeHost"));
}

SOFTGPU_API int cudaHostGetDevicePointer(void **out, void *host, unsigned flags) {
  Call call(Symbol::cudaHostGetDevicePointer);
  if (call.is_refused()) return call.refusal();
  if (!out || flags != 0 || place_of(host).where != Where::PINNED) return call.finish(INVALID_VALUE);
  *out = host;  // one address space, as on every machine that CUDA 12 and later run on
  return call.finish(OK);
}

SOFTGPU_API int cudaMemGetInfo(size_t *free, size_t *total) {
  Call call(Symbol::cudaMemGetInfo);
  if (call.is_refused()) return call.refusal();
  if (!free || !total) return call.finish(INVALID_VALUE);
  *total = static_cast<size_t>(state().settings.capacity);
  *free = static_cast<size_t>(std::max<int64_t>(0, state().settings.capacity - live_bytes_of(current_device())));
  return call.finish(OK);
}

}  // extern "C"
