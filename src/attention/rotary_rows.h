// One row of one head from place to place: converted, and rotated on the way where asked. For functions that
// checked their arguments.
#pragma once

#include <cstdint>

#include "attention/tensor_checks.h"
#include "headwise/rotary.h"

namespace headwise {

// Tables, layout and dimension of a rotation for rows of `head_dim` channels.
Status check_rotary(const Rotary& rotary, std::int64_t head_dim);

// The angles of one position.
struct RowRotation {
  const float* cos = nullptr;
  const float* sin = nullptr;
  std::int64_t pairs = 0;
  RotaryLayout layout = RotaryLayout::halves;
  float sign = 1;  // of sin: -1 rotates back
};
RowRotation row_rotation(const Rotary& rotary, std::int64_t position) noexcept;

// Writes `channels` elements from `x`, the first of them rotated unless `rotation` is null. `out` is `x` or
// apart from it. Channels that keep their dtype and are not rotated keep their bits.
using MoveRow = void (*)(const void* x, void* out, std::int64_t channels, const RowRotation* rotation);
MoveRow move_row(DType from, DType to) noexcept;

}  // namespace headwise
