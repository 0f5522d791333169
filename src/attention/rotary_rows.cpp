#include "attention/rotary_rows.h"

#include <cstring>
#include <string>
#include <type_traits>

#include "attention/host_tensors.h"
#include "core/try.h"

namespace headwise {
namespace {

// Pair i is elements first[i * step] and second[i * step]; both are read before either is written.
template <class From, class To>
void rotate_pairs(const From* first, const From* second, To* out_first, To* out_second, std::int64_t step,
                  const RowRotation& rotation) noexcept {
  for (std::int64_t i = 0; i < rotation.pairs; ++i) {
    const float cos = rotation.cos[i];
    const float sin = rotation.sign * rotation.sin[i];
    const float a = to_float(first[i * step]);
    const float b = to_float(second[i * step]);
    out_first[i * step] = from_double<To>(a * cos - b * sin);
    out_second[i * step] = from_double<To>(a * sin + b * cos);
  }
}

template <class From, class To>
void move(const void* x, void* out, std::int64_t channels, const RowRotation* rotation) {
  const From* const from = static_cast<const From*>(x);
  To* const to = static_cast<To*>(out);
  std::int64_t rotated = 0;
  if (rotation != nullptr) {
    const bool halves = rotation->layout == RotaryLayout::halves;
    const std::int64_t second = halves ? rotation->pairs : 1;
    rotate_pairs(from, from + second, to, to + second, halves ? 1 : 2, *rotation);
    rotated = 2 * rotation->pairs;
  }
  if constexpr (std::is_same_v<From, To>) {
    if (x != out && rotated < channels)
      std::memcpy(to + rotated, from + rotated, static_cast<std::size_t>(channels - rotated) * sizeof(To));
  } else {
    for (std::int64_t d = rotated; d < channels; ++d) to[d] = from_double<To>(to_float(from[d]));
  }
}

}  // namespace

Status check_rotary(const Rotary& rotary, std::int64_t head_dim) {
  const Argument cos{"rotary.cos", rotary.cos};
  const Argument sin{"rotary.sin", rotary.sin};
  for (const Argument& table : {cos, sin})
    HEADWISE_TRY(check_host_tensor(table, 2, "[positions, rotary_dim / 2]", {DType::f32}));
  HEADWISE_TRY(check_extents_as(sin, cos));
  if (cos.extent(1) > head_dim / 2) {
    return Status::invalid_argument("rotary.cos.shape[1] (rotary_dim / 2): expected at most " +
                                    std::to_string(head_dim / 2) + " (half of head_dim " +
                                    std::to_string(head_dim) + "), got " + std::to_string(cos.extent(1)));
  }
  if (rotary.layout == RotaryLayout::halves || rotary.layout == RotaryLayout::interleaved) return {};
  return Status::invalid_argument(
      "rotary.layout: required; choose halves (GPT-NeoX, Llama) or interleaved (GPT-J)");
}

RowRotation row_rotation(const Rotary& rotary, std::int64_t position) noexcept {
  return {rotary.cos.as<const float>() + position * rotary.cos.stride[0],
          rotary.sin.as<const float>() + position * rotary.sin.stride[0], rotary.cos.shape[1], rotary.layout,
          rotary.inverse ? -1.0F : 1.0F};
}

MoveRow move_row(DType from, DType to) noexcept {
  return with_type_of(from, [&]<class From>(From) {
    return with_type_of(to, []<class To>(To) -> MoveRow { return &move<From, To>; });
  });
}

}  // namespace headwise
