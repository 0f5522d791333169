#include "conformance/mapping.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/try.h"

namespace headwise::conformance {
namespace {

// The case's tensor as BSHD; nothing is copied.
TensorView view_of(const Tensor& tensor, std::int64_t heads, std::int64_t positions, std::int64_t channels) {
  const Steps step = steps_of(tensor, heads);
  return {.data = const_cast<std::byte*>(tensor.bytes.data()),
          .dtype = tensor.dtype,
          .rank = 4,
          .shape = {tensor.shape[0], positions, heads, channels},
          .stride = {step.batch, step.position, step.head, 1}};
}

void copy_rows(const Tensor& from, std::int64_t heads, std::int64_t first, Tensor& to) {
  const std::int64_t channels = to.shape[3];
  const Steps source = steps_of(from, heads);
  const Steps target = steps_of(to, heads);
  const std::int64_t positions = from.shape.size() == 4 ? from.shape[2] : from.shape[1];
  const auto size = static_cast<std::int64_t>(size_of(from.dtype));
  for (std::int64_t b = 0; b < from.shape[0]; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t j = 0; j < positions; ++j) {
        const std::int64_t at = b * source.batch + h * source.head + j * source.position;
        const std::int64_t to_at = b * target.batch + h * target.head + (first + j) * target.position;
        std::memcpy(to.bytes.data() + to_at * size, from.bytes.data() + at * size,
                    static_cast<std::size_t>(channels * size));
      }
    }
  }
}

// What the operator's cache update gives: past keys, then new ones.
Tensor present(const NodeCase& node, const char* past, const char* added, std::int64_t channels) {
  const Sizes size = sizes_of(node);
  Tensor all = make_tensor(node.input(added)->dtype, {size.batch, size.kv_heads, size.seq_kv(), channels});
  if (const Tensor* before = node.input(past)) copy_rows(*before, size.kv_heads, 0, all);
  copy_rows(*node.input(added), size.kv_heads, size.past, all);
  return all;
}

// Where queries stand. ONNX counts from the keys that came before the queries: query i is at past + i, or,
// where only lengths are known, at length - seq_q + i, which is bottom_right. Headwise counts from the first
// or the last key, so what is left over goes into the window.
Status place(const NodeCase& node, const Sizes& size, Call& call) {
  std::int64_t left = node.left_window_size;
  std::int64_t right = node.right_window_size;
  if (node.is_causal) right = 0;
  if (left < 0 && right < 0) return {};
  AttentionOptions& options = call.options;
  options.align = Align::bottom_right;
  std::int64_t shift = 0;  // from where Headwise has a query to where ONNX has it
  if (node.input("nonpad_kv_seqlen") == nullptr) {
    if (size.past == 0) {
      options.align = Align::top_left;
    } else {
      // Keys behind the last query's reach are left out: then no window needs to end before its query.
      std::int64_t keys = size.seq_kv();
      if (right >= 0) keys = std::min(keys, size.past + size.seq_q + right);
      call.args.k.shape[1] = call.args.v.shape[1] = keys;
      shift = size.past - (keys - size.seq_q);
    }
  }
  if (shift == 0 && right == 0) {
    options.causal = true;
    options.window_left = left;
    return {};
  }
  if (left >= 0 && shift > left) {
    return Status::unsupported("the last " + std::to_string(shift - left) +
                               " queries stand behind all keys of their window: not mapped");
  }
  options.window_left = left < 0 ? -1 : left - shift;
  options.window_right = right < 0 ? -1 : right + shift;
  return {};
}

// Of one to four axes, counted from the last; a short last axis hides the keys behind it, as in Headwise.
void set_mask(const Tensor& mask, Call& call) {
  TensorView& view = call.args.mask;
  view = {.data = const_cast<std::byte*>(mask.bytes.data()),
          .dtype = mask.dtype,
          .rank = 4,
          .shape = {1, 1, 1, 1},
          .stride = {0, 0, 0, 1}};
  const std::size_t missing = 4 - mask.shape.size();
  std::int64_t step = 1;
  for (std::size_t axis = 4; axis-- > missing;) {
    view.shape[axis] = mask.shape[axis - missing];
    view.stride[axis] = step;
    step *= view.shape[axis];
  }
  view.shape[3] = std::min(view.shape[3], call.args.k.shape[1]);
}

}  // namespace

Result<Call> make_call(const NodeCase& node) {
  const Sizes size = sizes_of(node);
  Call call;
  AttentionArgs& args = call.args;
  const Tensor* k = node.input("K");
  const Tensor* v = node.input("V");
  if (node.input("past_key") != nullptr || node.output("present_key") != nullptr) {
    call.present_key = present(node, "past_key", "K", size.head_dim);
    call.present_value = present(node, "past_value", "V", size.head_dim_v);
    k = &call.present_key;
    v = &call.present_value;
  }
  call.out = make_tensor(node.output("Y")->dtype, node.output("Y")->shape);
  args.q = view_of(*node.input("Q"), size.heads, size.seq_q, size.head_dim);
  args.k = view_of(*k, size.kv_heads, size.seq_kv(), size.head_dim);
  args.v = view_of(*v, size.kv_heads, size.seq_kv(), size.head_dim_v);
  args.out = view_of(call.out, size.heads, size.seq_q, size.head_dim_v);
  if (const Tensor* lengths = node.input("nonpad_kv_seqlen")) {
    if (size.past > 0) return Status::invalid_argument("nonpad_kv_seqlen: not allowed beside past_key");
    args.lengths_kv = contiguous(lengths->bytes.data(), DType::int32, {size.batch});
  }
  HEADWISE_TRY(place(node, size, call));
  if (const Tensor* mask = node.input("attn_mask")) {
    if (mask->shape.empty() || mask->shape.size() > 4)
      return Status::unsupported("attn_mask: expected 1 to 4 axes, got " +
                                 std::to_string(mask->shape.size()));
    set_mask(*mask, call);
  }
  if (node.scale) call.options.softmax_scale = static_cast<float>(*node.scale);
  call.options.softcap = static_cast<float>(node.softcap);
  return call;
}

}  // namespace headwise::conformance
