// When does a product of the tensor cores happen, and what does it see?
//
// A warpgroup's product is four, one per warp: rows 16 w .. 16 w + 15 of D need these rows of A, and B. So each warp
// keeps its own list. A product reads shared memory when its warp waits for it, as late as it may; until then the
// accumulator's registers hold NaN, which shows if they are read and is missed if they are written. Reported: warps of
// one warpgroup that ask for different products, registers handed over without a fence, a fence within a group,
// registers written in flight (those of A too), an operand outside dynamic shared memory, a thread that returns with
// products in flight.
#pragma once

#include <algorithm>
#include <vector>

#include "simt/mma.h"
#include "simt/tma.h"
#include "simt/warp.h"

namespace simt {

constexpr unsigned WARPGROUP = 4;  // warps
constexpr int K_STEP = 16;
constexpr uint32_t IN_FLIGHT = 0x7fc0f117;  // a quiet NaN: what registers hold meanwhile

// Where 16-byte chunks of an operand lie: PTX ISA, "Matrix descriptor format". 128-byte swizzle alone.
struct WgmmaOperand {
  uint64_t descriptor;
  bool is_mn_major;

  uint32_t start() const { return static_cast<uint32_t>(descriptor & 0x3fff) << 4; }
  uint32_t leading() const { return static_cast<uint32_t>(descriptor >> 16 & 0x3fff) << 4; }
  uint32_t stride() const { return static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4; }
  bool is_supported() const { return descriptor >> 62 == 1 && (descriptor >> 46 & 0xffff) == 0 && !(start() & 0x380); }

  // The chunk of elements (mn, k .. k + 7), or where mn runs along the rows, (mn .. mn + 7, k).
  char *chunk(int mn, int k) const {
    const uint32_t offset = is_mn_major ? mn / 64 * leading() + k / 8 * stride() + k % 8 * 128 + mn % 64 * 2
                                        : mn / 8 * stride() + mn % 8 * 128 + k * 2;
    return swizzled(at_shared_address(start() + offset));
  }

  // Calls f(chunk, mn, k) for all chunks of `rows` rows from mn on.
  template <class F> void for_each_chunk(int first, int rows, F f) const {
    const int mn_step = is_mn_major ? 8 : 1, k_step = is_mn_major ? 1 : 8;
    for (int mn = first; mn < first + rows; mn += mn_step)
      for (int k = 0; k < K_STEP; k += k_step) f(chunk(mn, k), mn, k);
  }

  bool operator==(const WgmmaOperand &other) const {
    return descriptor == other.descriptor && is_mn_major == other.is_mn_major;
  }
};

struct WgmmaProduct {
  WgmmaOperand a, b;  // a: all zero where A lies in registers
  int n;
  bool accumulates;
  Format format;
  bool operator==(const WgmmaProduct &other) const {
    return a == other.a && b == other.b && n == other.n && accumulates == other.accumulates && format == other.format;
  }
};

class TensorCores : public Engine {
 public:
  void start_block() override {
    warps_.assign(current->num_warps, {});
    asked_.assign(current->num_warps / WARPGROUP, {});
  }

  void fence(Site site) {
    collective(~0u, "wgmma_fence", this, [](Warp &warp, uint32_t) {
      WarpState &state = of(warp).warps_[warp.number];
      if (!state.in_flight.empty() && state.in_flight.back().group == state.group)
        fail("products before this fence are not committed, and ptxas ends their group here: %s",
             describe(*current->running).text);
      state.is_fenced = true;
    }, site);
  }

  void commit(Site site) {
    collective(~0u, "wgmma_commit", this, [](Warp &warp, uint32_t) { ++of(warp).warps_[warp.number].group; }, site);
  }

  // a: this lane's registers of A, or null.
  void multiply(const WgmmaProduct &product, const uint32_t *a, float *registers, Site site) {
    Issue issue{this, product, a, registers};
    collective(~0u, "wgmma", &issue, [](Warp &warp, uint32_t) { operand_of<Issue>(warp, 0).cores->issue(warp); }, site);
  }

  // All but the warp's last `pending` groups are over.
  void wait(unsigned pending, Site site) {
    Wait wait{this, pending};
    collective(~0u, "wgmma_wait", &wait, [](Warp &warp, uint32_t) {
      const Wait &w = operand_of<Wait>(warp, 0);
      w.cores->finish(warp, w.pending);
    }, site);
  }

  void check_exit(Block &block, const Thread &me) override {
    for (const InFlight &product : warps_[me.warp()].in_flight)
      fail("thread (%u,%u,%u) [warp %u lane %u] returns and has not waited for its wgmma at %s:%d", me.index.x,
           me.index.y, me.index.z, me.warp(), me.lane(), product.site.file, product.site.line);
    if (block.alive > 1) return;
    for (unsigned w = 0; w < warps_.size(); ++w)
      if (w / WARPGROUP < asked_.size() && warps_[w].num_asked != asked_[w / WARPGROUP].size())
        fail("warp %u asked for %zu products, other warps of its warpgroup for %zu", w, warps_[w].num_asked,
             asked_[w / WARPGROUP].size());
  }

 private:
  struct Issue {
    TensorCores *cores;
    WgmmaProduct product;
    const uint32_t *a;
    float *registers;
  };
  struct Wait {
    TensorCores *cores;
    unsigned pending;
  };
  // A of a warp, as it was when the product was ordered.
  struct RegistersOfA {
    const uint32_t *registers[WARP];
    uint32_t value[WARP][4];
  };
  struct InFlight {
    WgmmaProduct product;
    bool a_in_registers;
    RegistersOfA a;
    float *accumulator;  // lane 0's registers: its name
    unsigned group;
    race::Ticket ticket;
    Site site;
  };
  // Registers of a warp that belong to products in flight, and what they will hold.
  struct Accumulator {
    float *registers[WARP];
    std::vector<float> value[WARP];
  };
  struct WarpState {
    std::vector<InFlight> in_flight;
    std::vector<Accumulator> accumulators;
    unsigned group = 0;      // that the next product joins
    size_t num_asked = 0;
    bool is_fenced = false;  // since the last wait
  };

  static TensorCores &of(Warp &warp) { return operand_of<TensorCores>(warp, 0); }

  void issue(Warp &warp) {
    const race::Pause pause;
    const Issue &first = operand_of<Issue>(warp, 0);
    const WgmmaProduct &product = first.product;
    const Thread &me = *current->running;
    expect_no_cluster("wgmma");
    WarpState &state = warps_[warp.number];
    const unsigned warpgroup = warp.number / WARPGROUP;
    if (warpgroup >= asked_.size() || warp.exist != ~0u)
      fail("wgmma is for warpgroups of %u whole warps: %s", WARPGROUP, describe(me).text);
    for_each_lane(~0u, [&](unsigned lane) {
      if (!(operand_of<Issue>(warp, lane).product == product))
        fail("the lanes' operands differ: %s", describe(me).text);
    });
    std::vector<WgmmaProduct> &asked = asked_[warpgroup];
    if (state.num_asked == asked.size()) asked.push_back(product);
    else if (!(asked[state.num_asked] == product))
      fail("the operands differ from those of another warp of the warpgroup: %s", describe(me).text);
    ++state.num_asked;
    hand_over(warp, product.n / 2);

    race::warp_sync(warp.number, ~0u);
    InFlight ordered{product, first.a != nullptr, {}, first.registers, state.group, race::order_from_tensor_core(),
                     me.site};
    const race::Ticket ticket = ordered.ticket;
    const auto book = [&](const char *chunk, int, int) {
      if (!is_dynamic_shared(chunk, 16))
        fail("an operand reaches outside dynamic shared memory: %s", describe(me).text);
      race::access(ticket, chunk, 16, race::Access::READ);
    };
    if ((!first.a && !product.a.is_supported()) || !product.b.is_supported())
      fail("operands must be in 128-byte swizzle, at multiples of 1024 bytes: %s", describe(me).text);
    if (first.a)
      for_each_lane(~0u, [&](unsigned lane) {
        ordered.a.registers[lane] = operand_of<Issue>(warp, lane).a;
        memcpy(ordered.a.value[lane], ordered.a.registers[lane], sizeof ordered.a.value[lane]);
      });
    else product.a.for_each_chunk(first_row(warp), 16, book);
    product.b.for_each_chunk(0, product.n, book);
    state.in_flight.push_back(ordered);
  }

  static int first_row(const Warp &warp) { return static_cast<int>(warp.number % WARPGROUP * 16); }

  // Takes the registers of all lanes, unless they belong to products in flight already.
  void hand_over(Warp &warp, int count) {
    WarpState &state = warps_[warp.number];
    const auto registers = [&](unsigned lane) { return operand_of<Issue>(warp, lane).registers; };
    for (const Accumulator &known : state.accumulators)
      if (known.registers[0] == registers(0)) return check_untouched(known);
    if (!state.is_fenced)
      fail("no wgmma_fence since these registers were the thread's: %s", describe(*current->running).text);
    Accumulator taken;
    for_each_lane(~0u, [&](unsigned lane) {
      taken.registers[lane] = registers(lane);
      taken.value[lane].assign(registers(lane), registers(lane) + count);
      for (int i = 0; i < count; ++i) registers(lane)[i] = __uint_as_float(IN_FLIGHT);
    });
    state.accumulators.push_back(taken);
  }

  static void check_untouched(const Accumulator &accumulator) {
    for (unsigned lane = 0; lane < WARP; ++lane)
      for (size_t i = 0; i < accumulator.value[lane].size(); ++i)
        if (__float_as_uint(accumulator.registers[lane][i]) != IN_FLIGHT)
          fail("lane %u wrote to its accumulator while a wgmma was in flight: %s", lane,
               describe(*current->running).text);
  }

  GT_SIMT_UNWATCHED static void check_untouched(const RegistersOfA &a) {
    for (unsigned lane = 0; lane < WARP; ++lane)
      if (memcmp(a.registers[lane], a.value[lane], sizeof a.value[lane]))
        fail("lane %u wrote to registers of A while a wgmma was in flight: %s", lane, describe(*current->running).text);
  }

  void finish(Warp &warp, unsigned pending) {
    const race::Pause pause;
    WarpState &state = warps_[warp.number];
    state.is_fenced = false;
    size_t done = 0;
    for (; done < state.in_flight.size() && state.in_flight[done].group + pending < state.group; ++done) {
      const InFlight &product = state.in_flight[done];
      if (product.a_in_registers) check_untouched(product.a);
      for (Accumulator &accumulator : state.accumulators)
        if (accumulator.registers[0] == product.accumulator) execute(product, first_row(warp), accumulator);
      race::observe(current->running->rank, product.ticket);
    }
    state.in_flight.erase(state.in_flight.begin(), state.in_flight.begin() + static_cast<ptrdiff_t>(done));
    size_t kept = 0;
    for (Accumulator &accumulator : state.accumulators) {
      bool is_in_flight = false;
      for (const InFlight &product : state.in_flight) is_in_flight |= product.accumulator == accumulator.registers[0];
      if (is_in_flight) {
        if (&state.accumulators[kept] != &accumulator) state.accumulators[kept] = accumulator;
        ++kept;
        continue;
      }
      check_untouched(accumulator);
      for (unsigned lane = 0; lane < WARP; ++lane)
        std::copy(accumulator.value[lane].begin(), accumulator.value[lane].end(), accumulator.registers[lane]);
    }
    state.accumulators.resize(kept);
  }

  // D += A B, or D = A B, for 16 rows; lane l holds of D and A what PTX ISA, "wgmma.mma_async", figures of the matrices
  // say.
  GT_SIMT_UNWATCHED static void execute(const InFlight &ordered, int first_row, Accumulator &accumulator) {
    static float a[16][K_STEP], b[256][K_STEP], column_of_b[K_STEP][256];
    const WgmmaProduct &product = ordered.product;
    const auto widened = [&](uint32_t bits) {
      return product.format == Format::BF16 ? widen<Format::BF16>(bits) : widen<Format::F16>(bits);
    };
    const auto read = [&](const WgmmaOperand &operand, int first, int rows, float (*to)[K_STEP]) {
      operand.for_each_chunk(first, rows, [&](const char *chunk, int mn, int k) {
        for (int i = 0; i < 8; ++i) {
          uint16_t bits;
          memcpy(&bits, chunk + 2 * i, sizeof bits);
          to[mn - first + (operand.is_mn_major ? i : 0)][k + (operand.is_mn_major ? 0 : i)] = widened(bits);
        }
      });
    };
    if (!ordered.a_in_registers) read(product.a, first_row, 16, a);
    else
      for (unsigned lane = 0; lane < WARP; ++lane)
        for (int i = 0; i < 4; ++i) {
          float *const pair = &a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8];
          pair[0] = widened(ordered.a.value[lane][i] & 0xffff);
          pair[1] = widened(ordered.a.value[lane][i] >> 16);
        }
    read(product.b, 0, product.n, b);
    for (int column = 0; column < product.n; ++column)
      for (int k = 0; k < K_STEP; ++k) column_of_b[k][column] = b[column][k];
    static float d[16][256];
    const auto for_each_element = [&](auto f) {
      for (unsigned lane = 0; lane < WARP; ++lane)
        for (int i = 0; i < product.n / 2; ++i)
          f(accumulator.value[lane][i], d[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2]);
    };
    for_each_element([&](float value, float &element) { element = product.accumulates ? value : 0.0f; });
    for (int row = 0; row < 16; ++row)
      for (int k = 0; k < K_STEP; ++k)
        for (int column = 0; column < product.n; ++column) d[row][column] += a[row][k] * column_of_b[k][column];
    for_each_element([](float &value, float element) { value = element; });
  }

  std::vector<WarpState> warps_;
  std::vector<std::vector<WgmmaProduct>> asked_;  // of each warpgroup: products of the warp that is ahead
};

inline TensorCores tensor_cores;

}  // namespace simt
