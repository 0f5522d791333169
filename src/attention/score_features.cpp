// Tensors that change scores: mask, bias, ALiBi slopes, sinks, scales of quantised operands.
#include <array>

#include "attention/derive.h"
#include "core/try.h"

namespace headwise {
namespace {

constexpr std::string_view kBiasLayout = "[batch or 1, heads or 1, seq_q or 1, seq_kv]";
constexpr std::string_view kMaskLayout = "[batch or 1, heads or 1, seq_q or 1, seq_kv or fewer]";

// Sets the axes that vary. One of extent 1 varies only where a plan says so and the size is 1 too.
Status derive_broadcast(const Argument& tensor, const AttentionProblem& p, std::uint8_t& axes) {
  struct Axis {
    std::int64_t size;
    BroadcastAxes bit;
    std::string_view meaning;
  };
  const std::array<Axis, 3> leading = {Axis{p.batch, kAxisBatch, "batch of q"},
                                       Axis{p.heads, kAxisHeads, "heads of q"},
                                       Axis{p.seq_q, kAxisQueries, "seq_q"}};
  std::uint8_t varying = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const auto& [size, bit, meaning] = leading[static_cast<std::size_t>(axis)];
    const std::int64_t extent = tensor.extent(axis);
    if (extent != 1 && extent != size) {
      return check_extent(tensor, axis, size, std::string(meaning) + ", or 1 to broadcast");
    }
    const bool planned = (axes & bit) != 0;
    if (extent == size && (size != 1 || planned)) varying = static_cast<std::uint8_t>(varying | bit);
  }
  axes = varying;
  return {};
}

Status derive_score_tensor(const Argument& tensor, DeviceId device, bool may_be_bool,
                           const AttentionProblem& p, std::uint8_t& axes) {
  HEADWISE_TRY(check_layout(tensor, 4, may_be_bool ? kMaskLayout : kBiasLayout));
  HEADWISE_TRY(check_device(tensor, device));
  HEADWISE_TRY(
      may_be_bool ? check_dtype(tensor, {DType::boolean, DType::f32, DType::f16, DType::bf16, DType::f64}, "")
                  : check_dtype(tensor, {DType::f32, DType::f16, DType::bf16, DType::f64}, ""));
  HEADWISE_TRY(check_natural_alignment(tensor));
  return derive_broadcast(tensor, p, axes);
}

Status derive_mask(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  p.mask = MaskKind::none;
  if (!args.mask.present()) {
    p.mask_axes = 0;
    return {};
  }
  p.mask = args.mask.dtype == DType::boolean ? MaskKind::boolean : MaskKind::additive;
  HEADWISE_TRY(derive_score_tensor({"mask", args.mask}, device, true, p, p.mask_axes));
  if (args.mask.shape[3] <= p.seq_kv) return {};
  return check_extent({"mask", args.mask}, 3, p.seq_kv, "seq_kv, or fewer: keys behind them are hidden");
}

Status derive_bias(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  p.bias = args.bias.present();
  if (!p.bias) {
    p.bias_axes = 0;
    return {};
  }
  HEADWISE_TRY(derive_score_tensor({"bias", args.bias}, device, false, p, p.bias_axes));
  return check_extent({"bias", args.bias}, 3, p.seq_kv, "seq_kv");
}

Status check_float_vector(const Argument& tensor, int rank, std::string_view layout, DeviceId device) {
  HEADWISE_TRY(check_layout(tensor, rank, layout));
  HEADWISE_TRY(check_device(tensor, device));
  HEADWISE_TRY(check_dtype(tensor, {DType::f32}, ""));
  return check_natural_alignment(tensor);
}

Status derive_alibi(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  const Argument slopes{"alibi_slopes", args.alibi_slopes};
  p.alibi = AlibiKind::none;
  if (!slopes.view.present()) return {};
  const bool per_batch = slopes.view.rank == 2;
  HEADWISE_TRY(check_float_vector(slopes, per_batch ? 2 : 1, "[heads] or [batch, heads]", device));
  if (per_batch) HEADWISE_TRY(check_extent(slopes, 0, p.batch, "batch of q"));
  p.alibi = per_batch ? AlibiKind::per_batch_head : AlibiKind::per_head;
  return check_extent(slopes, per_batch ? 1 : 0, p.heads, "heads of q");
}

Status derive_sinks(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  const Argument sinks{"sinks", args.sinks};
  p.sinks = sinks.view.present();
  if (!p.sinks) return {};
  HEADWISE_TRY(check_float_vector(sinks, 1, "[heads]", device));
  return check_extent(sinks, 0, p.heads, "heads of q");
}

// A scale belongs to a quantised operand: one for the tensor or one a head.
Status check_scale(const Argument& scale, const Argument& operand, DeviceId device) {
  if (!scale.view.present()) return {};
  HEADWISE_TRY(check_float_vector(scale, 1, "[1] or one a head", device));
  const DType dtype = operand.view.dtype;
  if (dtype != DType::e4m3 && dtype != DType::int8) {
    return Status::invalid_argument(std::string(scale.name) +
                                    ": expected only with a quantised dtype (e4m3, int8), but " +
                                    std::string(operand.name) + " is " + std::string(name(dtype)));
  }
  if (scale.extent(0) == 1) return {};
  return check_extent(scale, 0, operand.extent(2), "heads of " + std::string(operand.name) + ", or 1");
}

}  // namespace

Status derive_score_features(const AttentionArgs& args, DeviceId device, AttentionProblem& p) {
  if (args.dropout_offset >> 32 != 0) {
    return Status::invalid_argument("dropout_offset: expected below 2^32, got " +
                                    std::to_string(args.dropout_offset) + "; change dropout_seed instead");
  }
  HEADWISE_TRY(derive_mask(args, device, p));
  HEADWISE_TRY(derive_bias(args, device, p));
  HEADWISE_TRY(derive_alibi(args, device, p));
  HEADWISE_TRY(derive_sinks(args, device, p));
  HEADWISE_TRY(check_scale({"q_scale", args.q_scale}, {"q", args.q}, device));
  HEADWISE_TRY(check_scale({"k_scale", args.k_scale}, {"k", args.k}, device));
  return check_scale({"v_scale", args.v_scale}, {"v", args.v}, device);
}

}  // namespace headwise
