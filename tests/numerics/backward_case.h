// Forward and then backward of a kernel under test, as its user runs them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "support/run_kernel.h"

namespace headwise::numerics {

inline AttentionArgs without_gradients(AttentionArgs args) {
  for (TensorView* view : {&args.dout, &args.dq, &args.dk, &args.dv, &args.dbias, &args.dsinks}) *view = {};
  return args;
}

// The forward kernel that has every feature.
inline std::string_view forward_beside(const KernelInfo& kernel) {
  for (const KernelInfo& other : forward_kernels()) {
    if (other.traits.algorithm == "naive" && other.traits.dtype == kernel.traits.dtype) return other.id;
  }
  return {};
}

inline Status run_as(std::string_view id, const AttentionArgs& args, const AttentionOptions& options,
                     int threads) {
  Result<AttentionProblem> problem = make_problem(args, options);
  if (!problem.ok()) return problem.status();
  problem->threads = threads;
  const Result<Plan> made = plan(*problem, {}, id);
  return made.ok() ? run(*made, args) : made.status();
}

// out and lse of `args`, then its gradients.
inline void run_both(const KernelInfo& kernel, const AttentionArgs& args, const AttentionOptions& options,
                     int threads = 2) {
  const Status forward = run_as(forward_beside(kernel), without_gradients(args), options, threads);
  ASSERT_TRUE(forward.ok()) << forward.message();
  const Status backward = run_as(kernel.id, args, options, threads);
  ASSERT_TRUE(backward.ok()) << backward.message();
}

// Elements in order, whatever the strides; none of an absent tensor.
inline std::vector<double> values(const TensorView& t) {
  std::vector<double> all;
  if (!t.present()) return all;
  const auto extent = [&](std::size_t axis) {
    return axis < static_cast<std::size_t>(t.rank) ? t.shape[axis] : 1;
  };
  for (std::int64_t a = 0; a < extent(0); ++a) {
    for (std::int64_t b = 0; b < extent(1); ++b) {
      for (std::int64_t c = 0; c < extent(2); ++c) {
        for (std::int64_t d = 0; d < extent(3); ++d) {
          const std::int64_t at = a * t.stride[0] + b * t.stride[1] + c * t.stride[2] + d * t.stride[3];
          all.push_back(load_element(t.dtype, t.data, at));
        }
      }
    }
  }
  return all;
}

class EveryBackwardKernel : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
    ASSERT_FALSE(forward_beside(GetParam()).empty());
  }
  static DType dtype() { return GetParam().traits.dtype; }
};

}  // namespace headwise::numerics
