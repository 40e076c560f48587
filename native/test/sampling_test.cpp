// Do gt_argmax, gt_process_logits, gt_sample and gt_choose give in CUDA what they give on the CPU?
//
// Exactly: the sums behind every decision are integers (lib/mass.h), so logits, ids and the whole state must be equal.
#include <functional>
#include <utility>

#include "family_test.h"
#include "gatun/sampling.h"
#include "simt/resident.h"

namespace {

using namespace test;

constexpr Tolerance EQUAL = {0, 0};
constexpr float INF = INFINITY;

// temperature, top-k, top-p, min-p, repetition, presence, frequency. The frequency penalties are exact in binary, so
// that a code without fused multiply-add (the instrumented CPU twin) rounds them alike.
using Params = std::vector<float>;
const Params PLAIN = {1, 0, 1, 0, 1, 0, 0}, GREEDY = {0, 0, 1, 0, 1, 0, 0};
const std::vector<Params> EVERY_SETTING = {
    PLAIN,
    GREEDY,
    {0.7f, 0, 1, 0, 1, 0, 0},
    {1.9f, 0, 1, 0, 1, 0, 0},
    {1, 1, 1, 0, 1, 0, 0},
    {1, 5, 1, 0, 1, 0, 0},
    {1, 512, 1, 0, 1, 0, 0},  // among equals the cut falls where a warp's segment ends
    {1, 1e5f, 1, 0, 1, 0, 0},
    {1, 0, 0, 0, 1, 0, 0},
    {1, 0, 0.5f, 0, 1, 0, 0},
    {1, 0, 0.95f, 0, 1, 0, 0},
    {1, 0, 0.9999999f, 0, 1, 0, 0},
    {1, 0, 1, 0.1f, 1, 0, 0},
    {1, 0, 1, 0, 1.3f, 0, 0},
    {1, 0, 1, 0, 0.8f, 0.6f, 0},
    {1, 0, 1, 0, 1, 0, 0.25f},
    {0.8f, 20, 0.85f, 0.02f, 1.2f, 0.4f, 0.25f},
    {0, 20, 0.85f, 0.02f, 1.2f, 0.4f, 0.25f},
};

using LogitOf = std::function<float(int64_t row, int64_t id)>;
float bell(int64_t row, int64_t id) {
  float sum = 0;
  for (int k = 0; k < 4; ++k) sum += uniform(5 + k, row * 70001 + id);
  return sum;
}
float flat(int64_t, int64_t) { return 1.5f; }
float ties(int64_t row, int64_t id) { return static_cast<float>(static_cast<int>(3 * uniform(7, row * 70001 + id))); }
float with_removed(int64_t row, int64_t id) { return id % 3 == row % 3 && id > 0 ? -INF : bell(row, id); }
float narrow(int64_t row, int64_t id) { return 100 + 1e-4f * uniform(8, row * 70001 + id); }
// Of any size from 1e-38 to 1e38: bisection of the values alone would not end.
float wide(int64_t row, int64_t id) {
  const float u = uniform(9, row * 70001 + id);
  return std::copysign(std::exp2(60 * std::fabs(u)) * 1e-38f * std::exp2(3 * u), u);
}

struct Batch {
  std::string name;
  int64_t v, m;
  std::vector<Params> params;
  LogitOf logit = bell;
  int64_t length = -1, num_ids = 0;  // -1: half the room; 0: tokens are any ids of the vocabulary, and some beyond
  int64_t pad = 0, offset = 0;
  int64_t seed = 1234;
};

enum class Step { PROCESS, SAMPLE, BOTH, IN_TURN };

// Rows first .. first + n - 1 of a batch, freshly filled.
struct Sequences {
  const Batch &batch;
  Step step;
  int64_t n;
  Rows logits, tokens, lengths, prompt_lengths, params, ids, positions, record, seeds;

  Sequences(const Batch &b, Step step_, int64_t first, int64_t n_)
      : batch(b), step(step_), n(n_), logits(GT_F32, n, b.v, b.pad, b.offset), tokens(GT_I32, n, b.m),
        lengths(GT_I32, 1, n), prompt_lengths(GT_I32, 1, n), params(GT_F32, n, GT_SAMPLING_FIELDS), ids(GT_I32, 1, n),
        positions(GT_I32, 1, n), record(GT_I32, 1, n), seeds(GT_I64, n, 2) {
    for (int64_t r = 0; r < n; ++r) {
      const int64_t row = first + r;
      for (int64_t i = 0; i < b.v; ++i) logits.set(r, i, b.logit(row, i));
      for (int64_t i = 0; i < b.m; ++i) {
        const int64_t range = b.num_ids ? b.num_ids : b.v + 3;
        const double u = (uniform(11, row * 70001 + i) + 2) / 4;
        tokens.integer_at<int32_t>(r, i) = static_cast<int32_t>(u * static_cast<double>(range)) - (i % 16 == 9);
      }
      length(r) = static_cast<int32_t>(b.length < 0 ? (b.m + 1) / 2 : b.length);
      prompt_lengths.integer_at<int32_t>(0, r) = static_cast<int32_t>((b.m + 1) / 3);
      position(r) = 0;
      for (int i = 0; i < GT_SAMPLING_FIELDS; ++i) params.set(r, i, i < 7 ? b.params[row][i] : 0);
      seeds.integer_at<int64_t>(r, 0) = b.seed;
      seeds.integer_at<int64_t>(r, 1) = row;
    }
  }
  Sequences(const Batch &b, Step s) : Sequences(b, s, 0, static_cast<int64_t>(b.params.size())) {}

  int32_t &length(int64_t r) const { return lengths.integer_at<int32_t>(0, r); }
  int32_t &position(int64_t r) const { return positions.integer_at<int32_t>(0, r); }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tlogits = logits.tensor(), ttokens = tokens.tensor(), tlengths = lengths.vector();
    const gt_tensor tprompt = prompt_lengths.vector(), tparams = params.tensor(), tids = ids.vector();
    const gt_tensor tpositions = positions.vector(), trecord = record.vector(), tseeds = seeds.tensor();
    const WrittenInFront in_front({&logits, &tokens, &lengths, &prompt_lengths, &params, &ids, &positions, &record,
                                   &seeds});
    gt_status status = GT_OK;
    if (step == Step::BOTH)
      return gt_choose(&stream, &tids, &tpositions, &trecord, &ttokens, &tlengths, &tprompt, &tlogits, &tparams,
                       &tseeds);
    if (step != Step::SAMPLE) status = gt_process_logits(&stream, &tlogits, &ttokens, &tlengths, &tprompt, &tparams);
    if (status || step == Step::PROCESS) return status;
    return gt_sample(&stream, &tids, &tpositions, &trecord, &ttokens, &tlengths, &tprompt, &tlogits, &tparams, &tseeds);
  }
  std::vector<const Rows *> outputs() const {
    return {&logits, &tokens, &lengths, &ids, &positions, &record};
  }
  std::vector<const Rows *> operands() const {
    return {&logits, &tokens, &lengths, &prompt_lengths, &params, &ids, &positions, &record, &seeds};
  }
};

void check(const Batch &b, Step step = Step::BOTH, std::initializer_list<const char *> orders = ORDERS) {
  const std::string what = "sampling " + b.name + " V " + std::to_string(b.v) + " M " + std::to_string(b.m);
  check_against_cpu(what, [&] { return Sequences(b, step); }, EQUAL, orders);
}

// gt_choose has the bits of the two ops in turn.
void check_choose(const Batch &b) {
  for (const gt_stream &stream : {cpu(1), cuda("rand:5")}) {
    const Sequences both(b, Step::BOTH), in_turn(b, Step::IN_TURN);
    const char *const device = stream.device == GT_CPU ? "CPU" : "CUDA";
    expect(both.run(stream) == GT_OK && in_turn.run(stream) == GT_OK, "%s: %s", b.name.c_str(), gt_last_error());
    const auto found = both.outputs(), expected = in_turn.outputs();
    for (size_t i = 0; i < found.size(); ++i)
      for (int64_t r = 0; r < found[i]->n(); ++r)
        expect(!memcmp(found[i]->at(r, 0), expected[i]->at(r, 0), bytes_of(found[i]->dtype()) * found[i]->c()),
               "choose on %s, %s: output %zu, row %d has other bits than process_logits and sample in turn", device,
               b.name.c_str(), i, static_cast<int>(r));
  }
}

// Argmax

struct Argmax {
  Rows ids, logits;
  Argmax(gt_dtype dtype, int64_t v, int64_t pad, int64_t offset) : ids(GT_I32, 1, 7), logits(dtype, 7, v, pad, offset) {
    for (int64_t i = 0; i < v; ++i) {
      logits.set(0, i, bell(0, i));
      logits.set(1, i, i == v / 2 ? NAN : 1.0f);
      logits.set(2, i, -INF);
      logits.set(3, i, i == v - 1 ? INF : bell(3, i));
      logits.set(4, i, ties(4, i));
      logits.set(5, i, i % 2 ? 0.0f : -0.0f);
      logits.set(6, i, i == v - 1 ? -1.0f : -2.0f);
    }
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tids = ids.vector(), tlogits = logits.tensor();
    return gt_argmax(&stream, &tids, &tlogits);
  }
  std::vector<const Rows *> outputs() const { return {&ids}; }
  std::vector<const Rows *> operands() const { return {&ids, &logits}; }
};

void check_argmax() {
  for (const int64_t v : {1, 3, 31, 33, 127, 257, 1000, 5003})
    for (const gt_dtype dtype : FLOATS)
      for (const auto &[pad, offset] : {std::pair{0, 0}, std::pair{8, 0}, std::pair{1, 3}}) {
        const std::string what = std::string("argmax ") + name_of(dtype) + " V " + std::to_string(v);
        check_against_cpu(what, [&, p = pad, o = offset] { return Argmax(dtype, v, p, o); }, EQUAL);
      }
}

// Process and sample

void check_every_setting() {
  for (const int64_t v : {1, 3, 31, 33, 127, 257, 1000, 5003}) {
    if (IS_INSTRUMENTED && (v == 31 || v == 127)) continue;
    check({"every setting", v, 40, EVERY_SETTING});
    check({"unaligned", v, 3, EVERY_SETTING, with_removed, -1, 0, 1, 3});
    if (v > 1000 && IS_INSTRUMENTED) break;
    check({"ties", v, 9, EVERY_SETTING, ties, -1, 0, 8});
    check({"flat", v, 9, EVERY_SETTING, flat});
    check({"narrow", v, 9, EVERY_SETTING, narrow});
    check({"wide", v, 9, EVERY_SETTING, wide});
    check({"repeated ids", v, 300, EVERY_SETTING, bell, 290, v < 3 ? v : 3, 2, 1});
  }
}

void check_seeds() {
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    check_against_cpu("argmax", [&] { return Argmax(dtype, 1000, 8, 0); }, EQUAL, SEEDS);
  check({"seeds", 1000, 40, EVERY_SETTING}, Step::BOTH, SEEDS);
  check({"seeds, ties", 257, 9, EVERY_SETTING, ties}, Step::BOTH, SEEDS);
}

// Rows so few that each has a cluster of 8 blocks, of 2 and 4 where the vocabulary has fewer ids. Of 9 ids some blocks
// have none. What is odd of a row is in one slice alone, or across two.
void check_slices() {
  const std::vector<Params> few = {
      GREEDY, PLAIN, EVERY_SETTING[17], EVERY_SETTING[16], EVERY_SETTING[10], {1, 64, 1, 0, 1, 0, 0}, EVERY_SETTING[5],
      {0.7f, 300, 0.9f, 0, 1.1f, 0, 0.25f}};
  for (const int64_t v : {2, 3, 5, 9, 33, 128, 257, 1003}) {
    if (IS_INSTRUMENTED && v != 9 && v != 257) continue;
    const auto slice = [v](int64_t id) { return id * 8 / v; };
    check({"few rows", v, 40, few});
    check({"few rows, ties", v, 40, few, ties, -1, 0, 1, 3});
    check({"few rows, flat", v, 9, few, flat, -1, 0, 0, 1});
    check({"few full rows", v, 9, few, bell, 9});
    check({"one row", v, 40, {EVERY_SETTING[16]}});
    check({"an empty slice", v, 9, few, [&](int64_t row, int64_t id) {
      return slice(id) == row && id > 0 ? -INF : bell(row, id);
    }});
    check({"all in one slice", v, 9, few, [&](int64_t row, int64_t id) {
      return slice(id) == row || id == v - 1 ? bell(row, id) : -INF;
    }});
    check({"NaN in a slice", v, 9, few, [&](int64_t row, int64_t id) {
      return id == row * v / 8 ? NAN : bell(row, id);
    }});
  }
  if (IS_INSTRUMENTED) return;
  check({"candidates of all slices", 5003, 40, few, narrow});
  check({"slices, seeds", 257, 40, few}, Step::BOTH, SEEDS);
}

// As on a GPU before Hopper: a block has a row.
void check_without_clusters() {
  simt::resident_clusters = 0;
  for (const int64_t v : {33, 1003, 1300}) check({"without clusters", v, 40, EVERY_SETTING, bell, -1, 0, 1, 3});
  simt::resident_clusters = 2;
}

// More ids than are counted at once, than one round of loads takes, and than a block keeps in shared memory.
void check_large_vocabulary() {
  const std::vector<Params> some = {EVERY_SETTING[16], EVERY_SETTING[10], EVERY_SETTING[6]};
  check({"three windows", 16400, 1500, some, bell, 1400});
  if (IS_INSTRUMENTED) return;
  check({"GPT-2", 50257, 1024, some, bell, 1000});
  check({"GPT-2 flat", 50257, 1024, some, flat, 1000});
}

// 500 draws in one batch; sequences with different seeds.
void check_many_draws() {
  const std::vector<Params> params(500, PLAIN);
  check({"draws", 33, 4, params}, Step::SAMPLE);
  check({"draws from few", 257, 4, params, with_removed}, Step::SAMPLE);
  check({"flat draws", 1000, 4, std::vector<Params>(64, PLAIN), flat, -1, 0, 1, 0, 77}, Step::SAMPLE);
}

void check_states() {
  Batch batch{"states", 257, 12, std::vector<Params>(10, EVERY_SETTING[16])};
  batch.logit = [](int64_t row, int64_t id) {
    if (row == 4) return id == 200 ? NAN : bell(row, id);
    if (row == 5) return -INF;
    if (row == 6 || row == 7) return id == 256 ? INF : bell(row, id);
    return bell(row, id);
  };
  batch.params[5] = batch.params[7] = EVERY_SETTING[17];
  const auto make = [&](Step step) {
    return [&batch, step] {
      Sequences s(batch, step);
      for (int64_t r = 0; r < s.n; ++r) s.ids.integer_at<int32_t>(0, r) = s.record.integer_at<int32_t>(0, r) = 7777;
      s.length(0) = -4;
      s.length(1) = 0;
      s.position(2) = -1;
      s.length(3) = 12;
      s.length(8) = 11;
      s.length(9) = 40;  // beyond the room there is
      return s;
    };
  };
  for (const Step step : {Step::PROCESS, Step::SAMPLE, Step::BOTH, Step::IN_TURN})
    check_against_cpu("states", make(step), EQUAL);

  const Sequences s = make(Step::SAMPLE)();
  s.run(cuda("fwd"));
  const std::vector<int32_t> record = {7777, 7777, 7777, -GT_FAULT_FULL, -GT_FAULT_NAN, -GT_FAULT_NO_TOKEN,
                                       -GT_FAULT_NAN, 256};
  for (int r = 0; r < 8; ++r)
    expect(s.record.integer_at<int32_t>(0, r) == record[r], "states: record[%d] is %d, expected %d", r,
           s.record.integer_at<int32_t>(0, r), record[r]);
  const int32_t token = s.tokens.integer_at<int32_t>(8, 11), id = s.ids.integer_at<int32_t>(0, 8);
  expect(token == id && s.length(8) == 12 && s.position(8) == 11, "states: token %d, id %d, length %d, position %d",
         token, id, s.length(8), s.position(8));
}

// Greedy rows so few that several blocks share each, step after step until there is no room. What is odd of a row is in
// the last block's part or the first's.
void check_steps_of_few_rows() {
  const int64_t v = 257, room = 2;
  Batch batch{"few rows", v, 12, std::vector<Params>(8, GREEDY)};
  batch.length = batch.m - room;
  batch.logit = [](int64_t row, int64_t id) {
    switch (row) {
      case 0: return id == v - 1 ? NAN : bell(row, id);
      case 1: return -INF;
      case 2: return id == v - 1 ? INF : bell(row, id);
      case 3: return id < v - 2 ? -INF : -3e38f;
      case 4: return id < 50 ? -1.0f : id % 2 ? 0.0f : -0.0f;
      case 5: return id == 0 ? NAN : INF;
      default: return bell(row, id);
    }
  };
  const Sequences expected(batch, Step::BOTH), found(batch, Step::BOTH);
  for (const Sequences *s : {&expected, &found}) s->position(6) = -1, s->length(7) = 0;
  for (int64_t step = 0; step <= room; ++step) {
    expect(expected.run(cpu(1)) == GT_OK && found.run(cuda("rand:3")) == GT_OK, "few rows: %s", gt_last_error());
    for (size_t i = 0; i < found.outputs().size(); ++i) {
      const std::string error = difference(*found.outputs()[i], *expected.outputs()[i], EQUAL);
      expect(error.empty(), "few rows, step %ld: output %zu%s", static_cast<long>(step), i, error.c_str());
    }
    if (step > 0) continue;
    const std::vector<int32_t> record = {-GT_FAULT_NAN, -GT_FAULT_NO_TOKEN, v - 1, v - 2, 50, -GT_FAULT_NAN};
    for (int r = 0; r < 6; ++r)
      expect(found.record.integer_at<int32_t>(0, r) == record[r], "few rows: record[%d] is %d, expected %d", r,
             found.record.integer_at<int32_t>(0, r), record[r]);
  }
  expect(found.record.integer_at<int32_t>(0, 2) == -GT_FAULT_FULL, "few rows: a full row's record is %d",
         found.record.integer_at<int32_t>(0, 2));
}

// A sequence's row is the same alone and in a batch.
void check_row_alone() {
  const Batch batch{"row alone", 1000, 40, EVERY_SETTING, bell, -1, 0, 3, 1};
  check_choose(batch);
  const Sequences all(batch, Step::BOTH);
  expect(all.run(cuda("fwd")) == GT_OK, "row alone: %s", gt_last_error());
  for (int64_t r = 0; r < all.n; ++r) {
    const Sequences alone(batch, Step::BOTH, r, 1);
    expect(alone.run(cuda("rev")) == GT_OK && alone.logits.row(0) == all.logits.row(r) &&
               alone.ids.integer_at<int32_t>(0, 0) == all.ids.integer_at<int32_t>(0, r),
           "row %ld differs from that alone", static_cast<long>(r));
  }
}

// Are the weights equal to the last bit? Logits a unit apart, around the one whose weight is min_p: what is kept tells.
// Optimised code alone: the CPU twin's exponential counts on fused multiply-add.
void check_weights() {
  Batch batch{"weights", 17, 1, {}};
  for (int i = 0; i < 2000; ++i) batch.params.push_back({1, 0, 1, std::exp(-0.005f * static_cast<float>(i)), 1, 0, 0});
  batch.logit = [&](int64_t row, int64_t id) {
    if (id == 16) return 0.0f;
    float logit = std::log(batch.params[row][3]);
    for (int64_t k = 8; k < id; ++k) logit = std::nextafterf(logit, 0);
    for (int64_t k = id; k < 8; ++k) logit = std::nextafterf(logit, -INF);
    return logit;
  };
  check(batch, Step::PROCESS);
}

void check_shapes_and_errors() {
  const Batch none{"no rows", 5, 4, {}};
  check(none);
  const Batch one{"one row", 5, 4, {PLAIN}};
  const auto refused = [](const char *op, gt_status status) {
    const std::string prefix = std::string(op) + ": ";
    expect(status == GT_DEVICE_ERROR && !strncmp(gt_last_error(), prefix.c_str(), prefix.size()),
           "a launch that fails: status %d, '%s'", status, gt_last_error());
  };
  refused("argmax", Argmax(GT_F32, 5, 0, 0).run(cuda("no such order")));
  refused("process_logits", Sequences(one, Step::PROCESS).run(cuda("no such order")));
  refused("sample", Sequences(one, Step::SAMPLE).run(cuda("no such order")));
  refused("choose", Sequences(one, Step::BOTH).run(cuda("no such order")));
}

// More rows than a grid has blocks.
void check_many_rows() {
  const int64_t n = 65535 + 2;
  const Rows ids(GT_I32, 1, n), logits(GT_BF16, n, 3);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t i = 0; i < 3; ++i) logits.set(r, i, i == r % 3);
  const gt_tensor tids = ids.vector(), tlogits = logits.tensor();
  const gt_stream stream = cuda("fwd");
  const gt_status status = gt_argmax(&stream, &tids, &tlogits);
  int64_t wrong = 0;
  for (int64_t r = 0; r < n; ++r) wrong += ids.integer_at<int32_t>(0, r) != r % 3;
  expect(status == GT_OK && wrong == 0, "%ld rows: status %d, %ld wrong", static_cast<long>(n), status,
         static_cast<long>(wrong));
}

}  // namespace

int main() {
  check_argmax();
  check_every_setting();
  check_slices();
  check_without_clusters();
  if (!IS_INSTRUMENTED) check_seeds();
  check_large_vocabulary();
  check_many_draws();
  check_states();
  check_steps_of_few_rows();
  check_row_alone();
  if (!IS_INSTRUMENTED) check_weights();
  check_shapes_and_errors();
  if (!IS_INSTRUMENTED) check_many_rows();
  return summary();
}
