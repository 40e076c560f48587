// How is a matrix product computed fast enough for the models of the tests?
//
// A is packed into panels of 32 rows as f32, k after k; 32 x 4 sums stay in registers. Every sum is one chain of
// multiply-adds in ascending k (per part, if the sum is split). One thread: the caller is whoever waits for the stream.
#include "product.h"

#include <algorithm>
#include <cmath>
#include <vector>

// The function that picks a clone runs before a sanitizer's runtime is up.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define PER_CPU __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define PER_CPU
#endif

namespace softgpu {

constexpr int64_t PANEL = 32, COLUMNS = 4;
constexpr int64_t STRETCH = 128;  // of k while a panel is turned round: 16 KiB of it, in the L1 cache

typedef float Sums __attribute__((vector_size(PANEL * sizeof(float))));

// sums[j] += panel x columns[j], for num_columns of 1 or COLUMNS
PER_CPU void add_products(const float *panel, const float *columns, int64_t column_stride, int64_t k,
                          int64_t num_columns, float *sums) {
  Sums s[COLUMNS] = {};
  if (num_columns == 1) {
    for (int64_t i = 0; i < k; ++i) {
      Sums a;
      memcpy(&a, panel + i * PANEL, sizeof a);
      s[0] += a * columns[i];
    }
  } else {
    for (int64_t i = 0; i < k; ++i) {
      Sums a;
      memcpy(&a, panel + i * PANEL, sizeof a);
      for (int64_t j = 0; j < COLUMNS; ++j) s[j] += a * columns[j * column_stride + i];
    }
  }
  for (int64_t j = 0; j < num_columns; ++j)
    for (int64_t i = 0; i < PANEL; ++i) sums[j * PANEL + i] += s[j][i];
}

// `count` elements `stride` apart, `to_stride` floats apart.
PER_CPU void convert(Type type, const char *from, int64_t stride, int64_t count, float *to, int64_t to_stride) {
  const int64_t step = stride * bytes_of(type);
  if (type == Type::F32)
    for (int64_t i = 0; i < count; ++i) memcpy(&to[i * to_stride], from + i * step, sizeof(float));
  else if (type == Type::BF16)
    for (int64_t i = 0; i < count; ++i) to[i * to_stride] = load_bf16(from + i * step);
  else if (type == Type::F8_E4M3)
    for (int64_t i = 0; i < count; ++i) to[i * to_stride] = load_e4m3(from + i * step);
  else
    for (int64_t i = 0; i < count; ++i) to[i * to_stride] = load_f16(from + i * step);
}

namespace {

char *at(const Matrix &matrix, int64_t row, int64_t column, int64_t batch) {
  const int64_t element = row * matrix.row_stride + column * matrix.column_stride + batch * matrix.batch_stride;
  return static_cast<char *>(matrix.data) + element * bytes_of(matrix.type);
}

void round_if_tf32(const Product &p, float *values, int64_t count) {
  if (p.has_tf32) std::transform(values, values + count, values, to_tf32);
}

// panel[k][PANEL]: rows from `row`, zero beyond m.
void pack(const Product &p, int64_t row, int64_t batch, float *panel) {
  const int64_t rows = std::min(PANEL, p.m - row);
  if (rows < PANEL) std::fill_n(panel, p.k * PANEL, 0.0f);
  if (p.a.row_stride == 1) {
    for (int64_t k = 0; k < p.k; ++k) convert(p.a.type, at(p.a, row, k, batch), 1, rows, panel + k * PANEL, 1);
  } else {
    for (int64_t k = 0; k < p.k; k += STRETCH)
      for (int64_t r = 0; r < rows; ++r)
        convert(p.a.type, at(p.a, row + r, k, batch), p.a.column_stride, std::min(STRETCH, p.k - k),
                panel + k * PANEL + r, PANEL);
  }
  round_if_tf32(p, panel, p.k * PANEL);
}

float gelu(float x) { return 0.5f * x * (1.0f + std::tanh(0.7978845608028654f * (x + 0.044715f * x * x * x))); }

// The scales come before the bias, as the manual has it.
void finish(const Product &p, float sum, int64_t row, int64_t column, int64_t batch) {
  float x = p.alpha * sum;
  if (p.scale_a) x *= p.scale_a[p.scales_are_vectors ? row : 0];
  if (p.scale_b) x *= p.scale_b[p.scales_are_vectors ? column : 0];
  if (p.beta != 0) x += p.beta * load(p.c.type, at(p.c, row, column, batch));
  if (p.bias) {
    const int64_t i = row + batch * p.bias_batch_stride;
    x += load(p.bias_type, static_cast<const char *>(p.bias) + i * bytes_of(p.bias_type));
  }
  store(p.d.type, at(p.d, row, column, batch), p.has_gelu ? gelu(x) : x);
}

}  // namespace

void multiply(const Product &p) {
  std::vector<float> panel(static_cast<size_t>(std::max<int64_t>(p.k, 1) * PANEL));
  std::vector<float> columns(static_cast<size_t>(p.n * p.k));
  for (int64_t batch = 0; batch < p.num_batches; ++batch) {
    for (int64_t n = 0; n < p.n; ++n)
      convert(p.b.type, at(p.b, 0, n, batch), p.b.row_stride, p.k, columns.data() + n * p.k, 1);
    round_if_tf32(p, columns.data(), p.n * p.k);
    for (int64_t row = 0; row < p.m; row += PANEL) {
      pack(p, row, batch, panel.data());
      for (int64_t n = 0; n < p.n;) {
        const int64_t num_columns = p.n - n >= COLUMNS ? COLUMNS : 1;
        float sums[PANEL * COLUMNS] = {};
        for (int part = 0; part < p.split_k; ++part) {
          const int64_t begin = p.k * part / p.split_k, end = p.k * (part + 1) / p.split_k;
          add_products(panel.data() + begin * PANEL, columns.data() + n * p.k + begin, p.k, end - begin, num_columns,
                       sums);
        }
        for (int64_t j = 0; j < num_columns; ++j)
          for (int64_t i = 0; i < std::min(PANEL, p.m - row); ++i)
            finish(p, sums[j * PANEL + i], row + i, n + j, batch);
        n += num_columns;
      }
    }
  }
}

}  // namespace softgpu
