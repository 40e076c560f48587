// What does a product through the stand-in for cublasLt go through? The API; cublaslt_problem.h has the rules.
#include "cublaslt_problem.h"
#include "gpu.h"

using namespace softgpu;
using namespace softgpu::lt;

namespace {

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
template <class T>
int set(T &field, const void *buffer, size_t bytes) {
  if (bytes != sizeof(T)) return INVALID;
  memcpy(&field, buffer, sizeof(T));
  return SUCCESS;
}

template <class T>
int get(const T &field, void *buffer, size_t bytes, size_t *written) {
  if (written) *written = sizeof(T);
  if (bytes == 0 && written) return SUCCESS;
  if (bytes != sizeof(T) || !buffer) return INVALID;
  memcpy(buffer, &field, sizeof(T));
  return SUCCESS;
}

template <class T>
int create(T **out, const T &value) {
  if (!out) return INVALID;
  *out = new T(value);
  add_to_counter(SOFTGPU_LIVE_DESCRIPTORS, 1);
  return SUCCESS;
}

template <class T>
int destroy(T *descriptor) {
  if (!descriptor) return SUCCESS;
  delete descriptor;
  add_to_counter(SOFTGPU_LIVE_DESCRIPTORS, -1);
  return SUCCESS;
}

HeuristicResult result_of(const Algorithm &algorithm) {
  return {algorithm, algorithm.workspace_bytes, SUCCESS, 1.0f, {}};
}

// First and last byte of all batches of a matrix.
bool is_there(const Matrix &matrix, int64_t rows, int64_t columns, int64_t num_batches, const char *name,
              std::string &why) {
  const int64_t last = (rows - 1) * matrix.row_stride + (columns - 1) * matrix.column_stride;
  for (int64_t batch = 0; batch < num_batches; ++batch) {
    const char *begin = static_cast<const char *>(matrix.data) + batch * matrix.batch_stride * bytes_of(matrix.type);
    if (!is_accessible(begin, static_cast<size_t>((last + 1) * bytes_of(matrix.type)), name, why)) return false;
  }
  return true;
}

bool is_there(const float *scales, int64_t count, const char *name, std::string &why) {
  return !scales || is_accessible(scales, static_cast<size_t>(count) * sizeof(float), name, why);
}

int run(const Product &p, void *workspace, size_t workspace_bytes, std::string &why) {
  const bool is_fine =
      is_there(p.a, p.m, p.k, p.num_batches, "cublasLtMatmul: A", why) &&
      is_there(p.b, p.k, p.n, p.num_batches, "cublasLtMatmul: B", why) &&
      (p.beta == 0 || is_there(p.c, p.m, p.n, p.num_batches, "cublasLtMatmul: C", why)) &&
      is_there(p.d, p.m, p.n, p.num_batches, "cublasLtMatmul: D", why) &&
      is_accessible(workspace, workspace_bytes, "cublasLtMatmul: workspace", why) &&
      (!p.bias ||
       is_accessible(p.bias, static_cast<size_t>(p.m * bytes_of(p.bias_type)), "cublasLtMatmul: bias", why)) &&
      is_there(p.scale_a, p.scales_are_vectors ? p.m : 1, "cublasLtMatmul: A's scale", why) &&
      is_there(p.scale_b, p.scales_are_vectors ? p.n : 1, "cublasLtMatmul: B's scale", why);
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
  if (!has_device()) return NOT_INITIALIZED;
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
    case 17: return set(desc->scale_a, buffer, bytes);
    case 18: return set(desc->scale_b, buffer, bytes);
    case 26: return set(desc->bias_type, buffer, bytes);
    case 31: return set(desc->scale_mode_a, buffer, bytes);
    case 32: return set(desc->scale_mode_b, buffer, bytes);
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

SOFTGPU_API int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *buffer,
                                                     size_t bytes) {
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
                                               const Layout *c, const Layout *d, const Preference *preference,
                                               int requested, HeuristicResult *results, int *returned) {
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

SOFTGPU_API int cublasLtMatmulAlgoCheck(void *handle, const MatmulDesc *desc, const Layout *a, const Layout *b,
                                        const Layout *c, const Layout *d, const Algorithm *algorithm,
                                        HeuristicResult *result) {
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

SOFTGPU_API int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm *algorithm, int attribute, void *buffer,
                                                     size_t bytes, size_t *written) {
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

SOFTGPU_API int cublasLtMatmul(void *handle, const MatmulDesc *desc, const void *alpha, const void *a,
                               const Layout *a_layout, const void *b, const Layout *b_layout, const void *beta,
                               const void *c, const Layout *c_layout, void *d, const Layout *d_layout,
                               const Algorithm *algorithm, void *workspace, size_t workspace_bytes, void *stream) {
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
    for (uint32_t &alignment : preference.alignment) alignment = a_layout->type == R_8F_E4M3 ? 16 : 4;
    chosen = heuristic(*desc, layouts, preference, p).front();
  }
  for (int i = 0; i < 4; ++i) {
    const bool is_aligned = reinterpret_cast<uintptr_t>(addresses[i]) % chosen.alignment[i] == 0 &&
                            usable_alignment(256, *layouts[i]) >= chosen.alignment[i];
    if (!is_aligned)
      return refuse(INVALID, "an operand is not aligned as the algorithm needs it: the preference promised more");
  }
  if (p.bias && bias_alignment(*desc) < chosen.bias_alignment)
    return refuse(INVALID, "the bias is not aligned as it was when the algorithm was asked for");
  if (workspace_bytes < chosen.workspace_bytes ||
      (chosen.workspace_bytes && reinterpret_cast<uintptr_t>(workspace) % 16))
    return refuse(INVALID, "the workspace is smaller than the algorithm asks for, or not aligned to 16 bytes");
  for (const float *scales : {p.scale_a, p.scale_b})
    if (p.scales_are_vectors && reinterpret_cast<uintptr_t>(scales) % 16)
      return refuse(INVALID, "a scale vector is not aligned to 16 bytes");
  memcpy(&p.alpha, alpha, sizeof p.alpha);
  memcpy(&p.beta, beta, sizeof p.beta);
  p.a.data = const_cast<void *>(a);
  p.b.data = const_cast<void *>(b);
  p.c.data = const_cast<void *>(c);
  p.d.data = d;
  p.split_k = chosen.split_k;
  const size_t used = chosen.workspace_bytes;
  const int code = enqueue_product(stream, [=](std::string &why) { return run(p, workspace, used, why); });
  return code ? refuse(EXECUTION_FAILED, "the stream does not take the product: cudaError_t " + std::to_string(code))
              : SUCCESS;
}

}  // extern "C"
