// Do mma.sync and ldmatrix place every element where lib/mma.h says?
//
// Operands are small integers, so that products and sums are exact in any order. The fragments are filled and read by
// the formulas of PTX ISA, element by element.
#include "lib/mma.h"
#include "lib/vec.h"
#include "memory.h"

namespace {

constexpr int M = 16, N = 8, K = 16;

template <class T> __device__ uint32_t bits(T x) {
  uint16_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

// d = a b + c, row after row each.
template <class T> __global__ void multiply(const T *a, const T *b, const float *c, float *d) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4 * 2;
  uint32_t a_part[4], b_part[2];
  float part[4];
  for (int i = 0; i < 4; ++i) {
    const T *const left = a + (g + i % 2 * 8) * K + t + i / 2 * 8;
    a_part[i] = bits(left[0]) | bits(left[1]) << 16;
    part[i] = c[(g + i / 2 * 8) * N + t + i % 2];
  }
  for (int i = 0; i < 2; ++i) b_part[i] = bits(b[(t + i * 8) * N + g]) | bits(b[(t + i * 8 + 1) * N + g]) << 16;
  gt::mma_m16n8k16<T>(part, a_part, b_part[0], b_part[1]);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * N + t + i % 2] = part[i];
}

// An integer from -9 to 9.
float small(unsigned i) {
  return static_cast<float>(i * 2654435761u >> 16) - static_cast<float>((i * 2654435761u >> 16) / 19 * 19) - 9;
}

template <class T> void check_multiply(const char *name) {
  const ptx::Shared<T> a(M * K), b(K * N);
  const ptx::Shared<float> c(M * N), d(M * N);
  for (unsigned i = 0; i < a.size(); ++i) a[i] = gt::from_float<T>(small(i));
  for (unsigned i = 0; i < b.size(); ++i) b[i] = gt::from_float<T>(small(1000 + i));
  for (unsigned i = 0; i < c.size(); ++i) c[i] = small(2000 + i);
  if (!ptx::run(name, multiply<T>, 32, 0, a.data(), b.data(), c.data(), d.data())) return;
  for (unsigned m = 0; m < M; ++m)
    for (unsigned n = 0; n < N; ++n) {
      float expected = c[m * N + n];
      for (unsigned k = 0; k < K; ++k) expected += small(m * K + k) * small(1000 + k * N + n);
      ptx::expect(d[m * N + n] == expected, "%s: d[%u, %u] is %g, expected %g", name, m, n, d[m * N + n], expected);
    }
}

// Infinities and the smallest denormal of T survive: their row and column, and nothing else.
template <class T> void check_extremes(const char *name, uint16_t infinity, float smallest) {
  const ptx::Shared<T> a(M * K), b(K * N);
  const ptx::Shared<float> c(M * N), d(M * N);
  for (size_t i = 0; i < a.size(); ++i) a[i] = gt::from_float<T>(1);
  for (size_t i = 0; i < b.size(); ++i) b[i] = gt::from_float<T>(0);
  for (size_t i = 0; i < c.size(); ++i) c[i] = 0;
  memcpy(static_cast<void *>(&a[3 * K + 5]), &infinity, sizeof infinity);
  const uint16_t one_bit = 1;
  memcpy(static_cast<void *>(&b[7 * N + 2]), &one_bit, sizeof one_bit);
  if (!ptx::run(name, multiply<T>, 32, 0, a.data(), b.data(), c.data(), d.data())) return;
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      const float x = d[m * N + n];
      if (m == 3) ptx::expect(x != x, "%s: infinity times 0: d[3, %d] is %g, expected NaN", name, n, x);
      else
        ptx::expect(x == (n == 2 ? smallest : 0), "%s: d[%d, %d] is %g, expected %g", name, m, n, x,
                    n == 2 ? smallest : 0);
    }
}

// Four matrices, rows 32 bytes apart so that a row is not where the one before ends.
template <bool TRANSPOSED> __global__ void load(uint32_t *out) {
  __shared__ __align__(16) uint16_t rows[32][16];
  const int lane = threadIdx.x;
  for (int i = 0; i < 16; ++i) rows[lane][i] = static_cast<uint16_t>(lane * 256 + i);
  __syncwarp();
  uint32_t r[4];
  if (TRANSPOSED) gt::ldmatrix_x4_transposed(r, rows[lane]);
  else gt::ldmatrix_x4(r, rows[lane]);
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = r[i];
}

template <bool TRANSPOSED> void check_load(const char *name) {
  const ptx::Shared<uint32_t> out(32 * 4);
  if (!ptx::run(name, load<TRANSPOSED>, 32, 0, out.data())) return;
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int g = lane / 4, t = lane % 4 * 2;
      const auto element = [=](int row, int column) { return static_cast<uint32_t>((i * 8 + row) * 256 + column); };
      const uint32_t low = TRANSPOSED ? element(t, g) : element(g, t),
                     high = TRANSPOSED ? element(t + 1, g) : element(g, t + 1);
      ptx::expect(out[lane * 4 + i] == (low | high << 16), "%s: lane %d register %d is %08x, expected %08x", name, lane,
                  i, out[lane * 4 + i], low | high << 16);
    }
}

// a b by way of shared memory, as kernels do it: a as it lies, b transposed on the way.
template <class T> __global__ void multiply_from_shared(const T *a, const T *b, float *d) {
  __shared__ __align__(16) T a_rows[M][K], b_rows[K][N];
  const int lane = threadIdx.x;
  for (int i = lane; i < M * K; i += 32) a_rows[i / K][i % K] = a[i];
  for (int i = lane; i < K * N; i += 32) b_rows[i / N][i % N] = b[i];
  __syncwarp();
  uint32_t a_part[4], b_part[4];
  float part[4] = {};
  gt::ldmatrix_x4(a_part, &a_rows[lane % 16][lane / 16 * 8]);
  gt::ldmatrix_x4_transposed(b_part, b_rows[lane % 16]);  // two matrices, twice
  gt::mma_m16n8k16<T>(part, a_part, b_part[0], b_part[1]);
  for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * N + lane % 4 * 2 + i % 2] = part[i];
}

template <class T> void check_multiply_from_shared(const char *name) {
  const ptx::Shared<T> a(M * K), b(K * N);
  const ptx::Shared<float> d(M * N);
  for (unsigned i = 0; i < a.size(); ++i) a[i] = gt::from_float<T>(small(i));
  for (unsigned i = 0; i < b.size(); ++i) b[i] = gt::from_float<T>(small(1000 + i));
  if (!ptx::run(name, multiply_from_shared<T>, 32, 0, a.data(), b.data(), d.data())) return;
  for (unsigned m = 0; m < M; ++m)
    for (unsigned n = 0; n < N; ++n) {
      float expected = 0;
      for (unsigned k = 0; k < K; ++k) expected += small(m * K + k) * small(1000 + k * N + n);
      ptx::expect(d[m * N + n] == expected, "%s: d[%u, %u] is %g, expected %g", name, m, n, d[m * N + n], expected);
    }
}

#if defined(GT_SIMT)
// What the emulator must report.
__global__ void short_warp(float *out) {
  float d[4] = {};
  const uint32_t a[4] = {};
  gt::mma_m16n8k16<gt::bf16>(d, a, 0, 0);
  out[threadIdx.x] = d[0];
}
__global__ void unaligned_row(uint32_t *out) {
  __shared__ __align__(16) uint16_t rows[32][9];
  rows[threadIdx.x][0] = 0;
  uint32_t r[4];
  gt::ldmatrix_x4(r, rows[threadIdx.x]);
  out[threadIdx.x] = r[0];
}
__global__ void row_in_global_memory(uint32_t *out) {
  uint32_t r[4];
  gt::ldmatrix_x4(r, out);
  out[threadIdx.x] = r[0];
}
template <class Kernel, class T> void check_reported(Kernel kernel, int threads, T *out, const char *text) {
  const int status = gt::launch(kernel, 1, threads, 0, nullptr, out);
  ptx::expect(status && strstr(gt::launch_error(status), text), "'%s' was not reported", text);
}
void check_reports() {
  const ptx::Shared<float> out(32);
  const ptx::Shared<uint32_t> words(32);
  check_reported(short_warp, 16, out.data(), "mma.sync takes 32 lanes");
  check_reported(unaligned_row, 32, words.data(), "a row of ldmatrix must be 16 aligned bytes");
  check_reported(row_in_global_memory, 32, words.data(), "a row of ldmatrix must be 16 aligned bytes");
}
#else
void check_reports() {}
#endif

}  // namespace

int main() {
  check_multiply<gt::bf16>("bf16");
  check_multiply<gt::f16>("f16");
  check_extremes<gt::bf16>("bf16", 0x7f80, 0x1p-133f);
  check_extremes<gt::f16>("f16", 0x7c00, 0x1p-24f);
  check_load<false>("ldmatrix");
  check_load<true>("ldmatrix, transposed");
  check_multiply_from_shared<gt::bf16>("bf16 from shared memory");
  check_multiply_from_shared<gt::f16>("f16 from shared memory");
  check_reports();
  return ptx::summary();
}
