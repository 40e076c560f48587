// Arithmetic, activations, gated units, casts, fills and strided copies: argument checks, dispatch, and the CPU twin of
// elementwise.cu.
#include "gatun/elementwise.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/elementwise.h
// Mapping     runs of up to RUN elements along the dimension where y is densest; strided operands pass through a buffer
// Memory      each operand once; a transposing copy goes by tiles, so that lines of x are used up while they are
//             cached; a large contiguous copy goes past the caches
// Numerics    an element's value depends on its inputs alone, never on where in a vector or a run it lies
#include "cpu/map.h"
#include "cpu/math.h"
#include "cpu/mlp_activation.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t TILE = 32;  // rows and columns of a transposing copy: 64 lines at most, half of the first cache's
constexpr int64_t LARGE_BYTES = 1 << 20;   // of a contiguous copy by places
constexpr int64_t PLACES = 4;              // of a piece that are copied side by side: memory is faster then
constexpr int64_t PLACE_BYTES = 68 << 10;  // no multiple of 8 KiB, or all want the same few places of the first cache
constexpr int64_t VECTORS = 4;             // copied before the next place

struct Add {
  GT_INLINE vf of(vf a, vf b, vf, float) { return a + b; }
};
struct Mul {
  GT_INLINE vf of(vf a, vf b, vf, float) { return a * b; }
};
struct Scale {
  GT_INLINE vf of(vf x, vf, vf, float factor) { return x * factor; }
};
struct LeakyRelu {
  GT_INLINE vf of(vf x, vf, vf, float slope) { return select(x > 0.0f, x, slope * x); }
};
struct Tanh {
  GT_INLINE vf of(vf x, vf, vf, float) { return vtanh(x); }
};
struct Sigmoid {
  GT_INLINE vf of(vf x, vf, vf, float) { return vsigmoid(x); }
};
struct Modulate {
  GT_INLINE vf of(vf x, vf scale, vf shift, float) { return x * (1.0f + scale) + shift; }
};
struct AddGated {
  GT_INLINE vf of(vf x, vf gate, vf h, float) { return x + gate * h; }
};
struct Gaussian {
  GT_INLINE vf of(vf mean, vf logvar, vf eps, float) {
    const vf low = select(logvar < -30.0f, vf{} - 30.0f, logvar);
    return mean + vexp(0.5f * select(low > 20.0f, vf{} + 20.0f, low)) * eps;
  }
};

template <class Y, class X>
void cast_run(char *const *data, int64_t n, float) {
  Y *const y = reinterpret_cast<Y *>(data[0]);
  const X *const x = reinterpret_cast<const X *>(data[1]);
  for (int64_t i = 0; i < n; i += W) store(y + i, load(x + i));
}

template <class T>
int64_t count_nonfinite_run(const void *x, int64_t n) {
  vi counts{};
  for (int64_t i = 0; i < n; i += W) {
    const vi exponent = (vi)load_up_to(static_cast<const T *>(x) + i, n - i) & 0x7f800000;
    counts -= exponent == 0x7f800000;
  }
  int64_t count = 0;
  for (int i = 0; i < W; ++i) count += counts[i];
  return count;
}

// Truncated; what the type cannot hold becomes its nearest value, NaN becomes 0.
template <class T>
void to_integer(double value, double low, double beyond, void *out) {
  const T smallest = static_cast<T>(low), largest = static_cast<T>(static_cast<uint64_t>(beyond) - 1);
  const T t = value != value ? T{0} : value <= low ? smallest : value >= beyond ? largest : static_cast<T>(value);
  memcpy(out, &t, sizeof t);
}

void element_of(gt_dtype dtype, double value, void *out) {
  switch (dtype) {
    case GT_F32: return from_float(static_cast<float>(value), static_cast<float *>(out));
    case GT_BF16: return from_float(static_cast<float>(value), static_cast<bf16 *>(out));
    case GT_F16: return from_float(static_cast<float>(value), static_cast<f16 *>(out));
    case GT_I32: return to_integer<int32_t>(value, -0x1p31, 0x1p31, out);
    case GT_I64: return to_integer<int64_t>(value, -0x1p63, 0x1p63, out);
    default: return to_integer<uint8_t>(value, 0, 0x1p8, out);
  }
}

// The dimension along which x is densest, where that would make runs of y jump through x; else the last one.
int dimension_to_tile(const Loop &loop) {
  int best = loop.rank - 1;
  for (int d = 0; d < loop.rank - 1; ++d)
    if (loop.stride[1][d] != 0 && llabs(loop.stride[1][d]) < llabs(loop.stride[1][best])) best = d;
  return best;
}

// Copies [outer..., R, C] where x is densest along R and y along C.
void copy_tiles(const gt_stream *stream, const Loop &loop) {
  const int r = loop.rank - 2, c = loop.rank - 1;
  const int64_t rows = loop.shape[r], columns = loop.shape[c];
  const int64_t row_tiles = (rows + TILE - 1) / TILE, column_tiles = (columns + TILE - 1) / TILE;
  int64_t outer = 1;
  for (int d = 0; d < r; ++d) outer *= loop.shape[d];
  const int64_t cost = (rows < TILE ? rows : TILE) * (columns < TILE ? columns : TILE);
  parallel_for(stream, outer * row_tiles * column_tiles, cost, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t column = item % column_tiles * TILE, row = item / column_tiles % row_tiles * TILE;
      const Position at = position_at(loop, r, item / column_tiles / row_tiles);
      const int64_t n = columns - column < TILE ? columns - column : TILE;
      for (int64_t i = row; i < rows && i < row + TILE; ++i)
        copy_run(at.data[0] + i * loop.stride[0][r] + column * loop.stride[0][c], loop.stride[0][c],
                 at.data[1] + i * loop.stride[1][r] + column * loop.stride[1][c], loop.stride[1][c], loop.bytes[0], n);
    }
  });
}

// Whether that many bytes lie together in each operand, and the operands share none. (Where y is x, runs go.)
bool is_block(const Loop &loop, int64_t bytes) {
  if (loop.rank != 1 || !is_contiguous(loop, 0) || !is_contiguous(loop, 1)) return false;
  const uintptr_t y = reinterpret_cast<uintptr_t>(loop.data[0]), x = reinterpret_cast<uintptr_t>(loop.data[1]);
  return (y > x ? y - x : x - y) >= static_cast<uintptr_t>(bytes);
}

// STREAM: y is aligned to whole vectors, and goes past the caches.
template <bool STREAM>
void copy_block(const gt_stream *stream, char *y, const char *x, int64_t bytes) {
  constexpr int64_t STEP = VECTORS * VECTOR_BYTES, PIECE = PLACES * PLACE_BYTES;
  static_assert(PLACE_BYTES % STEP == 0);
  const int64_t pieces = bytes / PIECE;
  parallel_for(stream, pieces, PIECE, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece)
      for (int64_t i = piece * PIECE; i < piece * PIECE + PLACE_BYTES; i += STEP)
        for (int64_t at = i; at < i + PIECE; at += PLACE_BYTES) {
          vf v[VECTORS];
          memcpy(v, x + at, sizeof v);
          if (STREAM)
            for (int64_t k = 0; k < VECTORS; ++k)
              store_streaming(reinterpret_cast<float *>(y + at + k * VECTOR_BYTES), v[k]);
          else
            memcpy(y + at, v, sizeof v);
        }
    if (STREAM) finish_streaming();
  });
  memcpy(y + pieces * PIECE, x + pieces * PIECE, static_cast<size_t>(bytes % PIECE));
}

}  // namespace

#define UNARY_CPU(op, functor, cost)                                                        \
  gt_status op##_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {     \
    return map<functor>(stream, {y, x}, cost);                                       \
  }
#define UNARY_WITH_PARAMETER_CPU(op, functor, cost)                                                          \
  gt_status op##_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float parameter) {     \
    return map<functor>(stream, {y, x}, cost, parameter);                                             \
  }
#define BINARY_CPU(op, functor, cost)                                                                              \
  gt_status op##_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b) {        \
    return map<functor>(stream, {y, a, b}, cost);                                                                    \
  }

BINARY_CPU(add, Add, CHEAP)
BINARY_CPU(mul, Mul, CHEAP)
UNARY_WITH_PARAMETER_CPU(scale, Scale, CHEAP)
UNARY_CPU(gelu_erf, GeluErf, TRANSCENDENTAL)
UNARY_CPU(gelu_tanh, GeluTanh, TRANSCENDENTAL)
UNARY_CPU(quick_gelu, QuickGelu, TRANSCENDENTAL)
UNARY_CPU(silu, Silu, TRANSCENDENTAL)
UNARY_CPU(relu, Relu, CHEAP)
UNARY_WITH_PARAMETER_CPU(leaky_relu, LeakyRelu, CHEAP)
UNARY_CPU(tanh, Tanh, TRANSCENDENTAL)
UNARY_CPU(sigmoid, Sigmoid, TRANSCENDENTAL)
BINARY_CPU(swiglu, Gated<Silu>, TRANSCENDENTAL)
BINARY_CPU(geglu, Gated<GeluErf>, TRANSCENDENTAL)
BINARY_CPU(geglu_tanh, Gated<GeluTanh>, TRANSCENDENTAL)

gt_status modulate_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *scale,
                       const gt_tensor *shift) {
  return map<Modulate>(stream, {y, x, scale, shift}, CHEAP);
}

gt_status add_gated_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *gate,
                        const gt_tensor *h) {
  return map<AddGated>(stream, {y, x, gate, h}, CHEAP);
}

gt_status gaussian_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean, const gt_tensor *logvar,
                       const gt_tensor *eps) {
  return map<Gaussian>(stream, {y, mean, logvar, eps}, TRANSCENDENTAL);
}

gt_status cast_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  const gt_tensor *tensors[] = {y, x};
  with_float(y->dtype, [&](auto to) {
    with_float(x->dtype, [&](auto from) {
      run(stream, tensors, 1, 2, cast_run<decltype(to), decltype(from)>, CHEAP, 0);
    });
  });
  return GT_OK;
}

gt_status fill_cpu(const gt_stream *stream, const gt_tensor *y, double value) {
  const Loop loop = loop_over(&y, 1);
  char element[8], filled[RUN * 8];
  element_of(y->dtype, value, element);
  copy_run(filled, loop.bytes[0], element, 0, loop.bytes[0], RUN);
  for_runs(stream, loop, CHEAP, [&](char *const *data, int64_t n) {
    copy_run(data[0], stride_in_run(loop, 0), filled, loop.bytes[0], loop.bytes[0], n);
  });
  return GT_OK;
}

gt_status copy_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  const gt_tensor *tensors[] = {y, x};
  Loop loop = loop_over(tensors, 2);
  const int dimension = dimension_to_tile(loop);
  if (dimension < loop.rank - 1) {
    swap_dimensions(loop, dimension, loop.rank - 2);
    copy_tiles(stream, loop);
    return GT_OK;
  }
  const int64_t bytes = loop.shape[0] * loop.bytes[0];
  if (bytes >= LARGE_BYTES && is_block(loop, bytes)) {
    const bool streams = bytes >= STREAM_BYTES && reinterpret_cast<uintptr_t>(loop.data[0]) % VECTOR_BYTES == 0;
    (streams ? copy_block<true> : copy_block<false>)(stream, loop.data[0], loop.data[1], bytes);
    return GT_OK;
  }
  for_runs(stream, loop, CHEAP, [&](char *const *data, int64_t n) {
    copy_run(data[0], stride_in_run(loop, 0), data[1], stride_in_run(loop, 1), loop.bytes[0], n);
  });
  return GT_OK;
}

gt_status count_nonfinite_cpu(const gt_stream *stream, const gt_tensor *count, const gt_tensor *x) {
  const Loop loop = loop_over(&x, 1);
  int64_t total = 0;
  with_float(x->dtype, [&](auto zero) {
    for_runs(stream, loop, CHEAP, [&](char *const *data, int64_t n) {
      alignas(64) char buffer[RUN * sizeof(float)];
      const char *values = contiguous_run(loop, 0, data[0], n, buffer);
      __atomic_fetch_add(&total, count_nonfinite_run<decltype(zero)>(values, n), __ATOMIC_RELAXED);
    });
  });
  memcpy(count->data, &total, sizeof total);
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

namespace {

gt::Check check_output(const char *op, const gt_stream *stream, const gt_tensor *y, uint64_t dtypes) {
  gt::Check check(op, stream);
  check.tensor("y", y, dtypes);
  for (int i = 0; check.ok() && gt::elements(*y) > 0 && i < y->rank; ++i)
    check.require(y->shape[i] == 1 || y->stride[i] != 0, "y repeats elements (dimension %d has stride 0)", i);
  return check;
}

gt::Check check_unary(const char *op, const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  gt::Check check = check_output(op, stream, y, gt::FLOATS);
  return check.tensor("x", x, gt::FLOATS).same_shape("x", x, "y", y).same_dtype("x", x, "y", y);
}

gt::Check check_binary(const char *op, const gt_stream *stream, const gt_tensor *y, const char *a_name,
                       const gt_tensor *a, const char *b_name, const gt_tensor *b) {
  gt::Check check = check_output(op, stream, y, gt::FLOATS);
  check.tensor(a_name, a, gt::FLOATS).same_shape(a_name, a, "y", y).same_dtype(a_name, a, "y", y);
  return check.tensor(b_name, b, gt::FLOATS).same_shape(b_name, b, "y", y).same_dtype(b_name, b, "y", y);
}

}  // namespace

#define UNARY(op)                                                                                       \
  GT_DECLARE_OP(op)                                                                                     \
  extern "C" gt_status gt_##op(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {       \
    const gt::Check check = check_unary(#op, stream, y, x);                                             \
    return check.ok() ? GT_RUN(op, stream, y, x) : check.status();                                      \
  }
#define UNARY_WITH_PARAMETER(op, parameter)                                                                      \
  GT_DECLARE_OP(op)                                                                                              \
  extern "C" gt_status gt_##op(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float parameter) { \
    const gt::Check check = check_unary(#op, stream, y, x);                                                      \
    return check.ok() ? GT_RUN(op, stream, y, x, parameter) : check.status();                                    \
  }
#define BINARY(op, a, b)                                                                                             \
  GT_DECLARE_OP(op)                                                                                                  \
  extern "C" gt_status gt_##op(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b) { \
    const gt::Check check = check_binary(#op, stream, y, #a, a, #b, b);                                              \
    return check.ok() ? GT_RUN(op, stream, y, a, b) : check.status();                                                \
  }

BINARY(add, a, b)
BINARY(mul, a, b)
UNARY_WITH_PARAMETER(scale, factor)
UNARY(gelu_erf)
UNARY(gelu_tanh)
UNARY(quick_gelu)
UNARY(silu)
UNARY(relu)
UNARY_WITH_PARAMETER(leaky_relu, slope)
UNARY(tanh)
UNARY(sigmoid)
BINARY(swiglu, gate, up)
BINARY(geglu, gate, up)
BINARY(geglu_tanh, gate, up)

GT_DECLARE_OP(modulate)
GT_DECLARE_OP(add_gated)
GT_DECLARE_OP(gaussian)
GT_DECLARE_OP(cast)
GT_DECLARE_OP(fill)
GT_DECLARE_OP(copy)
GT_DECLARE_OP(count_nonfinite)

extern "C" gt_status gt_modulate(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                 const gt_tensor *scale, const gt_tensor *shift) {
  gt::Check check = check_binary("modulate", stream, y, "x", x, "scale", scale);
  check.tensor("shift", shift, gt::FLOATS).same_shape("shift", shift, "y", y).same_dtype("shift", shift, "y", y);
  return check.ok() ? GT_RUN(modulate, stream, y, x, scale, shift) : check.status();
}

extern "C" gt_status gt_add_gated(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                  const gt_tensor *gate, const gt_tensor *h) {
  gt::Check check = check_binary("add_gated", stream, y, "x", x, "gate", gate);
  check.tensor("h", h, gt::FLOATS).same_shape("h", h, "y", y).same_dtype("h", h, "y", y);
  return check.ok() ? GT_RUN(add_gated, stream, y, x, gate, h) : check.status();
}

extern "C" gt_status gt_gaussian(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean,
                                 const gt_tensor *logvar, const gt_tensor *eps) {
  gt::Check check = check_binary("gaussian", stream, y, "mean", mean, "logvar", logvar);
  check.tensor("eps", eps, gt::FLOATS).same_shape("eps", eps, "y", y).same_dtype("eps", eps, "y", y);
  return check.ok() ? GT_RUN(gaussian, stream, y, mean, logvar, eps) : check.status();
}

extern "C" gt_status gt_cast(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  gt::Check check = check_output("cast", stream, y, gt::FLOATS);
  check.tensor("x", x, gt::FLOATS).same_shape("x", x, "y", y);
  return check.ok() ? GT_RUN(cast, stream, y, x) : check.status();
}

extern "C" gt_status gt_fill(const gt_stream *stream, const gt_tensor *y, double value) {
  const gt::Check check = check_output("fill", stream, y, gt::FLOATS | gt::INTEGERS);
  return check.ok() ? GT_RUN(fill, stream, y, value) : check.status();
}

extern "C" gt_status gt_copy(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  gt::Check check = check_output("copy", stream, y, gt::FLOATS | gt::F8 | gt::INTEGERS);
  check.tensor("x", x, gt::FLOATS | gt::F8 | gt::INTEGERS).same_shape("x", x, "y", y).same_dtype("x", x, "y", y);
  return check.ok() ? GT_RUN(copy, stream, y, x) : check.status();
}

extern "C" gt_status gt_count_nonfinite(const gt_stream *stream, const gt_tensor *count, const gt_tensor *x) {
  gt::Check check("count_nonfinite", stream);
  check.tensor("count", count, gt::I64).shape("count", count, {1}).tensor("x", x, gt::FLOATS);
  return check.ok() ? GT_RUN(count_nonfinite, stream, count, x) : check.status();
}

#endif
