// Whether a contender's result is right: measured against fp64 truth, limited by what plain
// arithmetic in the same dtype would have got wrong (the pass rule of docs/design.md section 4).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "headwise/attention.h"
#include "lab/inputs.h"
#include "oracle/oracle.h"

namespace headwise::lab {

// All rows where truth and plain take under about `seconds` by the cost model; else, for every
// head, the planted rows, tile edges and random rows, as many as the time allows but at least 64.
// The same rows for the same arguments. threads 0: all.
std::vector<oracle::RowId> rows_to_verify(const AttentionProblem& problem, double seconds = 1.0,
                                          int threads = 0);

// Truth and limits for some rows of some inputs: made once, used for every contender.
struct Reference {
  AttentionProblem problem;
  std::vector<oracle::RowId> rows;
  oracle::Rows truth;
  // Errors of plain over the rows; of few rows the worst of up to sixteen orders of summation.
  double plain_max = 0, plain_rms = 0;
  double plain_lse = 0;                 // largest error of its lse
  double limit_max = 0, limit_rms = 0;  // what a contender may have
  double limit_lse = 0;                 // plus 1e-5 * max(1, |lse|) of the row
};
// From host tensors. threads 0: all.
Result<Reference> make_reference(const AttentionArgs& host_args, const AttentionProblem& problem,
                                 std::span<const oracle::RowId> rows, int threads = 0);
// Of rows_to_verify(inputs.problem()).
Result<Reference> make_reference(const Inputs& inputs, double seconds = 1.0, int threads = 0);

enum class VerdictStatus : std::uint8_t { pass, fail };

struct Verdict {
  VerdictStatus status = VerdictStatus::fail;
  double error_max = 0, error_rms = 0;  // against truth, over finite elements
  double limit_max = 0, limit_rms = 0;
  double plain_max = 0, plain_rms = 0;
  double lse_error = 0;  // the largest; 0 where no lse was asked for
  std::int64_t rows_verified = 0;
  oracle::RowId worst{};  // row of error_max, or of the first element that is wrong in kind
  std::string reason;     // empty on a pass
  [[nodiscard]] bool passed() const noexcept { return status == VerdictStatus::pass; }
};

// Looks at out and, where the problem asks for it, lse; both in host memory.
Verdict judge(const Reference& reference, const AttentionArgs& host_args);
// Fetches the outputs, judges them and checks the guard bands.
Verdict verify(Inputs& inputs, const Reference& reference);

}  // namespace headwise::lab
