// What are the mean and the squared deviations of the channels of some pixels?
#pragma once

#include <type_traits>

#include "cpu/norm_image.h"

namespace gt::GT_ISA {

constexpr int64_t ROWS = 16;    // vectors summed in f32 at once
constexpr int64_t STRIP = 512;  // channels: sums and squares take 8 KiB

// sum += sum of what R values differ by from `first`, one of their channel, square += that of its squares: in f64, but
// for what values differ by from some m near them, so that nothing is lost of values that lie far from 0. With
// d = v - m and m counted from `first`, the sums are R m + sum d and sum d^2 + m (R m + 2 sum d). The mean of four of
// 16 values is near enough: where one of them lies far from the others, sum d^2 is at most 1.6 times that of the
// deviations from the mean. With m one value it could be 16 times. Its four are scaled before they are added, lest
// their sum overflow: a product and three fused additions.
template <int R>
GT_INLINE void add_values(vd *sum, vd *square, const double *first, const vf (&v)[R]) {
  const vf m = R == 1 ? v[0] : 0.25f * v[R - R / 4] + (0.25f * v[R / 2] + (0.25f * v[R / 4] + 0.25f * v[0]));
  vf s[2] = {}, q[2] = {};
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const vf d = v[r] - m;
    s[r % 2] += d;
    q[r % 2] += d * d;
  }
  s[0] += s[1];
  q[0] += q[1];
  const auto add = [&](vd &to_sum, vd &to_square, vd near, vd d, vd d2) {
    const vd all = static_cast<double>(R) * near;
    to_sum += all + d;
    to_square += d2 + near * (all + 2.0 * d);
  };
  add(sum[0], square[0], half_of<0>(m) - load_doubles(first), half_of<0>(s[0]), half_of<0>(q[0]));
  add(sum[1], square[1], half_of<1>(m) - load_doubles(first + W / 2), half_of<1>(s[0]), half_of<1>(q[0]));
}

// Whether vectors come in twos, even and odd elements apart: conversions then cost a third.
template <class T>
constexpr bool TWOS = std::is_same_v<T, bf16>;

// Of c channels the 2 W of each two vectors from even and odd ones back to their order.
template <class N>
GT_INLINE void put_together(N *values, int64_t c) {
  for (; c >= 2 * W; c -= 2 * W, values += 2 * W) {
    N apart[2 * W];
    memcpy(apart, values, sizeof apart);
    for (int64_t i = 0; i < W; ++i) {
      values[2 * i] = apart[i];
      values[2 * i + 1] = apart[W + i];
    }
  }
}

// Per channel, of a strip; of TWOS apart. PAIRED: those of channels 2 i and 2 i + 1 together, in the place of 2 i.
struct Sums {
  alignas(64) double sum[STRIP], square[STRIP], first[STRIP];
};

// How bf16 is summed. Its squares have 16 bits: a sum of 16 near each other is exact in f32, and of others off by less
// than the deviations that make them others. So it needs no value near them, unless squares are beyond f32 (CENTRED).
enum Summing { CENTRED, APART, PAIRED };

// R pixels of the W channels from i on, of which count exist.
template <int R, class T>
GT_INLINE void add_pixels(Sums &sums, int64_t i, const T *x, int64_t stride, int64_t count) {
  vd s[2], q[2];
  memcpy(s, sums.sum + i, sizeof s);
  memcpy(q, sums.square + i, sizeof q);
  vf v[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) v[r] = count == W ? load(x + r * stride) : load_part(x + r * stride, count);
  add_values(s, q, sums.first + i, v);
  memcpy(sums.sum + i, s, sizeof s);
  memcpy(sums.square + i, q, sizeof q);
}
// The same of 2 W channels.
template <int R>
GT_INLINE void add_pixels_of_two(Sums &sums, int64_t i, const bf16 *x, int64_t stride) {
  vd s[4], q[4];
  memcpy(s, sums.sum + i, sizeof s);
  memcpy(q, sums.square + i, sizeof q);
  vf even[R], odd[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) load_two(x + r * stride, even[r], odd[r]);
  add_values(s, q, sums.first + i, even);
  add_values(s + 2, q + 2, sums.first + i + W, odd);
  memcpy(sums.sum + i, s, sizeof s);
  memcpy(sums.square + i, q, sizeof q);
}
GT_INLINE void add_to(double *sums, vf v) {
  vd s[2];
  memcpy(s, sums, sizeof s);
  s[0] += half_of<0>(v);
  s[1] += half_of<1>(v);
  memcpy(sums, s, sizeof s);
}
// As they are, APART or PAIRED.
template <int R, Summing HOW>
GT_INLINE void add_squares_of_two(Sums &sums, int64_t i, const bf16 *x, int64_t stride) {
  vf s[2] = {}, q[2] = {};
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    vf even, odd;
    load_two(x + r * stride, even, odd);
    s[0] += even;
    s[1] += odd;
    q[0] += even * even;
    q[1] += odd * odd;
  }
  if (HOW == PAIRED) {
    add_to(sums.sum + i, s[0] + s[1]);
    add_to(sums.square + i, q[0] + q[1]);
    return;
  }
  for (int k = 0; k < 2; ++k) {
    add_to(sums.sum + i + k * W, s[k]);
    add_to(sums.square + i + k * W, q[k]);
  }
}
template <int R, Summing HOW, class T>
GT_INLINE void add_rows(Sums &sums, const T *x, int64_t stride, int64_t c) {
  int64_t i = 0;
  if constexpr (TWOS<T>)
    for (; i + 2 * W <= c; i += 2 * W) {
      if constexpr (HOW == CENTRED)
        add_pixels_of_two<R>(sums, i, x + i, stride);
      else
        add_squares_of_two<R, HOW>(sums, i, x + i, stride);
    }
  for (; i + W <= c; i += W) add_pixels<R>(sums, i, x + i, stride, W);
  if (i < c) add_pixels<R>(sums, i, x + i, stride, c - i);
}

// The channels' first values; 0 of those that are summed as they are.
template <Summing HOW, class T>
GT_INLINE void set_first(double *first, const T *x, int64_t c) {
  int64_t i = 0;
  if constexpr (TWOS<T>)
    for (; i + 2 * W <= c; i += 2 * W)
      for (int64_t k = 0; k < W; ++k) {
        first[i + k] = HOW == CENTRED ? static_cast<double>(to_float(x[i + 2 * k])) : 0;
        first[i + W + k] = HOW == CENTRED ? static_cast<double>(to_float(x[i + 2 * k + 1])) : 0;
      }
  for (; i < c; ++i) first[i] = static_cast<double>(to_float(x[i]));
}

// Of c <= STRIP channels over the pixels of a block. ROWS parts of it are walked side by side: from 16 places at once
// memory comes 1.4 times as fast as from one.
template <Summing HOW, class T>
static void sum_channels(Sums &sums, const T *x, int64_t stride, int64_t pixels, int64_t c) {
  memset(&sums, 0, sizeof sums);
  set_first<HOW>(sums.first, x, c);
  const int64_t part = pixels / ROWS;
  for (int64_t p = 0; p < part; ++p) add_rows<ROWS, HOW>(sums, x + p * stride, part * stride, c);
  for (int64_t p = ROWS * part; p < pixels; ++p) add_rows<1, HOW>(sums, x + p * stride, 0, c);
}

// Each channel of a pair gets half of the pair's sums.
GT_INLINE void share_pairs(Sums &sums, int64_t c) {
  const auto share = [c](double *values) {
    for (int64_t i = 0; i + 2 * W <= c; i += 2 * W)
      for (int64_t k = i; k < i + W; ++k) values[k + W] = values[k] *= 0.5;
  };
  share(sums.sum);
  share(sums.square);
}

GT_INLINE bool all_finite(const double *values, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += 0 * values[i];
  return sum == 0;
}

// The sum of squared deviations from the mean, of n values; not below 0 by a rounding. NaN stays.
GT_INLINE double deviations(double square, double sum, double n) {
  const double d = square - sum * sum / n;
  return d < 0 ? 0 : d;
}

// Mean and sum of squared deviations of each of c <= STRIP channels over the pixels of a block. in_pairs: of channels
// 2 i and 2 i + 1 only the mean of the means and the sum of the squares matter, deviations being those from that mean.
template <class T>
static void channel_statistics(double *mean, double *squares, const T *x, int64_t stride, int64_t pixels, int64_t c,
                        bool in_pairs) {
  Sums sums;
  if constexpr (TWOS<T>) {
    if (in_pairs) {
      sum_channels<PAIRED>(sums, x, stride, pixels, c);
      share_pairs(sums, c);
    } else {
      sum_channels<APART>(sums, x, stride, pixels, c);
    }
    if (!all_finite(sums.square, c)) sum_channels<CENTRED>(sums, x, stride, pixels, c);
  } else {
    sum_channels<CENTRED>(sums, x, stride, pixels, c);
  }
  const double n = static_cast<double>(pixels);
  for (int64_t i = 0; i < c; ++i) {
    mean[i] = sums.first[i] + sums.sum[i] / n;
    squares[i] = deviations(sums.square[i], sums.sum[i], n);
  }
  if constexpr (TWOS<T>) {
    put_together(mean, c);
    put_together(squares, c);
  }
}

GT_INLINE double sum_lanes_of_both(const vd (&v)[2]) {
  double a[W];
  memcpy(a, v, sizeof a);
  for (int n = W / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a[i] += a[i + n];
  return a[0];
}

// The same of n contiguous pixels of one channel; in the lanes beyond them is the first value, which adds nothing.
template <class T>
static void run_statistics(double *mean, double *squares, const T *x, int64_t n) {
  vd sums[2] = {}, square[2] = {};
  const float first_value = to_float(*x);
  double first[W];
  for (int k = 0; k < W; ++k) first[k] = static_cast<double>(first_value);
  int64_t i = 0;
  for (; i + ROWS * W <= n; i += ROWS * W) {
    vf v[ROWS];
    for (int r = 0; r < ROWS; ++r) v[r] = load(x + i + r * W);
    add_values(sums, square, first, v);
  }
  for (; i < n; i += W) {
    const vf v[1] = {i + W <= n ? load(x + i) : load_part(x + i, n - i, first_value)};
    add_values(sums, square, first, v);
  }
  const double sum = sum_lanes_of_both(sums);
  *mean = first[0] + sum / static_cast<double>(n);
  *squares = deviations(sum_lanes_of_both(square), sum, static_cast<double>(n));
}

}  // namespace gt::GT_ISA
