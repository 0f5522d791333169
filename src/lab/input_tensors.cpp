#include "lab/input_tensors.h"

#include <algorithm>

#include "lab/sequence_inputs.h"

namespace headwise::lab {
namespace {

using Form = InputTensor::Form;
using Shape = std::array<std::int64_t, 4>;

Shape score_shape(const AttentionProblem& p, unsigned axes, std::int64_t keys) {
  const auto extent = [&](unsigned axis, std::int64_t size) { return (axes & axis) != 0 ? size : 1; };
  return {extent(kAxisBatch, p.batch), extent(kAxisHeads, p.heads), extent(kAxisQueries, p.seq_q), keys};
}

}  // namespace

InputTensors tensors_of(const AttentionProblem& p, const InputSpec& spec) {
  using A = AttentionArgs;
  const bool backward = p.direction == Direction::backward, forward = !backward;
  const bool paged = p.page_size > 0, packed_keys = p.varlen && !paged;
  const std::int64_t items_q = p.varlen ? 1 : p.batch, rows_q = p.varlen ? p.total_q : p.seq_q;
  const std::int64_t items_kv = paged ? p.pages : packed_keys ? 1 : p.batch;
  const std::int64_t rows_kv = paged ? p.page_size : packed_keys ? p.total_kv : p.seq_kv;
  const Shape q{items_q, rows_q, p.heads, p.head_dim}, out{items_q, rows_q, p.heads, p.head_dim_v};
  const Shape k{items_kv, rows_kv, p.kv_heads, p.head_dim}, v{items_kv, rows_kv, p.kv_heads, p.head_dim_v};
  const std::int64_t short_by = std::clamp<std::int64_t>(spec.mask_short, 0, p.seq_kv);
  const Shape mask = score_shape(p, p.mask_axes, p.seq_kv - short_by);
  const Shape bias = score_shape(p, p.bias_axes, p.seq_kv);
  const bool each = p.alibi == AlibiKind::per_batch_head;
  const Shape slopes = each ? Shape{p.batch, p.heads} : Shape{p.heads};
  const DType mask_dtype = p.mask == MaskKind::boolean ? DType::boolean : DType::f32;
  const DType d = p.dtype, kv = p.kv_dtype, f32 = DType::f32, i32 = DType::int32;
  const std::int64_t slots = pages_a_sequence(p);
  return {{{"q", &A::q, Form::operand, 4, q, d, true, false},
           {"k", &A::k, Form::operand, 4, k, kv, true, false},
           {"v", &A::v, Form::operand, 4, v, kv, true, false},
           {"out", &A::out, Form::operand, 4, out, d, forward, true},
           {"lse", &A::lse, Form::packed, 3, {items_q, p.heads, rows_q}, f32, forward && p.lse, true},
           {"dout", &A::dout, Form::operand, 4, out, d, backward, false},
           {"dq", &A::dq, Form::operand, 4, q, d, backward, true},
           {"dk", &A::dk, Form::operand, 4, k, kv, backward, true},
           {"dv", &A::dv, Form::operand, 4, v, kv, backward, true},
           {"dbias", &A::dbias, Form::scores, 4, bias, f32, backward && p.dbias, true},
           {"dsinks", &A::dsinks, Form::packed, 1, {p.heads}, f32, backward && p.dsinks, true},
           {"mask", &A::mask, Form::scores, 4, mask, mask_dtype, p.mask != MaskKind::none, false},
           {"bias", &A::bias, Form::scores, 4, bias, f32, p.bias, false},
           {"alibi_slopes", &A::alibi_slopes, Form::packed, each ? 2 : 1, slopes, f32,
            p.alibi != AlibiKind::none, false},
           {"sinks", &A::sinks, Form::packed, 1, {p.heads}, f32, p.sinks, false},
           {"cu_seqlens_q", &A::cu_seqlens_q, Form::index, 1, {p.batch + 1}, i32, p.varlen, false},
           {"cu_seqlens_kv", &A::cu_seqlens_kv, Form::index, 1, {p.batch + 1}, i32, packed_keys, false},
           {"lengths_kv", &A::lengths_kv, Form::index, 1, {p.batch}, i32, p.lengths, false},
           {"starts_kv", &A::starts_kv, Form::index, 1, {p.batch}, i32, p.starts, false},
           {"block_table", &A::block_table, Form::index, 2, {p.batch, slots}, i32, paged, false}}};
}

InputSpec spec_of(const InputTensor& tensor, const InputSpec& spec) {
  InputSpec own = spec;
  if (tensor.form != Form::operand) own.layout = Layout::bshd;
  if (tensor.form == Form::packed || tensor.form == Form::index) own.row_padding = own.offset = 0;
  return own;
}

std::size_t buffer_bytes(const InputTensor& tensor, const InputSpec& spec) {
  const InputSpec own = spec_of(tensor, spec);
  const auto last = static_cast<std::size_t>(tensor.rank - 1);
  std::int64_t n = 0;
  bool overflow = __builtin_add_overflow(tensor.shape[last], own.row_padding, &n);
  for (std::size_t i = 0; i < last; ++i)
    overflow = overflow || __builtin_mul_overflow(n, tensor.shape[i], &n);
  overflow = overflow || __builtin_add_overflow(n, own.offset, &n);
  overflow = overflow || __builtin_mul_overflow(n, static_cast<std::int64_t>(size_of(tensor.dtype)), &n);
  overflow = overflow || __builtin_add_overflow(n, static_cast<std::int64_t>(2 * kGuardBytes), &n);
  return overflow ? kTooLarge : static_cast<std::size_t>(n);
}

TensorView view_of(const InputTensor& tensor, const InputSpec& spec, std::byte* base, DeviceId device) {
  const InputSpec own = spec_of(tensor, spec);
  TensorView view{.dtype = tensor.dtype, .device = device, .rank = tensor.rank, .shape = tensor.shape};
  view.data = base + kGuardBytes + static_cast<std::size_t>(own.offset) * size_of(tensor.dtype);
  const auto last = static_cast<std::size_t>(tensor.rank - 1);
  view.stride[last] = 1;
  std::int64_t step = tensor.shape[last] + own.row_padding;
  for (std::size_t i = last; i-- > 0;) {
    view.stride[i] = step;
    step *= tensor.shape[i];
  }
  if (tensor.form == Form::operand && own.layout == Layout::bhsd) {
    const std::int64_t row = view.stride[2];
    view.stride[1] = row;
    view.stride[2] = row * tensor.shape[1];
  }
  return view;
}

}  // namespace headwise::lab
