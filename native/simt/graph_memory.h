// What do kernels write that stand in front of a dependent one in a graph?
//
// A test lists it, since grids run one after the other here. In a race build a thread of a dependent grid that reads or
// writes there before its grid_dependency_wait is reported.
#pragma once

#include <cstddef>
#include <vector>

namespace simt {

struct Span {
  const char *begin;
  size_t bytes;
};
inline std::vector<Span> written_in_front;

}  // namespace simt
