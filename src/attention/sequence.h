// Where the rows of one sequence lie, whether sequences are items of a batch, packed rows (cu_seqlens) or
// pages of a cache (block_table). Kernels of host memory read it; the index arrays were checked before.
#pragma once

#include <cstdint>

#include "attention/derive.h"
#include "attention/mask.h"
#include "headwise/attention.h"

namespace headwise {

struct Sequence {
  std::int64_t item_q = 0, row_q = 0;  // its first query is this row of this item of q, out, lse and dq
  std::int64_t seq_q = 0;
  std::int64_t item_kv = 0, row_kv = 0;  // its key 0, where keys lie one after the other
  KeyRange keys;                         // in use
  const std::int32_t* pages =
      nullptr;  // key j is row j % page_size of page pages[j / page_size * page_stride]
  std::int64_t page_stride = 0;
};

inline Sequence sequence_of(const AttentionArgs& args, const AttentionProblem& p,
                            std::int64_t index) noexcept {
  Sequence s{index, 0, p.seq_q, index, 0, {0, p.seq_kv}, nullptr, 0};
  if (p.varlen) {
    s.item_q = 0;
    s.row_q = index_at(args.cu_seqlens_q, index);
    s.seq_q = index_at(args.cu_seqlens_q, index + 1) - s.row_q;
  }
  if (p.page_size > 0) {
    s.pages = args.block_table.as<const std::int32_t>() + index * args.block_table.stride[0];
    s.page_stride = args.block_table.stride[1];
  } else if (p.varlen) {
    s.item_kv = 0;
    s.row_kv = index_at(args.cu_seqlens_kv, index);
    s.keys.end = index_at(args.cu_seqlens_kv, index + 1) - s.row_kv;
  }
  if (p.lengths) s.keys.end = index_at(args.lengths_kv, index);
  if (p.starts) s.keys.begin = index_at(args.starts_kv, index);
  return s;
}

inline Band band_of(const AttentionProblem& p, const Sequence& s) noexcept {
  return band_of(p, s.seq_q, s.keys);
}

// Keys from `key` on, at most to `end`, whose rows lie one after the other.
inline std::int64_t run_end(const AttentionProblem& p, const Sequence& s, std::int64_t key,
                            std::int64_t end) noexcept {
  if (s.pages == nullptr) return end;
  const std::int64_t page_end = (key / p.page_size + 1) * p.page_size;
  return page_end < end ? page_end : end;
}

// Elements from the start of k or v to the row of a key.
inline std::int64_t key_offset(const TensorView& t, const AttentionProblem& p, const Sequence& s,
                               std::int64_t key, std::int64_t kv_head) noexcept {
  const std::int64_t head = kv_head * t.stride[2];
  if (s.pages == nullptr) return s.item_kv * t.stride[0] + (s.row_kv + key) * t.stride[1] + head;
  return s.pages[key / p.page_size * s.page_stride] * t.stride[0] + key % p.page_size * t.stride[1] + head;
}

// Elements from the start of q, out or one of their gradients to the row of a query.
inline std::int64_t query_offset(const TensorView& t, const Sequence& s, std::int64_t query,
                                 std::int64_t head) noexcept {
  return s.item_q * t.stride[0] + (s.row_q + query) * t.stride[1] + head * t.stride[2];
}

}  // namespace headwise
