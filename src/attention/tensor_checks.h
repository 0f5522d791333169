// What can be said of single tensors and pairs of them without reading an element. Nothing here
// allocates unless it fails. Messages name the argument, what was expected and what came.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "headwise/status.h"
#include "headwise/tensor.h"

namespace headwise {

// An argument: its name for messages, and its view.
struct Argument {
  std::string_view name;
  const TensorView& view;

  [[nodiscard]] std::int64_t extent(int axis) const { return view.shape[static_cast<std::size_t>(axis)]; }
  [[nodiscard]] std::int64_t stride(int axis) const { return view.stride[static_cast<std::size_t>(axis)]; }
  [[nodiscard]] bool empty() const;  // no elements
};

std::string shape_text(const TensorView& view);  // "[2, 128, 8, 64]"

// Present, of this rank, no negative extent, innermost stride 1, every byte within 64-bit reach,
// and not null unless empty. `layout` is the expected shape in words: "[batch, seq_q, heads, head_dim]".
Status check_layout(const Argument& tensor, int rank, std::string_view layout);
// One extent; `meaning` says where the expected number comes from: "batch of q".
Status check_extent(const Argument& tensor, int axis, std::int64_t expected, std::string_view meaning);
Status check_dtype(const Argument& tensor, std::initializer_list<DType> allowed, std::string_view meaning);
Status check_device(const Argument& tensor, DeviceId expected);
// The base address is a multiple of the element size.
Status check_natural_alignment(const Argument& tensor);
// No two elements share memory, for a tensor that is written: strides nest.
Status check_writable(const Argument& tensor);

// Whether two tensors that passed check_layout share a byte. Exact for the usual layouts, slices
// of one packed buffer among them; where strides are too tangled to decide quickly, true.
bool share_memory(const TensorView& a, const TensorView& b);

// The largest power of two, at most 16, that divides the base address and all outer strides in
// bytes; 16 when there is no element.
int alignment_of(const Argument& tensor);

}  // namespace headwise
