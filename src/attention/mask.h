// Which keys a query may see, as half-open ranges: causal, window and alignment are all one range
// a query, so kernels compute ranges and never a mask.
#pragma once

#include <algorithm>
#include <cstdint>

#include "headwise/attention.h"

namespace headwise {

struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // may be <= begin: no key
  [[nodiscard]] bool empty() const noexcept { return end <= begin; }
};

// Keys that query i may see: [i' - window_left, i' + window_right], i' at most with causal, within
// [0, seq_kv). Sums are kept from overflowing by clamping open windows.
inline KeyRange key_range(const AttentionProblem& p, std::int64_t i) noexcept {
  const std::int64_t at = i + p.query_offset();
  KeyRange r{0, p.seq_kv};
  if (p.window_left >= 0 && at > p.window_left) r.begin = at - p.window_left;
  std::int64_t right = p.window_right;
  if (p.causal) right = 0;
  if (right >= 0 && right < p.seq_kv - 1 - at) r.end = at + right + 1;
  if (r.end > p.seq_kv) r.end = p.seq_kv;
  if (r.end < 0) r.end = 0;
  if (r.begin > p.seq_kv) r.begin = p.seq_kv;
  return r;
}

// Of queries [first, last]: ranges move right with i, so the ends tell all. `any` holds each key
// that some query sees, `all` those that every query sees.
struct BlockRange {
  KeyRange any;
  KeyRange all;
};
inline BlockRange block_range(const AttentionProblem& p, std::int64_t first, std::int64_t last) noexcept {
  const KeyRange a = key_range(p, first);
  const KeyRange b = key_range(p, last);
  return {{a.begin, b.end}, {b.begin, a.end}};
}

enum class BlockKind : std::uint8_t { skipped, masked, full };
inline BlockKind block_kind(const BlockRange& range, std::int64_t begin, std::int64_t end) noexcept {
  if (end <= range.any.begin || begin >= range.any.end) return BlockKind::skipped;
  return begin >= range.all.begin && end <= range.all.end ? BlockKind::full : BlockKind::masked;
}

}  // namespace headwise
