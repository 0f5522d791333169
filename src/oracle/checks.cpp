#include "oracle/checks.h"

#include <array>
#include <string>

#include "core/try.h"
#include "oracle/formula.h"

namespace headwise::oracle {
namespace {

bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

Status check_features(const AttentionProblem& p, Direction direction) {
  const auto no = [](const char* what) { return Status::unsupported(std::string("oracle: ") + what); };
  if (p.direction != direction) {
    return Status::unsupported("oracle: direction must be " + std::string(name(direction)) + ", is " +
                               std::string(name(p.direction)));
  }
  if (p.dropout_p > 0) return no("dropout_p: not written down");
  if (p.varlen) return no("cu_seqlens: not written down; pass the sequences one by one");
  if (p.lengths) return no("lengths_kv: not written down; pass the sequences one by one");
  if (p.page_size > 0 || p.pages > 0) return no("block_table: not written down");
  return {};
}

// `exact`: each extent as given; else 1 (broadcast) is fine too, save for the last.
Status check_view(const char* what, const TensorView& view, const std::array<std::int64_t, 4>& shape,
                  bool exact) {
  if (view.device.kind != DeviceKind::cpu) {
    return Status::invalid_argument(std::string("oracle: ") + what + " must be in host memory, is on " +
                                    to_string(view.device));
  }
  bool fits = view.rank == 4;
  for (std::size_t i = 0; i < 4; ++i) {
    fits = fits && (view.shape[i] == shape[i] || (!exact && i < 3 && view.shape[i] == 1));
  }
  if (fits) return {};
  std::string message = std::string("oracle: ") + what + " must have shape";
  for (const std::int64_t extent : shape) message.append(" ").append(std::to_string(extent));
  message += ", has";
  for (int i = 0; i < view.rank; ++i) {
    message.append(" ").append(std::to_string(view.shape[static_cast<std::size_t>(i)]));
  }
  return Status::invalid_argument(message);
}

Status check_optional(const AttentionArgs& args, const AttentionProblem& p, const Sizes& s) {
  const std::array<std::int64_t, 4> scores{s.batch, s.heads, s.seq_q, s.seq_kv};
  if (p.bias) {
    if (Status status = check_view("bias", args.bias, scores, false); !status.ok()) return status;
    if (!is_float(args.bias.dtype)) return Status::unsupported("oracle: bias must be f64, f32, f16 or bf16");
  }
  if (p.mask != MaskKind::none) {
    if (Status status = check_view("mask", args.mask, scores, false); !status.ok()) return status;
    const bool fits =
        p.mask == MaskKind::boolean ? args.mask.dtype == DType::boolean : is_float(args.mask.dtype);
    if (!fits) return Status::invalid_argument("oracle: mask has a dtype that is not its kind's");
  }
  if (p.alibi != AlibiKind::none &&
      (args.alibi_slopes.rank == 0 ||
       args.alibi_slopes.shape[static_cast<std::size_t>(args.alibi_slopes.rank - 1)] != s.heads)) {
    return Status::invalid_argument("oracle: alibi_slopes must have shape heads or batch heads");
  }
  if (p.sinks && (args.sinks.rank != 1 || args.sinks.shape[0] != s.heads)) {
    return Status::invalid_argument("oracle: sinks must have shape heads");
  }
  return {};
}

std::string at(const char* position, std::int64_t batch, std::int64_t head, std::int64_t place) {
  return "oracle: row (batch " + std::to_string(batch) + ", head " + std::to_string(head) + ", " + position +
         " " + std::to_string(place) + ") is outside the tensors";
}

}  // namespace

Status check_problem(const AttentionArgs& args, const AttentionProblem& p, Direction direction) {
  HEADWISE_TRY(check_features(p, direction));
  const Sizes s = sizes_of(args);
  HEADWISE_TRY(check_view("q", args.q, {s.batch, s.seq_q, s.heads, s.head_dim}, true));
  HEADWISE_TRY(check_view("k", args.k, {s.batch, s.seq_kv, s.kv_heads, s.head_dim}, true));
  HEADWISE_TRY(check_view("v", args.v, {s.batch, s.seq_kv, s.kv_heads, s.head_dim_v}, true));
  if (!is_float(args.q.dtype) || !is_float(args.k.dtype) || !is_float(args.v.dtype)) {
    return Status::unsupported("oracle: q, k and v must be f64, f32, f16 or bf16");
  }
  if (direction == Direction::backward) {
    HEADWISE_TRY(check_view("dout", args.dout, {s.batch, s.seq_q, s.heads, s.head_dim_v}, true));
    if (!is_float(args.dout.dtype)) return Status::unsupported("oracle: dout must be f64, f32, f16 or bf16");
  }
  if (s.kv_heads <= 0 || s.heads % s.kv_heads != 0) {
    return Status::invalid_argument("oracle: heads " + std::to_string(s.heads) +
                                    " must be a multiple of kv_heads " + std::to_string(s.kv_heads));
  }
  const bool placed = p.causal || p.window_left >= 0 || p.window_right >= 0 || p.alibi != AlibiKind::none;
  if (placed && p.align == Align::unspecified && s.seq_q != s.seq_kv) {
    return Status::invalid_argument("oracle: align is required where seq_q and seq_kv differ");
  }
  return check_optional(args, p, s);
}

Status check_rows(const AttentionArgs& args, std::span<const RowId> rows) {
  const Sizes s = sizes_of(args);
  for (const RowId& row : rows) {
    const bool inside = row.batch >= 0 && row.batch < s.batch && row.head >= 0 && row.head < s.heads &&
                        row.query >= 0 && row.query < s.seq_q;
    if (!inside) return Status::invalid_argument(at("query", row.batch, row.head, row.query));
  }
  return {};
}

Status check_key_rows(const AttentionArgs& args, std::span<const KeyRowId> rows) {
  const Sizes s = sizes_of(args);
  for (const KeyRowId& row : rows) {
    const bool inside = row.batch >= 0 && row.batch < s.batch && row.kv_head >= 0 &&
                        row.kv_head < s.kv_heads && row.key >= 0 && row.key < s.seq_kv;
    if (!inside) return Status::invalid_argument(at("key", row.batch, row.kv_head, row.key));
  }
  return {};
}

}  // namespace headwise::oracle
