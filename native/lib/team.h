// How do all threads that share a row put together what each found in its part of it?
//
// A team is a block, or the blocks of a cluster (lib/cluster.h), one after the other in the row. A Value is what a part
// comes to: Value{} is that of no elements, over_warp() what the lanes' values come to, in every lane, whatever their
// order. Warps leave theirs in shared memory; of several blocks, the first warp of each hands its block's to all; then
// every warp puts these together for itself. That takes one barrier of the block and one of the cluster: two places are
// used in turns, so that what is left there is written over behind the barriers of the next exchange at the earliest.
// For one-dimensional blocks of whole warps; all threads of the team call these functions together.
#pragma once

#include <cstring>

#include "lib/cluster.h"
#include "lib/reduce.h"

namespace gt {

constexpr int MAX_VALUE_WORDS = 6;

// Shared memory of a team's exchanges.
struct TeamScratch {
  uint64_t of_warps[2][MAX_WARPS][MAX_VALUE_WORDS];
  uint64_t of_blocks[2][MAX_CLUSTER][MAX_VALUE_WORDS];
};

// A Value in words that a block can store to another.
template <class Value> struct ValueWords {
  static constexpr int COUNT = (sizeof(Value) + sizeof(uint64_t) - 1) / sizeof(uint64_t);
  static_assert(COUNT <= MAX_VALUE_WORDS);
  uint64_t word[COUNT];
  __device__ __forceinline__ explicit ValueWords(const Value &value) : word{} { memcpy(word, &value, sizeof value); }
  __device__ __forceinline__ explicit ValueWords(const uint64_t *from) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) word[i] = from[i];
  }
  __device__ __forceinline__ Value value() const {
    Value value;
    memcpy(&value, word, sizeof value);
    return value;
  }
};

class Team {
 public:
  const unsigned rank, size;  // this block's place among the blocks, and their number

  // Behind a cluster's barrier for which all threads have arrived: no block hands anything to one that has not begun.
  __device__ __forceinline__ explicit Team(TeamScratch &scratch_)
      : rank(cluster_rank()), size(cluster_size()), scratch(scratch_) {}

  // In lane r what the threads of block r have passed comes to; where there is one block, in lane w that of warp w.
  // In all warps alike; Value{} in the other lanes.
  template <class Value> __device__ __forceinline__ Value gather(const Value &mine) {
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    uint64_t(*const of_warps)[MAX_VALUE_WORDS] = scratch.of_warps[turn];
    uint64_t(*const of_blocks)[MAX_VALUE_WORDS] = scratch.of_blocks[turn];
    turn ^= 1;
    const ValueWords<Value> of_warp(mine.over_warp());
    if (lane == 0)
#pragma unroll
      for (int i = 0; i < of_warp.COUNT; ++i) of_warps[warp][i] = of_warp.word[i];
    __syncthreads();
    const auto of_lane = [&] { return lane < warps ? ValueWords<Value>(of_warps[lane]).value() : Value{}; };
    if (size == 1) return of_lane();
    if (warp == 0) {
      const ValueWords<Value> of_block(of_lane().over_warp());
      if (lane < size)
#pragma unroll
        for (int i = 0; i < of_block.COUNT; ++i) cluster_store(&of_blocks[rank][i], lane, of_block.word[i]);
    }
    cluster_sync();
    return lane < size ? ValueWords<Value>(of_blocks[lane]).value() : Value{};
  }

  // What all of the team have passed comes to.
  template <class Value> __device__ __forceinline__ Value combine(const Value &mine) {
    return gather(mine).over_warp();
  }

  // *own = value in each block's shared memory; seen behind the next sync().
  template <class T> __device__ __forceinline__ void give_all(T *own, T value) const {
    if (size == 1) {
      *own = value;
      return;
    }
#pragma unroll 1
    for (unsigned r = 0; r < size; ++r) cluster_store(own, r, value);
  }

  __device__ __forceinline__ void sync() const {
    if (size == 1)
      __syncthreads();
    else
      cluster_sync();
  }

 private:
  TeamScratch &scratch;
  unsigned turn = 0;
};

}  // namespace gt
