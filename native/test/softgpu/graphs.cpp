// Do captures record what CUDA's record, refuse what CUDA's refuse, and do graphs replay?
#include <algorithm>
#include <set>
#include <thread>

#include "harness.h"

using namespace harness;
using Log = std::vector<int>;

namespace {

constexpr int GLOBAL = cudaStreamCaptureModeGlobal, THREAD_LOCAL = cudaStreamCaptureModeThreadLocal,
              RELAXED = cudaStreamCaptureModeRelaxed;

void *begin(int mode = THREAD_LOCAL) {
  void *stream = new_stream();
  EXPECT_EQUAL(0, cudaStreamBeginCapture(stream, mode));
  return stream;
}

void *end(void *stream) {
  void *graph = nullptr;
  EXPECT_EQUAL(0, cudaStreamEndCapture(stream, &graph));
  return graph;
}

void *instantiate(void *graph) {
  void *exec = nullptr;
  EXPECT_EQUAL(0, cudaGraphInstantiate(&exec, graph, 0));
  return exec;
}

// The capture was spoilt: it takes nothing any more and ends without a graph.
void expect_spoilt(void *stream) {
  int status = 0;
  EXPECT_EQUAL(0, cudaStreamIsCapturing(stream, &status));
  EXPECT_EQUAL(2, status);
  EXPECT_EQUAL(cudaErrorStreamCaptureInvalidated, fail_when_run(stream, 0));
  void *graph = &status;
  EXPECT_EQUAL(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream, &graph));
  EXPECT(graph == nullptr);
  EXPECT_EQUAL(0, cudaStreamIsCapturing(stream, &status));
  EXPECT_EQUAL(0, status);
}

}  // namespace

TEST(graphs_record_and_replay) {
  float *p = device_floats(4), *host = pinned_floats(4, 1);
  void *stream = begin();
  log_work(stream, 1);
  EXPECT_EQUAL(0, cudaMemcpyAsync(p, host, 16, cudaMemcpyHostToDevice, stream));
  EXPECT_EQUAL(0, cudaMemsetAsync(p, 0, 4, stream));
  log_work(stream, 2);
  void *graph = end(stream), *exec = instantiate(graph);
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(take_log().empty());
  EXPECT_EQUAL(0, counter(SOFTGPU_BYTES_H2D));
  EXPECT_EQUAL(0, counter(SOFTGPU_LAUNCHES));
  size_t num_nodes = 0;
  EXPECT_EQUAL(0, cudaGraphGetNodes(graph, nullptr, &num_nodes));
  EXPECT_EQUAL(4, num_nodes);
  EXPECT_EQUAL(0, cudaGraphDestroy(graph));
  EXPECT_EQUAL(0, cudaGraphUpload(exec, stream));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQUAL(0, cudaGraphLaunch(exec, stream));
    host[1] = static_cast<float>(10 + i);
    EXPECT(take_log().empty());
    EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
    EXPECT(take_log() == Log({1, 2}));
    EXPECT(p[0] == 0 && p[1] == 10 + i && p[2] == 1);
  }
  EXPECT_EQUAL(3, counter(SOFTGPU_GRAPH_LAUNCHES));
  EXPECT_EQUAL(12, counter(SOFTGPU_GRAPH_NODES));
  EXPECT_EQUAL(48, counter(SOFTGPU_BYTES_H2D));
  EXPECT_EQUAL(0, counter(SOFTGPU_LAUNCHES));
  log_work(stream, 3);
  EXPECT_EQUAL(0, cudaGraphLaunch(exec, stream));
  EXPECT_EQUAL(0, cudaGraphExecDestroy(exec));  // the launch that has not run yet keeps it
  log_work(stream, 4);
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(take_log() == Log({3, 1, 2, 4}));
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_EXECS));
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_GRAPHS));
  EXPECT_EQUAL(cudaErrorInvalidValue, cudaGraphLaunch(exec, stream));
}

TEST(graphs_fork_and_join_through_events) {
  std::set<Log> seen;
  for (int seed = 0; seed < 20; ++seed) {
    softgpu_set_stream_order(seed);
    void *stream = begin(), *side = new_stream(), *fork = new_event(), *join = new_event();
    log_work(stream, 1);
    EXPECT_EQUAL(0, cudaEventRecord(fork, stream));
    EXPECT_EQUAL(0, cudaStreamWaitEvent(side, fork, 0));
    int status = 0;
    EXPECT_EQUAL(0, cudaStreamIsCapturing(side, &status));
    EXPECT_EQUAL(1, status);
    log_work(side, 2);
    log_work(stream, 3);
    EXPECT_EQUAL(0, cudaEventRecord(join, side));
    EXPECT_EQUAL(0, cudaStreamWaitEvent(stream, join, 0));
    log_work(stream, 4);
    void *exec = instantiate(end(stream));
    EXPECT_EQUAL(0, cudaStreamIsCapturing(side, &status));
    EXPECT_EQUAL(0, status);
    EXPECT_EQUAL(0, cudaGraphLaunch(exec, side));
    EXPECT_EQUAL(0, cudaStreamSynchronize(side));
    const Log log = take_log();
    EXPECT(log == Log({1, 2, 3, 4}) || log == Log({1, 3, 2, 4}));
    seen.insert(log);
  }
  EXPECT_EQUAL(2, seen.size());
}

TEST(graphs_unjoined_work_is_refused) {
  void *stream = begin(), *side = new_stream(), *fork = new_event(), *graph = nullptr;
  EXPECT_EQUAL(0, cudaEventRecord(fork, stream));
  EXPECT_EQUAL(0, cudaStreamWaitEvent(side, fork, 0));
  log_work(side, 1);
  EXPECT_EQUAL(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(stream, &graph));
  EXPECT(graph == nullptr);
  log_work(side, 2);  // no longer captured
  EXPECT_EQUAL(0, cudaStreamSynchronize(side));
  EXPECT(take_log() == Log({2}));
}

TEST(graphs_end_in_the_stream_and_thread_they_began_in) {
  void *stream = begin(), *side = new_stream(), *fork = new_event(), *graph = nullptr;
  EXPECT_EQUAL(cudaErrorIllegalState, cudaStreamEndCapture(side, &graph));
  EXPECT_EQUAL(cudaErrorIllegalState, cudaStreamBeginCapture(stream, GLOBAL));
  int code = 0;
  std::thread([&] { code = cudaStreamEndCapture(stream, &graph); }).join();
  EXPECT_EQUAL(cudaErrorStreamCaptureWrongThread, code);
  EXPECT_EQUAL(0, cudaEventRecord(fork, stream));
  EXPECT_EQUAL(0, cudaStreamWaitEvent(side, fork, 0));
  EXPECT_EQUAL(cudaErrorStreamCaptureUnmatched, cudaStreamEndCapture(side, &graph));
  expect_spoilt(stream);
  void *relaxed = begin(RELAXED);
  std::thread([&] { code = cudaStreamEndCapture(relaxed, &graph); }).join();
  EXPECT_EQUAL(0, code);
  EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaStreamBeginCapture(nullptr, RELAXED));
}

TEST(graphs_waiting_for_a_captured_stream_is_refused) {
  for (const int mode : {GLOBAL, THREAD_LOCAL, RELAXED}) {
    void *stream = begin(mode);
    EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(stream));
    expect_spoilt(stream);
    stream = begin(mode);
    EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaStreamQuery(stream));
    expect_spoilt(stream);
    stream = begin(mode);
    EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaDeviceSynchronize());
    expect_spoilt(stream);
    stream = begin(mode);
    void *event = new_event();
    EXPECT_EQUAL(0, cudaEventRecord(event, stream));
    EXPECT_EQUAL(cudaErrorCapturedEvent, mode == RELAXED ? cudaEventQuery(event) : cudaEventSynchronize(event));
    expect_spoilt(stream);
    EXPECT_EQUAL(cudaErrorCapturedEvent, cudaEventQuery(event));
  }
}

TEST(graphs_unsafe_calls_beside_a_capture) {
  float *p = device_floats(1);
  void *q = nullptr, *other = new_stream(), *event = new_event();
  void *stream = begin(RELAXED);
  EXPECT_EQUAL(0, cudaMalloc(&q, 4));
  EXPECT_EQUAL(0, cudaFree(q));
  EXPECT_EQUAL(0, cudaStreamSynchronize(other));
  EXPECT_EQUAL(0, cudaEventQuery(event));
  end(stream);

  stream = begin(THREAD_LOCAL);
  EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaMalloc(&q, 4));
  expect_spoilt(stream);
  stream = begin(THREAD_LOCAL);
  EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaFree(p));
  expect_spoilt(stream);
  stream = begin(THREAD_LOCAL);
  EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaHostAlloc(&q, 4, 0));
  expect_spoilt(stream);
  stream = begin(THREAD_LOCAL);
  EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(other));
  expect_spoilt(stream);
  stream = begin(THREAD_LOCAL);
  std::thread([&] {
    EXPECT_EQUAL(0, cudaMalloc(&q, 4));
    EXPECT_EQUAL(0, cudaEventQuery(event));
  }).join();
  end(stream);

  stream = begin(GLOBAL);
  std::thread([&] { EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaEventQuery(event)); }).join();
  expect_spoilt(stream);
}

TEST(graphs_dependencies_across_the_border) {
  void *other = new_stream(), *event = new_event(), *unrecorded = new_event();
  EXPECT_EQUAL(0, cudaEventRecord(event, other));
  void *stream = begin();
  EXPECT_EQUAL(0, cudaStreamWaitEvent(stream, unrecorded, 0));
  EXPECT_EQUAL(cudaErrorStreamCaptureIsolation, cudaStreamWaitEvent(stream, event, 0));
  expect_spoilt(stream);

  stream = begin();
  void *second = begin();
  EXPECT_EQUAL(0, cudaEventRecord(event, stream));
  EXPECT_EQUAL(cudaErrorStreamCaptureMerge, cudaStreamWaitEvent(second, event, 0));
  expect_spoilt(stream);
  expect_spoilt(second);

  stream = begin();
  EXPECT_EQUAL(0, cudaEventRecord(event, stream));
  end(stream);
  EXPECT_EQUAL(cudaErrorCapturedEvent, cudaStreamWaitEvent(other, event, 0));
  EXPECT_EQUAL(0, cudaEventRecord(event, other));
  EXPECT_EQUAL(0, cudaEventSynchronize(event));
}

TEST(graphs_legacy_stream_and_pageable_memory) {
  float *p = device_floats(1), pageable = 1;
  void *blocking = nullptr;
  EXPECT_EQUAL(0, cudaStreamCreateWithFlags(&blocking, 0));
  EXPECT_EQUAL(0, cudaStreamBeginCapture(blocking, RELAXED));
  EXPECT_EQUAL(cudaErrorStreamCaptureImplicit, cudaMemsetAsync(p, 0, 4, nullptr));
  expect_spoilt(blocking);
  void *stream = begin(RELAXED);
  EXPECT_EQUAL(0, cudaMemsetAsync(p, 0, 4, nullptr));  // a non-blocking stream does not mind
  EXPECT_EQUAL(cudaErrorStreamCaptureUnsupported, cudaMemcpyAsync(p, &pageable, 4, cudaMemcpyHostToDevice, stream));
  expect_spoilt(stream);
}

TEST(graphs_in_graphs) {
  void *stream = begin();
  log_work(stream, 1);
  void *inner = instantiate(end(stream));
  stream = begin();
  log_work(stream, 2);
  EXPECT_EQUAL(0, cudaGraphLaunch(inner, stream));
  log_work(stream, 3);
  void *outer = instantiate(end(stream));
  EXPECT_EQUAL(0, counter(SOFTGPU_GRAPH_LAUNCHES));
  EXPECT_EQUAL(0, cudaGraphLaunch(outer, stream));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(take_log() == Log({2, 1, 3}));
}

TEST(graphs_one_executable_runs_in_order_across_streams) {
  void *stream = begin();
  log_work(stream, 1);
  void *exec = instantiate(end(stream)), *first = new_stream(), *second = new_stream();
  log_work(first, 0);
  EXPECT_EQUAL(0, cudaGraphLaunch(exec, first));
  EXPECT_EQUAL(0, cudaGraphLaunch(exec, second));
  log_work(second, 2);
  EXPECT_EQUAL(0, cudaStreamSynchronize(second));
  EXPECT(take_log() == Log({0, 1, 1, 2}));
}

TEST(graphs_freed_memory_is_found_at_launch) {
  float *p = device_floats(4);
  void *stream = begin();
  EXPECT_EQUAL(0, cudaMemsetAsync(p, 0, 16, stream));
  void *exec = instantiate(end(stream));
  EXPECT_EQUAL(0, cudaFree(p));
  EXPECT_EQUAL(0, cudaGraphLaunch(exec, stream));
  EXPECT_EQUAL(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
  EXPECT_FAULT("node 0 of a graph: cudaMemsetAsync: 16 bytes needed");
  EXPECT_FAULT("is freed");
  EXPECT_EQUAL(1, counter(SOFTGPU_FREED_HITS));
}

TEST(graphs_destroying_a_captured_stream_spoils_the_capture) {
  void *stream = begin(), *side = new_stream(), *fork = new_event();
  EXPECT_EQUAL(0, cudaEventRecord(fork, stream));
  EXPECT_EQUAL(0, cudaStreamWaitEvent(side, fork, 0));
  EXPECT_EQUAL(0, cudaStreamDestroy(side));
  expect_spoilt(stream);
  stream = begin();
  side = new_stream();
  EXPECT_EQUAL(0, cudaEventRecord(fork, stream));
  EXPECT_EQUAL(0, cudaStreamWaitEvent(side, fork, 0));
  EXPECT_EQUAL(0, cudaStreamDestroy(stream));
  log_work(side, 1);  // no capture is left
  EXPECT_EQUAL(0, cudaStreamSynchronize(side));
  EXPECT(take_log() == Log({1}));
}
