// What a kernel is to the rest of Headwise: one constant in its backend's best-first list.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "headwise/attention.h"
#include "headwise/device.h"
#include "headwise/kernels.h"

namespace headwise {

// Yes, or a short reason that a user can act on ("head_dim 96: built for 64, 128, 256").
struct Support {
  std::string reason;
  [[nodiscard]] bool ok() const noexcept { return reason.empty(); }
  static Support yes() { return {}; }
  static Support no(std::string why) { return {std::move(why)}; }
};

// Sizes that a kernel reads at run time and a tuner may choose; they never change what is
// computed, only how fast (a kernel's first policy is its default).
struct Policy {
  std::string_view name;
  std::int64_t block_q = 0;
  std::int64_t block_kv = 0;
};

// What run gets beside the tensors. `problem` holds the actual sizes of this call.
struct RunContext {
  const AttentionProblem& problem;
  const Policy& policy;
  int threads;  // > 0
  Workspace workspace;
  void* stream;
  const Executor* executor;
};

struct Kernel {
  std::string_view id;
  Traits traits;
  FeatureSet features;
  std::span<const Policy> policies;  // at least one
  // For the maxima in `problem` (threads resolved, > 0); never grows when a size shrinks.
  std::size_t (*workspace_bytes)(const AttentionProblem& problem, const Policy& policy);
  Status (*run)(const AttentionArgs& args, const RunContext& context) noexcept;
  // Why kernels behind this one are measured to be faster for the problem, empty where none is; may be null.
  // plan() then takes the next that supports the problem and does not yield. With problem.batch_invariant it
  // reads neither batch nor threads.
  std::string_view (*yields)(const AttentionProblem& problem) = nullptr;
};

// Whether the kernel can run the problem on the device: dtypes, direction and features that its source does
// not have first, then the instruction set.
Support supports(const Kernel& kernel, const AttentionProblem& problem, const Device& device);
// The same without the device.
Support supports_features(const AttentionProblem& problem, const Traits& traits, const FeatureSet& features);

}  // namespace headwise
