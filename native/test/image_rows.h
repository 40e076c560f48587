// Images [B, H, W, C] between guard bytes, channels last or channels first with gaps, for the tests of ops that take
// any strides.
#pragma once

#include "family_test.h"

namespace test {

enum class ImageLayout { CHANNELS_LAST, PLANAR_WITH_GAPS };

struct ImageSize {
  int64_t b, h, w, c;
};

// Elements before the first, behind each image, and behind each copy.
struct ImageGaps {
  int64_t offset, image, copy;
};

// Memory for `copies` tensors [B, H, W, C] one behind the other; without copies, of rank 4.
class ImageRows {
 public:
  ImageRows(gt_dtype dtype, ImageSize size, ImageLayout layout, int64_t copies = 0, ImageGaps gaps = {})
      : size_(size), layout_(layout), copies_(copies), gaps_(gaps),
        rows_(dtype, 1, elements() * std::max<int64_t>(1, copies), 0, gaps.offset) {}
  const Rows &rows() const { return rows_; }
  // The first `images` of B; of rank 5 where there are copies.
  gt_tensor tensor() const {
    const bool planar = layout_ == ImageLayout::PLANAR_WITH_GAPS;
    const int64_t row = planar ? size_.w + 1 : size_.w * size_.c, plane = (size_.w + 1) * size_.h + 2;
    const int64_t image = (planar ? plane * size_.c : size_.h * row) + gaps_.image;
    gt_tensor t = {rows_.at(0, 0), rows_.dtype(), 4, {size_.b, size_.h, size_.w, size_.c},
                   {image, row, planar ? 1 : size_.c, planar ? plane : 1}};
    if (copies_ == 0) return t;
    t.rank = 5;
    for (int d = 4; d > 0; --d) {
      t.shape[d] = t.shape[d - 1];
      t.stride[d] = t.stride[d - 1];
    }
    t.shape[0] = copies_;
    t.stride[0] = elements();
    return t;
  }
  void fill(uint64_t salt, float scale = 1) const { fill_uniform(rows_, salt, scale); }

 private:
  // Of a copy: with gaps behind images, a multiple of 4, so that only gaps behind copies make it odd.
  int64_t elements() const {
    const bool planar = layout_ == ImageLayout::PLANAR_WITH_GAPS;
    const int64_t image = (planar ? (size_.w + 1) * size_.h + 2 : size_.h * size_.w) * size_.c + gaps_.image;
    return (gaps_.image > 0 ? (size_.b * image + 3) / 4 * 4 : size_.b * image) + gaps_.copy;
  }
  ImageSize size_;
  ImageLayout layout_;
  int64_t copies_;
  ImageGaps gaps_;
  Rows rows_;
};

}  // namespace test
