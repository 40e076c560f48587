// How many registers has each warp after setmaxnreg, and has the block as many?
//
// A block starts with equal shares of 64 Ki, in eights. Reported: a count that decrease_registers raises or
// increase_registers lowers, warps of one warpgroup that differ, and warps that ask for more than the others have given
// back, which on a GPU wait for ever.
#pragma once

#include <vector>

#include "simt/engine.h"
#include "simt/warp.h"

namespace simt {

constexpr unsigned SM_REGISTERS = 65536, MAX_THREAD_REGISTERS = 256;

class Registers : public Engine {
 public:
  void start_block() override {
    share_ = min(SM_REGISTERS / current->num_threads / 8 * 8, MAX_THREAD_REGISTERS);
    of_warp_.assign(current->num_warps, share_);
    is_used_ = false;
  }

  void set(unsigned registers, bool increases, Site site) {
    expect_no_cluster("setmaxnreg");
    Request request{this, registers, increases};
    const CollectiveBody body = [](Warp &warp, uint32_t) {
      const Request &r = operand_of<Request>(warp, 0);
      r.all->set(warp, r.registers, r.increases);
    };
    collective(~0u, increases ? "increase_registers" : "decrease_registers", &request, body, site);
  }

  void check_exit(Block &block, const Thread &) override {
    if (block.alive > 1 || !is_used_) return;
    unsigned total = 0;
    for (unsigned w = 0; w < block.num_warps; ++w) {
      const unsigned first = w / 4 * 4;
      if (of_warp_[w] != of_warp_[first])
        fail("warp %u has %u registers a thread, warp %u of its warpgroup %u: all of them must ask", w, of_warp_[w],
             first, of_warp_[first]);
      total += of_warp_[w];
    }
    if (total > share_ * block.num_warps)
      fail("the warps ask for %u registers a lane, and the block has %u: on a GPU it waits for ever", total,
           share_ * block.num_warps);
  }

 private:
  struct Request {
    Registers *all;
    unsigned registers;
    bool increases;
  };

  void set(const Warp &warp, unsigned registers, bool increases) {
    unsigned &now = of_warp_[warp.number];
    if (increases ? registers < now : registers > now)
      fail("from %u registers to %u, expected at %s %u: %s", now, registers, increases ? "least" : "most", now,
           describe(*current->running).text);
    now = registers;
    is_used_ = true;
  }

  unsigned share_ = 0;              // of a thread, at first
  std::vector<unsigned> of_warp_;   // of a thread of each
  bool is_used_ = false;
};

inline Registers registers;

}  // namespace simt
