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
//             are as many blocks as run at once, at most 2 an SM, which step through the tiles. A block asks for its
//             first weights, lets the next kernel start, waits for the one in front, normalises its rows into shared
//             memory (lib/kept_rows.h; every block the same rows), and multiplies. [C, F] in 16 bits: tiles of 16
//             columns, 32 bytes of each weight row, since at batch 1 the number of SMs that ask counts. Behind an RMS
//             norm, 16 bits, [F, C]: 2 blocks an SM and one of the next kernel up to 2 rows of C = 4352, 8 of 1664;
//             2 blocks up to 8 rows of 3712, 16 of 2048; else 1, beside which the next kernel may find no room to start
//             early, with 16 rows up to C = 5248 (with one slot 5632), 9 of 8192 (f32: 8 of 4096, 4 of 8192). A product
//             alone whose rows do not fit beside two slots is gt_linear's or gt_linear_fp8's
// Memory      weights once per block of rows: more than once for wide C behind a norm; x once per block, from L2.
//             Each warp has a ring of slots in shared memory, a stretch of weights each, which cp.async fills in the
//             order in which it multiplies them, across tiles: a slot is asked for again as soon as registers have
//             what was in it. 1 to 12 slots (lib/block_room.h): with many tiles 16 (many rows of wide C) to 144 KB an
//             SM, f32 32 to 216.
//             Shared: rows, norm's parameters, those that there are, as f32, partial sums, up to 32 KB, the ring
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
#include "lib/block_room.h"
#include "lib/entry.h"
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

constexpr int MAX_PARTS = 3;  // weights of one launch
// On an SM, of which two are of this kernel and one of the next; sums of f32 take more registers.
template <class T> constexpr int SM_BLOCKS = sizeof(T) == 2 ? 3 : 1;

enum class Before { NOTHING, LAYER_NORM, RMS_NORM };

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
  int num_tiles, num_parts, rows_per_block, stride_shared, slots;
  int turns, warps_with_one_more;       // how many stretches of a product a warp multiplies
  int parameters_at, sums_at, ring_at;  // in bytes of shared memory, behind the rows
  RowGroups groups;                     // of threads that share a row of the norm
  RowVectors vectors;                   // of a row without one
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

// Bias, as it lies in memory, and scale of a column.
struct Column {
  uint32_t bias;
  float scale;
};

// WHOLE: rows are aligned, and of whole vectors; ANY: the rest, where BEFORE is o.before's to say.
template <class Tile, Before BEFORE, Access ACCESS, class T, class W>
__global__ void __launch_bounds__(FEW_ROWS_WARPS *WARP, ACCESS == Access::WHOLE ? SM_BLOCKS<T> : 1)
    norm_linear_tiles(const Operands<T, W> o) {
  constexpr bool WHOLE = ACCESS == Access::WHOLE, IS_F8 = std::is_same_v<W, e4m3>;
  constexpr int COLUMNS = Tile::COLUMNS, STRETCH = Tile::STRETCH;
  using Sums = float[FEW_ROWS_ROWS][COLUMNS];  // of a warp
  GT_DYNAMIC_SMEM(unsigned char, shared);
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const int own_column = threadIdx.x % COLUMNS, c_end = static_cast<int>(o.rows.c);
  const int turns = o.turns + (warp < o.warps_with_one_more ? 1 : 0);
  const int per_tile = o.is_gated ? 2 : 1;
  const LanePart lane_part = {lane / 4, lane % 4};
  T *const normed = reinterpret_cast<T *>(shared);
  Sums *const partial = reinterpret_cast<Sums *>(shared + o.sums_at);

  // A product of a tile: which weight's, and its first column.
  struct Job {
    int part, first;
  };
  const auto job_of = [&](int tile, int which) {
    Job job = {which, 0};
    if (!o.is_gated)
      while (job.part + 1 < o.num_parts && tile >= o.parts[job.part + 1].tiles_before) ++job.part;
    job.first = (tile - o.parts[job.part].tiles_before) * COLUMNS;
    return job;
  };
  const auto load_column = [&](int tile, int which) {
    const Job job = job_of(tile, which);
    const Part<W> &p = o.parts[job.part];
    const int column = job.first + own_column;
    Column own = {0, 0.0f};
    if (IS_F8 && column < p.weight.f) own.scale = p.scale[column];
    if (p.bias && column < p.weight.f)
      own.bias = sizeof(T) == sizeof(float) || p.bias_is_f32 ? static_cast<const uint32_t *>(p.bias)[column]
                                                             : static_cast<const uint16_t *>(p.bias)[column];
    return own;
  };
  const auto bias_of = [](const Part<W> &p, const Column &own) {
    if (sizeof(T) == sizeof(float) || p.bias_is_f32) return __uint_as_float(own.bias);
    const uint16_t bits = static_cast<uint16_t>(own.bias);
    T bias;
    memcpy(&bias, &bits, sizeof bits);
    return to_float(bias);
  };

  static_assert(MOST_SLOTS <= MOST_GROUPS_OPEN + 1, "a wait would be for more than the oldest slot");
  // The ring: o.slots of a warp's stretches are on their way, in the order in which it multiplies them.
  struct Ahead {
    int tile, which, turn;
  };
  Ahead ahead = {turns > 0 ? static_cast<int>(blockIdx.x) : o.num_tiles, 0, 0};
  const auto slot_of = [&](int slot) { return shared + o.ring_at + (slot * warps + warp) * Tile::SLOT_BYTES; };
  const auto ask = [&](int slot) {
    if (ahead.tile < o.num_tiles) {
      const Job job = job_of(ahead.tile, ahead.which);
      const WeightMatrix<W> &w = o.parts[job.part].weight;
      const int c = (ahead.turn * warps + warp) * STRETCH, first = job.first;
      if (c + STRETCH <= c_end && (!Tile::NEEDS_WHOLE_COLUMNS || first + COLUMNS <= w.f))
        Tile::template copy<true>(w, first, lane_part, c, slot_of(slot));
      else
        Tile::template copy<false>(w, first, lane_part, c, slot_of(slot));
      if (++ahead.turn == turns) {
        ahead.turn = 0;
        if (++ahead.which == per_tile) ahead.which = 0, ahead.tile += gridDim.x;
      }
    }
    async_copy_commit();
  };

  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * o.rows_per_block;
  const int num_rows = static_cast<int>(min(int64_t{o.rows_per_block}, o.rows.num_rows - first_row));
  Column own[2];
#pragma unroll
  for (int which = 0; which < 2; ++which)
    if (which < per_tile) own[which] = load_column(blockIdx.x, which);
  const auto kept_weight = [&] { return reinterpret_cast<float *>(shared + o.parameters_at); };
  const auto kept_bias = [&] { return o.rows.weight.data ? kept_weight() + c_end : kept_weight(); };
  if constexpr (BEFORE != Before::NOTHING && WHOLE) {
    ask_for_parameter<T>(o.rows.weight, c_end, kept_weight());
    ask_for_parameter<T>(o.rows.bias, c_end, kept_bias());
    async_copy_commit();
  }
  if constexpr (WHOLE)
    for (int slot = 0; slot < o.slots; ++slot) ask(slot);
  grid_dependency_launch();
  for (int i = threadIdx.x; i < num_rows * STRETCH && c_end % STRETCH > 0; i += blockDim.x)  // of the last stretch
    if (const int at = c_end / STRETCH * STRETCH + i % STRETCH; at >= c_end)
      normed[i / STRETCH * o.stride_shared + at] = from_float<T>(0.0f);
  static_assert(sizeof(Sums) >= NORM_SCRATCH * sizeof(float), "a norm's sums lie where those of a product will");
  const BlockShare<T> share = {first_row, num_rows, o.stride_shared, blockIdx.x == 0, normed, kept_weight(),
                               partial[0][0]};
  if constexpr (WHOLE && BEFORE != Before::NOTHING) {
    async_copy_wait_for_all_but(o.slots);
    take_parameter<T>(o.rows.weight, c_end, kept_weight());
    take_parameter<T>(o.rows.bias, c_end, kept_bias());
    __syncthreads();  // the parameters
  }
  grid_dependency_wait();
  if constexpr (WHOLE && BEFORE != Before::NOTHING)
    normalise<T, BEFORE == Before::RMS_NORM ? Norm::RMS : Norm::LAYER, ACCESS>(o.rows, share, o.groups);
  else if (WHOLE || o.before == Before::NOTHING)
    copy_rows<ACCESS>(o.rows, share, o.vectors);
  else if (o.before == Before::RMS_NORM)
    normalise<T, Norm::RMS, ACCESS>(o.rows, share, o.groups);
  else
    normalise<T, Norm::LAYER, ACCESS>(o.rows, share, o.groups);
  __syncthreads();

  const FewRows<T> x = {normed, o.stride_shared, num_rows, c_end};
  const auto rounded = [&](float v) { return o.y_is_f32 ? v : to_float(from_float<T>(v)); };
  int slot = 0;
#pragma unroll 1
  for (int tile = blockIdx.x; tile < o.num_tiles; tile += gridDim.x) {
#pragma unroll 1
    for (int which = 0; which < per_tile; ++which) {
      Tile sums;
#pragma unroll 1
      for (int turn = 0; turn < turns; ++turn) {
        const int c = (turn * warps + warp) * STRETCH;
        typename Tile::Stage stage;
        if constexpr (WHOLE) {
          async_copy_wait_for_all_but(o.slots - 1);
          __syncwarp();
          Tile::take(slot_of(slot), lane_part, stage);
          __syncwarp();
          ask(slot);
          if (++slot == o.slots) slot = 0;
        } else {
          const Job job = job_of(tile, which);
          Tile::template load<false>(o.parts[job.part].weight, job.first, lane_part, c, stage);
        }
        sums.template multiply<true>(x, lane_part, c, stage);
      }
      sums.store(lane_part, partial[which * warps + warp]);
    }
    __syncthreads();
    const Job job = job_of(tile, 0);
    const Part<W> &p = o.parts[job.part];
    const int column = job.first + own_column;
    for (int j = threadIdx.x; j < num_rows * COLUMNS && column < p.weight.f; j += blockDim.x) {
      const int r = j / COLUMNS;
      const auto product = [&](int which, const Part<W> &part) {
        float sum = partial[which * warps][r][own_column];
        for (int w = 1; w < warps; ++w) sum += partial[which * warps + w][r][own_column];
        const float bias = bias_of(part, own[which]);
        if constexpr (IS_F8) sum = scaled_sum<Tile>(sum, own[which].scale, 1.0f, bias);
        else if (part.bias) sum += bias;
        return rounded(sum);
      };
      float v = mlp_activation(product(0, p), o.activation);
      if (o.is_gated) v *= product(1, o.parts[1]);
      const int64_t at = (first_row + r) * p.stride_y + column;
      if (o.y_is_f32) static_cast<float *>(p.y)[at] = v;
      else static_cast<T *>(p.y)[at] = from_float<T>(v);
    }
    if (const int next = tile + gridDim.x; next < o.num_tiles)
#pragma unroll
      for (int which = 0; which < 2; ++which)
        if (which < per_tile) own[which] = load_column(next, which);
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
  bool all = o.rows.is_aligned && o.rows.c % VEC<W> == 0;
  for (int i = 0; i < o.num_parts; ++i) {
    const WeightMatrix<W> &w = o.parts[i].weight;
    all = all && w.is_aligned && (!Tile::NEEDS_WHOLE_COLUMNS || w.f % VEC<W> == 0);
  }
  return all;
}

template <class Tile, class T, class W> int launch_tiles(void *stream, Operands<T, W> o) {
  const int64_t c = o.rows.c, n = o.rows.num_rows, max_bytes = max_dynamic_shared_bytes();
  const int warps = warps_for<Tile>(c), sms = num_multiprocessors();
  o.num_tiles = static_cast<int>(count_tiles<Tile>(o));
  o.stride_shared = static_cast<int>(round_up(c, Tile::STRETCH)) + VEC<T>;  // neighbouring rows begin in other banks
  o.groups = row_groups(norm_members(max(int64_t{1}, c)), warps * WARP);
  o.vectors = row_vectors(c / VEC<T>);

  const int64_t stretches = ceil_divide(c, Tile::STRETCH);
  o.turns = static_cast<int>(stretches / warps);
  o.warps_with_one_more = static_cast<int>(stretches % warps);

  BlockWish wish = {min(n, int64_t{FEW_ROWS_ROWS}), o.stride_shared * static_cast<int64_t>(sizeof(T)), 0,
                    int64_t{warps} * Tile::SLOT_BYTES, 0};
  const int64_t sum_bytes = int64_t{o.is_gated ? 2 : 1} * warps * FEW_ROWS_ROWS * Tile::COLUMNS * 4;
  const int64_t parameter_bytes = o.before == Before::NOTHING
                                      ? 0 : ((o.rows.weight.data ? 1 : 0) + (o.rows.bias.data ? 1 : 0)) * c * 4;
  const bool whole = is_whole<Tile>(o) && parameter_bytes + wish.row_bytes + sum_bytes + wish.slot_bytes <= max_bytes;
  const int per_sm = o.num_tiles <= sms ? 1 : min(2, SM_BLOCKS<T>);
  wish.other_bytes = sum_bytes + (whole ? parameter_bytes : 0);
  const auto room_of = [&](int blocks, int most_blocks) {
    const int64_t products = ceil_divide(o.num_tiles, blocks * sms) * (o.is_gated ? 2 : 1);
    if (whole) wish.slots = products * ceil_divide(stretches, warps);
    return block_room(wish, max_bytes, most_blocks);
  };
  BlockRoom room = room_of(per_sm, min(per_sm + 1, SM_BLOCKS<T>));
  if (room.sm_blocks < per_sm) room = room_of(1, 1);  // which has more to do
  o.rows_per_block = static_cast<int>(room.rows);
  o.slots = static_cast<int>(room.slots);
  o.parameters_at = static_cast<int>(room.rows * wish.row_bytes);
  o.sums_at = o.parameters_at + static_cast<int>(whole ? parameter_bytes : 0);
  o.ring_at = o.sums_at + static_cast<int>(sum_bytes);
  const dim3 grid(static_cast<unsigned>(min(o.num_tiles, min(per_sm, room.sm_blocks) * sms)),
                  static_cast<unsigned>(ceil_divide(n, o.rows_per_block)));
  const auto run = [&](auto kernel) {
    return launch_dependent(kernel, grid, warps * WARP, o.ring_at + room.slots * wish.slot_bytes, stream, o);
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
    if (out_in) return launch_tiles<RowsTile<T, 1>>(stream, o);
    return launch_tiles<ColumnsTile<T, 2>>(stream, o);
  }
}

// Whether a block keeps as many rows as gt_linear, which keeps none, multiplies at a time, beside the sums and two
// slots of any kind of tile.
bool keeps_enough(const gt_tensor &x) {
  const int64_t rows = min(x.shape[0], int64_t{FEW_ROWS_ROWS}), bytes = dtype_bytes(x.dtype);
  const BlockWish wish = {rows, x.shape[1] * bytes + VEC_BYTES, 2, FEW_ROWS_WARPS * 1024 * bytes, 4096 * bytes};
  const BlockRoom room = block_room(wish, max_dynamic_shared_bytes(), 1);
  return room.rows >= rows && room.slots >= wish.slots;
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
  return status_of(op, status);
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
                               gt_norm norm, const gt_tensor *norm_weight, const gt_tensor *norm_bias, float eps,
                               const gt_tensor *q_weight, const gt_tensor *q_scale, const gt_tensor *q_bias,
                               const gt_tensor *k_weight, const gt_tensor *k_scale, const gt_tensor *k_bias,
                               const gt_tensor *v_weight, const gt_tensor *v_scale, const gt_tensor *v_bias,
                               gt_weight_layout layout) {
  return run("norm_linear_qkv", stream, {residual_out, x, residual, norm, norm_weight, norm_bias, eps, 3, {q, k, v},
                                         {q_weight, k_weight, v_weight}, {q_scale, k_scale, v_scale},
                                         {q_bias, k_bias, v_bias}, false, layout, GT_MLP_NONE});
}

}  // namespace gt
