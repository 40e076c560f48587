// What may happen while streams are captured, and how does a graph run?
//
// A captured stream keeps a frontier: the nodes that its next node comes after. An event recorded in the capture copies
// it, a wait adds it to another stream's. A call that a capture forbids returns CUDA's code for it and spoils the
// capture, so that cudaStreamEndCapture gives no graph (CUDA Programming Guide, "Prohibited and Unhandled Operations").
#include <algorithm>

#include "core.h"

namespace softgpu {

namespace {

std::vector<std::shared_ptr<Capture>> active_captures() {
  auto &all = state().captures;
  all.erase(std::remove_if(all.begin(), all.end(), [](const auto &c) { return c.expired() || c.lock()->ended; }),
            all.end());
  std::vector<std::shared_ptr<Capture>> active;
  for (const auto &c : all) active.push_back(c.lock());
  return active;
}

int spoil(Capture &capture, int code) {
  capture.invalid = true;
  return code;
}

void end(const std::shared_ptr<Capture> &capture) {
  capture->ended = true;
  for_each_stream([&](Stream &stream) {
    if (stream.capture != capture) return;
    stream.capture = nullptr;
    stream.frontier.clear();
  });
}

void merge(std::vector<int> &frontier, const std::vector<int> &more) {
  frontier.insert(frontier.end(), more.begin(), more.end());
  std::sort(frontier.begin(), frontier.end());
  frontier.erase(std::unique(frontier.begin(), frontier.end()), frontier.end());
}

// Does the origin come after everything that the other streams of the capture did?
bool is_joined(const std::shared_ptr<Capture> &capture) {
  std::vector<bool> comes_before(capture->graph.nodes.size());
  std::vector<int> open = capture->origin->frontier;
  while (!open.empty()) {
    const int node = open.back();
    open.pop_back();
    if (comes_before[node]) continue;
    comes_before[node] = true;
    for (const int earlier : capture->graph.nodes[node].after) open.push_back(earlier);
  }
  bool joined = true;
  for_each_stream([&](Stream &stream) {
    if (stream.capture == capture)
      for (const int node : stream.frontier) joined &= comes_before[node];
  });
  return joined;
}

// All nodes, each after those it depends on; of those that may run the one captured last comes first, or one drawn from
// the seed.
int run_graph(const Exec &exec, int64_t order, std::string &why) {
  const size_t num_nodes = exec.nodes.size();
  std::vector<size_t> open(num_nodes);  // how many nodes a node still waits for
  std::vector<int> ready;
  for (size_t i = 0; i < num_nodes; ++i) {
    open[i] = exec.nodes[i].after.size();
    if (!open[i]) ready.push_back(static_cast<int>(i));
  }
  uint64_t draw = static_cast<uint64_t>(order);
  while (!ready.empty()) {
    draw = draw * 6364136223846793005u + 1442695040888963407u;  // MMIX
    const size_t pick = order < 2 ? static_cast<size_t>(std::max_element(ready.begin(), ready.end()) - ready.begin())
                                  : (draw >> 33) % ready.size();
    const int node = ready[pick];
    ready.erase(ready.begin() + static_cast<int64_t>(pick));
    if (exec.nodes[node].task)
      if (const int code = exec.nodes[node].task(why)) {
        why = format("node %d of a graph: %s", node, why.c_str());
        return code;
      }
    for (const int later : exec.before[node])
      if (--open[later] == 0) ready.push_back(later);
  }
  return OK;
}

std::shared_ptr<Graph> find_graph(void *handle) {
  const auto found = state().graphs.find(handle);
  return found == state().graphs.end() ? nullptr : found->second;
}

std::shared_ptr<Exec> find_exec(void *handle) {
  const auto found = state().execs.find(handle);
  return found == state().execs.end() ? nullptr : found->second;
}

}  // namespace

// Such a call may reach into a capture behind its back: refused to the thread that captures, unless it captures
// relaxed, and to all threads beside a global capture.
int capture_conflict_of_unsafe_call() {
  int code = OK;
  for (const auto &capture : active_captures()) {
    const bool is_mine = capture->thread == this_thread();
    if (is_mine ? capture->mode != CaptureMode::RELAXED : capture->mode == CaptureMode::GLOBAL)
      code = spoil(*capture, CAPTURE_UNSUPPORTED);
  }
  return code;
}

int capture_conflict(const Stream &stream) {
  if (stream.capture)
    return spoil(*stream.capture, stream.capture->invalid ? CAPTURE_INVALIDATED : CAPTURE_UNSUPPORTED);
  if (const int code = capture_conflict_of_legacy_use(stream)) return code;
  return capture_conflict_of_unsafe_call();
}

int capture_conflict_of_device_wait() {
  int code = capture_conflict_of_unsafe_call();
  for_each_stream([&](Stream &stream) {
    if (stream.capture && stream.device == current_device()) code = spoil(*stream.capture, CAPTURE_UNSUPPORTED);
  });
  return code;
}

int capture_conflict_of_legacy_use(const Stream &stream) {
  if (stream.handle) return OK;
  int code = OK;
  for_each_stream([&](Stream &other) {
    if (other.capture && other.is_blocking && other.device == stream.device)
      code = spoil(*other.capture, CAPTURE_IMPLICIT);
  });
  return code;
}

int capture_work(Stream &stream, Task task, const Traffic &traffic) {
  Capture &capture = *stream.capture;
  if (capture.invalid) return CAPTURE_INVALIDATED;
  capture.graph.nodes.push_back({std::move(task), stream.frontier});
  stream.frontier = {static_cast<int>(capture.graph.nodes.size()) - 1};
  add(capture.graph.traffic, traffic);
  return OK;
}

int capture_record(Stream &stream, Event &event) {
  if (stream.capture->invalid) return CAPTURE_INVALIDATED;
  event.capture = stream.capture;
  event.frontier = stream.frontier;
  event.record = nullptr;
  return OK;
}

int capture_wait(Stream &stream, Event &event) {
  if (stream.capture && stream.capture->invalid) return CAPTURE_INVALIDATED;
  if (!event.capture) return event.record ? spoil(*stream.capture, CAPTURE_ISOLATION) : OK;
  if (event.capture->ended) return stream.capture ? spoil(*stream.capture, CAPTURE_ISOLATION) : CAPTURED_EVENT;
  if (event.capture->invalid) return CAPTURE_INVALIDATED;
  if (!stream.handle) return spoil(*event.capture, CAPTURE_IMPLICIT);
  if (stream.capture && stream.capture != event.capture) {
    spoil(*stream.capture, CAPTURE_MERGE);
    return spoil(*event.capture, CAPTURE_MERGE);
  }
  stream.capture = event.capture;
  merge(stream.frontier, event.frontier);
  return OK;
}

void leave_capture(Stream &stream) {
  const std::shared_ptr<Capture> capture = stream.capture;
  if (!capture) return;
  capture->invalid = true;
  if (capture->origin == &stream) end(capture);
}

void forget_graphs() {
  State &s = state();
  for (const auto &capture : active_captures()) end(capture);
  s.graphs.clear();
  s.execs.clear();
}

void add(Traffic &sum, const Traffic &more) {
  sum.h2d += more.h2d;
  sum.d2h += more.d2h;
  sum.d2d += more.d2d;
  sum.pageable += more.pageable;
  sum.copies_h2d += more.copies_h2d;
  sum.copies_d2h += more.copies_d2h;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

SOFTGPU_API int cudaStreamBeginCapture(void *handle, int mode) {
  Call call(Symbol::cudaStreamBeginCapture);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  if (mode < 0 || mode > 2) return call.finish(INVALID_VALUE);
  if (!stream->handle) return call.finish(CAPTURE_UNSUPPORTED);
  if (stream->capture) return call.finish(ILLEGAL_STATE);
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->mode = static_cast<CaptureMode>(mode);
  capture->thread = this_thread();
  stream->capture = capture;
  state().captures.push_back(capture);
  return call.finish(OK);
}

SOFTGPU_API int cudaStreamEndCapture(void *handle, void **out) {
  Call call(Symbol::cudaStreamEndCapture);
  if (out) *out = nullptr;
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return call.finish(ILLEGAL_STATE);
  if (capture->origin != stream) return call.finish(spoil(*capture, CAPTURE_UNMATCHED));
  if (capture->thread != this_thread() && capture->mode != CaptureMode::RELAXED)
    return call.finish(CAPTURE_WRONG_THREAD);
  const bool joined = is_joined(capture);
  end(capture);
  if (capture->invalid) return call.finish(CAPTURE_INVALIDATED);
  if (!joined) return call.finish(CAPTURE_UNJOINED);
  if (!out) return call.finish(INVALID_VALUE);
  *out = state().new_handle();
  state().graphs.emplace(*out, std::make_shared<Graph>(std::move(capture->graph)));
  ++state().counters[SOFTGPU_LIVE_GRAPHS];
  return call.finish(OK);
}

SOFTGPU_API int cudaStreamIsCapturing(void *handle, int *status) {
  Call call(Symbol::cudaStreamIsCapturing);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  if (!status) return call.finish(INVALID_VALUE);
  enum { NONE = 0, ACTIVE = 1, INVALIDATED = 2 };
  *status = !stream->capture ? NONE : stream->capture->invalid ? INVALIDATED : ACTIVE;
  return call.finish(OK);
}

SOFTGPU_API int cudaGraphInstantiate(void **out, void *handle, unsigned long long flags) {
  Call call(Symbol::cudaGraphInstantiate);
  if (out) *out = nullptr;
  if (call.is_refused()) return call.refusal();
  const std::shared_ptr<Graph> graph = find_graph(handle);
  if (!out || !graph || flags != 0) return call.finish(INVALID_VALUE);
  auto exec = std::make_shared<Exec>();
  exec->device = current_device();
  exec->nodes = graph->nodes;
  exec->traffic = graph->traffic;
  exec->before.resize(graph->nodes.size());
  for (size_t i = 0; i < graph->nodes.size(); ++i)
    for (const int earlier : graph->nodes[i].after) exec->before[earlier].push_back(static_cast<int>(i));
  *out = state().new_handle();
  state().execs.emplace(*out, std::move(exec));
  ++state().counters[SOFTGPU_LIVE_EXECS];
  return call.finish(OK);
}

SOFTGPU_API int cudaGraphUpload(void *handle, void *stream_handle) {
  Call call(Symbol::cudaGraphUpload);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(stream_handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  if (!find_exec(handle)) return call.finish(INVALID_VALUE);
  return call.finish(stream->capture ? spoil(*stream->capture, CAPTURE_UNSUPPORTED)
                                     : capture_conflict_of_legacy_use(*stream));
}

// In a capture the whole graph becomes one node.
SOFTGPU_API int cudaGraphLaunch(void *handle, void *stream_handle) {
  Call call(Symbol::cudaGraphLaunch);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(stream_handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  const std::shared_ptr<Exec> exec = find_exec(handle);
  if (!exec) return call.finish(INVALID_VALUE);
  const int64_t order = state().settings.stream_order;
  const Task task = [exec, order](std::string &why) { return run_graph(*exec, order, why); };
  const bool is_captured = stream->capture != nullptr;
  WorkPointer work;
  if (const int code = submit(*stream, task, exec->traffic, &work)) return call.finish(code);
  if (is_captured) return call.finish(OK);
  if (work && exec->last_launch && !exec->last_launch->done) work->after.push_back(exec->last_launch);
  if (work) exec->last_launch = work;
  ++state().counters[SOFTGPU_GRAPH_LAUNCHES];
  state().counters[SOFTGPU_GRAPH_NODES] += static_cast<int64_t>(exec->nodes.size());
  return call.finish(OK);
}

SOFTGPU_API int cudaGraphGetNodes(void *handle, void **nodes, size_t *num_nodes) {
  Call call(Symbol::cudaGraphGetNodes);
  if (call.is_refused()) return call.refusal();
  const std::shared_ptr<Graph> graph = find_graph(handle);
  if (!graph || !num_nodes) return call.finish(INVALID_VALUE);
  const size_t total = graph->nodes.size();
  if (nodes) {
    for (size_t i = 0; i < *num_nodes; ++i) nodes[i] = i < total ? &graph->nodes[i] : nullptr;
    *num_nodes = std::min(*num_nodes, total);
  } else {
    *num_nodes = total;
  }
  return call.finish(OK);
}

SOFTGPU_API int cudaGraphDestroy(void *handle) {
  Call call(Symbol::cudaGraphDestroy);
  if (call.is_refused_release()) return call.refusal();
  if (!state().graphs.erase(handle)) return call.finish(INVALID_VALUE);
  --state().counters[SOFTGPU_LIVE_GRAPHS];
  return call.finish(OK);
}

// A launch that has not run yet keeps what it needs.
SOFTGPU_API int cudaGraphExecDestroy(void *handle) {
  Call call(Symbol::cudaGraphExecDestroy);
  if (call.is_refused_release()) return call.refusal();
  if (!state().execs.erase(handle)) return call.finish(INVALID_VALUE);
  --state().counters[SOFTGPU_LIVE_EXECS];
  return call.finish(OK);
}

}  // extern "C"
