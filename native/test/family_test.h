// What does every family's test need? Operands between guard bytes, streams of both devices, comparison, and the count
// of what passed and failed.
//
// A family's test runs an op through its gt_ entry: on the CPU, whose code Java's tests prove against a reference in
// double, and in CUDA on the emulator in several lane orders, which must agree bitwise. Outputs start as NaN (-1 in
// integers), so that what a kernel leaves out shows; rows lie between guard bytes (under AddressSanitizer: at the very
// end of their allocation).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "gatun/gatun.h"
#include "simt/graph_memory.h"
#include "simt/order.h"

namespace test {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t GUARD_BYTES = 0;
#else
constexpr size_t GUARD_BYTES = 64;
#endif
constexpr unsigned char GUARD = 0xA5;

// Instrumented code is an order of magnitude slower: it gets fewer orders, and a family's largest cases may leave it
// out.
#if defined(GT_TEST_INSTRUMENTED)
constexpr bool IS_INSTRUMENTED = true;
constexpr std::initializer_list<const char *> ORDERS = {"fwd", "rand:1"};
#else
constexpr bool IS_INSTRUMENTED = false;
constexpr std::initializer_list<const char *> ORDERS = {"fwd", "rev", "rand:1", "rand:1"};
#endif
// For a few cases of each op, in code that is not instrumented: what the sanitizers and the race check find does not
// depend on the order.
constexpr std::initializer_list<const char *> SEEDS = {
    "fwd",     "rand:1",  "rand:2",  "rand:3",  "rand:4",  "rand:5",  "rand:6",  "rand:7",  "rand:8",  "rand:9",
    "rand:10", "rand:11", "rand:12", "rand:13", "rand:14", "rand:15", "rand:16", "rand:17", "rand:18", "rand:19",
    "rand:20"};

// Dtypes

constexpr std::initializer_list<gt_dtype> FLOATS = {GT_F32, GT_BF16, GT_F16};

inline bool is_float(gt_dtype dtype) { return dtype < GT_I32; }
inline int bytes_of(gt_dtype dtype) {
  return dtype == GT_I64 ? 8 : dtype == GT_F32 || dtype == GT_I32 ? 4 : dtype == GT_U8 || dtype == GT_F8_E4M3 ? 1 : 2;
}
inline const char *name_of(gt_dtype dtype) {
  switch (dtype) {
    case GT_F32: return "f32";
    case GT_BF16: return "bf16";
    case GT_F16: return "f16";
    case GT_F8_E4M3: return "f8_e4m3";
    case GT_I32: return "i32";
    case GT_I64: return "i64";
    default: return "u8";
  }
}

// Half the distance from 1 to the next number.
inline double unit_of(gt_dtype dtype) {
  return dtype == GT_F32 ? 0x1p-24 : dtype == GT_BF16 ? 0x1p-8 : dtype == GT_F16 ? 0x1p-11 : 0x1p-4;
}

// The unit in which a number of this size is counted: 8 to 15 of it, below 2^-6 fewer.
inline float e4m3_unit(float magnitude) {
  return std::ldexp(1.0f, (magnitude < 0x1p-6f ? -6 : std::ilogb(magnitude)) - 3);
}

inline void encode(gt_dtype dtype, void *p, float x) {
  if (dtype == GT_F32) {
    memcpy(p, &x, 4);
  } else if (dtype == GT_F8_E4M3) {
    const float magnitude = std::fmin(std::fabs(x), 448.0f), unit = e4m3_unit(magnitude);
    const int units = static_cast<int>(std::nearbyint(magnitude / unit)), code = (std::ilogb(unit) + 9) * 8 + units;
    *static_cast<uint8_t *>(p) = static_cast<uint8_t>((std::isnan(x) ? 0x7f : code) | (std::signbit(x) ? 0x80 : 0));
  } else if (dtype == GT_F16) {
    const _Float16 h = static_cast<_Float16>(x);
    memcpy(p, &h, 2);
  } else {
    uint32_t u;
    memcpy(&u, &x, 4);
    const uint16_t bits = std::isnan(x) ? 0x7fc0 : static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
    memcpy(p, &bits, 2);
  }
}

inline float decode(gt_dtype dtype, const void *p) {
  float x;
  if (dtype == GT_F32) {
    memcpy(&x, p, 4);
  } else if (dtype == GT_F8_E4M3) {
    const int code = *static_cast<const uint8_t *>(p), exponent = code >> 3 & 15, mantissa = code & 7;
    const float units = static_cast<float>(exponent == 0 ? mantissa : 8 + mantissa);
    x = (code & 0x7f) == 0x7f ? NAN : std::ldexp(units, std::max(exponent, 1) - 10);
    if (code & 0x80) x = -x;
  } else if (dtype == GT_F16) {
    _Float16 h;
    memcpy(&h, p, 2);
    x = static_cast<float>(h);
  } else {
    uint16_t bits;
    memcpy(&bits, p, 2);
    const uint32_t u = static_cast<uint32_t>(bits) << 16;
    memcpy(&x, &u, 4);
  }
  return x;
}

inline float round_to(gt_dtype dtype, float x) {
  unsigned char bytes[4];
  encode(dtype, bytes, x);
  return decode(dtype, bytes);
}

// Operands

// N rows of C, pad elements between them, the first `offset` elements behind a 64-byte boundary.
class Rows {
 public:
  Rows(gt_dtype dtype, int64_t n, int64_t c, int64_t pad = 0, int64_t offset = 0)
      : dtype_(dtype), n_(n), c_(c), stride_(c + pad), begin_(GUARD_BYTES + offset * bytes_of(dtype)) {
    bytes_ = begin_ + (n > 0 ? (n - 1) * stride_ + c : 0) * bytes_of(dtype) + GUARD_BYTES;
    void *p = nullptr;
    if (posix_memalign(&p, 64, bytes_)) abort();
    base_.reset(static_cast<unsigned char *>(p));
    memset(base_.get(), GUARD, bytes_);
    for (int64_t r = 0; r < n; ++r) memset(at(r, 0), 0xff, c * bytes_of(dtype));  // NaN in every dtype
  }
  gt_dtype dtype() const { return dtype_; }
  int64_t n() const { return n_; }
  int64_t c() const { return c_; }
  unsigned char *at(int64_t r, int64_t i) const { return base_.get() + begin_ + (r * stride_ + i) * bytes_of(dtype_); }
  // Floats only; integers through integer_at.
  float get(int64_t r, int64_t i) const { return decode(dtype_, at(r, i)); }
  void set(int64_t r, int64_t i, float x) const { encode(dtype_, at(r, i), x); }
  template <class Integer> Integer &integer_at(int64_t r, int64_t i) const {
    if (sizeof(Integer) != static_cast<size_t>(bytes_of(dtype_)) || is_float(dtype_)) abort();
    return *reinterpret_cast<Integer *>(at(r, i));
  }
  std::vector<float> row(int64_t r) const {
    std::vector<float> v;
    for (int64_t i = 0; i < c_; ++i) v.push_back(get(r, i));
    return v;
  }
  gt_tensor tensor() const { return {at(0, 0), dtype_, 2, {n_, c_}, {stride_, 1}}; }
  gt_tensor vector() const { return {at(0, 0), dtype_, 1, {c_}, {1}}; }  // the first row
  // The same memory with any shape and strides, from element `first` of the first row on.
  gt_tensor view(std::initializer_list<int64_t> shape, std::initializer_list<int64_t> stride, int64_t first = 0) const {
    gt_tensor t = {at(0, first), dtype_, static_cast<int32_t>(shape.size()), {}, {}};
    std::copy(shape.begin(), shape.end(), t.shape);
    std::copy(stride.begin(), stride.end(), t.stride);
    return t;
  }
  bool guards_are_intact() const {
    std::vector<bool> inside(bytes_);
    for (int64_t r = 0; r < n_; ++r)
      std::fill_n(inside.begin() + (at(r, 0) - base_.get()), c_ * bytes_of(dtype_), true);
    for (size_t i = 0; i < bytes_; ++i)
      if (!inside[i] && base_.get()[i] != GUARD) return false;
    return true;
  }
  void append_to(std::string &bits) const {
    for (int64_t r = 0; r < n_; ++r) bits.append(reinterpret_cast<char *>(at(r, 0)), c_ * bytes_of(dtype_));
  }

 private:
  struct Free { void operator()(void *p) const { free(p); } };
  gt_dtype dtype_;
  int64_t n_, c_, stride_;
  size_t begin_, bytes_;
  std::unique_ptr<unsigned char, Free> base_;
};

// What kernels in front of the ops to come write, while it lives.
class WrittenInFront {
 public:
  explicit WrittenInFront(std::initializer_list<const Rows *> all) {
    for (const Rows *rows : all)
      if (rows->n() > 0) {
        const auto *const begin = reinterpret_cast<const char *>(rows->at(0, 0));
        const auto *const end = reinterpret_cast<const char *>(rows->at(rows->n() - 1, rows->c()));
        simt::written_in_front.push_back({begin, static_cast<size_t>(end - begin)});
      }
  }
  WrittenInFront(const WrittenInFront &) = delete;
  WrittenInFront &operator=(const WrittenInFront &) = delete;
  ~WrittenInFront() { simt::written_in_front.clear(); }
};

// From [-2, 2): the i-th number of stream `salt`.
inline float uniform(uint64_t salt, int64_t i) {
  simt::Draw draw{salt * 1000003 + static_cast<uint64_t>(i)};
  return static_cast<float>(draw.next() >> 40) * 0x1p-22f - 2.0f;
}

inline void fill_uniform(const Rows &rows, uint64_t salt, float scale = 1) {
  for (int64_t r = 0; r < rows.n(); ++r)
    for (int64_t i = 0; i < rows.c(); ++i) rows.set(r, i, scale * uniform(salt, r * 65537 + i));
}

// Devices

// Takes effect for every later launch: one order at a time.
inline gt_stream cuda(const char *order) {
  simt::set_order(simt::parse_order(order));
  return {GT_CUDA, 0, nullptr, 1, 0};
}
inline gt_stream cpu(int threads) { return {GT_CPU, 0, nullptr, threads, 0}; }

// Results

inline int passed = 0, failed = 0;

__attribute__((format(printf, 2, 3))) inline void expect(bool condition, const char *format, ...) {
  ++(condition ? passed : failed);
  if (condition || failed > 40) return;
  va_list arguments;
  va_start(arguments, format);
  printf("FAIL  ");
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
}

// What main returns.
inline int summary() {
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}

// |actual - expected| <= ulps * (distance from |expected| to the next number) + floor. Where the CPU and CUDA each
// round a good f32 result once to a 16-bit type, 1 ulp; in f32 what the two computations differ by.
struct Tolerance {
  double ulps, floor;
};

inline bool is_close(gt_dtype dtype, double actual, double expected, Tolerance tolerance) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (actual == expected) return true;
  if (std::isinf(expected) || !std::isfinite(actual)) return false;
  const double smallest = dtype == GT_F16 ? 0x1p-14 : 0x1p-126;  // below, the distance stays
  const double ulp = 2 * unit_of(dtype) * std::max(std::fabs(expected), smallest);
  return std::fabs(actual - expected) <= tolerance.ulps * ulp + tolerance.floor;
}

// The first place where two operands of one shape differ, or "". Integers must be equal.
inline std::string difference(const Rows &actual, const Rows &expected, Tolerance tolerance) {
  const gt_dtype dtype = actual.dtype();
  char text[160];
  for (int64_t r = 0; r < actual.n(); ++r)
    for (int64_t i = 0; i < actual.c(); ++i) {
      const long row = static_cast<long>(r), column = static_cast<long>(i);
      if (is_float(dtype)) {
        const double a = actual.get(r, i), e = expected.get(r, i);
        if (is_close(dtype, a, e, tolerance)) continue;
        snprintf(text, sizeof text, "[%ld, %ld] is %.9g, expected %.9g", row, column, a, e);
        return text;
      }
      long long a = 0, e = 0;
      memcpy(&a, actual.at(r, i), bytes_of(dtype));
      memcpy(&e, expected.at(r, i), bytes_of(dtype));
      if (a == e) continue;
      snprintf(text, sizeof text, "[%ld, %ld] has bits 0x%llx, expected 0x%llx", row, column, a, e);
      return text;
    }
  return "";
}

// Does CUDA give what the CPU gives, in every order the same bits, and does neither write outside its rows?
// make() returns a fresh case: a movable object with
//   gt_status run(const gt_stream &) const
//   std::vector<const Rows *> outputs() const     compared; tolerance is theirs
//   std::vector<const Rows *> operands() const    all of them, for their guards
template <class Make>
void check_against_cpu(const std::string &what, Make make, Tolerance tolerance,
                       std::initializer_list<const char *> orders = ORDERS) {
  const auto guarded = [](const auto &operands) {
    return std::all_of(operands.begin(), operands.end(), [](const Rows *rows) { return rows->guards_are_intact(); });
  };
  const auto reference = make();
  const char *const name = what.c_str();
  if (reference.run(cpu(1))) return expect(false, "%s: cpu: %s", name, gt_last_error());
  if (!guarded(reference.operands())) return expect(false, "%s: the cpu wrote outside the rows", name);
  std::string first;
  for (const char *order : orders) {
    const auto c = make();
    if (const gt_status status = c.run(cuda(order)))
      return expect(false, "%s order %s: status %d, %s", name, order, status, gt_last_error());
    if (!guarded(c.operands())) return expect(false, "%s order %s: wrote outside the rows", name, order);
    const auto outputs = c.outputs(), expected = reference.outputs();
    std::string bits;
    for (size_t i = 0; i < outputs.size(); ++i) {
      outputs[i]->append_to(bits);
      const std::string error = first.empty() ? difference(*outputs[i], *expected[i], tolerance) : "";
      if (!error.empty()) return expect(false, "%s: output %zu%s", name, i, error.c_str());
    }
    if (first.empty()) first = bits;
    if (bits != first) return expect(false, "%s: order %s gives other bits", name, order);
  }
  expect(true, "unused");
}

}  // namespace test
