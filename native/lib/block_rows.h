// How many rows of x does a block of a product with few rows keep in shared memory?
//
// Weights are read once per block of rows, so the most rows win: two blocks an SM where all fit beside each other, whose
// loads overlap, else one with all of the memory. Rows that do not fit even then are cut, and the weights are read once
// per cut.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gt {

constexpr int64_t SHARED_BYTES_OF_TWO = 96 << 10;  // of a block, so that two fit on an SM of 227 KB

struct BlockRows {
  int64_t rows;
  bool is_alone;  // one block an SM
};

// Of n rows, at most `most`, of row_bytes each beside other_bytes, where a block may have max_bytes.
constexpr BlockRows block_rows(int64_t n, int64_t most, int64_t row_bytes, int64_t other_bytes, int64_t max_bytes) {
  const int64_t wanted = std::min(n, most);
  const int64_t of_two = (std::min(SHARED_BYTES_OF_TWO, max_bytes) - other_bytes) / row_bytes;
  if (of_two >= wanted) return {wanted, false};
  return {std::max(int64_t{1}, std::min(wanted, (max_bytes - other_bytes) / row_bytes)), true};
}

}  // namespace gt
