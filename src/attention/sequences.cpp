// What the extents of q, k and v mean: plain batches, packed rows (cu_seqlens), lengths in use and
// paged caches. Index arrays in host memory are read and checked; on a device they are not.
#include <algorithm>

#include "attention/derive.h"
#include "attention/fields.h"
#include "attention/index_arrays.h"
#include "core/try.h"

namespace headwise {
namespace {

Status derive_packed_queries(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  const Argument q{"q", args.q};
  const Argument offsets{"cu_seqlens_q", args.cu_seqlens_q};
  HEADWISE_TRY(check_packed(offsets, q, device));
  p.batch = offsets.extent(0) - 1;
  p.total_q = q.extent(1);
  return check_offsets(offsets, p.total_q, "rows of q", p.seq_q);
}

Status derive_packed_keys(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  const Argument k{"k", args.k};
  const Argument offsets{"cu_seqlens_kv", args.cu_seqlens_kv};
  HEADWISE_TRY(check_packed(offsets, k, device));
  HEADWISE_TRY(check_extent(offsets, 0, p.batch + 1, "sequences of cu_seqlens_q, plus 1"));
  p.total_kv = k.extent(1);
  return check_offsets(offsets, p.total_kv, "rows of k", p.seq_kv);
}

Status derive_pages(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  const Argument k{"k", args.k};
  const Argument table{"block_table", args.block_table};
  HEADWISE_TRY(check_index_array(table, 2, "[batch, pages of a sequence]", device));
  if (p.page_size <= 0) {
    return Status::invalid_argument("page_size: expected at least 1 because block_table is given, got " +
                                    std::to_string(p.page_size));
  }
  HEADWISE_TRY(check_extent(k, 1, p.page_size, "page_size"));
  HEADWISE_TRY(check_extent(table, 0, p.batch, "batch of q"));
  p.pages = k.extent(0);
  if (p.page_size > kLargestExtent || __builtin_mul_overflow(table.extent(1), p.page_size, &p.seq_kv)) {
    return Status::invalid_argument("block_table.shape[1]: " + std::to_string(table.extent(1)) +
                                    " pages of " + std::to_string(p.page_size) +
                                    " keys are more than 64 bits can count");
  }
  return {};
}

Status check_lengths(const Argument& lengths, DeviceId device, const AttentionProblem& p) {
  HEADWISE_TRY(check_index_array(lengths, 1, "[batch]", device));
  HEADWISE_TRY(check_extent(lengths, 0, p.batch, "batch of q"));
  for (std::int64_t b = 0; on_host(lengths.view) && b < p.batch; ++b) {
    const std::int64_t length = index_at(lengths.view, b);
    if (length >= 0 && length <= p.seq_kv) continue;
    return Status::invalid_argument(entry(lengths, b) + ": expected 0 to " + std::to_string(p.seq_kv) +
                                    " (keys there is room for), got " + std::to_string(length));
  }
  return {};
}

// Keys in use of a sequence begin within them.
Status check_starts(const AttentionArgs& args, DeviceId device, const AttentionProblem& p) {
  const Argument starts{"starts_kv", args.starts_kv};
  const TensorView& lengths = args.lengths_kv;
  HEADWISE_TRY(check_index_array(starts, 1, "[batch]", device));
  HEADWISE_TRY(check_extent(starts, 0, p.batch, "batch of q"));
  if (!on_host(starts.view) || (lengths.present() && !on_host(lengths))) return {};
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const std::int64_t start = index_at(starts.view, b);
    const std::int64_t end = lengths.present() ? index_at(lengths, b) : p.seq_kv;
    if (start >= 0 && start <= end) continue;
    return Status::invalid_argument(entry(starts, b) + ": expected 0 to " + std::to_string(end) +
                                    " (where the keys in use end), got " + std::to_string(start));
  }
  return {};
}

// Entries of pages in use lie within the cache; those beside a sequence's keys in use may hold anything.
Status check_table_entries(const AttentionArgs& args, const AttentionProblem& p) {
  const TensorView& table = args.block_table;
  const TensorView& lengths = args.lengths_kv;
  const TensorView& starts = args.starts_kv;
  if (!on_host(table) || (lengths.present() && !on_host(lengths)) || (starts.present() && !on_host(starts)))
    return {};
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const std::int64_t keys = lengths.present() ? index_at(lengths, b) : p.seq_kv;
    const std::int64_t first = starts.present() ? index_at(starts, b) : 0;
    const std::int64_t used = first == keys ? 0 : keys / p.page_size + (keys % p.page_size != 0 ? 1 : 0);
    for (std::int64_t page = first / p.page_size; page < used; ++page) {
      const std::int64_t at = index_at(table, b, page);
      if (at >= 0 && at < p.pages) continue;
      return Status::invalid_argument("block_table[" + std::to_string(b) + ", " + std::to_string(page) +
                                      "]: expected a page from 0 to " + std::to_string(p.pages - 1) +
                                      ", got " + std::to_string(at));
    }
  }
  return {};
}

Status check_combination(const AttentionArgs& args, const AttentionProblem& p) {
  const bool pages = args.block_table.present();
  if (args.cu_seqlens_kv.present() && !args.cu_seqlens_q.present()) {
    return Status::invalid_argument("cu_seqlens_q: missing; expected with cu_seqlens_kv");
  }
  if (args.cu_seqlens_q.present() && !args.cu_seqlens_kv.present() && !pages) {
    return Status::invalid_argument(
        "cu_seqlens_kv: missing; expected with cu_seqlens_q (or block_table, for a paged cache)");
  }
  if (args.cu_seqlens_kv.present() && pages) {
    return Status::invalid_argument("block_table: not with cu_seqlens_kv; keys are either packed or paged");
  }
  if (args.cu_seqlens_kv.present() && args.lengths_kv.present()) {
    return Status::invalid_argument("lengths_kv: not with cu_seqlens_kv, which tells the lengths already");
  }
  if (args.cu_seqlens_kv.present() && args.starts_kv.present()) {
    return Status::invalid_argument("starts_kv: not with cu_seqlens_kv, which tells where sequences begin");
  }
  if (!pages && p.page_size != 0) {
    return Status::invalid_argument("block_table: missing; expected with page_size " +
                                    std::to_string(p.page_size));
  }
  return {};
}

}  // namespace

Status derive_sequences(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  const Argument q{"q", args.q};
  const Argument k{"k", args.k};
  HEADWISE_TRY(check_combination(args, p));
  p.varlen = args.cu_seqlens_q.present();
  p.lengths = args.lengths_kv.present();
  p.starts = args.starts_kv.present();
  if (p.varlen) {
    HEADWISE_TRY(derive_packed_queries(args, device, p));
  } else {
    p.batch = q.extent(0);
    p.seq_q = q.extent(1);
    p.total_q = 0;
  }
  p.total_kv = 0;
  p.pages = 0;
  if (args.cu_seqlens_kv.present()) {
    HEADWISE_TRY(derive_packed_keys(args, device, p));
  } else if (args.block_table.present()) {
    HEADWISE_TRY(derive_pages(args, device, p));
  } else {
    HEADWISE_TRY(check_extent(k, 0, p.batch, "batch of q"));
    p.seq_kv = k.extent(1);
  }
  if (p.lengths) HEADWISE_TRY(check_lengths({"lengths_kv", args.lengths_kv}, device, p));
  if (p.starts) HEADWISE_TRY(check_starts(args, device, p));
  return args.block_table.present() ? check_table_entries(args, p) : Status();
}

}  // namespace headwise
