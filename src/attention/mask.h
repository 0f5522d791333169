// Which keys a query may see, as half-open ranges: causal, window, alignment and lengths are all one range
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

// What decides which keys the queries of a sequence may see.
struct Band {
  KeyRange keys;            // in use
  std::int64_t offset = 0;  // query i stands at i' = i + offset
  std::int64_t left = -1;   // keys from i' - left on; -1: open
  std::int64_t right = -1;  // up to i' + right; -1: open
};

// Of a sequence of `seq_q` queries whose keys in use are `keys`.
inline Band band_of(const AttentionProblem& p, std::int64_t seq_q, KeyRange keys) noexcept {
  return {keys, p.align == Align::bottom_right ? keys.end - seq_q : 0, p.window_left,
          p.causal ? 0 : p.window_right};
}
inline Band band_of(const AttentionProblem& p) noexcept { return band_of(p, p.seq_q, {0, p.seq_kv}); }

// Keys that query i may see: [i' - left, i' + right], within those in use. Sums are kept from overflowing by
// clamping open windows.
inline KeyRange key_range(const Band& band, std::int64_t i) noexcept {
  const std::int64_t at = i + band.offset;
  KeyRange r = band.keys;
  if (band.left >= 0 && at - r.begin > band.left) r.begin = at - band.left;
  if (band.right >= 0 && band.right < r.end - 1 - at) r.end = at + band.right + 1;
  if (r.end < band.keys.begin) r.end = band.keys.begin;
  if (r.begin > band.keys.end) r.begin = band.keys.end;
  return r;
}

inline KeyRange key_range(const AttentionProblem& p, std::int64_t i) noexcept {
  return key_range(band_of(p), i);
}

// Queries, of `seq_q`, that may see a key.
struct QueryRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // may be <= begin: no query
};
inline QueryRange query_range(const Band& band, std::int64_t seq_q, std::int64_t key) noexcept {
  if (key < band.keys.begin || key >= band.keys.end) return {};
  QueryRange r{0, seq_q};
  const std::int64_t at = key - band.offset;  // the query that stands there
  if (band.right >= 0 && at > band.right) r.begin = at - band.right;
  if (band.left >= 0 && band.left < r.end - 1 - at) r.end = at + band.left + 1;
  return r;
}

// Of queries [first, last]: ranges move right with i, so the ends tell all. `any` holds each key
// that some query sees, `all` those that every query sees.
struct BlockRange {
  KeyRange any;
  KeyRange all;
};
inline BlockRange block_range(const Band& band, std::int64_t first, std::int64_t last) noexcept {
  const KeyRange a = key_range(band, first);
  const KeyRange b = key_range(band, last);
  return {{a.begin, b.end}, {b.begin, a.end}};
}

enum class BlockKind : std::uint8_t { skipped, masked, full };
inline BlockKind block_kind(const BlockRange& range, std::int64_t begin, std::int64_t end) noexcept {
  if (end <= range.any.begin || begin >= range.any.end) return BlockKind::skipped;
  return begin >= range.all.begin && end <= range.all.end ? BlockKind::full : BlockKind::masked;
}

}  // namespace headwise
