// What do attention's ops ask of heads, and of the pages that their rows use?
#pragma once

#include "check.h"

namespace gt {

constexpr int64_t PAGE = 64;  // positions

static inline void check_heads(Check &check, int64_t heads, int64_t kv_heads, int64_t d, int64_t most = 512) {
  check.require(kv_heads > 0 && heads % kv_heads == 0, "q has %lld heads, expected a multiple of k's %lld",
                static_cast<long long>(heads), static_cast<long long>(kv_heads));
  check.require(d >= 1 && d <= most, "q has head dim %lld, expected 1 to %lld", static_cast<long long>(d),
                static_cast<long long>(most));
}

// That sequence b may have keys up to position `last`. Only where the page table can be read: on the CPU.
static inline void check_reach(Check &check, const gt_tensor *pages, const gt_tensor *page_table, int64_t b,
                               int64_t last) {
  const int64_t max_pages = page_table->shape[1];
  const auto *table = static_cast<const int32_t *>(page_table->data) + b * max_pages;
  check.require(last < max_pages * PAGE, "positions reach %lld in sequence %lld, expected below %lld (page_table)",
                static_cast<long long>(last), static_cast<long long>(b), static_cast<long long>(max_pages * PAGE));
  for (int64_t i = 0; i <= last / PAGE && last >= 0 && check.ok(); ++i)
    check.require(table[i] >= 0 && table[i] < pages->shape[0], "page_table[%lld, %lld] is %d, expected 0 to %lld",
                  static_cast<long long>(b), static_cast<long long>(i), table[i],
                  static_cast<long long>(pages->shape[0] - 1));
}

// The page table, and which of its entries the rows use. On the CPU all of it can be read, so nothing is trusted.
static inline void check_pages(Check &check, const gt_stream *stream, const gt_tensor *pages,
                               const gt_tensor *page_table, const gt_tensor *query_start, const gt_tensor *positions,
                               int64_t rows) {
  check.tensor("page_table", page_table, I32).shape("page_table", page_table, {-1, -1});
  check.contiguous("page_table", page_table);
  if (!check.ok()) return;
  const int64_t sequences = page_table->shape[0];
  check.tensor("query_start", query_start, I32).shape("query_start", query_start, {sequences + 1});
  check.tensor("positions", positions, I32).shape("positions", positions, {rows});
  check.contiguous("query_start", query_start).contiguous("positions", positions);
  if (!check.ok() || stream->device != GT_CPU) return;
  const auto *starts = static_cast<const int32_t *>(query_start->data);
  const auto *position = static_cast<const int32_t *>(positions->data);
  check.require(starts[0] == 0 && starts[sequences] == rows, "query_start goes from %d to %d, expected 0 to N = %lld",
                starts[0], starts[sequences], static_cast<long long>(rows));
  for (int64_t b = 0; b < sequences && check.ok(); ++b) {
    check.require(starts[b] <= starts[b + 1] && starts[b + 1] <= rows,
                  "query_start[%lld] is %d after %d, expected ascending to N", static_cast<long long>(b + 1),
                  starts[b + 1], starts[b]);
    int64_t last = -1;
    for (int64_t n = starts[b]; n < starts[b + 1] && check.ok(); ++n)
      if (position[n] > last) last = position[n];
    check_reach(check, pages, page_table, b, last);
  }
}

}  // namespace gt
