#include "attention/tensor_checks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <span>
#include <utility>

namespace headwise {
namespace {

// Byte spans stay below 2^59, so that sums of a few of them and an address stay within 64 bits.
constexpr std::int64_t kLargestSpan = std::int64_t{1} << 59;

std::string at_axis(const Argument& tensor, std::string_view what, int axis) {
  return std::string(tensor.name) + "." + std::string(what) + "[" + std::to_string(axis) + "]";
}

// -1 when the product leaves 64 bits.
std::int64_t checked_elements(const TensorView& view) {
  std::int64_t product = 1;
  bool overflow = false;
  for (int axis = 0; axis < view.rank; ++axis) {
    const std::int64_t extent = view.shape[static_cast<std::size_t>(axis)];
    if (extent == 0) return 0;
    overflow = __builtin_mul_overflow(product, extent, &product) || overflow;
  }
  return overflow ? -1 : product;
}

// Bytes from the first element of lowest to the end of that of highest address; -1 on overflow.
std::int64_t checked_span(const TensorView& view) {
  const auto size = static_cast<std::int64_t>(size_of(view.dtype));
  std::int64_t span = size;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(view.rank); ++axis) {
    std::int64_t bytes = 0;
    // -kLargestSpan bounds the stride first, so that its absolute value exists.
    if (view.shape[axis] <= 1) continue;
    if (view.stride[axis] < -kLargestSpan || view.stride[axis] > kLargestSpan) return -1;
    const std::int64_t stride = view.stride[axis] < 0 ? -view.stride[axis] : view.stride[axis];
    if (__builtin_mul_overflow(stride, view.shape[axis] - 1, &bytes)) return -1;
    if (__builtin_mul_overflow(bytes, size, &bytes)) return -1;
    if (bytes > kLargestSpan) return -1;
    span += bytes;
    if (span > kLargestSpan) return -1;
  }
  return span;
}

// A handful of values: g++ 12 warns of bounds inside std::sort on arrays this short.
template <class T, class Less>
void insertion_sort(std::span<T> values, Less less) {
  for (std::size_t i = 1; i < values.size(); ++i) {
    for (std::size_t j = i; j > 0 && less(values[j], values[j - 1]); --j) std::swap(values[j], values[j - 1]);
  }
}

// step * x for an integer x in [low, high].
struct Term {
  std::int64_t step = 0;
  std::int64_t low = 0;
  std::int64_t high = 0;
};

std::int64_t floor_divide(std::int64_t a, std::int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

// Whether some choice of the terms sums into [low, high]. Terms come with steps descending; where
// strides nest, each level has two or three candidates, else the budget ends the search.
bool reaches(std::span<const Term> terms, std::int64_t low, std::int64_t high, int& budget) {
  if (terms.empty()) return low <= 0 && high >= 0;
  std::int64_t rest_low = 0;
  std::int64_t rest_high = 0;
  for (const Term& term : terms.subspan(1)) {
    rest_low += term.step * term.low;
    rest_high += term.step * term.high;
  }
  const Term& term = terms.front();
  const std::int64_t first = std::max(term.low, -floor_divide(rest_high - low, term.step));
  const std::int64_t last = std::min(term.high, floor_divide(high - rest_low, term.step));
  for (std::int64_t x = first; x <= last; ++x) {
    if (--budget < 0) return true;
    if (reaches(terms.subspan(1), low - term.step * x, high - term.step * x, budget)) return true;
  }
  return false;
}

// The outer axes of both tensors as terms of an address difference; equal steps make one term.
class Difference {
 public:
  void add(const TensorView& view, bool subtract) {
    for (std::size_t axis = 0; axis + 1 < static_cast<std::size_t>(view.rank); ++axis) {
      if (view.shape[axis] <= 1 || view.stride[axis] == 0) continue;
      const auto size = static_cast<std::int64_t>(size_of(view.dtype));
      const std::int64_t step = (subtract ? -view.stride[axis] : view.stride[axis]) * size;
      const std::int64_t reach = view.shape[axis] - 1;
      add_term(step > 0 ? Term{step, 0, reach} : Term{-step, -reach, 0});
    }
  }
  std::span<const Term> sorted() {
    const std::span<Term> used(terms_.data(), count_);
    insertion_sort(used, [](const Term& a, const Term& b) { return a.step > b.step; });
    return used;
  }

 private:
  void add_term(const Term& term) {
    for (Term& known : std::span(terms_.data(), count_)) {
      if (known.step != term.step) continue;
      known.low += term.low;
      known.high += term.high;
      return;
    }
    terms_[count_++] = term;
  }
  std::array<Term, 6> terms_{};  // three outer axes of each
  std::size_t count_ = 0;
};

std::int64_t inner_bytes(const TensorView& view) {
  return view.shape[static_cast<std::size_t>(view.rank - 1)] * static_cast<std::int64_t>(size_of(view.dtype));
}

// Offsets in bytes of the lowest byte and behind the highest, from the first element.
std::pair<std::int64_t, std::int64_t> reach_of(const TensorView& view) {
  const auto size = static_cast<std::int64_t>(size_of(view.dtype));
  std::int64_t low = 0;
  std::int64_t high = size;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(view.rank); ++axis) {
    const std::int64_t bytes = (view.shape[axis] - 1) * view.stride[axis] * size;
    (bytes < 0 ? low : high) += bytes;
  }
  return {low, high};
}

// Whether all of a lies below all of b, which most tensors of a call do one way or the other.
bool lies_before(const TensorView& a, const TensorView& b) {
  const auto distance = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(b.data) -
                                                  reinterpret_cast<std::uintptr_t>(a.data));
  return distance >= reach_of(a).second - reach_of(b).first;
}

}  // namespace

bool Argument::empty() const {
  for (int axis = 0; axis < view.rank; ++axis) {
    if (extent(axis) == 0) return true;
  }
  return view.rank == 0;
}

std::string shape_text(const TensorView& view) {
  std::string text = "[";
  for (int axis = 0; axis < view.rank; ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(view.shape[static_cast<std::size_t>(axis)]);
  }
  return text + "]";
}

Status check_layout(const Argument& tensor, int rank, std::string_view layout) {
  const TensorView& view = tensor.view;
  const std::string_view name = tensor.name;
  if (!view.present()) {
    return Status::invalid_argument(std::string(name) + ": missing; expected " + std::string(layout));
  }
  if (view.rank != rank) {
    // Only four extents exist, whatever the rank claims.
    const std::string came = view.rank > 4 ? std::string() : " with shape " + shape_text(view);
    return Status::invalid_argument(std::string(name) + ": expected rank " + std::to_string(rank) + " " +
                                    std::string(layout) + ", got rank " + std::to_string(view.rank) + came);
  }
  for (int axis = 0; axis < rank; ++axis) {
    if (tensor.extent(axis) < 0) {
      return Status::invalid_argument(at_axis(tensor, "shape", axis) + ": expected at least 0, got " +
                                      std::to_string(tensor.extent(axis)));
    }
  }
  if (checked_elements(view) < 0) {
    return Status::invalid_argument(std::string(name) + ": shape " + shape_text(view) +
                                    " has more elements than 64 bits can count");
  }
  if (tensor.empty()) return {};
  if (tensor.extent(rank - 1) > 1 && tensor.stride(rank - 1) != 1) {
    return Status::invalid_argument(
        at_axis(tensor, "stride", rank - 1) + ": expected 1 (the innermost axis is packed), got " +
        std::to_string(tensor.stride(rank - 1)) + "; copy the tensor or permute its axes");
  }
  if (checked_span(view) < 0) {
    return Status::invalid_argument(std::string(name) + ": shape " + shape_text(view) +
                                    " with these strides reaches further than 2^59 bytes");
  }
  if (view.data == nullptr) {
    return Status::invalid_argument(std::string(name) + ": expected memory for shape " + shape_text(view) +
                                    ", got a null pointer");
  }
  return {};
}

Status check_extent(const Argument& tensor, int axis, std::int64_t expected, std::string_view meaning) {
  if (tensor.extent(axis) == expected) return {};
  return Status::invalid_argument(at_axis(tensor, "shape", axis) + ": expected " + std::to_string(expected) +
                                  " (" + std::string(meaning) + "), got " +
                                  std::to_string(tensor.extent(axis)) + " in shape " +
                                  shape_text(tensor.view));
}

Status check_dtype(const Argument& tensor, std::initializer_list<DType> allowed, std::string_view meaning) {
  if (std::find(allowed.begin(), allowed.end(), tensor.view.dtype) != allowed.end()) return {};
  std::string list;
  for (const DType dtype : allowed) list += (list.empty() ? "" : ", ") + std::string(name(dtype));
  return Status::invalid_argument(std::string(tensor.name) + ".dtype: expected " + list +
                                  (meaning.empty() ? "" : " (" + std::string(meaning) + ")") + ", got " +
                                  std::string(name(tensor.view.dtype)));
}

Status check_device(const Argument& tensor, DeviceId expected) {
  if (tensor.view.device == expected) return {};
  return Status::invalid_argument(std::string(tensor.name) + ".device: expected " + to_string(expected) +
                                  ", got " + to_string(tensor.view.device) + "; copy the tensor there first");
}

Status check_natural_alignment(const Argument& tensor) {
  const std::size_t size = size_of(tensor.view.dtype);
  if (tensor.empty() || reinterpret_cast<std::uintptr_t>(tensor.view.data) % size == 0) return {};
  return Status::invalid_argument(std::string(tensor.name) +
                                  ".data: expected an address that is a multiple of " + std::to_string(size) +
                                  " bytes (its dtype's size)");
}

Status check_writable(const Argument& tensor) {
  if (tensor.empty()) return {};
  std::array<int, 3> all_axes = {0, 1, 2};
  const int outer = tensor.view.rank - 1;
  const std::span<int> axes(all_axes.data(), static_cast<std::size_t>(outer));
  const auto step = [&](int axis) {
    return tensor.stride(axis) < 0 ? -tensor.stride(axis) : tensor.stride(axis);
  };
  insertion_sort(axes, [&](int a, int b) { return step(a) < step(b); });
  std::int64_t inside = tensor.extent(outer);
  for (const int axis : axes) {
    if (tensor.extent(axis) <= 1) continue;
    if (step(axis) < inside) {
      return Status::invalid_argument(
          at_axis(tensor, "stride", axis) + ": expected at least " + std::to_string(inside) + ", got " +
          std::to_string(tensor.stride(axis)) + "; the elements of an output may not overlap");
    }
    inside += (tensor.extent(axis) - 1) * step(axis);
  }
  return {};
}

bool share_memory(const TensorView& a, const TensorView& b) {
  if (Argument{"", a}.empty() || Argument{"", b}.empty() || !(a.device == b.device)) return false;
  if (lies_before(a, b) || lies_before(b, a)) return false;
  const auto distance = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(b.data) -
                                                  reinterpret_cast<std::uintptr_t>(a.data));
  if (distance > 2 * kLargestSpan || distance < -2 * kLargestSpan) return false;
  // Element offsets of a minus those of b must meet the distance, give or take the packed innermost axes.
  Difference difference;
  difference.add(a, false);
  difference.add(b, true);
  int budget = 2000;
  return reaches(difference.sorted(), distance - (inner_bytes(a) - 1), distance + (inner_bytes(b) - 1),
                 budget);
}

int alignment_of(const Argument& tensor) {
  if (tensor.empty()) return 16;
  auto bits = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(tensor.view.data)) | 16U;
  for (int axis = 0; axis + 1 < tensor.view.rank; ++axis) {
    if (tensor.extent(axis) > 1)
      bits |= static_cast<std::uint64_t>(tensor.stride(axis)) * size_of(tensor.view.dtype);
  }
  return 1 << std::countr_zero(bits);
}

}  // namespace headwise
