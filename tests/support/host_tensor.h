// A tensor in host memory for tests: BSHD shape, any floating dtype, packed or with the heads
// before the positions and gaps between rows.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "headwise/attention.h"

namespace headwise::test {

struct HostTensor {
  std::vector<double> memory;  // room and alignment for any dtype
  TensorView view;

  HostTensor(DType dtype, std::array<std::int64_t, 4> shape, bool scattered = false) {
    view = {.dtype = dtype, .rank = 4, .shape = shape};
    const std::int64_t row = shape[3] + (scattered ? 3 : 0);
    view.stride = scattered ? std::array<std::int64_t, 4>{shape[1] * shape[2] * row, row, shape[1] * row, 1}
                            : std::array<std::int64_t, 4>{shape[1] * shape[2] * row, shape[2] * row, row, 1};
    memory.assign(static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * row) + 1, 0);
    view.data = memory.data();
  }
  HostTensor(const HostTensor&) = delete;  // the view points into memory
  HostTensor& operator=(const HostTensor&) = delete;

  [[nodiscard]] std::int64_t at(std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t d) const {
    return b * view.stride[0] + s * view.stride[1] + h * view.stride[2] + d * view.stride[3];
  }
  [[nodiscard]] double get(std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t d) const {
    return load_element(view.dtype, view.data, at(b, s, h, d));
  }
  void set(std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t d, double value) {
    store_element(view.dtype, view.data, at(b, s, h, d), value);
  }

  template <class Function>  // value = function(b, s, h, d)
  void fill(const Function& function) {
    for (std::int64_t b = 0; b < view.shape[0]; ++b) {
      for (std::int64_t s = 0; s < view.shape[1]; ++s) {
        for (std::int64_t h = 0; h < view.shape[2]; ++h) {
          for (std::int64_t d = 0; d < view.shape[3]; ++d) set(b, s, h, d, function(b, s, h, d));
        }
      }
    }
  }
  void fill_normal(std::mt19937_64& generator) {
    std::normal_distribution<double> normal;
    fill([&](auto...) { return normal(generator); });
  }
};

}  // namespace headwise::test
