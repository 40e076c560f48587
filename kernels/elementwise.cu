// Arithmetic, activations, gated units, casts, fills and strided copies on CUDA.
//
// Computes    gatun/elementwise.h: y = f(a, b, c), element by element; copy also transposes; count_nonfinite sums a
//             predicate
// Shapes      y, a, b, c one shape of rank <= 5, any strides, 0 in an input broadcasts. y may be an input: a thread
//             writes only elements that it has read
// Types       f32, bf16, f16: f in f32, rounded once. fill and copy move words of 1, 2, 4 or 8 bytes
// Mapping     dimensions are merged and ordered by y (lib/strided.h), so that contiguous operands are one row. A power
//             of two of threads owns a piece of a row, a block as many pieces as fill 256 threads; grid x is the piece,
//             y steps through the rows. A thread has 2 vectors of 16 bytes per operand in flight (where dtypes differ,
//             of the narrower). Copies between layouts that are dense along different dimensions go by tiles
// Memory      each operand once; shared: a tile of 4.2 to 8.4 KB
// Numerics    an element depends on its own inputs alone, on every path. expf, tanhf, erfcf and division in full
//             precision. NaN and Inf as f treats them. Counting is exact. No elements: no launch, but count is 0
// Limits      16-byte accesses where all operands are contiguous along y's densest dimension and their rows start at
//             multiples of 16 bytes; else element by element, neighbouring threads on neighbouring elements. sm_80 and
//             later; nothing is UNSUPPORTED
// Source      none. Not yet measured on a GPU: bound by memory; geglu and gelu_erf in 16 bits possibly by erfcf
#include "lib/cuda.h"

#include <limits>

#include "check.h"
#include "gatun/elementwise.h"
#include "lib/map.h"
#include "lib/mlp_activation.h"
#include "lib/reduce.h"

namespace gt {

decltype(gt_modulate) modulate_cuda;
decltype(gt_add_gated) add_gated_cuda;
decltype(gt_gaussian) gaussian_cuda;
decltype(gt_cast) cast_cuda;
decltype(gt_fill) fill_cuda;
decltype(gt_copy) copy_cuda;
decltype(gt_count_nonfinite) count_nonfinite_cuda;

namespace {

constexpr int64_t MAX_TILES = 16384;      // blocks of a tiled copy: enough to fill any device many times
constexpr int64_t WORTH_TILING = 8;       // rows and columns of a transposing copy; with fewer, caches do as well

struct Add {
  static constexpr int INPUTS = 2;
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Mul {
  static constexpr int INPUTS = 2;
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Scale {
  static constexpr int INPUTS = 1;
  float factor;
  __device__ float operator()(float x, float) const { return x * factor; }
};
struct LeakyRelu {
  static constexpr int INPUTS = 1;
  float slope;
  __device__ float operator()(float x, float) const { return x > 0.0f ? x : slope * x; }
};
struct Tanh {
  static constexpr int INPUTS = 1;
  __device__ float operator()(float x, float) const { return tanhf(x); }
};
struct Sigmoid {
  static constexpr int INPUTS = 1;
  __device__ float operator()(float x, float) const { return 1.0f / (1.0f + expf(-x)); }
};
struct Modulate {
  static constexpr int INPUTS = 3;
  __device__ float operator()(float x, float scale, float shift) const { return x * (1.0f + scale) + shift; }
};
struct AddGated {
  static constexpr int INPUTS = 3;
  __device__ float operator()(float x, float gate, float h) const { return x + gate * h; }
};
struct Gaussian {
  static constexpr int INPUTS = 3;
  __device__ float operator()(float mean, float logvar, float eps) const {
    const float low = logvar < -30.0f ? -30.0f : logvar;  // a NaN stays one, as fmaxf would not let it
    return mean + expf(0.5f * (low > 20.0f ? 20.0f : low)) * eps;
  }
};
struct Identity {
  static constexpr int INPUTS = 1;
  __device__ float operator()(float x, float) const { return x; }
};
template <class Word> struct Fill {
  static constexpr int INPUTS = 0;
  Word value;
  __device__ Word operator()(Word, Word) const { return value; }
};
template <class Word> struct Copy {
  static constexpr int INPUTS = 1;
  __device__ Word operator()(Word x, Word) const { return x; }
};

template <class T>
__global__ void __launch_bounds__(MAP_THREADS)
    count_nonfinite_in_rows(const Loop loop, const Deal deal, unsigned long long *count) {
  constexpr unsigned INFINITE = 0x7f800000u;
  unsigned found = 0;
  const auto look = [&](T x) { found += (__float_as_uint(to_float(x)) & INFINITE) == INFINITE; };
  for_pieces<VEC<T>>(
      loop, deal,
      [&](const Position &at, int64_t i, int step) {
        Vector<T> x[VECTORS];
#pragma unroll
        for (int k = 0; k < VECTORS; ++k)
          x[k] = reinterpret_cast<const Vector<T> *>(
              at.data[0])[i + k * step < deal.whole ? (i + k * step) / VEC<T> : 0];
#pragma unroll
        for (int k = 0; k < VECTORS; ++k)
#pragma unroll
          for (int j = 0; j < VEC<T>; ++j)
            if (i + k * step < deal.whole) look(x[k].element[j]);
      },
      [&](const Position &at, int64_t i, int64_t end, int step) {
        for (; i < end; i += step) look(*reinterpret_cast<const T *>(at.data[0] + i * loop.stride[0][loop.rank - 1]));
      });
  found = __reduce_add_sync(ALL_LANES, found);
  if (found > 0 && threadIdx.x % WARP == 0) atomicAdd(count, found);
}

// A matrix per index of the outer dimensions, of which x is dense along rows and y along columns.
struct Transposition {
  int64_t rows, columns, row_tiles, column_tiles, num_tiles;
  int64_t row_stride[2], column_stride[2];  // of y and x, in bytes
};

template <class Word> constexpr int TILE = sizeof(Word) > 2 ? 32 : 64;  // at least 64 bytes of a line

template <class Word>
__global__ void __launch_bounds__(MAP_THREADS) copy_by_tiles(const Loop loop, const Transposition t) {
  constexpr int EDGE = TILE<Word>, STEP = MAP_THREADS / EDGE;
  constexpr int PAD = sizeof(Word) < 4 ? 4 / sizeof(Word) : 1;  // neighbouring lines begin in neighbouring banks
  __shared__ Word tile[EDGE][EDGE + PAD];
  const int along = threadIdx.x % EDGE, across = threadIdx.x / EDGE;
  for (int64_t item = blockIdx.x; item < t.num_tiles; item += gridDim.x) {
    const int64_t column = item % t.column_tiles * EDGE, row = item / t.column_tiles % t.row_tiles * EDGE;
    const Position at = position_at(loop, loop.rank - 2, item / t.column_tiles / t.row_tiles);
    const auto element = [&](int operand, int64_t r, int64_t c) {
      return reinterpret_cast<Word *>(at.data[operand] + r * t.row_stride[operand] + c * t.column_stride[operand]);
    };
#pragma unroll
    for (int c = across; c < EDGE; c += STEP)
      if (row + along < t.rows && column + c < t.columns) tile[c][along] = *element(1, row + along, column + c);
    __syncthreads();
#pragma unroll
    for (int r = across; r < EDGE; r += STEP)
      if (row + r < t.rows && column + along < t.columns) *element(0, row + r, column + along) = tile[along][r];
    __syncthreads();
  }
}

template <class Word> int launch_copy(void *stream, Loop loop) {
  const int c = loop.rank - 1;
  int r = c;  // the dimension along which x is densest
  for (int d = 0; d < c; ++d)
    if (loop.stride[1][d] != 0 && llabs(loop.stride[1][d]) < llabs(loop.stride[1][r])) r = d;
  if (r == c || loop.shape[r] < WORTH_TILING || loop.shape[c] < WORTH_TILING)
    return launch_map<Word, Word>(stream, loop, Copy<Word>());
  swap_dimensions(loop, r, c - 1);
  r = c - 1;
  Transposition t = {loop.shape[r], loop.shape[c],
                     ceil_divide(loop.shape[r], TILE<Word>), ceil_divide(loop.shape[c], TILE<Word>), 0,
                     {loop.stride[0][r], loop.stride[1][r]}, {loop.stride[0][c], loop.stride[1][c]}};
  t.num_tiles = count_of(loop, r) * t.row_tiles * t.column_tiles;
  return launch(copy_by_tiles<Word>, static_cast<unsigned>(min(t.num_tiles, MAX_TILES)), MAP_THREADS, 0, stream, loop,
                t);
}

// Calls f(Word{}) with an unsigned integer of a size in bytes.
template <class F> int with_word(int64_t bytes, F f) {
  return bytes == 1 ? f(uint8_t{}) : bytes == 2 ? f(uint16_t{}) : bytes == 4 ? f(uint32_t{}) : f(uint64_t{});
}

// Truncated; what the type cannot hold becomes its nearest value, NaN becomes 0.
template <class Integer> Integer saturated(double value) {
  using Limits = std::numeric_limits<Integer>;
  if (value != value) return 0;
  if (value <= static_cast<double>(Limits::min())) return Limits::min();
  return value >= static_cast<double>(Limits::max()) ? Limits::max() : static_cast<Integer>(value);
}

uint64_t bits_of(gt_dtype dtype, double value) {
  uint64_t bits = 0;
  const auto put = [&](auto element) { memcpy(&bits, &element, sizeof element); };
  switch (dtype) {
    case GT_F32: put(static_cast<float>(value)); break;
    case GT_BF16: put(from_float<bf16>(static_cast<float>(value))); break;
    case GT_F16: put(from_float<f16>(static_cast<float>(value))); break;
    case GT_I32: put(saturated<int32_t>(value)); break;
    case GT_I64: put(saturated<int64_t>(value)); break;
    default: put(saturated<uint8_t>(value));
  }
  return bits;
}

int launch_fill(const gt_stream *stream, const gt_tensor *y, double value) {
  const Loop loop = loop_over({y});
  return with_word(loop.bytes[0], [&](auto zero) {
    using Word = decltype(zero);
    const Fill<Word> fill = {static_cast<Word>(bits_of(y->dtype, value))};
    return launch_map<Word, Word>(stream->handle, loop, fill);
  });
}

}  // namespace

#define UNARY_CUDA(op, functor)                                                           \
  decltype(gt_##op) op##_cuda;                                                            \
  gt_status op##_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {  \
    return map(#op, stream, functor(), {y, x});                                           \
  }
#define UNARY_WITH_PARAMETER_CUDA(op, functor)                                                             \
  decltype(gt_##op) op##_cuda;                                                                             \
  gt_status op##_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float parameter) {  \
    return map(#op, stream, functor{parameter}, {y, x});                                                   \
  }
#define BINARY_CUDA(op, functor)                                                                              \
  decltype(gt_##op) op##_cuda;                                                                                \
  gt_status op##_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b) {  \
    return map(#op, stream, functor(), {y, a, b});                                                            \
  }

BINARY_CUDA(add, Add)
BINARY_CUDA(mul, Mul)
UNARY_WITH_PARAMETER_CUDA(scale, Scale)
UNARY_CUDA(gelu_erf, GeluErf)
UNARY_CUDA(gelu_tanh, GeluTanh)
UNARY_CUDA(quick_gelu, QuickGelu)
UNARY_CUDA(silu, Silu)
UNARY_CUDA(relu, Relu)
UNARY_WITH_PARAMETER_CUDA(leaky_relu, LeakyRelu)
UNARY_CUDA(tanh, Tanh)
UNARY_CUDA(sigmoid, Sigmoid)
BINARY_CUDA(swiglu, Gated<Silu>)
BINARY_CUDA(geglu, Gated<GeluErf>)
BINARY_CUDA(geglu_tanh, Gated<GeluTanh>)

gt_status modulate_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *scale,
                        const gt_tensor *shift) {
  return map("modulate", stream, Modulate(), {y, x, scale, shift});
}

gt_status add_gated_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *gate,
                         const gt_tensor *h) {
  return map("add_gated", stream, AddGated(), {y, x, gate, h});
}

gt_status gaussian_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean, const gt_tensor *logvar,
                        const gt_tensor *eps) {
  return map("gaussian", stream, Gaussian(), {y, mean, logvar, eps});
}

gt_status copy_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  if (elements(*y) == 0) return GT_OK;
  return status_of("copy", with_word(dtype_bytes(y->dtype), [&](auto zero) {
                     return launch_copy<decltype(zero)>(stream->handle, loop_over({y, x}));
                   }));
}

gt_status cast_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  if (elements(*y) == 0) return GT_OK;
  return status_of("cast", with_float(y->dtype, [&](auto to) {
                     return with_float(x->dtype, [&](auto from) {
                       using Y = decltype(to);
                       using X = decltype(from);
                       return launch_map<Y, X>(stream->handle, loop_over({y, x}), Rounded<Y, X, Identity>());
                     });
                   }));
}

gt_status fill_cuda(const gt_stream *stream, const gt_tensor *y, double value) {
  return elements(*y) == 0 ? GT_OK : status_of("fill", launch_fill(stream, y, value));
}

gt_status count_nonfinite_cuda(const gt_stream *stream, const gt_tensor *count, const gt_tensor *x) {
  int error = launch_fill(stream, count, 0);
  if (!error && elements(*x) > 0)
    error = with_float(x->dtype, [&](auto zero) {
      using T = decltype(zero);
      return launch_rows(count_nonfinite_in_rows<T>, stream->handle, loop_over({x}), VEC<T>,
                         static_cast<unsigned long long *>(count->data));
    });
  return status_of("count_nonfinite", error);
}

}  // namespace gt
