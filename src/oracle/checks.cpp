#include "oracle/checks.h"

#include <array>
#include <string>
#include <utility>

#include "core/try.h"

namespace headwise::oracle {
namespace {

bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

std::string number(std::int64_t value) { return std::to_string(value); }

Status wrong(const std::string& message) { return Status::invalid_argument("oracle: " + message); }

Status check_options(const AttentionArgs& args, const AttentionProblem& p, Direction direction) {
  if (p.direction != direction) {
    return Status::unsupported("oracle: direction must be " + std::string(name(direction)) + ", is " +
                               std::string(name(p.direction)));
  }
  const bool share = p.dropout_p >= 0 && p.dropout_p < 1;  // NaN is none
  if (!share) return wrong("dropout_p must be at least 0 and below 1, is " + std::to_string(p.dropout_p));
  if (args.dropout_offset >> 32 != 0) {
    return wrong("dropout_offset must be below 2^32, is " + std::to_string(args.dropout_offset) +
                 "; change dropout_seed instead");
  }
  return {};
}

Status check_host(const char* what, const TensorView& view) {
  if (view.device.kind == DeviceKind::cpu) return {};
  return wrong(std::string(what) + " must be in host memory, is on " + to_string(view.device));
}

Status check_view(const char* what, const TensorView& view, const std::array<std::int64_t, 4>& shape) {
  HEADWISE_TRY(check_host(what, view));
  if (view.rank == 4 && view.shape == shape) return {};
  std::string message = std::string(what) + " must have shape";
  for (const std::int64_t extent : shape) message.append(" ").append(number(extent));
  message += ", has";
  for (int i = 0; i < view.rank; ++i)
    message.append(" ").append(number(view.shape[static_cast<std::size_t>(i)]));
  return wrong(message);
}

// Extents of 1 broadcast, save for the last.
Status check_scores(const char* what, const TensorView& view, const Sizes& s, bool may_be_short) {
  std::array<std::int64_t, 4> shape{s.batch, s.heads, s.seq_q, s.seq_kv};
  for (std::size_t i = 0; i < 3; ++i) {
    if (view.shape[i] == 1) shape[i] = 1;
  }
  if (may_be_short && view.rank == 4 && view.shape[3] >= 0 && view.shape[3] <= s.seq_kv)
    shape[3] = view.shape[3];
  return check_view(what, view, shape);
}

Status check_vector(const char* what, const TensorView& view, std::int64_t rows, std::int64_t heads) {
  HEADWISE_TRY(check_host(what, view));
  const bool fits = rows > 0 ? view.rank == 2 && view.shape[0] == rows && view.shape[1] == heads
                             : view.rank == 1 && view.shape[0] == heads;
  if (!fits) {
    return wrong(std::string(what) + " must have shape " + (rows > 0 ? number(rows) + " " : "") +
                 number(heads) + " (" + (rows > 0 ? "batch " : "") + "heads)");
  }
  if (is_float(view.dtype)) return {};
  return Status::unsupported("oracle: " + std::string(what) + " must be f64, f32, f16 or bf16, is " +
                             std::string(name(view.dtype)));
}

// An array of int32 in host memory; its first extent is that given, unless that is -1.
Status check_index(const char* what, const TensorView& view, int rank, std::int64_t extent) {
  if (!view.present()) return wrong(std::string(what) + " is missing, which the problem names");
  HEADWISE_TRY(check_host(what, view));
  if (view.rank != rank || view.dtype != DType::int32) {
    return wrong(std::string(what) + " must be int32 of rank " + std::to_string(rank) + ", is " +
                 std::string(name(view.dtype)) + " of rank " + std::to_string(view.rank));
  }
  if (extent >= 0 && view.shape[0] != extent) {
    return wrong(std::string(what) + " must have " + number(extent) + " entries, has " +
                 number(view.shape[0]));
  }
  return {};
}

// Where packed sequences begin and the last one ends, within the rows of a tensor.
Status check_packed(const char* what, const TensorView& view, const TensorView& rows) {
  if (view.shape[0] < 1) return wrong(std::string(what) + " must have at least 1 entry, has 0");
  if (rows.shape[0] != 1)
    return wrong(std::string(what) + " packs rows into a batch of 1, which has " + number(rows.shape[0]));
  std::int64_t before = 0;
  for (std::int64_t i = 0; i < view.shape[0]; ++i) {
    const std::int64_t at = entry(view, i);
    if (at < before || at > rows.shape[1]) {
      return wrong(std::string(what) + "[" + number(i) + "] must be " + number(before) + " to " +
                   number(rows.shape[1]) + ", is " + number(at));
    }
    before = at;
  }
  return {};
}

Status check_index_arrays(const AttentionArgs& args, const AttentionProblem& p) {
  std::int64_t count = args.q.shape[0];
  if (p.varlen) {
    HEADWISE_TRY(check_index("cu_seqlens_q", args.cu_seqlens_q, 1, -1));
    HEADWISE_TRY(check_packed("cu_seqlens_q", args.cu_seqlens_q, args.q));
    count = args.cu_seqlens_q.shape[0] - 1;
  }
  if (p.page_size < 0 || (p.pages > 0 && p.page_size == 0))
    return wrong("page_size must be at least 1 with a paged cache, is " + number(p.page_size));
  if (p.page_size > 0) {
    HEADWISE_TRY(check_index("block_table", args.block_table, 2, count));
    if (args.k.shape[1] != p.page_size)
      return wrong("k must have pages of page_size " + number(p.page_size) + " keys, has " +
                   number(args.k.shape[1]));
  } else if (p.varlen) {
    HEADWISE_TRY(check_index("cu_seqlens_kv", args.cu_seqlens_kv, 1, count + 1));
    HEADWISE_TRY(check_packed("cu_seqlens_kv", args.cu_seqlens_kv, args.k));
  } else if (args.k.shape[0] != count) {
    return wrong("k must have batch " + number(count) + " as q, has " + number(args.k.shape[0]));
  }
  if (p.lengths) HEADWISE_TRY(check_index("lengths_kv", args.lengths_kv, 1, count));
  if (p.starts) HEADWISE_TRY(check_index("starts_kv", args.starts_kv, 1, count));
  return {};
}

// Keys in use lie within what their sequence holds, and their pages within the cache.
Status check_keys_in_use(const AttentionArgs& args, const AttentionProblem& p,
                         const std::vector<Sequence>& sequences) {
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const Sequence& s = sequences[b];
    if (s.in_use.begin < 0 || s.in_use.end > s.room || s.in_use.begin > s.in_use.end) {
      return wrong("keys in use of sequence " + std::to_string(b) +
                   " (starts_kv, lengths_kv) must be within 0 and " + number(s.room) + ", are " +
                   number(s.in_use.begin) + " to " + number(s.in_use.end));
    }
    if (p.page_size == 0 || s.in_use.begin == s.in_use.end) continue;
    for (std::int64_t page = s.in_use.begin / p.page_size; page * p.page_size < s.in_use.end; ++page) {
      const std::int64_t at = entry(args.block_table, static_cast<std::int64_t>(b), page);
      if (at >= 0 && at < args.k.shape[0]) continue;
      return wrong("block_table[" + std::to_string(b) + ", " + number(page) + "] must be below the " +
                   number(args.k.shape[0]) + " pages of k, is " + number(at));
    }
  }
  return {};
}

Status check_align(const AttentionProblem& p, const std::vector<Sequence>& sequences) {
  const bool placed = p.causal || p.window_left >= 0 || p.window_right >= 0 || p.alibi != AlibiKind::none;
  if (!placed || p.align != Align::unspecified) return {};
  for (const Sequence& s : sequences) {
    if (s.queries != s.in_use.end) return wrong("align is required where seq_q and seq_kv differ");
  }
  return {};
}

Status check_optional(const AttentionArgs& args, const AttentionProblem& p, const Sizes& s) {
  if (p.bias) {
    HEADWISE_TRY(check_scores("bias", args.bias, s, false));
    if (!is_float(args.bias.dtype)) return Status::unsupported("oracle: bias must be f64, f32, f16 or bf16");
  }
  if (p.mask != MaskKind::none) {
    HEADWISE_TRY(check_scores("mask", args.mask, s, true));
    const bool fits =
        p.mask == MaskKind::boolean ? args.mask.dtype == DType::boolean : is_float(args.mask.dtype);
    if (!fits) return wrong("mask has a dtype that is not its kind's");
  }
  if (p.alibi != AlibiKind::none) {
    const bool each = p.alibi == AlibiKind::per_batch_head;
    HEADWISE_TRY(check_vector("alibi_slopes", args.alibi_slopes, each ? s.batch : 0, s.heads));
  }
  return p.sinks ? check_vector("sinks", args.sinks, 0, s.heads) : Status();
}

std::string at(const char* position, std::int64_t batch, std::int64_t head, std::int64_t place) {
  return "row (batch " + number(batch) + ", head " + number(head) + ", " + position + " " + number(place) +
         ") is outside the tensors";
}

}  // namespace

Status check_problem(const AttentionArgs& args, const AttentionProblem& p, Direction direction) {
  HEADWISE_TRY(check_options(args, p, direction));
  HEADWISE_TRY(check_view("q", args.q, args.q.shape));
  HEADWISE_TRY(check_view("k", args.k, {args.k.shape[0], args.k.shape[1], args.k.shape[2], args.q.shape[3]}));
  HEADWISE_TRY(check_view("v", args.v, {args.k.shape[0], args.k.shape[1], args.k.shape[2], args.v.shape[3]}));
  if (!is_float(args.q.dtype) || !is_float(args.k.dtype) || !is_float(args.v.dtype)) {
    return Status::unsupported("oracle: q, k and v must be f64, f32, f16 or bf16");
  }
  if (direction == Direction::backward) {
    HEADWISE_TRY(
        check_view("dout", args.dout, {args.q.shape[0], args.q.shape[1], args.q.shape[2], args.v.shape[3]}));
    if (!is_float(args.dout.dtype)) return Status::unsupported("oracle: dout must be f64, f32, f16 or bf16");
  }
  if (args.k.shape[2] <= 0 || args.q.shape[2] % args.k.shape[2] != 0) {
    return wrong("heads " + number(args.q.shape[2]) + " must be a multiple of kv_heads " +
                 number(args.k.shape[2]));
  }
  HEADWISE_TRY(check_index_arrays(args, p));
  const std::vector<Sequence> sequences = sequences_of(args, p);
  HEADWISE_TRY(check_keys_in_use(args, p, sequences));
  HEADWISE_TRY(check_align(p, sequences));
  return check_optional(args, p, sizes_of(args, sequences));
}

Status check_rows(const std::vector<Sequence>& sequences, const Sizes& size, std::span<const RowId> rows) {
  for (const RowId& row : rows) {
    const bool inside = row.batch >= 0 && row.batch < size.batch && row.head >= 0 && row.head < size.heads &&
                        row.query >= 0 && row.query < sequences[static_cast<std::size_t>(row.batch)].queries;
    if (!inside) return wrong(at("query", row.batch, row.head, row.query));
  }
  return {};
}

Status check_key_rows(const std::vector<Sequence>& sequences, const Sizes& size,
                      std::span<const KeyRowId> rows) {
  for (const KeyRowId& row : rows) {
    const bool inside = row.batch >= 0 && row.batch < size.batch && row.kv_head >= 0 &&
                        row.kv_head < size.kv_heads && row.key >= 0 &&
                        row.key < sequences[static_cast<std::size_t>(row.batch)].room;
    if (!inside) return wrong(at("key", row.batch, row.kv_head, row.key));
  }
  return {};
}

}  // namespace headwise::oracle
