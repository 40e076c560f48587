// A node of a decode step on CUDA: norm, matrix product and activation in one kernel.
//
// Computes    gatun/linear.h: s = round(x + residual), n = norm(s), y = activation(n w^T + bias), or activation(gate)
//             up, or three products of one n
// Shapes      x, residual, residual_out [N, C], y [N, F], any row stride; weights [F, C] or [C, F], any row stride;
//             norm's weight and bias [C], bias [F]. residual_out overlaps no input: other blocks still read them
// Types       x and weights f32, bf16 or f16 alike, or 16-bit x and e4m3 weights [F, C] with scales (tiles of
//             lib/few_rows_fp8.h); y x's dtype or f32; norm and biases x's dtype or f32. Rounded where the ops one by
//             one would round: s, n, the product, the result
// Mapping     a block of up to 8 warps owns up to 16 rows and a tile of 8, 16 or 32 columns (lib/few_rows.h); there
//             are as many blocks as run at once, which step through the tiles. A block asks for its first weights,
//             lets the next kernel start, waits for the one in front, normalises its rows into shared memory
//             (lib/kept_rows.h; every block the same rows), and multiplies. [C, F] in 16 bits: tiles of 16 columns, 32
//             bytes of each weight row, since at batch 1 the number of SMs that ask counts. 2 blocks an SM where
//             their rows fit in 96 KiB each (16 bits, [F, C], RMS: 16 rows up to C = 2432, 8 of C = 4096, 3 of 8192),
//             else 1 (16 up to C = 6144, 11 of 8192; f32: 12 of 4096, 5 of 8192), beside which the next kernel may
//             find no room to start early. A product alone whose rows do not fit is gt_linear's or gt_linear_fp8's
// Memory      weights once per block of rows: more than once for wide C behind a norm; x once per block, from L2. From
//             the start 192 bytes of weights a lane are on their way, behind a norm, whose values need registers, 96
//             to 128: 48 to 96 KB an SM with 2 blocks, of this kernel or of this and the next, half of it with 1. A
//             product alone with no more blocks than SMs (not in f32) asks for more by way of shared memory, up to all.
//             Shared: partial sums 8 to 32 KB, rows, norm's parameters, those that there are, as f32
// Numerics    every step has the order of the op it stands for, so that the bits are those of gt_layernorm or
//             gt_rmsnorm, gt_linear or gt_linear_fp8, and the activation, for any N, F and grid. N = 0 launches nothing
// Limits      16-byte accesses as in linear.cu and norm.cu, else element by element; C <= 16384, with a norm 8192;
//             sm_80 and later; starting early from sm_90 on; nothing is UNSUPPORTED
// Source      not measured yet: bench/results/h200.md has the floor and what is expected
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "gatun/fp8.h"
#include "gatun/linear.h"
#include "lib/block_rows.h"
#include "lib/few_rows_fp8.h"
#include "lib/grid_dependency.h"
#include "lib/hopper.h"
#include "lib/kept_rows.h"
#include "lib/mlp_activation.h"

namespace gt {

decltype(gt_linear) linear_cuda;
decltype(gt_linear_fp8) linear_fp8_cuda;
decltype(gt_norm_linear) norm_linear_cuda;
decltype(gt_norm_linear_qkv) norm_linear_qkv_cuda;

namespace {

constexpr int MAX_PARTS = 3;                  // weights of one launch
constexpr int64_t MOST_SUM_BYTES = 32 << 10;  // of partial sums, for any kind of tile
// Of an SM: 128 registers a thread in 16 bits; sums of f32 need more.
template <class T> constexpr int SM_BLOCKS = sizeof(T) == 2 ? 2 : 1;

enum class Before { NOTHING, LAYER_NORM, RMS_NORM };

// Whether a tile has copy and take.
template <class Tile, class = void> constexpr bool CAN_KEEP = false;
template <class Tile> constexpr bool CAN_KEEP<Tile, std::void_t<decltype(Tile::KEPT_BYTES)>> = true;

// Stretches in a lane's registers: 128 of them a thread allow so many.
template <class Tile, Before BEFORE, int SIZE = static_cast<int>(sizeof(typename Tile::Stage))>
constexpr int FIRST_STAGES = SIZE > 64 ? 1 : BEFORE == Before::NOTHING ? 192 / SIZE : SIZE > 32 ? 2 : 3;

// A weight and what becomes of its product.
template <class W> struct Part {
  WeightMatrix<W> weight;
  const float *scale;  // of e4m3
  const void *bias;    // NULL: 0
  void *y;
  int64_t stride_y;
  int tiles_before;  // of the parts before this one
  bool bias_is_f32;
};

// W: T or e4m3.
template <class T, class W> struct Operands {
  NormOperands<T> rows;  // x and what the norm needs; y is in shared memory
  Part<W> parts[MAX_PARTS];
  int num_tiles, rows_per_block, stride_shared;
  int num_parts;
  RowGroups groups;        // of threads that share a row of the norm
  int turns_kept;          // of a block's only tile: weights that are asked for by way of shared memory
  Before before;
  bool is_gated, y_is_f32;
  gt_mlp_activation activation;
};

__device__ __forceinline__ float mlp_activation(float x, gt_mlp_activation activation) {
  switch (activation) {
    case GT_MLP_GELU_ERF: return GeluErf()(x, 0.0f);
    case GT_MLP_GELU_TANH: return GeluTanh()(x, 0.0f);
    case GT_MLP_QUICK_GELU: return QuickGelu()(x, 0.0f);
    case GT_MLP_SILU: return Silu()(x, 0.0f);
    case GT_MLP_RELU: return Relu()(x, 0.0f);
    default: return x;
  }
}

// WHOLE: whole stretches, vectors and tiles, all aligned; ANY: the rest, where BEFORE is o.before's to say.
template <class Tile, Before BEFORE, Access ACCESS, class T, class W>
__global__ void __launch_bounds__(FEW_ROWS_WARPS *WARP, ACCESS == Access::WHOLE ? SM_BLOCKS<T> : 1)
    norm_linear_tiles(const Operands<T, W> o) {
  constexpr bool WHOLE = ACCESS == Access::WHOLE, IS_F8 = std::is_same_v<W, e4m3>;
  constexpr int STAGES = WHOLE ? FIRST_STAGES<Tile, BEFORE> : 1;
  constexpr int COLUMNS = Tile::COLUMNS, STRETCH = Tile::STRETCH;
  constexpr bool KEEPS = WHOLE && BEFORE == Before::NOTHING && CAN_KEEP<Tile>;
  __shared__ float partial[2][FEW_ROWS_WARPS][FEW_ROWS_ROWS][COLUMNS];
  GT_DYNAMIC_SMEM(unsigned char, shared);
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const int own_column = threadIdx.x % COLUMNS, c_end = static_cast<int>(o.rows.c);
  const int turns = (c_end + warps * STRETCH - 1) / (warps * STRETCH), per_tile = o.is_gated ? 2 : 1;
  const LanePart lane_part = {lane / 4, lane % 4};

  // Which weight a tile is of, its first column, and bias (as it lies in memory) and scale of the thread's own column.
  struct Job {
    int part, first;
    uint32_t bias;
    float scale;
  };
  const auto bias_of = [](const Part<W> &p, const Job &job) {
    if (sizeof(T) == sizeof(float) || p.bias_is_f32) return __uint_as_float(job.bias);
    const uint16_t bits = static_cast<uint16_t>(job.bias);
    T bias;
    memcpy(&bias, &bits, sizeof bits);
    return to_float(bias);
  };
  const auto job_of = [&](int tile, int which) {
    Job job = {which, 0, 0, 0.0f};
    if (!o.is_gated)
      while (job.part + 1 < o.num_parts && tile >= o.parts[job.part + 1].tiles_before) ++job.part;
    job.first = (tile - o.parts[job.part].tiles_before) * COLUMNS;
    return job;
  };
  const auto ask_for_column = [&](Job &job) {
    const Part<W> &p = o.parts[job.part];
    const int column = job.first + own_column;
    if (IS_F8 && column < p.weight.f) job.scale = p.scale[column];
    if (p.bias && column < p.weight.f)
      job.bias = sizeof(T) == sizeof(float) || p.bias_is_f32 ? static_cast<const uint32_t *>(p.bias)[column]
                                                             : static_cast<const uint16_t *>(p.bias)[column];
  };
  typename Tile::Stage stages[STAGES];
  const auto fetch = [&](const Job &job, int turn, typename Tile::Stage &stage) {
    const int c = (turn * warps + warp) * STRETCH;
    if (c < c_end) Tile::template load<WHOLE>(o.parts[job.part].weight, job.first, lane_part, c, stage);
  };
  T *const normed = reinterpret_cast<T *>(shared);
  // weights that are kept, or the norm's parameters
  unsigned char *const behind_rows = shared + static_cast<int64_t>(o.rows_per_block) * o.stride_shared * sizeof(T);
  const auto take = [&](int k, typename Tile::Stage &stage) {
    if constexpr (KEEPS)
      if (((STAGES + k) * warps + warp) * STRETCH < c_end)
        Tile::take(behind_rows + (k * warps + warp) * Tile::KEPT_BYTES, lane_part, stage);
  };

  Job next = job_of(blockIdx.x, 0);
  ask_for_column(next);
#pragma unroll
  for (int s = 0; s < STAGES; ++s)
    if (s < turns) fetch(next, s, stages[s]);
  if constexpr (KEEPS) {
    for (int k = 0; k < o.turns_kept; ++k)
      if (const int c = ((STAGES + k) * warps + warp) * STRETCH; c < c_end)
        Tile::copy(o.parts[next.part].weight, next.first, lane_part, c,
                   behind_rows + (k * warps + warp) * Tile::KEPT_BYTES);
    async_copy_commit();  // copy_rows waits for it
  }
  grid_dependency_launch();
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * o.rows_per_block;
  const int num_rows = static_cast<int>(min(int64_t{o.rows_per_block}, o.rows.num_rows - first_row));
  {
    NormOperands<T> rows = o.rows;
    rows.num_rows = num_rows;
    rows.x += first_row * rows.stride_x;
    if (rows.residual) rows.residual += first_row * rows.stride_residual;
    if (rows.residual_out)  // by one block of each row
      rows.residual_out = blockIdx.x == 0 ? rows.residual_out + first_row * rows.stride_residual_out : nullptr;
    rows.y = normed;
    rows.stride_y = o.stride_shared;
    float *const kept_weight = reinterpret_cast<float *>(behind_rows);
    float *const kept_bias = rows.weight.data ? kept_weight + c_end : kept_weight;
    if constexpr (BEFORE != Before::NOTHING && WHOLE) {
      ask_for_parameter<T>(rows.weight, c_end, kept_weight);
      ask_for_parameter<T>(rows.bias, c_end, kept_bias);
      async_copy_commit();
    }
    for (int i = threadIdx.x; i < num_rows * STRETCH && c_end % STRETCH > 0; i += blockDim.x)  // of the last stretch
      if (const int at = c_end / STRETCH * STRETCH + i % STRETCH; at >= c_end)
        normed[i / STRETCH * o.stride_shared + at] = from_float<T>(0.0f);
    KeptAffine<T> kept = {};
    if constexpr (WHOLE && BEFORE != Before::NOTHING) {
      async_copy_wait<0>();
      kept = {take_parameter<T>(rows.weight, c_end, kept_weight), take_parameter<T>(rows.bias, c_end, kept_bias)};
      __syncthreads();  // the parameters
    }
    grid_dependency_wait();
    if constexpr (WHOLE && BEFORE != Before::NOTHING) {
      normalise<T, BEFORE == Before::RMS_NORM ? Norm::RMS : Norm::LAYER, ACCESS>(rows, o.groups, kept);
    } else if (WHOLE || o.before == Before::NOTHING) {
      copy_rows<ACCESS>(rows);
    } else if (o.before == Before::RMS_NORM) {
      const Affine<T, Norm::RMS, Access::ANY> affine{rows.weight, rows.bias};
      normalise<T, Norm::RMS, Access::ANY>(rows, o.groups, affine);
    } else {
      const Affine<T, Norm::LAYER, Access::ANY> affine{rows.weight, rows.bias};
      normalise<T, Norm::LAYER, Access::ANY>(rows, o.groups, affine);
    }
    __syncthreads();
  }

  const FewRows<T> x = {normed, o.stride_shared, num_rows, c_end};
  const auto rounded = [&](float v) { return o.y_is_f32 ? v : to_float(from_float<T>(v)); };
#pragma unroll 1
  for (int tile = blockIdx.x; tile < o.num_tiles; tile += gridDim.x) {
    Job now = {}, second = {};
#pragma unroll 1
    for (int which = 0; which < per_tile; ++which) {
      const Job job = next;
      const bool is_last = which + 1 == per_tile;
      const int next_tile = is_last ? tile + gridDim.x : tile;
      const bool has_next = next_tile < o.num_tiles;
      if (has_next) next = job_of(next_tile, is_last ? 0 : which + 1);
      Tile sums;
#pragma unroll 1
      for (int first_turn = 0; first_turn < turns; first_turn += STAGES)
#pragma unroll
        for (int s = 0; s < STAGES; ++s) {
          const int turn = first_turn + s, c = (turn * warps + warp) * STRETCH;
          if (turn >= turns) break;
          if (c < c_end) sums.template multiply<true>(x, lane_part, c, stages[s]);
          if (KEEPS && turn < o.turns_kept) take(turn, stages[s]);
          else if (turn + STAGES < turns) fetch(job, turn + STAGES, stages[s]);
          else if (has_next) fetch(next, s, stages[s]);
        }
      if (has_next) ask_for_column(next);  // here: ptxas has products wait for all that is on its way
      sums.store(lane_part, partial[which][warp]);
      if (which == 0) now = job;
      else second = job;
    }
    __syncthreads();
    const Part<W> &p = o.parts[now.part];
    const int column = now.first + own_column;
    for (int j = threadIdx.x; j < num_rows * COLUMNS && column < p.weight.f; j += blockDim.x) {
      const int r = j / COLUMNS;
      const auto product = [&](int which, const Part<W> &part, const Job &own) {
        float sum = partial[which][0][r][own_column];
        for (int w = 1; w < warps; ++w) sum += partial[which][w][r][own_column];
        const float bias = bias_of(part, own);
        if constexpr (IS_F8) sum = scaled_sum<Tile>(sum, own.scale, 1.0f, bias);
        else if (part.bias) sum += bias;
        return rounded(sum);
      };
      float v = mlp_activation(product(0, p, now), o.activation);
      if (o.is_gated) v *= product(1, o.parts[1], second);
      const int64_t at = (first_row + r) * p.stride_y + column;
      if (o.y_is_f32) static_cast<float *>(p.y)[at] = v;
      else static_cast<T *>(p.y)[at] = from_float<T>(v);
    }
    __syncthreads();  // the next tile's sums go to the same place
  }
}

int64_t round_up(int64_t n, int64_t multiple) { return ceil_divide(n, multiple) * multiple; }

template <class Tile, class T, class W> int64_t count_tiles(Operands<T, W> &o) {
  int64_t tiles = 0;
  for (int i = 0; i < o.num_parts; ++i) {
    o.parts[i].tiles_before = o.is_gated ? 0 : static_cast<int>(tiles);
    if (i == 0 || !o.is_gated) tiles += ceil_divide(o.parts[i].weight.f, Tile::COLUMNS);
  }
  return tiles;
}

template <class Tile, class T, class W> bool is_whole(const Operands<T, W> &o) {
  bool all = o.rows.is_aligned && o.rows.c % Tile::STRETCH == 0;
  for (int i = 0; i < o.num_parts; ++i) {
    const WeightMatrix<W> &w = o.parts[i].weight;
    all = all && w.is_aligned && (!Tile::NEEDS_WHOLE_COLUMNS || w.f % Tile::COLUMNS == 0);
  }
  return all;
}

template <class Tile, class T, class W> int launch_tiles(void *stream, Operands<T, W> o) {
  const int64_t c = o.rows.c, n = o.rows.num_rows;
  const int64_t partial_bytes = 2 * FEW_ROWS_WARPS * FEW_ROWS_ROWS * Tile::COLUMNS * 4;
  o.num_tiles = static_cast<int>(count_tiles<Tile>(o));
  o.stride_shared = static_cast<int>(round_up(c, Tile::STRETCH)) + VEC<T>;  // neighbouring rows begin in other banks
  const int64_t row_bytes = o.stride_shared * static_cast<int64_t>(sizeof(T)), max_bytes = max_dynamic_shared_bytes();
  const int64_t parameter_bytes = o.before == Before::NOTHING
                                      ? 0 : ((o.rows.weight.data ? 1 : 0) + (o.rows.bias.data ? 1 : 0)) * c * 4;
  const bool whole = parameter_bytes + row_bytes + partial_bytes <= max_bytes && is_whole<Tile>(o);
  const int64_t kept = whole ? parameter_bytes : 0;
  const BlockRows block = block_rows(n, FEW_ROWS_ROWS, row_bytes, partial_bytes + kept, max_bytes);
  o.rows_per_block = static_cast<int>(block.rows);
  const int sm_blocks = block.is_alone ? 1 : SM_BLOCKS<T>;
  const dim3 grid(static_cast<unsigned>(min(o.num_tiles, sm_blocks * num_multiprocessors())),
                  static_cast<unsigned>(ceil_divide(n, o.rows_per_block)));
  const int warps = warps_for<Tile>(c);
  o.groups = row_groups(norm_members(max(int64_t{1}, c)), warps * WARP);
  int64_t shared_bytes = o.rows_per_block * row_bytes + kept;
  if constexpr (CAN_KEEP<Tile>)
    if (whole && o.before == Before::NOTHING && !o.is_gated &&
        o.num_tiles == static_cast<int>(grid.x) && static_cast<int64_t>(grid.x) * grid.y <= num_multiprocessors()) {
      const int64_t turn_bytes = warps * Tile::KEPT_BYTES, turns = ceil_divide(c, warps * Tile::STRETCH);
      const int64_t room = (block.is_alone ? max_bytes : SHARED_BYTES_OF_TWO) - partial_bytes - shared_bytes;
      o.turns_kept = static_cast<int>(max(int64_t{0}, min(turns - FIRST_STAGES<Tile, Before::NOTHING>,
                                                          room / turn_bytes)));
      shared_bytes += o.turns_kept * turn_bytes;
    }
  const auto run = [&](auto kernel) {
    return launch_dependent(kernel, grid, warps * WARP, shared_bytes, stream, o);
  };
  if (!whole) return run(norm_linear_tiles<Tile, Before::NOTHING, Access::ANY, T, W>);
  switch (o.before) {
    case Before::LAYER_NORM: return run(norm_linear_tiles<Tile, Before::LAYER_NORM, Access::WHOLE, T, W>);
    case Before::RMS_NORM: return run(norm_linear_tiles<Tile, Before::RMS_NORM, Access::WHOLE, T, W>);
    default: return run(norm_linear_tiles<Tile, Before::NOTHING, Access::WHOLE, T, W>);
  }
}

template <class T, class W> int launch_layout(void *stream, Operands<T, W> &o, gt_weight_layout layout) {
  const bool out_in = layout == GT_WEIGHT_OUT_IN;
  if constexpr (std::is_same_v<W, e4m3>)
    return o.rows.num_rows <= 8 ? launch_tiles<F8RowsTile<T, 1, 1>>(stream, o)
                                : launch_tiles<F8RowsTile<T, 1, 2>>(stream, o);
  else if constexpr (std::is_same_v<T, float>) {
    return out_in ? launch_tiles<FloatRowsTile>(stream, o) : launch_tiles<FloatColumnsTile>(stream, o);
  } else {
    // Where a stretch a warp is all of C, a tile is all that a block has on its way: a wider one, if each gets several.
    using Wide = RowsTile<T, 2>;
    const bool is_short = o.rows.c <= FEW_ROWS_WARPS * Wide::STRETCH;
    if (out_in && is_short && count_tiles<Wide>(o) >= 2 * SM_BLOCKS<T> * num_multiprocessors())
      return launch_tiles<Wide>(stream, o);
    if (out_in) return launch_tiles<RowsTile<T, 1>>(stream, o);
    return launch_tiles<ColumnsTile<T, 2>>(stream, o);
  }
}

// Whether a block keeps as many rows as gt_linear, which keeps none, multiplies at a time.
bool keeps_enough(const gt_tensor &x) {
  const int64_t n = x.shape[0], row_bytes = x.shape[1] * dtype_bytes(x.dtype) + VEC_BYTES;
  return block_rows(n, FEW_ROWS_ROWS, row_bytes, MOST_SUM_BYTES, max_dynamic_shared_bytes()).rows >=
         min(n, int64_t{FEW_ROWS_ROWS});
}

// The operands of either op.
struct Call {
  const gt_tensor *residual_out, *x, *residual;
  gt_norm norm;
  const gt_tensor *norm_weight, *norm_bias;
  float eps;
  int num_parts;
  const gt_tensor *y[MAX_PARTS], *weight[MAX_PARTS], *scale[MAX_PARTS], *bias[MAX_PARTS];
  bool is_gated;
  gt_weight_layout layout;
  gt_mlp_activation activation;
};

template <class T, class W = T> int run_call(void *stream, const Call &call) {
  const auto data = [](const gt_tensor *t) { return t ? static_cast<T *>(t->data) : nullptr; };
  const auto stride = [](const gt_tensor *t) { return t ? t->stride[0] : 0; };
  const auto aligned = [&](const gt_tensor *t) { return rows_are_aligned(data(t), stride(t)); };
  Operands<T, W> o = {};
  o.rows = {nullptr, data(call.residual_out), data(call.x), data(call.residual), 0, stride(call.residual_out),
            stride(call.x), stride(call.residual), parameter_of(call.norm_weight), parameter_of(call.norm_bias),
            nullptr, nullptr, call.x->shape[0], call.x->shape[1], call.eps,
            aligned(call.x) && aligned(call.residual) && aligned(call.residual_out)};
  o.num_parts = call.num_parts;
  for (int i = 0; i < call.num_parts; ++i) {
    const gt_tensor &w = *call.weight[i], *scale = call.scale[i], *bias = call.bias[i];
    const W *const weight = static_cast<const W *>(w.data);
    const WeightMatrix<W> matrix = {weight, w.stride[0], call.x->shape[1], call.y[i]->shape[1],
                                    rows_are_aligned(weight, w.stride[0])};
    o.parts[i] = {matrix, scale ? static_cast<const float *>(scale->data) : nullptr, bias ? bias->data : nullptr,
                  call.y[i]->data, call.y[i]->stride[0], 0, bias && bias->dtype == GT_F32};
  }
  o.is_gated = call.is_gated;
  o.y_is_f32 = call.y[0]->dtype == GT_F32;
  o.activation = call.activation;
  o.before = call.norm == GT_NORM_LAYER ? Before::LAYER_NORM
             : call.norm == GT_NORM_RMS ? Before::RMS_NORM : Before::NOTHING;
  return launch_layout(stream, o, call.layout);
}

gt_status run(const char *op, const gt_stream *stream, const Call &call) {
  void *const handle = stream->handle;
  const bool is_f8 = call.weight[0]->dtype == GT_F8_E4M3;
  int status;
  switch (call.x->dtype) {
    case GT_F32: status = run_call<float>(handle, call); break;
    case GT_BF16: status = is_f8 ? run_call<bf16, e4m3>(handle, call) : run_call<bf16>(handle, call); break;
    default: status = is_f8 ? run_call<f16, e4m3>(handle, call) : run_call<f16>(handle, call);
  }
  return status ? fail(GT_DEVICE_ERROR, "%s: %s", op, launch_error(status)) : GT_OK;
}

}  // namespace

gt_status norm_linear_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                           const gt_tensor *x, const gt_tensor *residual, gt_norm norm, const gt_tensor *norm_weight,
                           const gt_tensor *norm_bias, float eps, const gt_tensor *weight,
                           const gt_tensor *weight_scale, const gt_tensor *bias, const gt_tensor *up,
                           const gt_tensor *up_scale, const gt_tensor *up_bias, gt_weight_layout layout,
                           gt_mlp_activation activation) {
  if (norm == GT_NORM_NONE && !up && activation == GT_MLP_NONE && !keeps_enough(*x))
    return weight_scale ? linear_fp8_cuda(stream, y, x, nullptr, weight, weight_scale, bias)
                        : linear_cuda(stream, y, x, weight, bias, layout);
  return run("norm_linear", stream, {residual_out, x, residual, norm, norm_weight, norm_bias, eps, up ? 2 : 1, {y, y},
                                     {weight, up}, {weight_scale, up_scale}, {bias, up_bias}, up != nullptr, layout,
                                     activation});
}

gt_status norm_linear_qkv_cuda(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k, const gt_tensor *v,
                               const gt_tensor *residual_out, const gt_tensor *x, const gt_tensor *residual,
                               gt_norm norm,
                               const gt_tensor *norm_weight, const gt_tensor *norm_bias, float eps,
                               const gt_tensor *q_weight, const gt_tensor *q_scale, const gt_tensor *q_bias,
                               const gt_tensor *k_weight, const gt_tensor *k_scale, const gt_tensor *k_bias,
                               const gt_tensor *v_weight, const gt_tensor *v_scale, const gt_tensor *v_bias,
                               gt_weight_layout layout) {
  return run("norm_linear_qkv", stream, {residual_out, x, residual, norm, norm_weight, norm_bias, eps, 3, {q, k, v},
                                         {q_weight, k_weight, v_weight}, {q_scale, k_scale, v_scale},
                                         {q_bias, k_bias, v_bias}, false, layout, GT_MLP_NONE});
}

}  // namespace gt
