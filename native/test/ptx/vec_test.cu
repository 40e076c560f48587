// Do vectors of 16 bytes and their tails convert as the host does, at every count and misalignment?
#include "lib/vec.h"
#include "memory.h"

namespace {

template <class T> __global__ void copy_upto(const T *in, T *out, int64_t count, bool aligned, float *widened) {
  float v[gt::VEC<T>];
  gt::load_upto(in, count, aligned, -7.0f, v);
  for (int i = 0; i < gt::VEC<T>; ++i) widened[i] = v[i];
  gt::store_upto(out, count, aligned, v);
}

template <class T> __global__ void copy_vec(const T *in, T *out) {
  float v[gt::VEC<T>];
  gt::load_vec(in + threadIdx.x * gt::VEC<T>, v);
  gt::store_vec(out + threadIdx.x * gt::VEC<T>, v);
}

// Values whose rounding to 16 bits goes up, down and, at ties, to even.
float value(int i) {
  const float size = 1 + static_cast<float>(i * 97 % 8192) / 8192 + 0x1p-20f * static_cast<float>(i % 3);
  return i % 2 ? -size : size;
}

template <class T> bool equal(T a, T b) { return !memcmp(&a, &b, sizeof a); }

template <class T> void check_tails(const char *type) {
  constexpr int V = gt::VEC<T>;
  for (int shift = 0; shift < V; ++shift)
    for (int count = -1; count <= V; ++count) {
      const ptx::Shared<T> in(2 * V), out(2 * V);
      const ptx::Shared<float> widened(V);
      for (int i = 0; i < 2 * V; ++i) in[i] = gt::from_float<T>(value(i)), out[i] = gt::from_float<T>(0.5f);
      const bool aligned = gt::is_aligned(in.data() + shift) && gt::is_aligned(out.data() + shift);
      if (!ptx::run("copy_upto", copy_upto<T>, 1, 0, in.data() + shift, out.data() + shift, int64_t{count}, aligned,
                    widened.data()))
        return;
      for (int i = 0; i < V; ++i) {
        const float expected = i < count ? gt::to_float(in[shift + i]) : -7.0f;
        ptx::expect(widened[i] == expected, "%s shift %d count %d: loaded %g at %d, expected %g", type, shift, count,
                    widened[i], i, expected);
      }
      for (int i = 0; i < 2 * V; ++i) {
        const T expected = i >= shift && i - shift < count ? in[i] : gt::from_float<T>(0.5f);
        ptx::expect(equal(out[i], expected), "%s shift %d count %d: element %d", type, shift, count, i);
      }
    }
}

template <class T> void check_vectors(const char *type) {
  constexpr int V = gt::VEC<T>;
  const ptx::Shared<T> in(256 * V), out(256 * V);
  for (int i = 0; i < 256 * V; ++i) in[i] = gt::from_float<T>(value(i));
  if (!ptx::run("copy_vec", copy_vec<T>, 256, 0, in.data(), out.data())) return;
  for (int i = 0; i < 256 * V; ++i) ptx::expect(equal(out[i], in[i]), "%s: element %d of a whole vector", type, i);
}

// The device rounds as the host does.
template <class T> __global__ void round_to(const float *in, T *out) {
  out[threadIdx.x] = gt::from_float<T>(in[threadIdx.x]);
}
template <class T> void check_rounding(const char *type) {
  const ptx::Shared<float> in(512);
  const ptx::Shared<T> out(512);
  for (int i = 0; i < 512; ++i)  // the last: denormal in f16, and at its largest number
    in[i] = i < 500 ? value(i) : i < 506 ? 0x1p-14f / static_cast<float>(i) : i < 509 ? 65519.0f : 65520.0f;
  if (!ptx::run("round_to", round_to<T>, 512, 0, in.data(), out.data())) return;
  for (int i = 0; i < 512; ++i) {
    const T expected = gt::from_float<T>(in[i]);
    ptx::expect(equal(out[i], expected), "%s: %.9g rounds to %.9g, on the host to %.9g", type, in[i],
                gt::to_float(out[i]), gt::to_float(expected));
  }
}

template <class T> void check(const char *type) {
  check_tails<T>(type);
  check_vectors<T>(type);
  check_rounding<T>(type);
}

}  // namespace

int main() {
  check<float>("f32");
  check<gt::bf16>("bf16");
  check<gt::f16>("f16");
  return ptx::summary();
}
