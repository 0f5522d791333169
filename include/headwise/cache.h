// Appending new keys and values to a KV cache, contiguous or paged, that attention() then reads.
#pragma once

#include "headwise/attention.h"
#include "headwise/rotary.h"

namespace [[gnu::visibility("default")]] headwise {

// All strides in elements; innermost stride 1. Written are k_cache, v_cache and lengths_out.
struct CacheAppendArgs {
  // New rows: [batch, seq_new, kv_heads, head_dim] and [.., head_dim_v], or with cu_seqlens_new [1,
  // total_new, ..]. dtype of the cache, or f32, which is rounded to it.
  TensorView k_new;
  TensorView v_new{};  // with v_cache, or neither: a cache that holds one tensor (latent attention)
  // [batch, capacity, kv_heads, head_dim], or with block_table [pages, page_size, kv_heads, head_dim]; f32,
  // f16 or bf16
  TensorView k_cache;
  TensorView v_cache{};  // the same with head_dim_v, dtype of k_cache
  // int32 [batch]: keys in the cache before the call. Row r of sequence b goes to place lengths_kv[b] + r.
  // Absent: 0.
  TensorView lengths_kv{};
  // int32 [batch, pages of a sequence]: place j of sequence b is row j % page_size of page block_table[b, j /
  // page_size]. Entries of pages that get no new row may hold anything. A page that another sequence reads
  // too must not get new rows: give the growing sequence a copy first. (Rows that would go to one and the
  // same place are refused.)
  TensorView block_table{};
  // How many rows a sequence appends: its first counts_new[b] (int32 [batch], 0 to seq_new); or rows
  // cu_seqlens_new[b] .. cu_seqlens_new[b + 1] of packed ones (int32 [batch + 1]); absent: all seq_new.
  TensorView counts_new{};
  TensorView cu_seqlens_new{};
  TensorView
      lengths_out{};  // optional int32 [batch]: lengths after the call; may be the very view lengths_kv
  Rotary rotary{};    // optional: rotates new keys, in fp32, by the place they go to
};

// Copies new rows to the end of each sequence. Rows with the cache's dtype and without a rotation keep their
// bits. Of `execution`, threads and executor are read.
//
// Errors, nothing written then: invalid_argument (shapes, dtypes, a cache too small, lengths or pages out of
// range, positions outside the rotary tables, shared memory), unsupported (memory of a device that is no
// CPU), out_of_memory (a paged append sorts the places it writes to, in memory of a few bytes a page).
Status append_to_cache(const CacheAppendArgs& args, const Execution& execution = {});

}  // namespace headwise
