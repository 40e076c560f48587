// Does the stand-in for cublasLt multiply, repeat its bits, and refuse what the real library refuses?
#include <cmath>
#include <cstring>

#include "harness.h"
#include "softgpu/number.h"

using namespace harness;
using softgpu::Type;

namespace {

// One problem and its operands: D[m,n] = alpha op(A) op(B) + beta C.
struct Problem {
  int m = 7, n = 5, k = 33, num_batches = 1;
  int type = CUDA_R_32F, out_type = CUDA_R_32F;
  int compute = CUBLAS_COMPUTE_32F;
  bool a_is_transposed = false, b_is_transposed = false, rows_are_adjacent = true;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  float alpha = 1, beta = 0;
  size_t workspace_bytes = 0;
  uint32_t reduction_mask = 0;
};

Type type_of(int cuda_type) {
  return cuda_type == CUDA_R_32F ? Type::F32 : cuda_type == CUDA_R_16F ? Type::F16 : Type::BF16;
}

float value(int i) { return std::sin(static_cast<float>(i) * 0.7f); }

class Run {
 public:
  explicit Run(const Problem &problem) : p(problem), in(type_of(p.type)), out(type_of(p.out_type)) {
    EXPECT_EQUAL(0, cublasLtCreate(&handle));
    EXPECT_EQUAL(0, cublasLtMatmulDescCreate(&desc, p.compute, CUDA_R_32F));
    set_desc(CUBLASLT_MATMUL_DESC_TRANSA, p.a_is_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_desc(CUBLASLT_MATMUL_DESC_TRANSB, p.b_is_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_desc(CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<int>(p.epilogue));
    a_layout = layout(p.type, p.a_is_transposed ? p.k : p.m, p.a_is_transposed ? p.m : p.k);
    b_layout = layout(p.type, p.b_is_transposed ? p.n : p.k, p.b_is_transposed ? p.k : p.n);
    c_layout = layout(p.out_type, p.m, p.n);
    d_layout = layout(p.out_type, p.m, p.n);
    a = fill(in, p.m * p.k * p.num_batches, 1);
    b = fill(in, p.k * p.n * p.num_batches, 1000);
    c = fill(out, p.m * p.n * p.num_batches, 2000);
    bias = fill(out, p.m, 3000);
    d = fill(out, p.m * p.n * p.num_batches, 0);
    EXPECT_EQUAL(0, cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    if (p.workspace_bytes) EXPECT_EQUAL(0, cudaMalloc(&workspace, p.workspace_bytes));
    EXPECT_EQUAL(0, cublasLtMatmulPreferenceCreate(&preference));
    set_preference(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(p.workspace_bytes));
    set_preference(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, p.reduction_mask);
  }
  ~Run() {
    cublasLtMatmulPreferenceDestroy(preference);
    for (void *l : {a_layout, b_layout, c_layout, d_layout}) cublasLtMatrixLayoutDestroy(l);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(handle);
  }

  int heuristic(cublasLtMatmulHeuristicResult_t *results, int requested, int *returned) {
    return cublasLtMatmulAlgoGetHeuristic(handle, desc, a_layout, b_layout, c_layout, d_layout, preference, requested,
                                          results, returned);
  }
  int multiply(const cublasLtMatmulAlgo_t *algorithm, void *stream) {
    return cublasLtMatmul(handle, desc, &p.alpha, a, a_layout, b, b_layout, &p.beta, c, c_layout, d, d_layout,
                          algorithm, workspace, p.workspace_bytes, stream);
  }
  // The first algorithm of the heuristic, and its result.
  void compute() {
    cublasLtMatmulHeuristicResult_t result;
    int returned = 0;
    EXPECT_EQUAL(0, heuristic(&result, 1, &returned));
    EXPECT_EQUAL(1, returned);
    void *stream = new_stream();
    EXPECT_EQUAL(0, multiply(&result.algo, stream));
    EXPECT(std::isnan(get(d, out, 0)));  // products run late too
    EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  }
  void expect_right() {
    compute();
    double worst = 0;
    for (int batch = 0; batch < p.num_batches; ++batch)
      for (int i = 0; i < p.m; ++i)
        for (int j = 0; j < p.n; ++j) worst = std::fmax(worst, error(batch, i, j));
    EXPECT(worst <= 1);
  }
  float result(int i, int j) const { return get(d, out, place(i, j, p.m, p.n)); }

  Problem p;
  Type in, out;
  void *handle = nullptr, *desc = nullptr, *preference = nullptr, *workspace = nullptr;
  void *a_layout, *b_layout, *c_layout, *d_layout, *a, *b, *c, *d, *bias;

  void set_desc(int attribute, int v) {
    EXPECT_EQUAL(0, cublasLtMatmulDescSetAttribute(desc, attribute, &v, sizeof v));
  }

 private:
  template <class T>
  void set_preference(int attribute, T v) {
    EXPECT_EQUAL(0, cublasLtMatmulPreferenceSetAttribute(preference, attribute, &v, sizeof v));
  }
  void *layout(int type, int rows, int columns) {
    void *l = nullptr;
    EXPECT_EQUAL(0, cublasLtMatrixLayoutCreate(&l, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
                                               p.rows_are_adjacent ? rows : columns));
    const int32_t order = p.rows_are_adjacent ? 0 : 1, batches = p.num_batches;
    const int64_t stride = int64_t{rows} * columns;
    EXPECT_EQUAL(0, cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, sizeof order));
    EXPECT_EQUAL(0, cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches, sizeof batches));
    EXPECT_EQUAL(
        0, cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
    return l;
  }
  static void *fill(Type type, int count, int seed) {
    void *data = nullptr;
    EXPECT_EQUAL(0, cudaMalloc(&data, static_cast<size_t>(count * bytes_of(type))));
    for (int i = 0; seed && i < count; ++i)
      store(type, static_cast<char *>(data) + i * bytes_of(type), value(seed + i));
    return data;
  }
  static float get(const void *data, Type type, int64_t i) {
    return load(type, static_cast<const char *>(data) + i * bytes_of(type));
  }
  int64_t place(int row, int column, int rows, int columns) const {
    return p.rows_are_adjacent ? row + int64_t{column} * rows : int64_t{row} * columns + column;
  }
  // In units of what is allowed.
  double error(int batch, int i, int j) const {
    double sum = 0, size = 0;
    for (int x = 0; x < p.k; ++x) {
      const int64_t ai = p.a_is_transposed ? place(x, i, p.k, p.m) : place(i, x, p.m, p.k);
      const int64_t bi = p.b_is_transposed ? place(j, x, p.n, p.k) : place(x, j, p.k, p.n);
      double av = get(a, in, int64_t{batch} * p.m * p.k + ai), bv = get(b, in, int64_t{batch} * p.k * p.n + bi);
      if (p.compute == CUBLAS_COMPUTE_32F_FAST_TF32)
        av = softgpu::to_tf32(static_cast<float>(av)), bv = softgpu::to_tf32(static_cast<float>(bv));
      sum += av * bv;
      size += std::fabs(av * bv);
    }
    const int64_t di = int64_t{batch} * p.m * p.n + place(i, j, p.m, p.n);
    double expected = p.alpha * sum + (p.beta != 0 ? p.beta * get(c, out, di) : 0);
    if (p.epilogue & CUBLASLT_EPILOGUE_BIAS) expected += get(bias, out, i);
    if (p.epilogue & CUBLASLT_EPILOGUE_GELU)
      expected *= 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (expected + 0.044715 * expected * expected * expected)));
    const double unit = out == Type::F32 ? 0 : out == Type::BF16 ? 1.0 / 256 : 1.0 / 2048;
    return std::fabs(get(d, out, di) - expected) / (1e-6 * (size + 1) + unit * std::fabs(expected) + 1e-7);
  }
};

}  // namespace

TEST(products_types_transposes_orders_and_batches) {
  for (const int type : {CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F})
    for (const int out_type : {type, static_cast<int>(CUDA_R_32F)})
      for (int bits = 0; bits < 16; ++bits) {
        softgpu_reset();
        Problem p;
        p.type = type;
        p.out_type = out_type;
        p.a_is_transposed = bits & 1;
        p.b_is_transposed = bits & 2;
        p.rows_are_adjacent = bits & 4;
        p.num_batches = bits & 8 ? 3 : 1;
        Run(p).expect_right();
      }
}

TEST(products_epilogues_and_scales) {
  for (const int out_type : {CUDA_R_32F, CUDA_R_16BF})
    for (const uint32_t epilogue : {0u | CUBLASLT_EPILOGUE_DEFAULT, 0u | CUBLASLT_EPILOGUE_BIAS,
                                    0u | CUBLASLT_EPILOGUE_GELU, 0u | CUBLASLT_EPILOGUE_BIAS | CUBLASLT_EPILOGUE_GELU})
      for (const float beta : {0.0f, -0.5f}) {
        softgpu_reset();
        Problem p;
        p.m = 70;
        p.n = 9;
        p.type = CUDA_R_16BF;
        p.out_type = out_type;
        p.epilogue = epilogue;
        p.alpha = 0.25f;
        p.beta = beta;
        Run(p).expect_right();
      }
}

TEST(products_tf32_rounds_its_operands) {
  Problem p;
  p.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
  Run rounded(p);
  rounded.expect_right();
  p.compute = CUBLAS_COMPUTE_32F;
  Run exact(p);
  exact.expect_right();
  EXPECT(rounded.result(0, 0) != exact.result(0, 0));
}

TEST(products_columns_have_the_same_bits_in_any_number) {
  for (const int type : {CUDA_R_32F, CUDA_R_16BF}) {
    Problem p;
    p.m = 50;
    p.k = 700;
    p.type = p.out_type = type;
    p.n = 131;
    Run many(p);
    many.compute();
    for (const int n : {1, 2, 3, 4, 5, 64}) {
      p.n = n;
      Run few(p);
      few.compute();
      int same = 0;
      for (int i = 0; i < p.m; ++i)
        for (int j = 0; j < n; ++j) same += few.result(i, j) == many.result(i, j);
      EXPECT_EQUAL(p.m * n, same);
    }
  }
}

TEST(products_split_sums_differ_unless_the_reduction_scheme_is_none) {
  Problem p;
  p.n = 4;
  p.k = 700;
  Run whole(p);
  whole.compute();
  p.reduction_mask = 7;
  Run split(p);
  cublasLtMatmulHeuristicResult_t results[4], checked;
  int returned = 0, parts = 0;
  size_t written = 0;
  EXPECT_EQUAL(0, split.heuristic(results, 4, &returned));
  EXPECT_EQUAL(3, returned);
  EXPECT_EQUAL(0, cublasLtMatmulAlgoConfigGetAttribute(&results[0].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                                       sizeof parts, &written));
  EXPECT_EQUAL(4, parts);
  EXPECT_EQUAL(0, cublasLtMatmulAlgoConfigGetAttribute(&results[1].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                                       sizeof parts, nullptr));
  EXPECT_EQUAL(1, parts);
  split.compute();
  int differ = 0;
  for (int i = 0; i < p.m; ++i)
    for (int j = 0; j < p.n; ++j) differ += split.result(i, j) != whole.result(i, j);
  EXPECT(differ > 0);
  EXPECT_EQUAL(0, cublasLtMatmulAlgoCheck(split.handle, split.desc, split.a_layout, split.b_layout, split.d_layout,
                                          split.d_layout, &results[1].algo, &checked));
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, cublasLtMatmulAlgoConfigGetAttribute(
                                                &results[0].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, 2, nullptr));
}

TEST(products_workspace_and_alignment_are_demanded) {
  Problem p;
  p.m = p.k = 16;
  p.workspace_bytes = 1 << 20;
  Run run(p);
  cublasLtMatmulHeuristicResult_t result;
  int returned = 0;
  EXPECT_EQUAL(0, run.heuristic(&result, 1, &returned));
  EXPECT_EQUAL(1 << 20, result.workspaceSize);
  void *stream = new_stream();
  run.p.workspace_bytes = 1024;
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, run.multiply(&result.algo, stream));
  EXPECT_FAULT("workspace");
  run.p.workspace_bytes = 1 << 20;
  run.b = static_cast<float *>(run.b) + 1;
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, run.multiply(&result.algo, stream));
  EXPECT_FAULT("not aligned");
  run.b = static_cast<float *>(run.b) - 1;
  memset(run.workspace, 0, 1 << 20);
  EXPECT_EQUAL(0, run.multiply(&result.algo, stream));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(std::isnan(*static_cast<float *>(run.workspace)));
}

TEST(products_bias_is_aligned_as_when_the_algorithm_was_asked_for) {
  Problem p;
  p.m = p.k = 16;
  p.epilogue = CUBLASLT_EPILOGUE_BIAS;
  Run run(p);
  cublasLtMatmulHeuristicResult_t result;
  int returned = 0;
  void *stream = new_stream();
  char *memory = nullptr;
  EXPECT_EQUAL(0, cudaMalloc(reinterpret_cast<void **>(&memory), (p.m + 1) * sizeof(float)));
  memset(memory, 0, (p.m + 1) * sizeof(float));
  const auto set_bias = [&](const void *bias) {
    EXPECT_EQUAL(0, cublasLtMatmulDescSetAttribute(run.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
  };
  for (const void *asked_with : {static_cast<const void *>(nullptr), static_cast<const void *>(memory)}) {
    set_bias(asked_with);
    EXPECT_EQUAL(0, run.heuristic(&result, 1, &returned));
    set_bias(memory + sizeof(float));
    EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, run.multiply(&result.algo, stream));
    EXPECT_FAULT("the bias is not aligned");
  }
  EXPECT_EQUAL(0, run.heuristic(&result, 1, &returned));
  EXPECT_EQUAL(0, run.multiply(&result.algo, stream));
  set_bias(memory);
  EXPECT_EQUAL(0, run.multiply(&result.algo, stream));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
}

TEST(products_operands_are_looked_at_when_they_run) {
  Problem p;
  for (const bool is_freed : {false, true}) {
    softgpu_reset();
    Run run(p);
    float pageable[400] = {};
    void *stream = new_stream();
    if (is_freed)
      EXPECT_EQUAL(0, cudaFree(run.a));
    else
      run.a = pageable;
    EXPECT_EQUAL(0, run.multiply(nullptr, stream));
    EXPECT_EQUAL(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
    EXPECT_FAULT("cublasLtMatmul: A: 924 bytes needed");
    EXPECT_FAULT(is_freed ? "is freed" : "neither device nor pinned memory");
    EXPECT_EQUAL(CUBLAS_STATUS_EXECUTION_FAILED, run.multiply(nullptr, stream));
  }
}

TEST(products_in_graphs) {
  Problem p;
  Run run(p);
  void *stream = new_stream(), *graph = nullptr, *exec = nullptr;
  EXPECT_EQUAL(0, cudaStreamBeginCapture(stream, 1));
  EXPECT_EQUAL(0, run.multiply(nullptr, stream));
  EXPECT_EQUAL(0, cudaStreamEndCapture(stream, &graph));
  EXPECT_EQUAL(0, cudaGraphInstantiate(&exec, graph, 0));
  EXPECT_EQUAL(0, cudaGraphLaunch(exec, stream));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  const float first = run.result(0, 0);
  static_cast<float *>(run.a)[0] += 1;
  EXPECT_EQUAL(0, cudaGraphLaunch(exec, stream));
  EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
  EXPECT(run.result(0, 0) != first);
}

TEST(products_that_do_not_fit_are_refused) {
  const auto status_of = [](const Problem &p, void (*change)(Run &)) {
    Run run(p);
    if (change) change(run);
    cublasLtMatmulHeuristicResult_t result;
    int returned = 1;
    const int status = run.heuristic(&result, 1, &returned);
    EXPECT_EQUAL(0, status == 0 ? 0 : returned);
    EXPECT_EQUAL(status, run.multiply(nullptr, new_stream()));
    return status;
  };
  Problem p;
  EXPECT_EQUAL(0, status_of(p, nullptr));
  p.compute = CUBLAS_COMPUTE_16F;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p, nullptr));
  p.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
  p.type = CUDA_R_16BF;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p, nullptr));
  p = {};
  p.type = CUDA_R_16BF;
  p.out_type = CUDA_R_16F;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p, nullptr));
  p = {};
  p.rows_are_adjacent = false;
  p.epilogue = CUBLASLT_EPILOGUE_BIAS;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p, nullptr));
  p = {};
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p, [](Run &run) {
                 const int32_t by_rows = 1;
                 cublasLtMatrixLayoutSetAttribute(run.c_layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &by_rows, 4);
               }));
  p.epilogue = 2;  // RELU
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p, nullptr));
  p = {};
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE,
               status_of(p, [](Run &run) { run.set_desc(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T); }));
  p.epilogue = CUBLASLT_EPILOGUE_BIAS;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED,
               status_of(p, [](Run &run) { run.set_desc(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF); }));
  Run run(p);
  const int64_t too_wide = 0;
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE,
               cublasLtMatmulDescSetAttribute(run.desc, CUBLASLT_MATMUL_DESC_TRANSA, &too_wide, 8));
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, cublasLtMatmulDescSetAttribute(run.desc, 999, &too_wide, 8));
  EXPECT(!strcmp("CUBLAS_STATUS_NOT_SUPPORTED", cublasLtGetStatusName(CUBLAS_STATUS_NOT_SUPPORTED)));
}

TEST(products_descriptors_are_counted) {
  {
    Run run(Problem{});
    EXPECT_EQUAL(6, counter(SOFTGPU_LIVE_DESCRIPTORS));
    EXPECT_EQUAL(1, counter(SOFTGPU_LIVE_HANDLES));
  }
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_DESCRIPTORS));
  EXPECT_EQUAL(0, counter(SOFTGPU_LIVE_HANDLES));
}
