// Which problems does the stand-in for cublasLt accept, and which algorithms does it prefer for them?
#include "cublaslt_problem.h"

#include "gpu.h"

namespace softgpu::lt {

constexpr uint64_t WORKSPACE_BYTES = 1 << 20;  // wanted where it is allowed
constexpr int64_t FEW_COLUMNS = 64, LONG_SUM = 256;

static bool type_of(int cuda_type, Type &type) {
  switch (cuda_type) {
    case R_32F: type = Type::F32; return true;
    case R_16BF: type = Type::BF16; return true;
    case R_16F: type = Type::F16; return true;
    case R_8F_E4M3: type = Type::F8_E4M3; return true;
    default: return false;
  }
}

int refuse(int status, const std::string &why) {
  explain("cublasLt: " + why);
  return status;
}

// Products of fp8 operands: what cublasLtMatmul's manual asks for beyond what it asks of all.
static int check_fp8(const MatmulDesc &desc, const Layout *const layouts[4], const Product &p) {
  constexpr int ADA = 89, HOPPER = 90;
  const int capability = compute_capability();
  const bool has_vectors = desc.scale_mode_a == SCALE_OUTER_VEC_32F;
  if (desc.scale_mode_a != desc.scale_mode_b || (!has_vectors && desc.scale_mode_a != SCALE_SCALAR_32F))
    return refuse(NOT_SUPPORTED, "scale modes are SCALAR_32F or OUTER_VEC_32F, the same for A and B");
  if (has_vectors ? capability != HOPPER : capability < ADA)
    return refuse(NOT_SUPPORTED, "fp8 with a scale a tensor needs compute capability 8.9, with scale vectors 9.0");
  if (has_vectors && (!desc.scale_a || !desc.scale_b))
    return refuse(INVALID, "the scaling mode of A and B requires scale pointers");
  if (desc.compute_type != COMPUTE_32F) return refuse(NOT_SUPPORTED, "fp8 without COMPUTE_32F");
  for (int i = 0; i < 4; ++i) {
    if (layouts[i]->order != ORDER_COL) return refuse(NOT_SUPPORTED, "fp8 with a matrix in row order");
    if (layouts[i]->num_batches != 1) return refuse(NOT_SUPPORTED, "fp8 in batches");
    if (usable_alignment(256, *layouts[i]) != 16)
      return refuse(NOT_SUPPORTED, "fp8 with leading dimensions that are no multiples of 16 bytes");
  }
  if (desc.op_a == OP_N || desc.op_b != OP_N) return refuse(NOT_SUPPORTED, "fp8 that is not TN");
  if (p.k % 16 || p.m * bytes_of(p.d.type) % 16)
    return refuse(NOT_SUPPORTED, "fp8 with a K or an M that is no multiple of 16 bytes");
  return SUCCESS;
}

int read_problem(const MatmulDesc *desc, const Layout *a, const Layout *b, const Layout *c, const Layout *d,
                 Product &p) {
  if (!desc || !a || !b || !c || !d) return refuse(INVALID, "a descriptor is NULL");
  Type types[4];
  const Layout *layouts[4] = {a, b, c, d};
  const char *const names[4] = {"A", "B", "C", "D"};
  for (int i = 0; i < 4; ++i) {
    const Layout &l = *layouts[i];
    if (!type_of(l.type, types[i]))
      return refuse(NOT_SUPPORTED, std::string(names[i]) + " has a type that is not f32, f16, bf16, e4m3");
    if (l.order != ORDER_COL && l.order != ORDER_ROW) return refuse(NOT_SUPPORTED, std::string(names[i]) + ": order");
    if (l.rows == 0 || l.columns == 0) return refuse(INVALID, std::string(names[i]) + " is empty");
    if (l.ld < static_cast<int64_t>(l.order == ORDER_COL ? l.rows : l.columns))
      return refuse(INVALID, std::string(names[i]) + ": leading dimension is too small");
    if (l.num_batches != d->num_batches || l.num_batches < 1)
      return refuse(INVALID, std::string(names[i]) + ": batch count differs from D's");
  }
  const bool is_f32 = a->type == R_32F, is_fp8 = a->type == R_8F_E4M3;
  const bool fits_compute = desc->compute_type == COMPUTE_32F || desc->compute_type == COMPUTE_32F_PEDANTIC ||
                            (desc->compute_type == COMPUTE_32F_FAST_TF32 && is_f32);
  if (!fits_compute || desc->scale_type != R_32F) return refuse(NOT_SUPPORTED, "compute type or scale type");
  if (a->type != b->type || c->type != d->type ||
      (is_fp8 ? d->type == R_8F_E4M3 : d->type != a->type && d->type != R_32F))
    return refuse(NOT_SUPPORTED, "A and B have one type, C and D have that or f32; of e4m3: bf16, f16 or f32");
  if (!is_fp8 && (desc->scale_a || desc->scale_b || desc->scale_mode_a || desc->scale_mode_b))
    return refuse(INVALID, "scales of operands that are not fp8");
  if (c->order != d->order) return refuse(NOT_SUPPORTED, "C and D differ in order");
  const auto is_operation = [](int op) { return op >= OP_N && op <= OP_C; };
  if (!is_operation(desc->op_a) || !is_operation(desc->op_b) || desc->op_c != OP_N || desc->pointer_mode != 0)
    return refuse(NOT_SUPPORTED, "an operation or the pointer mode");
  const bool has_bias = desc->epilogue & EPILOGUE_BIAS;
  p.has_gelu = desc->epilogue & EPILOGUE_GELU;
  if (desc->epilogue != EPILOGUE_DEFAULT && (desc->epilogue & ~(EPILOGUE_BIAS | EPILOGUE_GELU)))
    return refuse(NOT_SUPPORTED, "epilogues are DEFAULT, BIAS, GELU and GELU_BIAS");
  if (desc->epilogue != EPILOGUE_DEFAULT && d->order != ORDER_COL)
    return refuse(NOT_SUPPORTED, "an epilogue on a D in row order");
  const int bias_type = is_fp8 && d->type == R_32F ? R_16BF : d->type;
  if (has_bias && desc->bias_type != -1 && desc->bias_type != bias_type)
    return refuse(NOT_SUPPORTED, "the bias has neither D's type nor, where fp8 gives f32, bf16");
  type_of(bias_type, p.bias_type);

  const auto matrix = [&](int i, bool is_transposed) {
    const Layout &l = *layouts[i];
    const bool rows_are_adjacent = (l.order == ORDER_COL) != is_transposed;
    return Matrix{nullptr, types[i], rows_are_adjacent ? 1 : l.ld, rows_are_adjacent ? l.ld : 1, l.batch_stride};
  };
  const bool ta = desc->op_a != OP_N, tb = desc->op_b != OP_N;
  p.m = static_cast<int64_t>(d->rows);
  p.n = static_cast<int64_t>(d->columns);
  p.k = static_cast<int64_t>(ta ? a->rows : a->columns);
  const auto is = [](uint64_t x, int64_t y) { return static_cast<int64_t>(x) == y; };
  if (!is(ta ? a->columns : a->rows, p.m) || !is(tb ? b->columns : b->rows, p.k) ||
      !is(tb ? b->rows : b->columns, p.n) || !is(c->rows, p.m) || !is(c->columns, p.n))
    return refuse(INVALID, "the shapes of A, B, C and D do not fit");
  p.num_batches = d->num_batches;
  p.a = matrix(0, ta);
  p.b = matrix(1, tb);
  p.c = matrix(2, false);
  p.d = matrix(3, false);
  p.bias = has_bias ? desc->bias : nullptr;
  p.bias_batch_stride = desc->bias_batch_stride;
  p.has_tf32 = desc->compute_type == COMPUTE_32F_FAST_TF32;
  p.split_k = 1;
  p.scale_a = desc->scale_a;
  p.scale_b = desc->scale_b;
  p.scales_are_vectors = desc->scale_mode_a == SCALE_OUTER_VEC_32F;
  return is_fp8 ? check_fp8(*desc, layouts, p) : SUCCESS;
}

static uint32_t element_bytes(const Layout &layout) {
  return layout.type == R_32F ? 4 : layout.type == R_8F_E4M3 ? 1 : 2;
}

uint16_t usable_alignment(uint32_t promised, const Layout &layout) {
  const uint64_t element = element_bytes(layout);
  const uint64_t bits =
      promised | static_cast<uint64_t>(layout.ld) * element | static_cast<uint64_t>(layout.batch_stride) * element;
  uint64_t alignment = 16;
  while (alignment > element && bits % alignment) alignment /= 2;
  return static_cast<uint16_t>(alignment);
}

uint16_t bias_alignment(const MatmulDesc &desc) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(desc.bias) | 16;
  return static_cast<uint16_t>(bits & (~bits + 1));
}

static Algorithm algorithm(const MatmulDesc &desc, const Layout *const layouts[4], const Preference &preference, int id,
                           int tile, int split_k) {
  Algorithm result = {};
  result.magic = MAGIC;
  result.id = id;
  result.tile = tile;
  result.split_k = split_k;
  result.reduction = split_k > 1 ? REDUCTION_COMPUTE_TYPE : REDUCTION_NONE;
  result.types[0] = layouts[0]->type;
  result.types[1] = layouts[3]->type;
  result.types[2] = desc.compute_type;
  result.types[3] = desc.scale_mode_a;
  for (int i = 0; i < 4; ++i) result.alignment[i] = usable_alignment(preference.alignment[i], *layouts[i]);
  result.bias_alignment = bias_alignment(desc);
  result.workspace_bytes = preference.max_workspace_bytes >= WORKSPACE_BYTES ? WORKSPACE_BYTES : 0;
  return result;
}

std::vector<Algorithm> heuristic(const MatmulDesc &desc, const Layout *const layouts[4], const Preference &preference,
                                 const Product &p) {
  constexpr int TILE_64x64 = 15, TILE_128x128 = 20, TILE_128x256 = 23;
  std::vector<Algorithm> found;
  const bool is_fp8 = layouts[0]->type == R_8F_E4M3;
  for (int i = 0; i < 4; ++i)  // less than an element: as cuBLASLt 13.1 on an H200
    if (preference.alignment[i] < (is_fp8 ? 16 : element_bytes(*layouts[i]))) return found;
  const bool may_split = preference.reduction_mask & REDUCTION_COMPUTE_TYPE;
  if (may_split && !is_fp8 && p.n < FEW_COLUMNS && p.k >= LONG_SUM)
    found.push_back(algorithm(desc, layouts, preference, 21, TILE_64x64, 4));
  if (p.n >= FEW_COLUMNS) found.push_back(algorithm(desc, layouts, preference, 66, TILE_128x256, 1));
  found.push_back(algorithm(desc, layouts, preference, 66, TILE_128x128, 1));
  found.push_back(algorithm(desc, layouts, preference, 21, TILE_64x64, 1));
  return found;
}

bool fits(const Algorithm &algorithm, const MatmulDesc &desc, const Layout *const layouts[4]) {
  return algorithm.magic == MAGIC && algorithm.types[0] == layouts[0]->type && algorithm.types[1] == layouts[3]->type &&
         algorithm.types[2] == desc.compute_type && algorithm.types[3] == desc.scale_mode_a;
}

}  // namespace softgpu::lt
