// Who works beside the threads of a block?
//
// The copy engine and the tensor cores take orders and return at once (tma.h, wgmma.h). Each keeps its own list of what
// is in flight; the scheduler tells it when to go on. What needs no turn of its own, because a thread's wait performs
// it, only has to be asked whether a thread may leave.
#pragma once

#include "simt/block.h"

namespace simt {

struct Engine {
  Engine();
  virtual void start_block() = 0;
  // The block goes on, at its start and after each barrier of its cluster.
  virtual void resume_block() {}
  // Completes one operation that a thread waits for, of those chosen by the block's order. False: there is none.
  virtual bool land_one(Block &) { return false; }
  // The running thread returns: fails if it leaves behind what it had to wait for.
  virtual void check_exit(Block &, const Thread &) {}
  Engine *next;
};

inline Engine *engines = nullptr;  // those whose header was included
inline Engine::Engine() : next(engines) { engines = this; }

inline bool land_one(Block &block) {
  for (Engine *engine = engines; engine; engine = engine->next)
    if (engine->land_one(block)) return true;
  return false;
}

inline void check_exit(Block &block, const Thread &thread) {
  for (Engine *engine = engines; engine; engine = engine->next) engine->check_exit(block, thread);
}

}  // namespace simt
