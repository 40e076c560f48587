// Does the stand-in for cublasLt multiply e4m3 operands with their scales, and refuse what the real library refuses?
#include <cmath>
#include <cstring>

#include "harness.h"
#include "softgpu/number.h"

using namespace harness;
using softgpu::Type;

namespace {

// D[m,n] = scale_a[m] scale_b[n] sum_k A[k,m] B[k,n] + bias[m]; scale vectors are one element each in mode SCALAR_32F.
struct Problem {
  int m = 32, n = 5, k = 48;
  int type = CUDA_R_8F_E4M3, out_type = CUDA_R_16BF, bias_type = CUDA_R_16BF;
  int scale_mode_a = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
  int scale_mode_b = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
  int compute = CUBLAS_COMPUTE_32F, op_a = CUBLAS_OP_T, op_b = CUBLAS_OP_N;
  bool has_bias = false, has_scales = true;
  int lda_more = 0, num_batches = 1;
};

Type type_of(int cuda_type) {
  return cuda_type == CUDA_R_32F ? Type::F32 : cuda_type == CUDA_R_16F ? Type::F16 : Type::BF16;
}

// The number that an e4m3 code stands for, by its definition.
double value_of(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const double magnitude = exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
  return code & 128 ? -magnitude : magnitude;
}

int code(int i) {  // never a NaN, of both signs, subnormals too
  const unsigned mixed = static_cast<unsigned>(i) * 2654435761u >> 24;
  return (mixed & 127) == 127 ? 0 : static_cast<int>(mixed & 0xbf);
}

template <class T>
T *device(size_t count) {
  void *data = nullptr;
  EXPECT_EQUAL(0, cudaMalloc(&data, count * sizeof(T)));
  return static_cast<T *>(data);
}

class Run {
 public:
  explicit Run(const Problem &problem) : p(problem) {
    EXPECT_EQUAL(0, cublasLtCreate(&handle));
    EXPECT_EQUAL(0, cublasLtMatmulDescCreate(&desc, p.compute, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.op_a);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.op_b);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, p.scale_mode_a);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, p.scale_mode_b);
    a = device<uint8_t>(static_cast<size_t>((p.k + p.lda_more) * p.m * 4));
    b = device<uint8_t>(static_cast<size_t>(p.k * p.n * 4));
    d = device<char>(static_cast<size_t>(p.m * p.n * 4));
    bias = device<char>(static_cast<size_t>(p.m * 4));
    scale_a = device_floats(p.m);
    scale_b = device_floats(p.n);
    for (int i = 0; i < (p.k + p.lda_more) * p.m; ++i) a[i] = static_cast<uint8_t>(code(i + 1));
    for (int i = 0; i < p.k * p.n; ++i) b[i] = static_cast<uint8_t>(code(i + 5000));
    for (int i = 0; i < p.m; ++i) {
      scale_a[i] = 0.01f * static_cast<float>(i + 1);
      store(type_of(p.bias_type), bias + i * bytes_of(type_of(p.bias_type)), static_cast<float>(i) - 3.5f);
    }
    for (int j = 0; j < p.n; ++j) scale_b[j] = 0.3f / static_cast<float>(j + 1);
    if (p.has_scales) {
      set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, scale_a);
      set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, scale_b);
    }
    if (p.has_bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, int{CUBLASLT_EPILOGUE_BIAS});
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, p.bias_type);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void *>(bias));
    }
    a_layout = layout(p.type, p.op_a ? p.k : p.m, p.op_a ? p.m : p.k, (p.op_a ? p.k : p.m) + p.lda_more);
    b_layout = layout(p.type, p.op_b ? p.n : p.k, p.op_b ? p.k : p.n, p.op_b ? p.n : p.k);
    d_layout = layout(p.out_type, p.m, p.n, p.m);
    EXPECT_EQUAL(0, cublasLtMatmulPreferenceCreate(&preference));
  }
  ~Run() {
    cublasLtMatmulPreferenceDestroy(preference);
    for (void *l : {a_layout, b_layout, d_layout}) cublasLtMatrixLayoutDestroy(l);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(handle);
  }

  int heuristic(cublasLtMatmulHeuristicResult_t *result) {
    int returned = 0;
    const int status = cublasLtMatmulAlgoGetHeuristic(handle, desc, a_layout, b_layout, d_layout, d_layout, preference,
                                                      1, result, &returned);
    EXPECT_EQUAL(status == 0, returned);
    return status;
  }
  int multiply(const cublasLtMatmulAlgo_t *algorithm, void *stream) {
    const float alpha = 1, beta = 0;
    return cublasLtMatmul(handle, desc, &alpha, a, a_layout, b, b_layout, &beta, d, d_layout, d, d_layout, algorithm,
                          nullptr, 0, stream);
  }
  // What both the heuristic and the product say.
  int status() {
    cublasLtMatmulHeuristicResult_t result;
    const int first = heuristic(&result);
    EXPECT_EQUAL(first, multiply(nullptr, new_stream()));
    return first;
  }
  void expect_right() {
    cublasLtMatmulHeuristicResult_t result;
    EXPECT_EQUAL(0, heuristic(&result));
    void *stream = new_stream();
    EXPECT_EQUAL(0, multiply(&result.algo, stream));
    EXPECT_EQUAL(0, cudaStreamSynchronize(stream));
    const bool vectors = p.scale_mode_a == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    const Type out = type_of(p.out_type), of_bias = type_of(p.bias_type);
    double worst = 0;
    for (int i = 0; i < p.m; ++i)
      for (int j = 0; j < p.n; ++j) {
        double sum = 0, size = 0;
        for (int x = 0; x < p.k; ++x) {
          const double term = value_of(a[i * (p.k + p.lda_more) + x]) * value_of(b[j * p.k + x]);
          sum += term;
          size += std::fabs(term);
        }
        const double scale = double{scale_a[vectors ? i : 0]} * double{scale_b[vectors ? j : 0]};
        const double added = p.has_bias ? load(of_bias, bias + i * bytes_of(of_bias)) : 0;
        const double expected = scale * sum + added;
        const double unit = out == Type::F32 ? 0 : out == Type::BF16 ? 1.0 / 256 : 1.0 / 2048;
        const double actual = load(out, d + (i + j * p.m) * bytes_of(out));
        worst = std::fmax(worst, std::fabs(actual - expected) /
                                     (1e-6 * (scale * size + 1) + unit * std::fabs(expected)));
      }
    EXPECT(worst <= 1);
  }

  Problem p;
  void *handle = nullptr, *desc = nullptr, *preference = nullptr, *a_layout, *b_layout, *d_layout;
  uint8_t *a, *b;
  char *d, *bias;
  float *scale_a, *scale_b;

 private:
  template <class T>
  void set(int attribute, T value) {
    EXPECT_EQUAL(0, cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value));
  }
  void *layout(int type, int rows, int columns, int ld) const {
    void *l = nullptr;
    EXPECT_EQUAL(0, cublasLtMatrixLayoutCreate(&l, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
                                               ld));
    const int32_t batches = p.num_batches;
    EXPECT_EQUAL(0, cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches, 4));
    return l;
  }
};

int status_of(const Problem &p) {
  softgpu_reset();
  return Run(p).status();
}

}  // namespace

TEST(products_fp8_codes) {
  int wrong = 0;
  for (int i = 0; i < 256; ++i) {
    const auto byte = static_cast<uint8_t>(i);
    const double expected = value_of(i), actual = load(Type::F8_E4M3, &byte);
    wrong += std::isnan(expected) ? !std::isnan(actual) : actual != expected || std::signbit(actual) != (i > 127);
  }
  EXPECT_EQUAL(0, wrong);
}

TEST(products_fp8_scales_bias_and_types) {
  for (const int out_type : {CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F})
    for (const bool has_bias : {false, true})
      for (const int mode : {CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F})
        for (const int n : {1, 16, 70}) {
          softgpu_reset();
          Problem p;
          p.n = n;
          p.lda_more = 16;
          p.out_type = out_type;
          p.bias_type = out_type == CUDA_R_32F ? CUDA_R_16BF : out_type;
          p.has_bias = has_bias;
          p.scale_mode_a = p.scale_mode_b = mode;
          Run(p).expect_right();
        }
}

TEST(products_fp8_that_do_not_fit_are_refused) {
  Problem p;
  EXPECT_EQUAL(0, status_of(p));
  p.m = 8;  // 16 bytes of bf16
  EXPECT_EQUAL(0, status_of(p));
  p.out_type = CUDA_R_16F, p.m = 20;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.k = 40;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.lda_more = 8;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.op_a = CUBLAS_OP_N;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.n = 16, p.op_b = CUBLAS_OP_T;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.compute = CUBLAS_COMPUTE_32F_PEDANTIC;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.num_batches = 2;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.scale_mode_a = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.scale_mode_a = p.scale_mode_b = 1;  // VEC16_UE4M3
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.out_type = CUDA_R_8F_E4M3;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.out_type = p.bias_type = CUDA_R_32F, p.has_bias = true;
  EXPECT_EQUAL(CUBLAS_STATUS_NOT_SUPPORTED, status_of(p));
  p = {}, p.has_scales = false;
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, status_of(p));
  EXPECT_FAULT("requires scale pointers");
  p = {}, p.type = CUDA_R_16BF;
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, status_of(p));
  EXPECT_FAULT("not fp8");
}

TEST(products_fp8_by_compute_capability) {
  for (const int capability : {80, 89, 90, 100, 120})
    for (const int mode : {CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F}) {
      softgpu_reset();
      softgpu_set_compute_capability(capability / 10, capability % 10);
      Problem p;
      p.scale_mode_a = p.scale_mode_b = mode;
      const bool is_there = mode == CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F ? capability >= 89 : capability == 90;
      EXPECT_EQUAL(is_there ? 0 : CUBLAS_STATUS_NOT_SUPPORTED, Run(p).status());
    }
}

TEST(products_fp8_alignment_and_scale_mode_are_those_of_the_algorithm) {
  Run run{Problem{}};
  cublasLtMatmulHeuristicResult_t result;
  EXPECT_EQUAL(0, run.heuristic(&result));
  void *stream = new_stream();
  run.a += 8;
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, run.multiply(&result.algo, stream));
  EXPECT_FAULT("not aligned");
  run.a -= 8;
  const float *odd = run.scale_a + 1;
  EXPECT_EQUAL(0, cublasLtMatmulDescSetAttribute(run.desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &odd, sizeof odd));
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, run.multiply(&result.algo, stream));
  EXPECT_FAULT("scale vector");
  Problem p;
  p.scale_mode_a = p.scale_mode_b = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  Run scalar(p);
  EXPECT_EQUAL(CUBLAS_STATUS_INVALID_VALUE, scalar.multiply(&result.algo, stream));
  EXPECT_FAULT("other types");
}

TEST(products_fp8_scales_are_looked_at_when_they_run) {
  for (const bool is_a : {true, false}) {
    softgpu_reset();
    Run run{Problem{}};
    void *stream = new_stream();
    EXPECT_EQUAL(0, cudaFree(is_a ? run.scale_a : run.scale_b));
    EXPECT_EQUAL(0, run.multiply(nullptr, stream));
    EXPECT_EQUAL(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
    EXPECT_FAULT(is_a ? "A's scale: 128 bytes needed" : "B's scale: 20 bytes needed");
  }
}
