// Do gt_rope_table, gt_rope and gt_rope_backward in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"

namespace {

using namespace test;

constexpr int64_t M = 9;
constexpr float ATTENTION_FACTOR = 1.25f;

void fill_inv_freq(const Rows &inv_freq) {
  const double half = static_cast<double>(inv_freq.c());
  for (int64_t i = 0; i < inv_freq.c(); ++i)
    inv_freq.set(0, i, static_cast<float>(std::pow(10000.0, -static_cast<double>(i) / half)));
}

struct Table {
  Rows table, inv_freq;
  int64_t m, first_position;
  Table(int64_t m_, int64_t half, int64_t first)
      : table(GT_F32, 1, m_ * 2 * half, 0, 1), inv_freq(GT_F32, 1, half, 0, 1), m(m_), first_position(first) {
    fill_inv_freq(inv_freq);
  }
  gt_status run(const gt_stream &stream) const {
    const int64_t half = inv_freq.c();
    const gt_tensor t = table.view({m, 2, half}, {2 * half, half, 1}), f = inv_freq.vector();
    return gt_rope_table(&stream, &t, &f, first_position, ATTENTION_FACTOR);
  }
  std::vector<const Rows *> outputs() const { return {&table}; }
  std::vector<const Rows *> operands() const { return {&table, &inv_freq}; }
};

// Angles beyond 2^24 and 10^5 radians included, where a fast sine would be wrong altogether.
void check_tables() {
  for (const int64_t first : {0L, 130000L, 16777215L, 5000000200L, -3L})
    for (const int64_t half : {1, 3, 32, 33, 64, 257})
      for (const int64_t m : {1, 7, 130})
        check_against_cpu("rope_table from " + std::to_string(first) + " [" + std::to_string(m) + ", 2, " +
                              std::to_string(half) + "]",
                          [&] { return Table(m, half, first); }, {2, 1e-7});
  const Table many(16384 + 3, 256, 0), reference(16384 + 3, 256, 0);
  if (IS_INSTRUMENTED) return;
  const bool runs = !many.run(cuda("fwd")) && !reference.run(cpu(1));
  const std::string error = runs ? difference(many.table, reference.table, {2, 1e-7}) : gt_last_error();
  expect(error.empty(), "rope_table of many positions: %s", error.c_str());
}

struct Layout {
  const char *name;
  int64_t pad_head, pad_token;  // elements between heads, and between the last of a token and the next token
  int64_t offset_x, offset_y, offset_table;
  bool y_is_x;
};
const Layout layouts[] = {
    {"dense", 0, 0, 0, 0, 0, false},
    {"slices", 16, 64, 0, 0, 0, false},
    {"y is x", 0, 8, 0, 0, 0, true},
    {"x unaligned", 0, 0, 1, 0, 0, false},
    {"odd strides", 3, 1, 0, 5, 0, false},
    {"table unaligned", 0, 0, 0, 0, 1, false},
    {"y is x, unaligned", 1, 0, 3, 3, 0, true},
};

// gt_rope and gt_rope_backward.
using Run = gt_status (*)(const gt_stream *, const gt_tensor *y, const gt_tensor *x, const gt_tensor *positions,
                          const gt_tensor *table, gt_rope_pairing);

struct Case {
  int64_t n, h, d;
  const Layout &layout;
  gt_rope_pairing pairing;
  Run run_op;
  Rows y, x, positions, table;

  // A row of y and x is a token.
  Case(gt_dtype dtype, int64_t n_, int64_t h_, int64_t d_, int64_t half, gt_rope_pairing pairing_, const Layout &l,
       Run run = gt_rope)
      : n(n_), h(h_), d(d_), layout(l), pairing(pairing_), run_op(run),
        y(dtype, n, h * (d + l.pad_head), l.pad_token, l.offset_y),
        x(dtype, n, h * (d + l.pad_head), l.pad_token, l.offset_x),
        positions(GT_I32, 1, n), table(GT_F32, 1, M * 2 * half, 0, l.offset_table) {
    fill_uniform(x, 1);
    fill_uniform(table, 2, 0.5f);
    x.set(n - 1, d / 2, NAN);
    x.set(0, d - 1, INFINITY);
    const int32_t bad[] = {-1, M, INT32_MIN, INT32_MAX};
    for (int64_t r = 0; r < n; ++r)
      positions.integer_at<int32_t>(0, r) = r % 4 == 1 ? bad[r / 4 % 4] : static_cast<int32_t>((r * 5 + 3) % M);
  }
  const Rows &result() const { return layout.y_is_x ? x : y; }
  gt_status run(const gt_stream &stream) const {
    const int64_t head = d + layout.pad_head, token = h * head + layout.pad_token, half = table.c() / (2 * M);
    const gt_tensor ty = result().view({n, h, d}, {token, head, 1}), tx = x.view({n, h, d}, {token, head, 1});
    const gt_tensor tpositions = positions.vector(), ttable = table.view({M, 2, half}, {2 * half, half, 1});
    return run_op(&stream, &ty, &tx, &tpositions, &ttable, pairing);
  }
  std::vector<const Rows *> outputs() const { return {&result()}; }
  std::vector<const Rows *> operands() const { return {&y, &x, &positions, &table}; }
};

// The floor: products of up to 2, each rounded to f32 or fused with the sum, which may cancel.
constexpr Tolerance TWO_PRODUCTS = {1, 5e-7};

void check_all_layouts() {
  struct Shape { int64_t n, h, d, half; };
  for (const Shape &s : {Shape{1, 1, 2, 1}, {5, 3, 6, 3}, {9, 4, 64, 32}, {17, 2, 128, 64}, {6, 5, 80, 16},
                         {3, 33, 40, 12}, {2, 3, 257, 127}, {2, 1, 1000, 500}, {9, 3, 24, 0}, {1, 40, 96, 48}})
    for (const gt_dtype dtype : FLOATS)
      for (const gt_rope_pairing pairing : {GT_ROPE_HALF, GT_ROPE_INTERLEAVED})
        for (const Layout &l : layouts) {
          const std::string what = std::string("rope ") + name_of(dtype) + " [" + std::to_string(s.n) + ", " +
                                   std::to_string(s.h) + ", " + std::to_string(s.d) + "] R = " +
                                   std::to_string(2 * s.half) + (pairing == GT_ROPE_HALF ? " half " : " interleaved ");
          check_against_cpu(what + l.name, [&] { return Case(dtype, s.n, s.h, s.d, s.half, pairing, l); },
                            TWO_PRODUCTS);
          if (s.n < 9)
            check_against_cpu(what + l.name + " back",
                              [&] { return Case(dtype, s.n, s.h, s.d, s.half, pairing, l, gt_rope_backward); },
                              TWO_PRODUCTS);
        }
}

void check_seeds() {
  check_against_cpu("rope_table [7, 2, 33]", [] { return Table(7, 33, 130000); }, {2, 1e-7}, SEEDS);
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const gt_rope_pairing pairing : {GT_ROPE_HALF, GT_ROPE_INTERLEAVED})
      for (const Layout &l : layouts)
        check_against_cpu(std::string("rope ") + name_of(dtype) + " [6, 5, 80] " + l.name,
                          [&] { return Case(dtype, 6, 5, 80, 16, pairing, l); }, TWO_PRODUCTS, SEEDS);
}

// A head's bits depend neither on the other tokens and heads nor on the path.
void check_heads_alone() {
  const gt_stream stream = cuda("fwd");
  for (const gt_rope_pairing pairing : {GT_ROPE_HALF, GT_ROPE_INTERLEAVED}) {
    const int64_t n = 6, h = 3, d = 80, half = 32;
    const Case all(GT_F32, n, h, d, half, pairing, layouts[0]);
    bool same = !all.run(stream);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t i = 0; i < h; ++i) {
        const Rows x(GT_F32, 1, d, 0, r % 4), y(GT_F32, 1, d, 0, i), position(GT_I32, 1, 1);
        memcpy(x.at(0, 0), all.x.at(r, i * d), 4 * d);
        position.integer_at<int32_t>(0, 0) = all.positions.integer_at<int32_t>(0, r);
        const gt_tensor tx = x.view({1, 1, d}, {7, 5, 1}), ty = y.view({1, 1, d}, {7, 5, 1});
        const gt_tensor tposition = position.vector(), ttable = all.table.view({M, 2, half}, {2 * half, half, 1});
        same &= !gt_rope(&stream, &ty, &tx, &tposition, &ttable, pairing) &&
                !memcmp(y.at(0, 0), all.y.at(r, i * d), 4 * d);
      }
    expect(same, "pairing %d: a head alone has other bits", pairing);
  }
}

// More tokens, and more heads, than a grid has blocks.
void check_large_grids() {
  struct Shape { int64_t n, h; };
  for (const Shape &s : {Shape{16384 + 3, 1}, {1, 65535 * 256 + 3}}) {
    const auto make = [&] { return Case(GT_BF16, s.n, s.h, 2, 1, GT_ROPE_HALF, layouts[0]); };
    const Case many = make(), reference = make();
    const bool runs = !many.run(cuda("fwd")) && !reference.run(cpu(1));
    const std::string error = runs ? difference(many.y, reference.y, TWO_PRODUCTS) : gt_last_error();
    expect(error.empty(), "%ld tokens, %ld heads: %s", static_cast<long>(s.n), static_cast<long>(s.h), error.c_str());
  }
}

void check_empty_and_errors() {
  const Case c(GT_F32, 2, 2, 8, 4, GT_ROPE_HALF, layouts[0]);
  const Table t(2, 4, 0);
  expect(c.run(cuda("no such order")) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "rope: ", 6),
         "a launch that fails: '%s'", gt_last_error());
  expect(t.run(cuda("no such order")) == GT_DEVICE_ERROR && !strncmp(gt_last_error(), "rope_table: ", 12),
         "a launch that fails: '%s'", gt_last_error());
  const gt_stream stream = cuda("no such order");  // nothing is launched: the order does not matter
  const gt_tensor empty = {nullptr, GT_F32, 3, {0, 2, 8}, {16, 8, 1}}, no_positions = {nullptr, GT_I32, 1, {0}, {1}};
  const gt_tensor no_table = {nullptr, GT_F32, 3, {0, 2, 4}, {8, 4, 1}}, inv_freq = t.inv_freq.vector();
  expect(gt_rope(&stream, &empty, &empty, &no_positions, &no_table, GT_ROPE_HALF) == GT_OK, "no tokens: %s",
         gt_last_error());
  expect(gt_rope_table(&stream, &no_table, &inv_freq, 0, 1) == GT_OK, "no positions: %s", gt_last_error());
}

}  // namespace

int main() {
  check_tables();
  check_all_layouts();
  if (!IS_INSTRUMENTED) check_seeds();
  check_heads_alone();
  if (!IS_INSTRUMENTED) check_large_grids();
  check_empty_and_errors();
  return summary();
}
