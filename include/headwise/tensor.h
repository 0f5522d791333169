// A view of memory that somebody else owns.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "headwise/device.h"
#include "headwise/dtype.h"

namespace [[gnu::visibility("default")]] headwise {

// Up to four dimensions, strides in elements. Attention tensors are BSHD: [batch, seq, heads,
// head_dim]; other layouts through strides; the innermost stride is 1. A default view is absent.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::f32;
  DeviceId device{};
  int rank = 0;
  std::array<std::int64_t, 4> shape{};
  std::array<std::int64_t, 4> stride{};

  // Absent means "argument not given": a tensor without elements is present and has rank > 0.
  [[nodiscard]] bool present() const noexcept { return rank > 0; }
  [[nodiscard]] std::int64_t elements() const noexcept {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[static_cast<std::size_t>(i)];
    return rank == 0 ? 0 : n;
  }
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return static_cast<T*>(data);
  }
};

// A packed view. `data` may point to constants: Headwise writes only to out, lse and gradients.
inline TensorView contiguous(const void* data, DType dtype, std::initializer_list<std::int64_t> shape,
                             DeviceId device = {}) {
  TensorView view{.data = const_cast<void*>(data), .dtype = dtype, .device = device};
  for (const std::int64_t extent : shape) {
    if (view.rank == 4) break;
    view.shape[static_cast<std::size_t>(view.rank++)] = extent;
  }
  std::int64_t step = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    view.stride[static_cast<std::size_t>(i)] = step;
    step *= view.shape[static_cast<std::size_t>(i)];
  }
  return view;
}
template <class T>
TensorView contiguous(const T* data, std::initializer_list<std::int64_t> shape, DeviceId device = {}) {
  return contiguous(data, dtype_of<T>, shape, device);
}

}  // namespace headwise
