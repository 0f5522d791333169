// Whether a contender's result is right: measured against fp64 truth, limited by what plain
// arithmetic in the same dtype would have got wrong (the pass rule of docs/design.md section 4).
#pragma once

#include <array>
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
// The same rows for the same arguments. threads 0: all. Host tensors are needed where plants() needs them.
std::vector<oracle::RowId> rows_to_verify(const AttentionProblem& problem, double seconds = 1.0,
                                          int threads = 0, const AttentionArgs& host_args = {});
// The same of direction backward. Rows of dq are chosen like rows of out. One row of dk and dv costs the
// whole attention of the heads that share the key, so where not all fit into the time they come from few
// (batch, kv head) pairs: always the first and the last, random ones as time allows; of each at least 64 keys
// (ends, tile edges, random ones) and all planted ones.
oracle::GradientRows gradient_rows_to_verify(const AttentionProblem& problem, double seconds = 1.0,
                                             int threads = 0, const AttentionArgs& host_args = {});

// About how long truth and plain of those rows take: `seconds`, or more where even the fewest rows need it.
double gradient_reference_seconds(const AttentionProblem& problem, double seconds = 1.0, int threads = 0);

// Errors of plain over the rows, of few rows the worst of up to sixteen orders of summation; and what a
// contender may have.
struct Limits {
  double plain_max = 0, plain_rms = 0;
  double limit_max = 0, limit_rms = 0;
};

// Truth and limits for some rows of some inputs: made once, used for every contender.
struct Reference {
  AttentionProblem problem;
  // Direction forward:
  std::vector<oracle::RowId> rows{};
  oracle::Rows truth{};
  Limits out_limits{};
  double plain_lse = 0;  // largest error of its lse
  double limit_lse = 0;  // plus 1e-5 * max(1, |lse|) of the row
  // Direction backward:
  oracle::GradientRows gradient_rows{};
  oracle::Gradients gradients{};
  oracle::ScoreGradients score_gradients{};  // those the problem asks for, whole
  std::array<Limits, 5> gradient_limits{};   // of dq, dk, dv, dbias and dsinks
};
// From host tensors. threads 0: all.
Result<Reference> make_reference(const AttentionArgs& host_args, const AttentionProblem& problem,
                                 std::span<const oracle::RowId> rows, int threads = 0);
Result<Reference> make_reference(const AttentionArgs& host_args, const AttentionProblem& problem,
                                 const oracle::GradientRows& rows, int threads = 0);
// Of rows_to_verify() or gradient_rows_to_verify() of the inputs' problem.
Result<Reference> make_reference(const Inputs& inputs, double seconds = 1.0, int threads = 0);

enum class VerdictStatus : std::uint8_t { pass, fail };

struct Verdict {
  VerdictStatus status = VerdictStatus::fail;
  // Against truth, over finite elements; backward: of the gradient whose error is largest by its own limits.
  double error_max = 0, error_rms = 0;
  double limit_max = 0, limit_rms = 0;
  double plain_max = 0, plain_rms = 0;
  double lse_error = 0;  // the largest; 0 where no lse was asked for
  std::int64_t rows_verified = 0;
  // Row of error_max, or of the first element that is wrong in kind; of dk and dv {batch, kv head, key}.
  oracle::RowId worst{};
  std::string reason;  // empty on a pass; says which tensor and where
  [[nodiscard]] bool passed() const noexcept { return status == VerdictStatus::pass; }
};

// Looks at out and, where the problem asks for it and it is given, lse; backward: at dq, dk and dv, and at
// dbias and dsinks where asked for. All in host memory. Gradients of queries and of keys in use that are not
// verified must at least have been written; what stands in dk and dv beside the keys in use is not looked at.
Verdict judge(const Reference& reference, const AttentionArgs& host_args);
// Fetches the outputs, judges them and checks the guard bands.
Verdict verify(Inputs& inputs, const Reference& reference);

}  // namespace headwise::lab
