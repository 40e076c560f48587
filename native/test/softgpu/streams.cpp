// Does nothing run before somebody waits, and is everything ordered that CUDA orders, and only that?
#include <algorithm>
#include <set>
#include <thread>

#include "harness.h"

using namespace harness;
using Log = std::vector<int>;

namespace {

void *blocking_stream() {
  void *stream = nullptr;
  EXPECT_EQUAL(0, cudaStreamCreateWithFlags(&stream, 0));
  return stream;
}

}  // namespace

TEST(streams_run_late) {
  void *stream = new_stream();
  log_work(stream, 1);
  log_work(stream, 2);
  EXPECT(take_log().empty());
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(take_log() == Log({1, 2}));
  EXPECT_EQUAL(2, counter(SOFTGPU_LAUNCHES));
}

TEST(streams_lazy_order_runs_only_what_is_needed) {
  void *first = new_stream(), *second = new_stream();
  log_work(first, 1);
  log_work(second, 2);
  EXPECT_EQUAL(0, cudaStreamSynchronize(first));
  EXPECT(take_log() == Log({1}));
  log_work(first, 3);
  EXPECT_EQUAL(0, cudaDeviceSynchronize());
  EXPECT(take_log() == Log({2, 3}));  // the stream created last comes first
}

TEST(streams_others_first_order) {
  softgpu_set_stream_order(1);
  void *first = new_stream(), *second = new_stream(), *third = new_stream();
  log_work(first, 1);
  log_work(second, 2);
  log_work(second, 3);
  log_work(third, 4);
  EXPECT_EQUAL(0, cudaStreamSynchronize(second));
  EXPECT(take_log() == Log({4, 1, 2, 3}));
}

TEST(streams_random_orders_differ_repeat_and_respect_streams) {
  std::set<Log> seen;
  for (int seed = 2; seed < 40; ++seed) {
    Log logs[2];
    for (Log &log : logs) {
      softgpu_set_stream_order(seed);
      void *streams[3] = {new_stream(), new_stream(), new_stream()};
      for (int i = 0; i < 6; ++i) log_work(streams[i % 3], i);
      EXPECT_EQUAL(0, cudaDeviceSynchronize());
      log = take_log();
    }
    EXPECT(logs[0] == logs[1]);
    EXPECT_EQUAL(6, logs[0].size());
    for (int i = 0; i < 3; ++i)
      EXPECT(std::find(logs[0].begin(), logs[0].end(), i) < std::find(logs[0].begin(), logs[0].end(), i + 3));
    seen.insert(logs[0]);
  }
  EXPECT(seen.size() > 10);
}

TEST(streams_events_order_in_every_order) {
  for (int seed = 0; seed < 30; ++seed) {
    softgpu_set_stream_order(seed);
    void *first = new_stream(), *second = new_stream(), *event = new_event();
    log_work(second, 9);
    log_work(first, 1);
    EXPECT_EQUAL(0, cudaEventRecord(event, first));
    log_work(first, 3);
    EXPECT_EQUAL(0, cudaStreamWaitEvent(second, event, 0));
    log_work(second, 2);
    EXPECT_EQUAL(0, cudaEventRecord(event, first));  // who waits already does not wait for this one
    EXPECT_EQUAL(0, cudaStreamSynchronize(second));
    const Log log = take_log();
    EXPECT(std::find(log.begin(), log.end(), 1) < std::find(log.begin(), log.end(), 2));
    if (seed == 0) EXPECT(log == Log({9, 1, 2}));
    EXPECT_EQUAL(0, cudaDeviceSynchronize());
    take_log();
  }
}

TEST(streams_chains_of_events) {
  void *a = new_stream(), *b = new_stream();
  for (int i = 0; i < 1000; ++i) {  // to and fro
    void *event = new_event();
    log_work(i % 2 ? b : a, i);
    EXPECT_EQUAL(0, cudaEventRecord(event, i % 2 ? b : a));
    EXPECT_EQUAL(0, cudaStreamWaitEvent(i % 2 ? a : b, event, 0));
    EXPECT_EQUAL(0, cudaEventDestroy(event));
  }
  EXPECT_EQUAL(0, cudaStreamSynchronize(a));
  const Log log = take_log();
  EXPECT_EQUAL(1000, log.size());
  EXPECT(std::is_sorted(log.begin(), log.end()));
}

TEST(streams_queries_make_progress) {
  void *stream = new_stream(), *event = new_event();
  EXPECT_EQUAL(0, cudaStreamQuery(stream));
  EXPECT_EQUAL(0, cudaEventQuery(event));
  log_work(stream, 1);
  log_work(stream, 2);
  EXPECT_EQUAL(0, cudaEventRecord(event, stream));
  EXPECT_EQUAL(cudaErrorNotReady, cudaStreamQuery(stream));
  EXPECT_EQUAL(cudaErrorNotReady, cudaEventQuery(event));
  EXPECT_EQUAL(2, take_log().size());
  EXPECT_EQUAL(cudaErrorNotReady, cudaEventQuery(event));
  EXPECT_EQUAL(0, cudaEventQuery(event));
  EXPECT_EQUAL(0, cudaStreamQuery(stream));
  EXPECT_EQUAL(cudaErrorNotReady, cudaGetLastError());
}

TEST(streams_event_synchronize_runs_up_to_the_event) {
  void *stream = new_stream(), *event = new_event();
  log_work(stream, 1);
  EXPECT_EQUAL(0, cudaEventRecord(event, stream));
  log_work(stream, 2);
  EXPECT_EQUAL(0, cudaEventSynchronize(event));
  EXPECT(take_log() == Log({1}));
  EXPECT_EQUAL(0, cudaEventRecord(event, stream));
  EXPECT_EQUAL(0, cudaEventSynchronize(event));  // its last record
  EXPECT(take_log() == Log({2}));
}

TEST(streams_elapsed_time) {
  void *stream = new_stream(), *start = new_event(), *end = new_event(), *untimed = nullptr;
  float ms = -1;
  EXPECT_EQUAL(0, cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, end));
  EXPECT_EQUAL(0, cudaEventRecord(start, stream));
  log_work(stream, 1);
  EXPECT_EQUAL(0, cudaEventRecord(end, stream));
  EXPECT_EQUAL(0, cudaEventRecord(untimed, stream));
  EXPECT_EQUAL(cudaErrorNotReady, cudaEventElapsedTime(&ms, start, end));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, untimed));
  EXPECT_EQUAL(0, cudaEventElapsedTime(&ms, start, end));
  EXPECT(ms >= 0 && ms < 10000);
}

TEST(streams_the_legacy_stream_orders_blocking_streams_alone) {
  void *blocking = blocking_stream(), *free_running = new_stream();
  log_work(blocking, 1);
  log_work(free_running, 2);
  log_work(nullptr, 3);
  log_work(blocking, 4);
  EXPECT_EQUAL(0, cudaStreamSynchronize(nullptr));
  EXPECT(take_log() == Log({1, 3, 4}));
  log_work(nullptr, 5);
  log_work(blocking, 6);
  EXPECT_EQUAL(0, cudaStreamSynchronize(blocking));
  EXPECT(take_log() == Log({5, 6}));
  EXPECT_EQUAL(0, cudaStreamSynchronize(free_running));
  EXPECT(take_log() == Log({2}));
}

TEST(streams_destroyed_streams_finish) {
  void *stream = new_stream();
  log_work(stream, 1);
  EXPECT_EQUAL(0, cudaStreamDestroy(stream));
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(stream));
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, cudaStreamDestroy(stream));
  EXPECT(take_log().empty());
  EXPECT_EQUAL(0, cudaDeviceSynchronize());
  EXPECT(take_log() == Log({1}));
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_STREAMS));
}

TEST(streams_belong_to_a_device) {
  softgpu_set_device_count(2);
  void *stream = new_stream();
  EXPECT_EQUAL(0, cudaSetDevice(1));
  int device = -1;
  EXPECT_EQUAL(0, cudaGetDevice(&device));
  EXPECT_EQUAL(1, device);
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, fail_when_run(stream, 0));
  void *event = new_event();
  EXPECT_EQUAL(cudaErrorInvalidResourceHandle, cudaEventRecord(event, stream));
  std::thread([] {
    int other = -1;
    EXPECT_EQUAL(0, cudaGetDevice(&other));
    EXPECT_EQUAL(0, other);
  }).join();
  EXPECT_EQUAL(cudaErrorInvalidDevice, cudaSetDevice(2));
}

TEST(streams_take_work_while_work_runs) {
  void *stream = new_stream(), *other = new_stream();
  gate_work(stream);
  std::thread waiting([&] { EXPECT_EQUAL(0, cudaStreamSynchronize(stream)); });
  wait_for_gate();
  log_work(other, 1);
  log_work(stream, 2);
  EXPECT_EQUAL(cudaErrorNotReady, cudaStreamQuery(other));
  open_gate();
  waiting.join();
  EXPECT(take_log().empty());  // the wait was for what the stream had been given by then
  EXPECT_EQUAL(0, cudaDeviceSynchronize());
  EXPECT(take_log() == Log({1, 2}));
}

TEST(streams_of_many_threads) {
  constexpr int THREADS = 4, ROUNDS = 200;
  std::vector<std::thread> threads;
  void *shared = new_stream();
  for (int t = 0; t < THREADS; ++t)
    threads.emplace_back([=] {
      void *stream = new_stream(), *event = new_event();
      float *host = pinned_floats(4, static_cast<float>(t)), *p = device_floats(4);
      for (int i = 0; i < ROUNDS; ++i) {
        EXPECT_EQUAL(0, cudaMemcpyAsync(p, host, 16, cudaMemcpyHostToDevice, stream));
        log_work(stream, t);
        EXPECT_EQUAL(0, cudaEventRecord(event, stream));
        EXPECT_EQUAL(0, cudaStreamWaitEvent(shared, event, 0));
        log_work(shared, t);
        EXPECT_EQUAL(0, i % 3 ? cudaStreamSynchronize(stream) : cudaStreamSynchronize(shared));
        EXPECT(i % 3 == 0 || p[3] == static_cast<float>(t));
      }
      EXPECT_EQUAL(0, cudaFree(p));
      EXPECT_EQUAL(0, cudaStreamDestroy(stream));
    });
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQUAL(0, cudaDeviceSynchronize());
  EXPECT_EQUAL(2 * THREADS * ROUNDS, take_log().size());
}
