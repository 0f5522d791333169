// A tensor of rank 1 to 4 with gaps between its rows, whose surroundings hold a pattern: what a function
// writes beside its elements is found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <random>
#include <vector>

#include "headwise/attention.h"

namespace headwise::test {

class PoisonedTensor {
 public:
  // `gap` elements behind each innermost row, and a margin before the first and behind the last.
  PoisonedTensor(DType dtype, std::initializer_list<std::int64_t> shape, std::int64_t gap = 3)
      : view(contiguous(nullptr, dtype, shape)) {
    const auto last = static_cast<std::size_t>(view.rank - 1);
    std::int64_t step = view.shape[last] + gap;
    for (std::size_t axis = last; axis-- > 0;) {
      view.stride[axis] = step;
      step *= view.shape[axis];
    }
    const std::size_t bytes = (static_cast<std::size_t>(step) + 2 * kMargin) * size_of(dtype);
    memory_.assign((bytes + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t), kPattern);
    view.data = reinterpret_cast<char*>(memory_.data()) + kMargin * size_of(dtype);
    before_ = memory_;
  }
  PoisonedTensor(const PoisonedTensor&) = delete;  // the view points into memory_
  PoisonedTensor& operator=(const PoisonedTensor&) = delete;

  [[nodiscard]] std::int64_t at(std::int64_t a, std::int64_t b = 0, std::int64_t c = 0,
                                std::int64_t d = 0) const {
    // Of a shorter rank, the innermost axis is the last index given and its stride 1.
    return a * view.stride[0] + b * view.stride[1] + c * view.stride[2] + d * view.stride[3];
  }
  [[nodiscard]] double get(std::int64_t a, std::int64_t b = 0, std::int64_t c = 0, std::int64_t d = 0) const {
    return load_element(view.dtype, view.data, at(a, b, c, d));
  }
  void set(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d, double value) {
    store_element(view.dtype, view.data, at(a, b, c, d), value);
  }
  template <class Function>  // function(indices of an element), absent axes being 0
  void each(const Function& function) const {
    const auto extent = [&](std::size_t axis) {
      return axis < static_cast<std::size_t>(view.rank) ? view.shape[axis] : 1;
    };
    for (std::int64_t a = 0; a < extent(0); ++a) {
      for (std::int64_t b = 0; b < extent(1); ++b) {
        for (std::int64_t c = 0; c < extent(2); ++c) {
          for (std::int64_t d = 0; d < extent(3); ++d) function(a, b, c, d);
        }
      }
    }
  }
  void fill_normal(std::mt19937_64& generator) {
    std::normal_distribution<double> normal;
    each([&](auto... at) { set(at..., normal(generator)); });
    remember();
  }

  // From here on, changes are told against the memory as it stands now.
  void remember() { before_ = memory_; }
  [[nodiscard]] bool unchanged() const { return memory_ == before_; }
  // Whether no byte beside the elements for which written(indices) holds has changed.
  template <class Function>
  [[nodiscard]] bool unchanged_but_for(const Function& written) const {
    std::vector<std::uint64_t> now = memory_;
    const std::size_t size = size_of(view.dtype);
    each([&](auto... indices) {
      if (!written(indices...)) return;
      const std::size_t offset = (static_cast<std::size_t>(at(indices...)) + kMargin) * size;
      std::memcpy(reinterpret_cast<char*>(now.data()) + offset,
                  reinterpret_cast<const char*>(before_.data()) + offset, size);
    });
    return now == before_;
  }
  [[nodiscard]] bool surroundings_unchanged() const {
    return unchanged_but_for([](auto...) { return true; });
  }

  TensorView view;

 private:
  static constexpr std::size_t kMargin = 8;
  static constexpr std::uint64_t kPattern = 0x7fc1fedcffa1ff77U;  // a NaN as f32, f16 and bf16
  std::vector<std::uint64_t> memory_, before_;
};

}  // namespace headwise::test
