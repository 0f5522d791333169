#include "conformance/mapping.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/try.h"
#include "headwise/cache.h"

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

std::int64_t positions_of(const Tensor& tensor) { return tensor.shape[tensor.shape.size() == 4 ? 2 : 1]; }

// The operator's cache update: past keys, then new ones, both appended to an empty cache.
Status update_cache(const NodeCase& node, const Sizes& size, Call& call) {
  const DType dtype = node.input("K")->dtype;
  call.present_key = make_tensor(dtype, {size.batch, size.kv_heads, size.seq_kv(), size.head_dim});
  call.present_value = make_tensor(dtype, {size.batch, size.kv_heads, size.seq_kv(), size.head_dim_v});
  std::vector<std::int32_t> lengths(static_cast<std::size_t>(size.batch), 0);
  const auto rows = [&](const Tensor& tensor, std::int64_t channels) {
    return view_of(tensor, size.kv_heads, positions_of(tensor), channels);
  };
  for (const auto& [k, v] : {std::pair("past_key", "past_value"), std::pair("K", "V")}) {
    if (node.input(k) == nullptr) continue;
    const TensorView filled = contiguous(lengths.data(), DType::int32, {size.batch});
    HEADWISE_TRY(append_to_cache({.k_new = rows(*node.input(k), size.head_dim),
                                  .v_new = rows(*node.input(v), size.head_dim_v),
                                  .k_cache = rows(call.present_key, size.head_dim),
                                  .v_cache = rows(call.present_value, size.head_dim_v),
                                  .lengths_kv = filled,
                                  .lengths_out = filled}));
  }
  return {};
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
    HEADWISE_TRY(update_cache(node, size, call));
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
