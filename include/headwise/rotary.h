// Rotary position embedding (RoPE; Su et al. 2021, arXiv:2104.09864): pairs of channels of a query or key are
// rotated by angles proportional to its position, so that q . k depends on the distance of the two.
//
//   auto tables = headwise::make_rotary_tables(4096, 64);
//   headwise::Status status = headwise::apply_rotary(
//       {.x = q, .out = q, .rotary = tables->rotary(headwise::RotaryLayout::halves)});
#pragma once

#include <cstdint>
#include <vector>

#include "headwise/attention.h"

namespace [[gnu::visibility("default")]] headwise {

// Which channels make pair i of a row's first rotary_dim channels. There is no default: a model run with the
// wrong one gives plausible nonsense.
enum class RotaryLayout : std::uint8_t {
  unspecified,
  halves,       // i and i + rotary_dim / 2: GPT-NeoX, Llama and most models in the formats of today
  interleaved,  // 2 i and 2 i + 1: the paper, GPT-J, Llama's original weights
};

// A rotation: pair (a, b) of a row at position p becomes (a cos - b sin, a sin + b cos), cos and sin being
// element [p, i] of the tables.
struct Rotary {
  TensorView
      cos;  // f32 [positions, rotary_dim / 2]; 0 <= rotary_dim <= head_dim, channels behind it are copied
  TensorView sin;                                   // shape of cos
  RotaryLayout layout = RotaryLayout::unspecified;  // required
  bool inverse = false;  // by the opposite angle: undoes a rotation, and is its gradient
  [[nodiscard]] bool present() const noexcept { return cos.present() || sin.present(); }
};

// Tables that own their memory, row p being position p.
struct RotaryTables {
  std::int64_t positions = 0;
  std::int64_t rotary_dim = 0;
  std::vector<float> cos;  // [positions, rotary_dim / 2]
  std::vector<float> sin;
  // Views of the tables: they live as long as the vectors are left alone.
  [[nodiscard]] Rotary rotary(RotaryLayout layout, bool inverse = false) const noexcept;
};

// cos and sin of the angles p theta^(-2 i / rotary_dim) in radians, computed in double and rounded once.
// rotary_dim is even. Errors: invalid_argument (negative sizes, odd rotary_dim, theta that is not a finite
// number above 0), out_of_memory.
Result<RotaryTables> make_rotary_tables(std::int64_t positions, std::int64_t rotary_dim,
                                        double theta = 10000.0);

struct RotaryArgs {
  TensorView x;    // [batch, seq, heads, head_dim], f32, f16 or bf16: queries or keys
  TensorView out;  // the same shape, any of these dtypes; may be the very view x (in place)
  Rotary rotary;
  // int32 [batch]: position of each sequence's first row, the next rows follow; or [batch, seq]: of every
  // row, as rows lie in x. Absent: each sequence begins at 0.
  TensorView positions{};
  // int32 [sequences + 1]: packed rows. x is then [1, total, heads, head_dim], positions [sequences] or [1,
  // total].
  TensorView cu_seqlens{};
};

// Rotates rows by their positions, in fp32. Of `execution`, threads and executor are read.
//
// Errors, nothing written then: invalid_argument (shapes, dtypes, a missing layout, positions outside the
// tables, out that shares memory with anything but is not the view x), unsupported (memory of a device that
// is no CPU).
Status apply_rotary(const RotaryArgs& args, const Execution& execution = {});

}  // namespace headwise
