// Does attention of a decode step give the bits of rope, append and paged attention in turn, whatever else is in the
// batch, and leave its counters as it found them?
//
// What lies at positions that a row does not reach, and at its own until it is stored, is NaN; page table entries that
// no row needs name no page.
#include "family_test.h"

namespace {

using namespace test;

#if defined(GT_TEST_INSTRUMENTED)
constexpr std::initializer_list<gt_dtype> DTYPES = {GT_F32, GT_BF16};
#else
constexpr std::initializer_list<gt_dtype> DTYPES = FLOATS;
#endif

constexpr int64_t PAGE = 64;
constexpr int32_t IDLE = -1;

struct Heads {
  int64_t h, g, d;
};
enum class Rope { NONE, HALF, INTERLEAVED };
enum class Way { FUSED, IN_TURN };
// How the rows of q, k, v and y lie: with a gap that keeps 16-byte alignment, or aligned by chance only.
enum class Layout { GAPS, UNALIGNED };

// Positions of the rows, one sequence each; what lies there depends on the sequence's number in `numbers`, not on
// pages.
struct Steps {
  std::vector<int32_t> positions;
  std::vector<int> numbers;
  int64_t extra_width = 1;
};

struct Case {
  Steps steps;
  Heads z;
  gt_dtype dtype;
  Rope rope;
  int64_t rotated;
  Way way = Way::FUSED;
  int64_t n, width = 0, num_pages = 0;
  Rows q, k, v, y, lse, k_pages, v_pages, table, positions, angles, counters;

  Case(const Steps &s, const Heads &heads, gt_dtype type, Rope kind = Rope::NONE, Layout layout = Layout::GAPS)
      : steps(s), z(heads), dtype(type), rope(kind), rotated(z.d / 4 * 2), n(static_cast<int64_t>(s.positions.size())),
        q(rows(n * z.h, layout)), k(rows(n * z.g, layout)), v(rows(n * z.g, layout)), y(rows(n * z.h, layout)),
        lse(GT_F32, n, z.h), k_pages(type, 0, 0), v_pages(type, 0, 0), table(GT_I32, 0, 0), positions(GT_I32, 1, n),
        angles(GT_F32, 2 * 700, rotated / 2), counters(GT_I32, n, z.g) {
    for (int i = 0; steps.numbers.size() < steps.positions.size(); ++i) steps.numbers.push_back(i);
    for (const int32_t p : steps.positions) {
      width = std::max(width, pages_of(p));
      num_pages += pages_of(p);
    }
    width += steps.extra_width;
    num_pages += 2 + num_pages % 2;  // even
    k_pages = Rows(dtype, num_pages * z.g * PAGE, z.d);
    v_pages = Rows(dtype, num_pages * z.g * PAGE, z.d);
    table = Rows(GT_I32, n, width);
    fill_uniform(angles, 20);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t g = 0; g < z.g; ++g) counters.integer_at<int32_t>(r, g) = 0;
    int64_t page = 1;
    for (int64_t r = 0; r < n; ++r) {
      const int32_t position = steps.positions[r];
      positions.integer_at<int32_t>(0, r) = position;
      for (int64_t j = 0; j < width; ++j) table.integer_at<int32_t>(r, j) = INT32_MAX;
      for (int64_t j = 0; j < pages_of(position); ++j, ++page)  // even pages backwards, so that neighbours lie apart
        table.integer_at<int32_t>(r, j) = static_cast<int32_t>(page % 2 ? page : num_pages - page);
      for (int64_t p = 0; p < position; ++p) fill(k_pages, place(r, p), 11, r, p), fill(v_pages, place(r, p), 12, r, p);
      fill(k, r * z.g, 14, r, position), fill(v, r * z.g, 15, r, position);
      for (int64_t h = 0; h < z.h; ++h)
        for (int64_t c = 0; c < z.d; ++c) q.set(r * z.h + h, c, value(13, r, position, h, c));
    }
  }
  Rows rows(int64_t count, Layout layout) const {
    return layout == Layout::GAPS ? Rows(dtype, count, z.d, 24 - z.d % 8) : Rows(dtype, count, z.d, 3, 1);
  }
  static int64_t pages_of(int32_t position) { return (position + PAGE) / PAGE; }
  // The first head's row of k_pages and v_pages.
  int64_t place(int64_t r, int64_t p) const {
    return table.integer_at<int32_t>(r, p / PAGE) * z.g * PAGE + p % PAGE;
  }
  float value(uint64_t salt, int64_t r, int64_t p, int64_t head, int64_t c) const {
    return uniform(salt + 100 * static_cast<uint64_t>(steps.numbers[r]), (p * 64 + head) * 1024 + c);
  }
  void fill(const Rows &to, int64_t first, uint64_t salt, int64_t r, int64_t p) const {
    const bool is_pages = to.n() == num_pages * z.g * PAGE;
    for (int64_t g = 0; g < z.g; ++g)
      for (int64_t c = 0; c < z.d; ++c) to.set(first + g * (is_pages ? PAGE : 1), c, value(salt, r, p, g, c));
  }
  gt_tensor tensor_of(const Rows &x, std::initializer_list<int64_t> dims) const {
    gt_tensor t = {x.at(0, 0), x.dtype(), static_cast<int32_t>(dims.size()) + 1, {}, {}};
    std::copy(dims.begin(), dims.end(), t.shape);
    t.shape[t.rank - 1] = x.c();
    t.stride[t.rank - 1] = 1;
    int64_t stride = (x.at(1, 0) - x.at(0, 0)) / bytes_of(x.dtype());
    for (int i = t.rank - 2; i >= 0; --i) t.stride[i] = stride, stride *= t.shape[i];
    return t;
  }

  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = tensor_of(y, {n, z.h}), tq = tensor_of(q, {n, z.h}), tk = tensor_of(k, {n, z.g});
    const gt_tensor tv = tensor_of(v, {n, z.g}), tlse = lse.tensor(), tpositions = positions.vector();
    const gt_tensor k_cache = tensor_of(k_pages, {num_pages, z.g, PAGE});
    const gt_tensor v_cache = tensor_of(v_pages, {num_pages, z.g, PAGE});
    const gt_tensor ttable = table.view({n, width}, {width, 1}), tcounters = counters.tensor();
    const gt_tensor tangles = angles.view({700, 2, rotated / 2}, {rotated, rotated / 2, 1});
    const gt_tensor *const rope_table = rope == Rope::NONE ? nullptr : &tangles;
    const gt_rope_pairing pairing = rope == Rope::INTERLEAVED ? GT_ROPE_INTERLEAVED : GT_ROPE_HALF;
    const float scale = 1 / std::sqrt(static_cast<float>(z.d));
    int64_t bytes = -1;
    if (way == Way::FUSED) {
      if (const gt_status status = gt_attention_decode_workspace(&stream, &tq, &tk, &ttable, &bytes)) return status;
      const Rows scratch(GT_U8, 1, bytes);
      const gt_tensor workspace = scratch.vector();
      const WrittenInFront in_front({&y, &lse, &k_pages, &v_pages, &counters, &q, &k, &v, &table, &positions,
                                     &scratch});
      const gt_status status = gt_attention_decode(&stream, &ty, &tlse, &k_cache, &v_cache, &tcounters, &tq, &tk, &tv,
                                                   &ttable, &tpositions, rope_table, pairing, scale,
                                                   bytes ? &workspace : nullptr);
      return status == GT_OK && !scratch.guards_are_intact() ? GT_INTERNAL : status;
    }
    const Rows starts(GT_I32, 1, n + 1);
    for (int64_t i = 0; i <= n; ++i) starts.integer_at<int32_t>(0, i) = static_cast<int32_t>(i);
    const gt_tensor tstarts = starts.vector();
    if (const gt_status status = gt_attention_paged_workspace(&stream, &tq, &ttable, &bytes)) return status;
    const Rows scratch(GT_U8, 1, bytes);
    const gt_tensor workspace = scratch.vector();
    gt_status status = GT_OK;
    if (rope_table) status = gt_rope(&stream, &tq, &tq, &tpositions, rope_table, pairing);
    if (rope_table && !status) status = gt_rope(&stream, &tk, &tk, &tpositions, rope_table, pairing);
    if (!status) status = gt_kv_append(&stream, &k_cache, &v_cache, &tk, &tv, &ttable, &tstarts, &tpositions);
    if (!status)
      status = gt_attention_paged(&stream, &ty, &tlse, &tq, &k_cache, &v_cache, &ttable, &tstarts, &tpositions, scale,
                                  bytes ? &workspace : nullptr);
    return status;
  }
  std::vector<const Rows *> outputs() const { return {&y, &counters, &k_pages, &v_pages}; }
  std::vector<const Rows *> operands() const {
    return {&q, &k, &v, &y, &lse, &k_pages, &v_pages, &table, &positions, &angles, &counters};
  }
  // y and lse of a row.
  std::string bits_of(int64_t r) const {
    std::string bits;
    for (int64_t h = 0; h < z.h; ++h)
      bits.append(reinterpret_cast<char *>(y.at(r * z.h + h, 0)), z.d * bytes_of(dtype));
    return bits.append(reinterpret_cast<char *>(lse.at(r, 0)), 4 * z.h);
  }
  std::string what() const {
    char text[128];
    snprintf(text, sizeof text, "attention_decode %s N%d H%d G%d D%d rope %d", name_of(dtype), static_cast<int>(n),
             static_cast<int>(z.h), static_cast<int>(z.g), static_cast<int>(z.d), static_cast<int>(rope));
    return text;
  }
};

// At the beginning and the end of pages and of splits, idle, and from a split of each size.
const Steps STEPS = {{0, 600, 63, 64, IDLE, 255, 511, 512, 1100}, {}};
const Steps FEW = {{130, IDLE, 64}, {}};

void check_sizes() {
  const auto check = [](auto... args) {
    const Case c(args...);
    const Tolerance tolerance = c.dtype == GT_F32 ? Tolerance{4, 4e-6} : Tolerance{1, unit_of(c.dtype)};
    check_against_cpu(c.what(), [&] { return Case(args...); }, tolerance);
  };
  for (const gt_dtype dtype : DTYPES) {
    check(STEPS, Heads{2, 1, 64}, dtype);
    check(Steps{{700, 63}, {}}, Heads{14, 2, 40}, dtype);
    check(FEW, Heads{18, 1, 80}, dtype);                     // more heads than a tile has rows
    check(FEW, Heads{3, 1, 192}, dtype);
    check(FEW, Heads{2, 1, 33}, dtype);                      // rows of no whole vector
    check(Steps{{40, IDLE, 0}, {}, 0}, Heads{2, 2, 24}, dtype);  // a single split
    check(FEW, Heads{2, 1, 40}, dtype, Rope::NONE, Layout::UNALIGNED);
    for (const Rope rope : {Rope::HALF, Rope::INTERLEAVED}) {
      check(FEW, Heads{4, 2, 64}, dtype, rope);
      check(FEW, Heads{3, 1, 130}, dtype, rope, Layout::UNALIGNED);
    }
  }
}

// y, lse, pages and counters are those of the ops in turn, on both devices; one position is beyond the rope table, and
// one in the second split of 1024 keys.
void check_in_turn() {
  const auto check = [](const Steps &steps, const Heads &z, gt_dtype dtype, Rope rope) {
    const auto bits = [&](Way way, const gt_stream &stream) {
      Case c(steps, z, dtype, rope, z.d == 36 ? Layout::UNALIGNED : Layout::GAPS);
      c.way = way;
      if (c.run(stream)) return std::string(gt_last_error());
      std::string all;
      for (const Rows *rows : {&c.y, &c.lse, &c.k_pages, &c.v_pages, &c.counters}) rows->append_to(all);
      return all;
    };
    const std::string name = Case(FEW, z, dtype, rope).what();
    const char *const what = name.c_str();
    expect(bits(Way::FUSED, cpu(1)) == bits(Way::IN_TURN, cpu(1)), "%s: other bits on the CPU", what);
    const std::string in_turn = bits(Way::IN_TURN, cuda("fwd"));
    for (const char *const order : {"fwd", "rand:3"})
      expect(bits(Way::FUSED, cuda(order)) == in_turn, "%s: other bits, order %s", what, order);
  };
  for (const gt_dtype dtype : DTYPES)
    for (const Rope rope : {Rope::NONE, Rope::HALF, Rope::INTERLEAVED})
      for (const Heads &z : {Heads{4, 2, 64}, Heads{17, 1, 36}, Heads{2, 1, 256}})
        check(z.d == 64 ? Steps{{0, 70, IDLE, 699, 700, 511}, {}} : FEW, z, dtype, rope);
  check({{9500}, {}}, Heads{1, 1, 16}, GT_BF16, Rope::NONE);
}

// A row's bits: alone, with other pages and wider page tables, in any batch.
void check_alone() {
  for (const gt_dtype dtype : DTYPES)
    for (const Heads &z : {Heads{16, 16, 16}, Heads{2, 1, 128}}) {
      const Case all(STEPS, z, dtype);
      expect(all.run(cuda("fwd")) == GT_OK, "%s", gt_last_error());
      for (size_t i = 0; i < STEPS.positions.size(); ++i) {
        const Steps alone = {{STEPS.positions[i]}, {static_cast<int>(i)}, static_cast<int64_t>(i % 3 * 20)};
        const Case one(alone, z, dtype, Rope::NONE, Layout::UNALIGNED);
        expect(one.run(cuda("rand:2")) == GT_OK && one.bits_of(0) == all.bits_of(static_cast<int64_t>(i)),
               "%s: row %zu has other bits alone: '%s'", all.what().c_str(), i, gt_last_error());
      }
    }
}

// As a graph does: the same operands again, with the counters and the workspace that the last call left.
void check_again() {
  const Case c(STEPS, Heads{2, 2, 16}, GT_BF16, Rope::HALF);
  std::string first;
  for (const char *const order : {"fwd", "rev", "rand:1"}) {
    std::string bits;
    const gt_status status = c.run(cuda(order));
    for (const Rows *rows : c.outputs()) rows->append_to(bits);
    if (first.empty()) first = bits;
    expect(status == GT_OK && bits == first, "%s: other bits when it runs again, %s", c.what().c_str(), order);
  }
}

// The query refuses what the op refuses, though it reads no data.
void check_workspace_errors() {
  static char memory[16];
  const auto floats = [](int64_t n, int64_t heads, int64_t d) {
    return gt_tensor{memory, GT_BF16, 3, {n, heads, d}, {heads * d, d, 1}};
  };
  const auto table = [](int64_t n, int64_t width) { return gt_tensor{memory, GT_I32, 2, {n, width}, {width, 1}}; };
  const auto check = [](const gt_stream &stream, const gt_tensor &q, const gt_tensor &k, const gt_tensor &pages,
                        gt_status expected, const char *text) {
    int64_t bytes = -1;
    const gt_status status = gt_attention_decode_workspace(&stream, &q, &k, &pages, &bytes);
    expect(status == expected && bytes == -1 && strstr(gt_last_error(), text),
           "status %d, %lld bytes, '%s', expected %d, '%s'", status, static_cast<long long>(bytes), gt_last_error(),
           expected, text);
  };
  const gt_tensor q = floats(2, 4, 16), k = floats(2, 2, 16), pages = table(2, 3);
  for (const gt_stream &stream : {cpu(1), cuda("fwd")}) {
    check(stream, q, floats(3, 2, 16), pages, GT_INVALID_ARGUMENT, "k");
    check(stream, q, k, table(3, 3), GT_INVALID_ARGUMENT, "page_table");
    check(stream, q, floats(2, 3, 16), pages, GT_INVALID_ARGUMENT, "4 heads");
    check(stream, floats(2, 4, 257), floats(2, 2, 257), pages, GT_INVALID_ARGUMENT, "head dim 257");
  }
  const int64_t many = int64_t{1} << 26;  // pages, of 2^32 positions
  check(cuda("fwd"), q, k, table(2, many), GT_UNSUPPORTED, "4294967296");
  check(cuda("fwd"), q, k, table(2, many << 32), GT_UNSUPPORTED, "288230376151711744");
  check(cuda("fwd"), floats(2, 65536, 16), k, pages, GT_UNSUPPORTED, "65536 heads");
  check(cuda("fwd"), floats(1 << 29, 4, 16), floats(1 << 29, 2, 16), table(1 << 29, 3), GT_UNSUPPORTED, "2147483648");
}

void check_errors() {
  const Case c({{600}, {}}, Heads{2, 1, 16}, GT_BF16);
  const gt_tensor ty = c.tensor_of(c.y, {1, 2}), tq = c.tensor_of(c.q, {1, 2}), tk = c.tensor_of(c.k, {1, 1});
  const gt_tensor tv = c.tensor_of(c.v, {1, 1}), k_cache = c.tensor_of(c.k_pages, {c.num_pages, 1, PAGE});
  const gt_tensor v_cache = c.tensor_of(c.v_pages, {c.num_pages, 1, PAGE}), table = c.table.tensor();
  const gt_tensor positions = c.positions.vector(), counters = c.counters.tensor();
  const auto run = [&](const gt_stream &stream, const gt_tensor *workspace, const gt_tensor *counted) {
    return gt_attention_decode(&stream, &ty, nullptr, &k_cache, &v_cache, counted, &tq, &tk, &tv, &table, &positions,
                               nullptr, GT_ROPE_HALF, 1, workspace);
  };
  for (const gt_stream &stream : {cpu(1), cuda("fwd")}) {
    int64_t bytes = 0;
    gt_attention_decode_workspace(&stream, &tq, &tk, &table, &bytes);
    const Rows few(GT_U8, 1, bytes - 1), scratch(GT_U8, 1, bytes);
    const gt_tensor small = few.vector(), workspace = scratch.vector();
    expect(run(stream, nullptr, &counters) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "workspace"),
           "no workspace: '%s'", gt_last_error());
    expect(run(stream, &small, &counters) == GT_INVALID_ARGUMENT, "a small workspace: '%s'", gt_last_error());
    expect(run(stream, &workspace, nullptr) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "counters"),
           "no counters: '%s'", gt_last_error());
    expect(run(stream, &workspace, &counters) == GT_OK, "without lse: %s", gt_last_error());
    if (stream.device == GT_CPU) continue;
    simt::set_order(simt::parse_order("no such order"));
    expect(run(stream, &workspace, &counters) == GT_DEVICE_ERROR &&
               !strncmp(gt_last_error(), "attention_decode: ", 18), "a launch that fails: '%s'", gt_last_error());
  }
}

}  // namespace

int main() {
  check_sizes();
  check_in_turn();
  check_alone();
  check_again();
  check_workspace_errors();
  check_errors();
  return summary();
}
