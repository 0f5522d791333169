// Whether outputs lie within the limits that the pass rule gives a kernel, on a sample of rows.
#pragma once

#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "lab/verify.h"
#include "property/any_problem.h"
#include "support/sight.h"

namespace headwise::numerics {

// Truth and limits of up to 24 rows.
inline lab::Reference truth_of(const AttentionArgs& args, const AttentionProblem& p) {
  constexpr std::size_t kRows = 24;
  const std::vector<oracle::RowId> all = test::rows_of(args, p);
  std::vector<oracle::RowId> rows;
  for (std::size_t n = 0; n < std::min(kRows, all.size()); ++n)
    rows.push_back(all[all.size() <= kRows ? n : within<std::size_t>(0, all.size())]);
  return check(lab::make_reference(args, p, rows, 1));
}

// Values are standard normal; of few rows of few channels plain's largest error may by luck be far below what
// any rounding in f32 gives.
inline constexpr double kFloor = 1e-6;

// Empty, or the first element of the reference's rows that is farther from truth than `factor` times its
// limit and `slack`. `p` tells where rows of `args` lie. Truth is finite here, but for the lse of empty rows.
inline std::string beyond_limits(const lab::Reference& reference, const AttentionArgs& args,
                                 const AttentionProblem& p, double factor = 1, double slack = kFloor) {
  const auto channels = static_cast<std::size_t>(args.out.shape[3]);
  const auto wrong = [](const oracle::RowId& row, const std::string& what, double is, double should,
                        double limit) {
    return what + " of sequence " + std::to_string(row.batch) + " head " + std::to_string(row.head) +
           " query " + std::to_string(row.query) + ": " + std::to_string(is) + ", truth " +
           std::to_string(should) + ", off by " + std::to_string(std::abs(is - should) / limit) + " limits";
  };
  for (std::size_t r = 0; r < reference.rows.size(); ++r) {
    const oracle::RowId& row = reference.rows[r];
    const Sequence s = sequence_of(args, p, row.batch);
    const std::int64_t at = query_offset(args.out, s, row.query, row.head);
    const double limit = factor * reference.out_limits.limit_max + slack;
    for (std::size_t d = 0; d < channels; ++d) {
      const double is = load_element(args.out.dtype, args.out.data, at + static_cast<std::int64_t>(d));
      const double should = reference.truth.out[r * channels + d];
      if (!(std::abs(is - should) <= limit))
        return wrong(row, "out channel " + std::to_string(d), is, should, limit);
    }
    const double is = args.lse.as<float>()[test::lse_offset(args, s, row)];
    const double should = reference.truth.lse[r];
    const double lse_limit = factor * (reference.limit_lse + 1e-5 * std::max(1.0, std::abs(should))) + slack;
    if (is != should && !(std::abs(is - should) <= lse_limit))
      return wrong(row, "lse", is, should, lse_limit);
  }
  return {};
}

}  // namespace headwise::numerics
