// Do blocks take their turns, and does each see what the one before has left?
#include "lib/turn.h"
#include "memory.h"

namespace {

// value = 3 value + n, for n = 0, 1, ..: any other order gives another number. A block has one n of each counter.
__global__ void multiply_and_add(unsigned *ticket, unsigned *counters, unsigned *values, int num_counters) {
  __shared__ unsigned n;
  if (threadIdx.x == 0) n = atomicAdd(ticket, 1u);
  __syncthreads();
  for (int i = num_counters - 1; i >= 0; --i) {
    if (threadIdx.x == 0) gt::turn_wait(counters + i, n);
    __syncthreads();
    if (threadIdx.x == 40) values[i] = 3 * values[i] + n;  // without a fence: turn_pass hands it on
    __syncthreads();
    if (threadIdx.x == 0) gt::turn_pass(counters + i);
  }
}

void check(int blocks, int num_counters) {
  ptx::Shared<unsigned> ticket(1), counters(num_counters), values(num_counters);
  ticket[0] = 0;
  for (int i = 0; i < num_counters; ++i) counters[i] = 0, values[i] = static_cast<unsigned>(i);
  if (!ptx::run_blocks("multiply_and_add", multiply_and_add, blocks, dim3(64), 0, ticket.data(), counters.data(),
                       values.data(), num_counters))
    return;
  for (int i = 0; i < num_counters; ++i) {
    unsigned expected = static_cast<unsigned>(i);
    for (int n = 0; n < blocks; ++n) expected = 3 * expected + static_cast<unsigned>(n);
    ptx::expect(values[i] == expected && counters[i] == static_cast<unsigned>(blocks),
                "%d blocks: value %d is %u after %u turns, expected %u", blocks, i, values[i], counters[i], expected);
  }
}

}  // namespace

int main() {
  check(1, 1);
  check(7, 3);
  check(1000, 17);
  return ptx::summary();
}
