// How does a block draw the normals of the elements of an image that it holds, four for each Philox evaluation?
//
// Threads number elements in the order h, w, c (lib/image_operand.h), random numbers in the order c, h, w: the four that
// share an evaluation lie C elements apart and belong to several threads. So the block draws a piece of an image
// together, into shared memory, by planes: channel c of the piece is a run of neighbours in planar order, cut into the
// fours that begin at multiples of 4. A four that reaches beyond its run's ends, which rows of any width and the
// piece's own bounds bring about, is evaluated for what lies within; what lies beyond has the same words elsewhere.
#pragma once

#include "lib/image_operand.h"
#include "lib/philox.h"

namespace gt {

// piece[i] = the normal of element begin + i, i < count, in the order h, w, c. begin + count <= H W C.
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
  const unsigned tasks = num_runs * ((run + most_before + 3) / 4);
#pragma unroll 1
  for (unsigned task = threadIdx.x; task < tasks; task += threads) {
    const unsigned four = task / num_runs, first = task - four * num_runs;  // of the piece's elements, the run's first
    const unsigned c = channel + first, wraps = c >= channels;
    const unsigned number = (wraps ? c - channels : c) * plane + pixel + wraps;
    const unsigned before = number % 4;
    if (4 * four >= before + run) continue;
    PhiloxWords words = philox(seed, sequence, step, number / 4 + four);
    unsigned at = first + (4 * four - before) * channels;  // in front of the run: beyond every count
#pragma unroll 1
    for (int pair = 0; pair < 2; ++pair) {
      const NormalPair normals = normal_pair(words.word[0], words.word[1]);
      if (at < count) piece[at] = normals.first;
      if (at + channels < count) piece[at + channels] = normals.second;
      words.word[0] = words.word[2];
      words.word[1] = words.word[3];
      at += 2 * channels;
    }
  }
}

}  // namespace gt
