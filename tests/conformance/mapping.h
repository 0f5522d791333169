// ONNX's operator Attention as a call of Headwise (docs/conformance.md says which part becomes what).
#pragma once

#include "conformance/node_case.h"
#include "headwise/attention.h"

namespace headwise::conformance {

// Views into the case and into tensors here: the case must outlive it, and it may be moved, not copied.
struct Call {
  Tensor present_key, present_value;  // [batch, kv_heads, keys, channels]: past keys and new ones
  Tensor out;                         // as output Y lies
  AttentionArgs args;
  AttentionOptions options;

  Call() = default;
  Call(Call&&) = default;
  Call& operator=(Call&&) = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() = default;
};
Result<Call> make_call(const NodeCase& node);

}  // namespace headwise::conformance
