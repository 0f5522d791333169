// Every kernel of the registry, forced by its id, against the fp64 oracle over combinations of what attention
// can be asked for: grid.txt, which write_grid.py writes. Whatever is not in use holds NaN. Truth of a line
// is computed once for all kernels of a dtype.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "attention/mask.h"
#include "attention/sequence.h"
#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "lab/verify.h"
#include "numerics/backward_case.h"
#include "oracle/oracle.h"
#include "support/host_tensor.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

using test::HostTensor;

std::vector<std::string> grid() {
  std::ifstream file(HEADWISE_SOURCE_DIR "/tests/numerics/grid.txt");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

AttentionProblem problem_of(const std::string& line, DType dtype) {
  return check(parse_problem("dtype=" + std::string(name(dtype)) + " " + line));
}

// The gradients of the same line. Kernels that walk over all pairs one by one set the sizes.
AttentionProblem backward_of(AttentionProblem p) {
  constexpr std::int64_t kQueries = 24, kKeys = 45;
  p.direction = Direction::backward;
  p.lse = false;  // read, whatever a problem says
  p.dbias = p.bias;
  p.dsinks = p.sinks;
  p.seq_q = std::min(p.seq_q, kQueries);
  const std::int64_t page = std::max<std::int64_t>(1, p.page_size);
  p.seq_kv = std::min(p.seq_kv, (kKeys + page - 1) / page * page);
  return p;
}

// How tensors lie and what they hold, which is no part of a problem. The periods share no factor.
lab::InputSpec spec_of(std::size_t number, const AttentionProblem& p) {
  const bool short_mask = p.mask != MaskKind::none && p.seq_kv > 8 && number % 3 == 1;
  return {.kind = number % 11 == 5 ? lab::InputKind::uniform : lab::InputKind::normal,
          .seed = number + 1,
          .layout = number % 2 == 1 ? lab::Layout::bhsd : lab::Layout::bshd,
          .row_padding = number % 5 == 2 ? 5 : 0,
          .offset = number % 7 == 3 ? 3 : 0,
          .mask_short = short_mask ? 5 : 0};
}

void fill_row(const TensorView& t, std::int64_t at, double value) {
  for (std::int64_t c = 0; c < t.shape[3]; ++c) store_element(t.dtype, t.data, at + c, value);
}

// NaN in keys that causal and window hide from every query of their sequence: make_inputs() leaves values
// there, and plants the first.
void poison_outside_band(const lab::Inputs& inputs) {
  const AttentionArgs& args = inputs.host_args();
  const AttentionProblem& p = inputs.problem();
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const Sequence s = sequence_of(args, p, b);
    for (std::int64_t j = s.keys.begin; j < s.keys.end; ++j) {
      const QueryRange queries = query_range(band_of(p, s), s.seq_q, j);
      if (queries.begin < queries.end) continue;
      for (const TensorView* t : {&args.k, &args.v}) {
        for (std::int64_t h = 0; h < p.kv_heads; ++h)
          fill_row(*t, key_offset(*t, p, s, j, h), std::numeric_limits<double>::quiet_NaN());
      }
    }
  }
}

bool has_all(const FeatureSet& f) {
  return f.window && f.softcap && f.alibi && f.sinks && f.bias && f.mask && f.dropout && f.varlen &&
         f.lengths && f.paged;
}

bool all_finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
}

// The largest error of thousands of rows is that of one whose logits are largest, and so is plain's, which
// many rows get in few orders of summation: 2 of 1,356 forward cases (four seeds a line and dtype) came out
// above the limit, by 7 and 23 %, where kernels are as exact as plain over 16 seeds. Such a row is judged
// once more with its neighbours, where plain has sixteen orders.
bool passes_among_few(const lab::Verdict& verdict, lab::Inputs& inputs) {
  constexpr std::int64_t kManyRows = 1024;
  constexpr std::int64_t kNeighbours = 100;
  if (verdict.reason.rfind("out: largest error", 0) != 0 || verdict.rows_verified < kManyRows ||
      !lab::check_guards(inputs).ok())
    return false;
  const AttentionArgs& args = inputs.host_args();
  const std::int64_t queries = sequence_of(args, inputs.problem(), verdict.worst.batch).seq_q;
  std::vector<oracle::RowId> rows;
  for (std::int64_t i = 0; i < queries; ++i) {
    if (std::abs(i - verdict.worst.query) <= kNeighbours)
      rows.push_back({verdict.worst.batch, verdict.worst.head, i});
  }
  const Result<lab::Reference> few = lab::make_reference(args, inputs.problem(), rows, 1);
  return few.ok() && lab::judge(*few, args).passed();
}

// One dtype and every kParts-th line, forward with other tensors again: where a mask hides whole chunks of
// keys, and which sequence is short, is a matter of the seed.
constexpr std::size_t kParts = 3, kForwardRounds = 2;
struct Part {
  Direction direction;
  DType dtype;
  std::size_t first;
};

std::string name_of(const Part& part) {
  return std::string(name(part.direction)) + "_" + std::string(name(part.dtype)) + "_" +
         std::to_string(part.first);
}
std::ostream& operator<<(std::ostream& stream, const Part& part) { return stream << name_of(part); }

class Grid : public testing::TestWithParam<Part> {
 protected:
  void SetUp() override {
    const std::vector<KernelInfo> all =
        GetParam().direction == Direction::forward ? forward_kernels() : backward_kernels();
    for (const KernelInfo& kernel : all) {
      if (kernel.traits.dtype == GetParam().dtype && cannot_run_here(kernel).empty())
        kernels_.push_back(kernel);
    }
    ASSERT_FALSE(kernels_.empty()) << "no kernel of the dtype runs here";
  }

  // The line's plan, or none where the kernel refuses, which is counted.
  Result<Plan> planned(const KernelInfo& kernel, const AttentionProblem& problem) {
    Result<Plan> made = plan(problem, {}, kernel.id);
    if (made.ok()) {
      EXPECT_EQ(made->kernel(), kernel.id);
      return made;
    }
    EXPECT_EQ(made.status().code(), StatusCode::unsupported) << made.status().message();
    EXPECT_FALSE(has_all(kernel.features)) << made.status().message();
    ++refusals_[made.status().message()];
    return made;
  }

  void judge(const KernelInfo& kernel, lab::Inputs& inputs, const lab::Reference& reference,
             const AttentionArgs& args) {
    SCOPED_TRACE(std::string(kernel.id));
    const Result<Plan> made = planned(kernel, inputs.problem());
    if (!made.ok()) return;
    ASSERT_TRUE(lab::poison(inputs).ok());
    const Status status = run(*made, args);
    ASSERT_TRUE(status.ok()) << status.message();
    const lab::Verdict verdict = lab::verify(inputs, reference);
    EXPECT_TRUE(verdict.passed() || passes_among_few(verdict, inputs))
        << verdict.reason << "\n  error_max " << verdict.error_max << " limit " << verdict.limit_max
        << ", rms " << verdict.error_rms << " limit " << verdict.limit_rms << ", lse " << verdict.lse_error;
    EXPECT_GT(verdict.rows_verified, 0);
    ++ran_;
  }

  void judge_all(const AttentionProblem& problem, std::size_t number, std::size_t line) {
    const lab::InputSpec spec = spec_of(number, problem);
    SCOPED_TRACE(headwise::to_string(problem) + "   line " + std::to_string(line + 1) + " seed " +
                 std::to_string(spec.seed));
    Result<lab::Inputs> inputs = lab::make_inputs(problem, spec, cpu());
    ASSERT_TRUE(inputs.ok()) << inputs.status().message();
    if (number % 4 != 0) poison_outside_band(*inputs);
    constexpr double kSeconds = 0.05;
    const Result<lab::Reference> reference = lab::make_reference(*inputs, kSeconds, 1);
    ASSERT_TRUE(reference.ok()) << reference.status().message();
    ASSERT_TRUE(all_finite(reference->truth.out));
    for (const auto* truth : {&reference->gradients.dq, &reference->gradients.dk, &reference->gradients.dv,
                              &reference->score_gradients.dbias, &reference->score_gradients.dsinks})
      ASSERT_TRUE(all_finite(*truth));
    if (problem.direction == Direction::forward) {
      for (const KernelInfo& kernel : kernels_) judge(kernel, *inputs, *reference, inputs->args());
      return;
    }
    judge_gradients(*inputs, *reference);
  }

  // With what forward gives.
  void judge_gradients(lab::Inputs& inputs, const lab::Reference& reference) {
    AttentionArgs args = inputs.args();
    const HostTensor out(args.dout.dtype, args.dout.shape);
    std::vector<float> lse(static_cast<std::size_t>(args.q.shape[0] * args.q.shape[2] * args.q.shape[1]) + 1);
    args.out = out.view;
    args.lse = contiguous(lse.data(), {args.q.shape[0], args.q.shape[2], args.q.shape[1]});
    AttentionProblem forward = inputs.problem();
    forward.direction = Direction::forward;
    forward.dbias = forward.dsinks = false;
    forward.lse = true;
    const Result<Plan> made = plan(forward, {}, forward_beside(kernels_.front()));
    ASSERT_TRUE(made.ok()) << made.status().message();
    const Status status = run(*made, without_gradients(args));
    ASSERT_TRUE(status.ok()) << status.message();
    for (const KernelInfo& kernel : kernels_) judge(kernel, inputs, reference, args);
  }

  std::vector<KernelInfo> kernels_;
  std::map<std::string, int> refusals_;  // by reason
  int ran_ = 0;
};

TEST_P(Grid, AgreesWithTruth) {
  const std::vector<std::string> lines = grid();
  ASSERT_GT(lines.size(), 50U);
  const bool forward = GetParam().direction == Direction::forward;
  for (std::size_t line = GetParam().first; line < lines.size(); line += kParts) {
    const AttentionProblem problem = problem_of(lines[line], GetParam().dtype);
    for (std::size_t round = 0; round < (forward ? kForwardRounds : 1); ++round)
      judge_all(forward ? problem : backward_of(problem), line + round * lines.size(), line);
  }
  for (const auto& [reason, count] : refusals_) std::cout << count << " lines refused: " << reason << '\n';
  RecordProperty("ran", ran_);
  EXPECT_GT(ran_, 0);
}

std::vector<Part> parts() {
  std::vector<Part> all;
  for (const Direction direction : {Direction::forward, Direction::backward}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (std::size_t first = 0; first < kParts; ++first) all.push_back({direction, dtype, first});
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Lines, Grid, testing::ValuesIn(parts()),
                         [](const testing::TestParamInfo<Part>& info) { return name_of(info.param); });

}  // namespace
}  // namespace headwise::numerics
