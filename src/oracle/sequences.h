// Where the rows of each sequence lie: items of a batch, packed rows (cu_seqlens) or pages of a cache
// (block_table). Queries and keys are numbered within their sequence; a key of a paged cache by its place
// among all the pages of its sequence.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "oracle/oracle.h"

namespace headwise::oracle {

struct Range {
  std::int64_t begin = 0, end = 0;
};

struct Sequence {
  std::int64_t queries = 0;
  std::int64_t room = 0;  // keys that its memory holds
  Range in_use;           // of them

  [[nodiscard]] std::int64_t query_at(const TensorView& view, std::int64_t query, std::int64_t head) const {
    return item_q * view.stride[0] + (first_query + query) * view.stride[1] + head * view.stride[2];
  }
  // Pages that hold no key in use may have any number in the table: their keys have no place.
  [[nodiscard]] std::int64_t key_at(const TensorView& view, std::int64_t key, std::int64_t kv_head) const {
    const std::int64_t item = page_size > 0 ? pages[key / page_size * page_step] : item_kv;
    const std::int64_t row = page_size > 0 ? key % page_size : first_key + key;
    return item * view.stride[0] + row * view.stride[1] + kv_head * view.stride[2];
  }
  [[nodiscard]] bool uses(std::int64_t key) const { return key >= in_use.begin && key < in_use.end; }

  std::int64_t item_q = 0, first_query = 0;
  std::int64_t item_kv = 0, first_key = 0;  // without pages
  const std::int32_t* pages = nullptr;      // numbers of its pages, page_step apart
  std::int64_t page_step = 0, page_size = 0;
};

inline std::int64_t entry(const TensorView& view, std::int64_t i, std::int64_t j = 0) {
  return view.as<const std::int32_t>()[i * view.stride[0] + j * view.stride[1]];
}

// Sequences of arguments whose index arrays passed check_problem().
inline std::vector<Sequence> sequences_of(const AttentionArgs& args, const AttentionProblem& p) {
  const std::int64_t count = p.varlen ? args.cu_seqlens_q.shape[0] - 1 : args.q.shape[0];
  std::vector<Sequence> sequences(static_cast<std::size_t>(count));
  for (std::int64_t b = 0; b < count; ++b) {
    Sequence& s = sequences[static_cast<std::size_t>(b)];
    if (p.varlen) {
      s.first_query = entry(args.cu_seqlens_q, b);
      s.queries = entry(args.cu_seqlens_q, b + 1) - s.first_query;
    } else {
      s.item_q = b;
      s.queries = args.q.shape[1];
    }
    if (p.page_size > 0) {
      s.pages = args.block_table.as<const std::int32_t>() + b * args.block_table.stride[0];
      s.page_step = args.block_table.stride[1];
      s.page_size = p.page_size;
      s.room = args.block_table.shape[1] * p.page_size;
    } else if (p.varlen) {
      s.first_key = entry(args.cu_seqlens_kv, b);
      s.room = entry(args.cu_seqlens_kv, b + 1) - s.first_key;
    } else {
      s.item_kv = b;
      s.room = args.k.shape[1];
    }
    s.in_use = {p.starts ? entry(args.starts_kv, b) : 0, p.lengths ? entry(args.lengths_kv, b) : s.room};
  }
  return sequences;
}

// Actual sizes come from the tensors; the problem's sizes are only maxima. seq_q and seq_kv are the longest.
struct Sizes {
  std::int64_t batch, seq_q, seq_kv, heads, kv_heads, head_dim, head_dim_v;
};
inline Sizes sizes_of(const AttentionArgs& args, const std::vector<Sequence>& sequences) {
  Sizes sizes{static_cast<std::int64_t>(sequences.size()),
              0,
              0,
              args.q.shape[2],
              args.k.shape[2],
              args.q.shape[3],
              args.v.shape[3]};
  for (const Sequence& s : sequences) {
    sizes.seq_q = std::max(sizes.seq_q, s.queries);
    sizes.seq_kv = std::max(sizes.seq_kv, s.room);
  }
  return sizes;
}

}  // namespace headwise::oracle
