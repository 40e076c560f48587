// What do cublasLt's descriptors hold, and which problems and algorithms follow from them?
//
// The stand-in refuses what the real library refuses as far as its manual says (types, shapes, layouts), and some more
// where the manual is silent. Like the real one it prefers, where the reduction scheme may be chosen, to split long
// sums when there are few columns: who wants the same bits for any number of columns has to keep one algorithm.
#pragma once

#include <string>
#include <vector>

#include "product.h"

namespace softgpu::lt {

enum Status : int {  // cublasStatus_t
  SUCCESS = 0,
  NOT_INITIALIZED = 1,
  INVALID = 7,
  EXECUTION_FAILED = 13,
  NOT_SUPPORTED = 15,
};

enum { R_32F = 0, R_16F = 2, R_16BF = 14, R_8F_E4M3 = 28 };                        // cudaDataType
enum { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_TF32 = 77 };  // cublasComputeType_t
enum { OP_N = 0, OP_T = 1, OP_C = 2 };
enum { ORDER_COL = 0, ORDER_ROW = 1 };
enum { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4, EPILOGUE_GELU = 32 };
enum { REDUCTION_NONE = 0, REDUCTION_COMPUTE_TYPE = 2 };
enum { SCALE_SCALAR_32F = 0, SCALE_OUTER_VEC_32F = 3 };  // cublasLtMatmulMatrixScale_t

struct MatmulDesc {
  int compute_type, scale_type, pointer_mode = 0, op_a = OP_N, op_b = OP_N, op_c = OP_N;
  uint32_t epilogue = EPILOGUE_DEFAULT;
  const void *bias = nullptr;
  int64_t bias_batch_stride = 0;
  int bias_type = -1;  // -1: D's; bf16 where A and B are fp8 and D is f32
  const float *scale_a = nullptr, *scale_b = nullptr;
  int scale_mode_a = SCALE_SCALAR_32F, scale_mode_b = SCALE_SCALAR_32F;
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
  int32_t types[4];       // A and B, D, compute, scale mode
  uint16_t alignment[4];  // bytes that A, B, C and D must have
  uint16_t bias_alignment;
  uint64_t workspace_bytes;
  uint64_t unused;
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

// Notes why; returns the status.
int refuse(int status, const std::string &why);

// The problem that descriptors describe, without addresses, or a status.
int read_problem(const MatmulDesc *desc, const Layout *a, const Layout *b, const Layout *c, const Layout *d,
                 Product &p);

// Best first.
std::vector<Algorithm> heuristic(const MatmulDesc &desc, const Layout *const layouts[4], const Preference &preference,
                                 const Product &p);

bool fits(const Algorithm &algorithm, const MatmulDesc &desc, const Layout *const layouts[4]);

// Bytes of alignment up to 16 that the bias of a descriptor has: a bias that is NULL promises all of them.
uint16_t bias_alignment(const MatmulDesc &desc);

// Bytes of alignment up to 16 that a vectorised kernel may rely on, given the base's and the leading dimension's.
uint16_t usable_alignment(uint32_t promised, const Layout &layout);

}  // namespace softgpu::lt
