// What is the state behind the stand-in libcudart, and what do its files share?
//
// One mutex guards all of it. Work runs with the mutex released, one piece at a time, on the host thread that waits for
// it (stream.cpp); everything else holds the mutex.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "gpu.h"

namespace softgpu {

constexpr int RUNTIME_VERSION = 13000;

struct Stream;
struct Capture;

// Bytes that one copy moves, or all copies of a graph.
struct Traffic {
  int64_t h2d = 0, d2h = 0, d2d = 0, pageable = 0, copies_h2d = 0, copies_d2h = 0;
};

// A piece of work in a stream. It may run when it is first in its stream and all of `after` is done.
struct Work {
  Stream *stream = nullptr;
  std::vector<std::shared_ptr<Work>> after;  // in other streams
  Task task;                                 // empty: a mark in the stream, for events and waits
  int injected_fault = OK;
  bool done = false;
  int64_t done_ns = 0;
};
using WorkPointer = std::shared_ptr<Work>;

struct Stream {
  void *handle;
  int device;
  bool is_blocking;  // orders itself with the legacy stream
  uint64_t number;   // of creation; the legacy stream of a device is first
  bool destroyed = false;
  std::deque<WorkPointer> queue;
  WorkPointer last;                  // given to the stream; may be done
  std::shared_ptr<Capture> capture;  // the capture it takes part in
  std::vector<int> frontier;         // nodes that the next captured node comes after
};

struct Event {
  int device;
  bool has_timing;
  WorkPointer record;                // the last one outside of captures
  std::shared_ptr<Capture> capture;  // where it was recorded last, if that was a capture
  std::vector<int> frontier;
};

struct Node {
  Task task;
  std::vector<int> after;
};

struct Graph {
  std::vector<Node> nodes;
  Traffic traffic;
};

struct Exec {
  int device;
  std::vector<Node> nodes;
  std::vector<std::vector<int>> before;  // the reverse of Node::after
  Traffic traffic;
  WorkPointer last_launch;  // an executable graph never runs beside itself
};

enum class CaptureMode : int { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

struct Capture {
  Stream *origin;
  CaptureMode mode;
  uint64_t thread;
  Graph graph;
  bool invalid = false;
  bool ended = false;
};

struct Block {
  char *map;  // the mapping around it
  size_t map_bytes;
  char *data;
  size_t bytes;
  bool is_pinned;
  int device;
  uint64_t number;  // of creation
};

struct SymbolState {
  int64_t calls = 0;
  int64_t fails_at_call = 0;  // never, if that is behind
  int fails_with = 0;
};

struct Settings {
  int64_t capacity = int64_t{8} << 30;
  int num_devices = 1;
  int compute_major = 9, compute_minor = 0;
  int driver_version = 13000;
  int64_t stream_order = 0;
  bool kernels_empty = false;
};

struct State {
  std::mutex mutex;
  std::condition_variable progress;  // a piece of work has ended
  Settings settings;
  bool is_running = false;  // a thread runs work, without the mutex
  int lost = OK;
  uint64_t generation = 1;  // of softgpu_reset
  std::string fault_text;
  SymbolState symbols[static_cast<int>(Symbol::NUM_SYMBOLS)];
  int64_t counters[SOFTGPU_NUM_COUNTERS] = {};
  int64_t work_given = 0, work_fails_at = 0;
  int work_fails_with = OK;
  uint64_t draws = 0;  // of random stream orders

  uintptr_t next_handle = 0x5f00000000;  // never used twice: a stale handle stays invalid
  uint64_t next_number = 1;
  std::unordered_map<void *, std::unique_ptr<Stream>> streams;
  std::vector<std::unique_ptr<Stream>> legacy;     // by device
  std::vector<std::unique_ptr<Stream>> destroyed;  // with work left
  std::unordered_map<void *, Event> events;
  std::unordered_map<void *, std::shared_ptr<Graph>> graphs;
  std::unordered_map<void *, std::shared_ptr<Exec>> execs;
  std::vector<std::weak_ptr<Capture>> captures;
  std::map<uintptr_t, Block> live, freed;  // by address of data
  std::deque<uintptr_t> freed_order;
  size_t freed_bytes = 0;

  void *new_handle() { return reinterpret_cast<void *>(next_handle += 16); }
};

State &state();  // never destroyed: calls may come from late exit handlers

using Lock = std::unique_lock<std::mutex>;

// One call of the API: counts it, finds the faults asked for and the reasons that refuse any call.
class Call {
 public:
  explicit Call(Symbol symbol);
  // The call may not go on.
  bool is_refused() const { return error_ != OK; }
  // A release goes on although the device is lost, so that what is alive can be counted after an error too.
  bool is_refused_release() const { return error_ != OK && error_ != state().lost; }
  int refusal() { return finish(error_); }
  // Notes the result as the thread's last error. A lost device has the last word.
  int finish(int code);
  Lock &lock() { return lock_; }

 private:
  Lock lock_;
  int error_;
};

uint64_t this_thread();  // a number
int current_device();
void set_current_device(int device);
int last_error(bool forget);
bool ends_context(int code);
void lose(int code, const std::string &text);  // the device; drops all pending work
// Notes why a call was refused; what lost the device stays.
void refuse_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
int use_of(Symbol symbol);
std::string format(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t now_ns();

// stream.cpp
Stream *find_stream(void *handle);  // nullptr: no such stream
void for_each_stream(const std::function<void(Stream &)> &visit);
// Past a capture or into it. *given is the work, unless it was captured or dropped.
int submit(Stream &stream, Task task, const Traffic &traffic = {}, WorkPointer *given = nullptr);
int submit_launch(Stream &stream, Task task);
WorkPointer push(Stream &stream, Task task);  // past any capture
bool wait_for(Lock &lock, WorkPointer work);  // false: the device was lost
bool wait_for_device(Lock &lock, int device);
void advance(Lock &lock, WorkPointer work);  // one step towards it
int result_of_wait();                        // looks at the red zones
void drop_pending_work();
void count_traffic(const Traffic &traffic);

// graph.cpp
int capture_conflict(const Stream &stream);  // of synchronising or querying this stream
int capture_conflict_of_unsafe_call();       // of cudaMalloc and its like
int capture_conflict_of_device_wait();
int capture_conflict_of_legacy_use(const Stream &stream);
int capture_work(Stream &stream, Task task, const Traffic &traffic);
int capture_record(Stream &stream, Event &event);
int capture_wait(Stream &stream, Event &event);
void leave_capture(Stream &stream);
void forget_graphs();
void add(Traffic &sum, const Traffic &more);

// memory.cpp
int check_red_zones();  // of live memory: how many blocks were damaged; the fault text names the last
int check_freed();
enum class Where { UNKNOWN, DEVICE, PINNED, FREED };
struct Place {
  Where where;
  const Block *block;
  size_t room;  // bytes from the address to the end of the block
};
Place place_of(const void *address);
std::string describe(const void *address);
void free_everything();

}  // namespace softgpu
