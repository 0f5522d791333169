// The tensors that a case can have: their shapes, what of them lies where in their buffers, and how much
// memory that takes. inputs.h fills them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "headwise/attention.h"
#include "lab/inputs.h"

namespace headwise::lab {

inline constexpr int kPoison = 0xff;  // repeated: a NaN in every floating dtype, -1 in an int32

struct InputTensor {
  // What a spec's layout, padding and offset do to it.
  enum class Form : std::uint8_t {
    operand,  // BSHD, all of them
    scores,   // [batch, heads, queries, keys]: padding and offset
    packed,   // none
    index,    // none, and in host memory whatever the device
  };
  const char* name;
  TensorView AttentionArgs::* view;
  Form form;
  int rank;
  std::array<std::int64_t, 4> shape;
  DType dtype;
  bool wanted;  // the problem has it
  bool output;  // contenders write it
};

// Of a completed problem (sequence_inputs.h), in the order of Inputs::buffers_.
using InputTensors = std::array<InputTensor, Inputs::kTensors>;
InputTensors tensors_of(const AttentionProblem& problem, const InputSpec& spec);

// The spec with what of it holds for the tensor.
InputSpec spec_of(const InputTensor& tensor, const InputSpec& spec);

// Guards included; the largest size_t where it overflows.
inline constexpr std::size_t kTooLarge = ~std::size_t{0};
std::size_t buffer_bytes(const InputTensor& tensor, const InputSpec& spec);

TensorView view_of(const InputTensor& tensor, const InputSpec& spec, std::byte* base, DeviceId device);

}  // namespace headwise::lab
