// What does the stand-in for cublasLt accept, which algorithms does it offer, and what does a product cost it?
//
// It refuses what the real library refuses as far as its manual says (types, shapes, layouts), and some more where the manual is
// silent. Like the real one it prefers, where the reduction scheme may be chosen, to split long sums when there are few columns:
// who wants the same bits for any number of columns has to keep one algorithm.
#include <vector>

#include "gpu.h"
#include "product.h"

using namespace softgpu;

namespace {

enum Status : int {  // cublasStatus_t
  SUCCESS = 0,
  NOT_INITIALIZED = 1,
  INVALID = 7,
  EXECUTION_FAILED = 13,
  NOT_SUPPORTED = 15,
};

enum { R_32F = 0, R_16F = 2, R_16BF = 14 };                                     // cudaDataType
enum { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_TF32 = 77 };  // cublasComputeType_t
enum { OP_N = 0, OP_T = 1, OP_C = 2 };
enum { ORDER_COL = 0, ORDER_ROW = 1 };
enum { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4, EPILOGUE_GELU = 32 };
enum { REDUCTION_NONE = 0, REDUCTION_COMPUTE_TYPE = 2 };

struct MatmulDesc {
  int compute_type, scale_type, pointer_mode = 0, op_a = OP_N, op_b = OP_N, op_c = OP_N;
  uint32_t epilogue = EPILOGUE_DEFAULT;
  const void *bias = nullptr;
  int64_t bias_batch_stride = 0;
  int bias_type = -1;  // -1: D's
};

struct Layout {
  int type, order = ORDER_COL;
  uint64_t rows, columns;
  int64_t ld;
  int num_batches = 1;
  int64_t batch_stride = 0;
};

struct Preference {
  uint64_t max_workspace_bytes = 0;
  uint32_t reduction_mask = 7;
  uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D: what the caller promises
};

// cublasLtMatmulAlgo_t: 64 bytes that callers copy.
struct Algorithm {
  uint32_t magic;
  int32_t id, tile, split_k;
  uint32_t reduction;
  int32_t types[3];       // A and B, D, compute
  uint16_t alignment[4];  // bytes that A, B, C and D must have
  uint64_t workspace_bytes;
  uint64_t unused[2];
};
static_assert(sizeof(Algorithm) == 64);
constexpr uint32_t MAGIC = 0x536f4754;

struct HeuristicResult {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(HeuristicResult) == 96);

constexpr uint64_t WORKSPACE_BYTES = 1 << 20;  // wanted where it is allowed
constexpr int64_t FEW_COLUMNS = 64, LONG_SUM = 256;

bool type_of(int cuda_type, Type &type) {
  switch (cuda_type) {
    case R_32F: type = Type::F32; return true;
    case R_16BF: type = Type::BF16; return true;
    case R_16F: type = Type::F16; return true;
    default: return false;
  }
}

struct StatusText {
  int status;
  const char *name, *text;
};
constexpr StatusText TEXTS[] = {
    {0, "CUBLAS_STATUS_SUCCESS", "success"},
    {1, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {3, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
    {7, "CUBLAS_STATUS_INVALID_VALUE", "an unsupported value or parameter was passed to the function"},
    {8, "CUBLAS_STATUS_ARCH_MISMATCH", "an absent device architectural feature is required"},
    {11, "CUBLAS_STATUS_MAPPING_ERROR", "an access to GPU memory space failed"},
    {13, "CUBLAS_STATUS_EXECUTION_FAILED", "the function failed to launch on the GPU"},
    {14, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
    {15, "CUBLAS_STATUS_NOT_SUPPORTED", "the functionality requested is not supported"},
    {16, "CUBLAS_STATUS_LICENSE_ERROR", "the functionality requires a license"},
};

// Reads or writes one attribute: the caller's buffer must have its exact size.
template <class T> int set(T &field, const void *buffer, size_t bytes) {
  if (bytes != sizeof(T)) return INVALID;
  memcpy(&field, buffer, sizeof(T));
  return SUCCESS;
}

template <class T> int get(const T &field, void *buffer, size_t bytes, size_t *written) {
  if (written) *written = sizeof(T);
  if (bytes == 0 && written) return SUCCESS;
  if (bytes != sizeof(T) || !buffer) return INVALID;
  memcpy(buffer, &field, sizeof(T));
  return SUCCESS;
}

template <class T> int create(T **out, const T &value) {
  if (!out) return INVALID;
  *out = new T(value);
  add_to_counter(SOFTGPU_LIVE_DESCRIPTORS, 1);
  return SUCCESS;
}

template <class T> int destroy(T *descriptor) {
  if (!descriptor) return SUCCESS;
  delete descriptor;
  add_to_counter(SOFTGPU_LIVE_DESCRIPTORS, -1);
  return SUCCESS;
}

int refuse(int status, const std::string &why) {
  explain("cublasLt: " + why);
  return status;
}

// The problem that descriptors describe, without addresses.
int read_problem(const MatmulDesc *desc, const Layout *a, const Layout *b, const Layout *c, const Layout *d, Product &p) {
  if (!desc || !a || !b || !c || !d) return refuse(INVALID, "a descriptor is NULL");
  Type types[4];
  const Layout *layouts[4] = {a, b, c, d};
  const char *const names[4] = {"A", "B", "C", "D"};
  for (int i = 0; i < 4; ++i) {
    const Layout &l = *layouts[i];
    if (!type_of(l.type, types[i])) return refuse(NOT_SUPPORTED, std::string(names[i]) + " has a type that is not f32, f16, bf16");
    if (l.order != ORDER_COL && l.order != ORDER_ROW) return refuse(NOT_SUPPORTED, std::string(names[i]) + ": order");
    if (l.rows == 0 || l.columns == 0) return refuse(INVALID, std::string(names[i]) + " is empty");
    if (l.ld < static_cast<int64_t>(l.order == ORDER_COL ? l.rows : l.columns))
      return refuse(INVALID, std::string(names[i]) + ": leading dimension is too small");
    if (l.num_batches != d->num_batches || l.num_batches < 1)
      return refuse(INVALID, std::string(names[i]) + ": batch count differs from D's");
  }
  const bool is_f32 = a->type == R_32F;
  const bool fits_compute = desc->compute_type == COMPUTE_32F || desc->compute_type == COMPUTE_32F_PEDANTIC ||
                            (desc->compute_type == COMPUTE_32F_FAST_TF32 && is_f32);
  if (!fits_compute || desc->scale_type != R_32F) return refuse(NOT_SUPPORTED, "compute type or scale type");
  if (a->type != b->type || c->type != d->type || (d->type != a->type && d->type != R_32F))
    return refuse(NOT_SUPPORTED, "A and B have one type, C and D have that or f32");
  if (c->order != d->order) return refuse(NOT_SUPPORTED, "C and D differ in order");
  if (desc->op_a > OP_C || desc->op_b > OP_C || desc->op_c != OP_N || desc->pointer_mode != 0)
    return refuse(NOT_SUPPORTED, "an operation or the pointer mode");
  const bool has_bias = desc->epilogue & EPILOGUE_BIAS;
  p.has_gelu = desc->epilogue & EPILOGUE_GELU;
  if (desc->epilogue != EPILOGUE_DEFAULT && (desc->epilogue & ~(EPILOGUE_BIAS | EPILOGUE_GELU)))
    return refuse(NOT_SUPPORTED, "epilogues are DEFAULT, BIAS, GELU and GELU_BIAS");
  if (desc->epilogue != EPILOGUE_DEFAULT && d->order != ORDER_COL) return refuse(NOT_SUPPORTED, "an epilogue on a D in row order");
  if (has_bias && desc->bias_type != -1 && desc->bias_type != d->type)
    return refuse(NOT_SUPPORTED, "the bias does not have D's type");

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
  if (!is(ta ? a->columns : a->rows, p.m) || !is(tb ? b->columns : b->rows, p.k) || !is(tb ? b->rows : b->columns, p.n) ||
      !is(c->rows, p.m) || !is(c->columns, p.n))
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
  return SUCCESS;
}

// Bytes of alignment up to 16 that a vectorised kernel may rely on, given the base's and the leading dimension's.
uint16_t usable_alignment(uint32_t promised, const Layout &layout) {
  const uint64_t element = layout.type == R_32F ? 4 : 2;
  const uint64_t bits = promised | static_cast<uint64_t>(layout.ld) * element | static_cast<uint64_t>(layout.batch_stride) * element;
  uint64_t alignment = 16;
  while (alignment > element && bits % alignment) alignment /= 2;
  return static_cast<uint16_t>(alignment);
}

Algorithm algorithm(const MatmulDesc &desc, const Layout *const layouts[4], const Preference &preference, int id, int tile,
                    int split_k) {
  Algorithm result = {};
  result.magic = MAGIC;
  result.id = id;
  result.tile = tile;
  result.split_k = split_k;
  result.reduction = split_k > 1 ? REDUCTION_COMPUTE_TYPE : REDUCTION_NONE;
  result.types[0] = layouts[0]->type;
  result.types[1] = layouts[3]->type;
  result.types[2] = desc.compute_type;
  for (int i = 0; i < 4; ++i) result.alignment[i] = usable_alignment(preference.alignment[i], *layouts[i]);
  result.workspace_bytes = preference.max_workspace_bytes >= WORKSPACE_BYTES ? WORKSPACE_BYTES : 0;
  return result;
}

// Best first.
std::vector<Algorithm> heuristic(const MatmulDesc &desc, const Layout *const layouts[4], const Preference &preference,
                                 const Product &p) {
  constexpr int TILE_64x64 = 15, TILE_128x128 = 20, TILE_128x256 = 23;
  std::vector<Algorithm> found;
  const bool may_split = preference.reduction_mask & REDUCTION_COMPUTE_TYPE;
  if (may_split && p.n < FEW_COLUMNS && p.k >= LONG_SUM)
    found.push_back(algorithm(desc, layouts, preference, 21, TILE_64x64, 4));
  if (p.n >= FEW_COLUMNS) found.push_back(algorithm(desc, layouts, preference, 66, TILE_128x256, 1));
  found.push_back(algorithm(desc, layouts, preference, 66, TILE_128x128, 1));
  found.push_back(algorithm(desc, layouts, preference, 21, TILE_64x64, 1));
  return found;
}

bool fits(const Algorithm &algorithm, const MatmulDesc &desc, const Layout *const layouts[4]) {
  return algorithm.magic == MAGIC && algorithm.types[0] == layouts[0]->type && algorithm.types[1] == layouts[3]->type &&
         algorithm.types[2] == desc.compute_type;
}

HeuristicResult result_of(const Algorithm &algorithm) {
  return {algorithm, algorithm.workspace_bytes, SUCCESS, 1.0f, {}};
}

// First and last byte of all batches of a matrix.
bool is_there(const Matrix &matrix, int64_t rows, int64_t columns, int64_t num_batches, const char *name, std::string &why) {
  const int64_t last = (rows - 1) * matrix.row_stride + (columns - 1) * matrix.column_stride;
  for (int64_t batch = 0; batch < num_batches; ++batch) {
    const char *begin = static_cast<const char *>(matrix.data) + batch * matrix.batch_stride * bytes_of(matrix.type);
    if (!is_accessible(begin, static_cast<size_t>((last + 1) * bytes_of(matrix.type)), name, why)) return false;
  }
  return true;
}

int run(const Product &p, void *workspace, size_t workspace_bytes, std::string &why) {
  const bool is_fine = is_there(p.a, p.m, p.k, p.num_batches, "cublasLtMatmul: A", why) &&
                       is_there(p.b, p.k, p.n, p.num_batches, "cublasLtMatmul: B", why) &&
                       (p.beta == 0 || is_there(p.c, p.m, p.n, p.num_batches, "cublasLtMatmul: C", why)) &&
                       is_there(p.d, p.m, p.n, p.num_batches, "cublasLtMatmul: D", why) &&
                       is_accessible(workspace, workspace_bytes, "cublasLtMatmul: workspace", why) &&
                       (!p.bias || is_accessible(p.bias, static_cast<size_t>(p.m * bytes_of(p.d.type)), "cublasLtMatmul: bias", why));
  if (!is_fine) return ILLEGAL_ADDRESS;
  if (workspace_bytes) memset(workspace, 0xff, workspace_bytes);  // whoever else keeps something there shall notice
  multiply(p);
  return OK;
}

}  // namespace

extern "C" {

SOFTGPU_API int cublasLtCreate(void **handle) {
  if (const int status = count_use(Symbol::cublasLtCreate)) return status;
  if (!handle) return INVALID;
  if (lost()) return NOT_INITIALIZED;
  *handle = new int(0);
  add_to_counter(SOFTGPU_LIVE_HANDLES, 1);
  return SUCCESS;
}

SOFTGPU_API int cublasLtDestroy(void *handle) {
  if (const int status = count_use(Symbol::cublasLtDestroy)) return status;
  if (!handle) return NOT_INITIALIZED;
  delete static_cast<int *>(handle);
  add_to_counter(SOFTGPU_LIVE_HANDLES, -1);
  return SUCCESS;
}

SOFTGPU_API size_t cublasLtGetVersion(void) {
  count_use(Symbol::cublasLtGetVersion);
  return 130101;
}

SOFTGPU_API const char *cublasLtGetStatusName(int status) {
  count_use(Symbol::cublasLtGetStatusName);
  for (const StatusText &t : TEXTS)
    if (t.status == status) return t.name;
  return "<unknown>";
}

SOFTGPU_API const char *cublasLtGetStatusString(int status) {
  count_use(Symbol::cublasLtGetStatusString);
  for (const StatusText &t : TEXTS)
    if (t.status == status) return t.text;
  return "<unknown>";
}

SOFTGPU_API int cublasLtMatmulDescCreate(MatmulDesc **out, int compute_type, int scale_type) {
  if (const int status = count_use(Symbol::cublasLtMatmulDescCreate)) return status;
  MatmulDesc desc{};
  desc.compute_type = compute_type;
  desc.scale_type = scale_type;
  return create(out, desc);
}

SOFTGPU_API int cublasLtMatmulDescDestroy(MatmulDesc *desc) {
  if (const int status = count_use(Symbol::cublasLtMatmulDescDestroy)) return status;
  return destroy(desc);
}

SOFTGPU_API int cublasLtMatmulDescSetAttribute(MatmulDesc *desc, int attribute, const void *buffer, size_t bytes) {
  if (const int status = count_use(Symbol::cublasLtMatmulDescSetAttribute)) return status;
  if (!desc || !buffer) return INVALID;
  switch (attribute) {
    case 0: return set(desc->compute_type, buffer, bytes);
    case 1: return set(desc->scale_type, buffer, bytes);
    case 2: return set(desc->pointer_mode, buffer, bytes);
    case 3: return set(desc->op_a, buffer, bytes);
    case 4: return set(desc->op_b, buffer, bytes);
    case 5: return set(desc->op_c, buffer, bytes);
    case 7: return set(desc->epilogue, buffer, bytes);
    case 8: return set(desc->bias, buffer, bytes);
    case 10: return set(desc->bias_batch_stride, buffer, bytes);
    case 26: return set(desc->bias_type, buffer, bytes);
    default: return refuse(INVALID, "the stand-in does not know this attribute of a product");
  }
}

SOFTGPU_API int cublasLtMatrixLayoutCreate(Layout **out, int type, uint64_t rows, uint64_t columns, int64_t ld) {
  if (const int status = count_use(Symbol::cublasLtMatrixLayoutCreate)) return status;
  Layout layout{};
  layout.type = type;
  layout.rows = rows;
  layout.columns = columns;
  layout.ld = ld;
  return create(out, layout);
}

SOFTGPU_API int cublasLtMatrixLayoutDestroy(Layout *layout) {
  if (const int status = count_use(Symbol::cublasLtMatrixLayoutDestroy)) return status;
  return destroy(layout);
}

SOFTGPU_API int cublasLtMatrixLayoutSetAttribute(Layout *layout, int attribute, const void *buffer, size_t bytes) {
  if (const int status = count_use(Symbol::cublasLtMatrixLayoutSetAttribute)) return status;
  if (!layout || !buffer) return INVALID;
  switch (attribute) {
    case 0: return set(layout->type, buffer, bytes);
    case 1: return set(layout->order, buffer, bytes);
    case 2: return set(layout->rows, buffer, bytes);
    case 3: return set(layout->columns, buffer, bytes);
    case 4: return set(layout->ld, buffer, bytes);
    case 5: return set(layout->num_batches, buffer, bytes);
    case 6: return set(layout->batch_stride, buffer, bytes);
    default: return refuse(INVALID, "the stand-in does not know this attribute of a layout");
  }
}

SOFTGPU_API int cublasLtMatmulPreferenceCreate(Preference **out) {
  if (const int status = count_use(Symbol::cublasLtMatmulPreferenceCreate)) return status;
  return create(out, Preference{});
}

SOFTGPU_API int cublasLtMatmulPreferenceDestroy(Preference *preference) {
  if (const int status = count_use(Symbol::cublasLtMatmulPreferenceDestroy)) return status;
  return destroy(preference);
}

SOFTGPU_API int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *buffer, size_t bytes) {
  if (const int status = count_use(Symbol::cublasLtMatmulPreferenceSetAttribute)) return status;
  if (!preference || !buffer) return INVALID;
  switch (attribute) {
    case 1: return set(preference->max_workspace_bytes, buffer, bytes);
    case 3: return set(preference->reduction_mask, buffer, bytes);
    case 5:
    case 6:
    case 7:
    case 8: return set(preference->alignment[attribute - 5], buffer, bytes);
    default: return refuse(INVALID, "the stand-in does not know this attribute of a preference");
  }
}

SOFTGPU_API int cublasLtMatmulAlgoGetHeuristic(void *handle, const MatmulDesc *desc, const Layout *a, const Layout *b,
                                               const Layout *c, const Layout *d, const Preference *preference, int requested,
                                               HeuristicResult *results, int *returned) {
  if (const int status = count_use(Symbol::cublasLtMatmulAlgoGetHeuristic)) return status;
  if (returned) *returned = 0;
  if (!handle) return NOT_INITIALIZED;
  if (!preference || !results || !returned || requested < 1) return INVALID;
  Product p;
  if (const int status = read_problem(desc, a, b, c, d, p)) return status;
  const Layout *const layouts[4] = {a, b, c, d};
  for (const Algorithm &algorithm : heuristic(*desc, layouts, *preference, p))
    if (*returned < requested) results[(*returned)++] = result_of(algorithm);
  return SUCCESS;
}

SOFTGPU_API int cublasLtMatmulAlgoCheck(void *handle, const MatmulDesc *desc, const Layout *a, const Layout *b, const Layout *c,
                                        const Layout *d, const Algorithm *algorithm, HeuristicResult *result) {
  if (const int status = count_use(Symbol::cublasLtMatmulAlgoCheck)) return status;
  if (!handle) return NOT_INITIALIZED;
  if (!algorithm || !result) return INVALID;
  Product p;
  if (const int status = read_problem(desc, a, b, c, d, p)) return status;
  const Layout *const layouts[4] = {a, b, c, d};
  if (!fits(*algorithm, *desc, layouts)) return refuse(INVALID, "the algorithm was made for other types");
  for (int i = 0; i < 4; ++i)
    if (usable_alignment(256, *layouts[i]) < algorithm->alignment[i])
      return refuse(NOT_SUPPORTED, "the algorithm needs leading dimensions that are aligned better");
  *result = result_of(*algorithm);
  return SUCCESS;
}

SOFTGPU_API int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm *algorithm, int attribute, void *buffer, size_t bytes,
                                                     size_t *written) {
  if (const int status = count_use(Symbol::cublasLtMatmulAlgoConfigGetAttribute)) return status;
  if (!algorithm || algorithm->magic != MAGIC) return INVALID;
  switch (attribute) {
    case 0: return get(algorithm->id, buffer, bytes, written);
    case 1: return get(static_cast<uint32_t>(algorithm->tile), buffer, bytes, written);
    case 2: return get(algorithm->split_k, buffer, bytes, written);
    case 3: return get(algorithm->reduction, buffer, bytes, written);
    case 4:
    case 5:
    case 6: return get(uint32_t{0}, buffer, bytes, written);  // swizzling, custom option, stages
    case 7:
    case 8: return get(uint16_t{0}, buffer, bytes, written);  // inner shape, cluster shape
    default: return INVALID;
  }
}

SOFTGPU_API int cublasLtMatmul(void *handle, const MatmulDesc *desc, const void *alpha, const void *a, const Layout *a_layout,
                               const void *b, const Layout *b_layout, const void *beta, const void *c, const Layout *c_layout,
                               void *d, const Layout *d_layout, const Algorithm *algorithm, void *workspace,
                               size_t workspace_bytes, void *stream) {
  if (const int status = count_use(Symbol::cublasLtMatmul)) return status;
  if (!handle) return NOT_INITIALIZED;
  Product p;
  if (const int status = read_problem(desc, a_layout, b_layout, c_layout, d_layout, p)) return status;
  if (!alpha || !beta || !a || !b || !c || !d) return refuse(INVALID, "a pointer is NULL");
  if (desc->epilogue & EPILOGUE_BIAS && !p.bias) return refuse(INVALID, "the bias is NULL");
  const Layout *const layouts[4] = {a_layout, b_layout, c_layout, d_layout};
  Preference preference;
  preference.max_workspace_bytes = workspace_bytes;
  const void *const addresses[4] = {a, b, c, d};
  Algorithm chosen;
  if (algorithm) {
    if (!fits(*algorithm, *desc, layouts)) return refuse(INVALID, "the algorithm was made for other types");
    chosen = *algorithm;
  } else {
    for (uint32_t &alignment : preference.alignment) alignment = 2;
    chosen = heuristic(*desc, layouts, preference, p).front();
  }
  for (int i = 0; i < 4; ++i) {
    const bool is_aligned = reinterpret_cast<uintptr_t>(addresses[i]) % chosen.alignment[i] == 0 &&
                            usable_alignment(256, *layouts[i]) >= chosen.alignment[i];
    if (!is_aligned) return refuse(INVALID, "an operand is not aligned as the algorithm needs it: the preference promised more");
  }
  if (workspace_bytes < chosen.workspace_bytes || (chosen.workspace_bytes && reinterpret_cast<uintptr_t>(workspace) % 16))
    return refuse(INVALID, "the workspace is smaller than the algorithm asks for, or not aligned to 16 bytes");
  memcpy(&p.alpha, alpha, sizeof p.alpha);
  memcpy(&p.beta, beta, sizeof p.beta);
  p.a.data = const_cast<void *>(a);
  p.b.data = const_cast<void *>(b);
  p.c.data = const_cast<void *>(c);
  p.d.data = d;
  p.split_k = chosen.split_k;
  const size_t used = chosen.workspace_bytes;
  const int code = enqueue_product(stream, [=](std::string &why) { return run(p, workspace, used, why); });
  return code ? refuse(EXECUTION_FAILED, "the stream does not take the product: cudaError_t " + std::to_string(code)) : SUCCESS;
}

}  // extern "C"
