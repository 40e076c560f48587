// How does a block draw the normals of the elements of an image that it holds, four for each Philox evaluation?
//
// Threads number elements in the order h, w, c (lib/image_operand.h), random numbers in the order c, h, w: the four
// that share an evaluation lie C elements apart and belong to several threads. So the block draws a piece of an image
// together, into shared memory, by channels: those elements of the piece that are of one channel are neighbours in
// planar order, a run, cut into the fours that begin at multiples of 4. A four that reaches beyond the ends of its run
// is evaluated for what lies within; rows and planes of any size and pieces that begin anywhere bring that about.
#pragma once

#include "lib/image_operand.h"
#include "lib/philox.h"

namespace gt {

// piece[i] = the normal of element begin + i, i < count, in the order h, w, c. begin + count <= H W C, count <= 2048.
// All threads of a block call it; `threads` is their number. Between it and reading the piece, and between that and the
// next call, the block meets at a barrier.
__device__ __forceinline__ void draw_piece(const ImageShape &shape, uint64_t seed, uint32_t sequence, uint32_t step,
                                           unsigned begin, unsigned count, unsigned threads, float *piece) {
  const unsigned channels = shape.channels, plane = shape.height * shape.width;
  const unsigned pixel = begin / channels, channel = begin - pixel * channels;  // of the first element
  const unsigned num_runs = count < channels ? count : channels;
  const unsigned run = (count + channels - 1) / channels;  // elements of the longest
  // Of the elements in front of a run in its first four: what is the most?
  const unsigned most_before = plane % 4 == 0 && channel == 0 ? pixel % 4 : 3;
  const unsigned tasks = num_runs * ((run + most_before + 3) / 4);  // one after the other through all runs
  // task / num_runs = task * reciprocal / 2^24 while task * num_runs < 2^24: at most 2 count^2
  const unsigned reciprocal = (1u << 24) / num_runs + 1;
#pragma unroll 1
  for (unsigned task = threadIdx.x; task < tasks; task += threads) {
    const auto four = static_cast<unsigned>(static_cast<uint64_t>(task) * reciprocal >> 24);  // of the run
    const unsigned first = task - four * num_runs;  // the run's first element in the piece
    const unsigned c = channel + first, wraps = c >= channels;
    const unsigned number = (wraps ? c - channels : c) * plane + pixel + wraps;
    const unsigned before = number % 4;
    if (4 * four >= before + run) continue;
    const PhiloxWords words = philox(seed, sequence, step, number / 4 + four);
    const NormalPair a = normal_pair(words.word[0], words.word[1]), b = normal_pair(words.word[2], words.word[3]);
    const float normals[4] = {a.first, a.second, b.first, b.second};
    // A run's elements lie num_runs apart: as many as there are channels, or, where a run has one element, so many that
    // no other is within the count. task - first = four * num_runs; in front of the run: beyond every count.
    const unsigned at = first + 4 * (task - first) - before * num_runs;
    if (at < count && at + 3 * num_runs < count) {
#pragma unroll
      for (int j = 0; j < 4; ++j) piece[at + j * num_runs] = normals[j];
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (at + j * num_runs < count) piece[at + j * num_runs] = normals[j];
    }
  }
}

}  // namespace gt
