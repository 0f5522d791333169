// The problem that a call's tensors describe, with every check of them against each other. In two
// parts: sizes, dtypes and optional tensors of the plain operands, and the features around them.
#pragma once

#include <span>

#include "attention/tensor_checks.h"
#include "headwise/attention.h"

namespace headwise {

// Fills in all of `problem` that tensors tell. Reads from it what they do not: page_size; and, as
// hints from a plan, broadcast axes (an axis of extent 1 where the size is 1 may count as varying)
// and the longest sequence where cu_seqlens lie on a device.
Status derive_problem(const AttentionArgs& args, DeviceId device, AttentionProblem& problem);

// The second part: packed rows, lengths and pages decide what the extents of q, k and v mean.
Status derive_sequences(const AttentionArgs& args, DeviceId device, AttentionProblem& problem);
// mask, bias, alibi_slopes, sinks, scales.
Status derive_score_features(const AttentionArgs& args, DeviceId device, AttentionProblem& problem);

// Entry i of an int32 index array in host memory.
inline std::int64_t index_at(const TensorView& view, std::int64_t i, std::int64_t j = 0) {
  return view.as<const std::int32_t>()[i * view.stride[0] + j * view.stride[1]];
}

}  // namespace headwise
