// How much of an SM's shared memory does a block of a product with few rows take, and for what?
//
// A block keeps rows of x, and slots for weights on their way: two at least, one of which is on its way while the other
// is multiplied. As many blocks as the caller wants on an SM share it (two of this kernel, say, and one of the next,
// which asks for its weights meanwhile), or two, or one block has it all. Rows that do not fit even then are cut, and
// the weights are read once per cut: rather one slot than more cuts.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gt {

constexpr int64_t MOST_SLOTS = 12;      // one in use, and as many as MOST_GROUPS_OPEN on their way
constexpr int64_t SYSTEM_BYTES = 1024;  // of a block, beside what it asks for

struct BlockRoom {
  int64_t rows, slots;
  int sm_blocks;  // on an SM, as far as shared memory goes
};

// What a block wants: rows of x, each of row_bytes, slots of slot_bytes as far as there is work for them, other_bytes.
struct BlockWish {
  int64_t rows, row_bytes, slots, slot_bytes, other_bytes;
};

// max_bytes: max_dynamic_shared_bytes(), which is 3 KiB less than an SM has. most_blocks: how many are to fit on an SM.
constexpr BlockRoom block_room(const BlockWish &wish, int64_t max_bytes, int most_blocks) {
  const int64_t sm_bytes = max_bytes + 3072;
  const int64_t slots = std::min(wish.slots, MOST_SLOTS);
  const auto slots_beside = [&](int64_t rows, int64_t bytes) {  // -1: not even the rows fit
    const int64_t left = bytes - wish.other_bytes - rows * wish.row_bytes;
    return left < 0 ? -1 : std::min(slots, left / std::max(int64_t{1}, wish.slot_bytes));
  };
  for (int blocks = most_blocks; blocks >= 2; --blocks) {
    const int64_t bytes = std::min(max_bytes, sm_bytes / blocks - SYSTEM_BYTES);
    if (const int64_t fit = slots_beside(wish.rows, bytes); fit >= std::min(slots, int64_t{2}))
      return {wish.rows, fit, blocks};
  }
  const auto rows_beside = [&](int64_t few) {
    const int64_t left = max_bytes - wish.other_bytes - std::min(slots, few) * wish.slot_bytes;
    return std::max(int64_t{1}, std::min(wish.rows, left / wish.row_bytes));
  };
  const auto cuts = [&](int64_t rows) { return (wish.rows + rows - 1) / rows; };
  const int64_t beside_two = rows_beside(2), beside_one = rows_beside(1);
  const int64_t rows = cuts(beside_one) < cuts(beside_two) ? beside_one : beside_two;
  return {rows, std::max(int64_t{0}, slots_beside(rows, max_bytes)), 1};
}

}  // namespace gt
