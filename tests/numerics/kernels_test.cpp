// Every kernel of the registry, forced by its id, against the fp64 oracle.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "lab/verify.h"
#include "numerics/cases.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

class EveryKernel : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_P(EveryKernel, AgreesWithTruth) {
  const KernelInfo& kernel = GetParam();
  int ran = 0;
  for (const Case& c : cases(kernel.traits.dtype)) {
    SCOPED_TRACE(to_string(c));
    Result<lab::Inputs> inputs = lab::make_inputs(c.problem, c.inputs, cpu());
    ASSERT_TRUE(inputs.ok()) << inputs.status().message();
    const Result<lab::Reference> reference = lab::make_reference(*inputs, 0.5);
    ASSERT_TRUE(reference.ok()) << reference.status().message();
    const Result<Plan> plan = headwise::plan(inputs->problem(), {}, kernel.id);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    ASSERT_EQ(plan->kernel(), kernel.id);
    ASSERT_TRUE(lab::poison(*inputs).ok());
    const Status status = run(*plan, inputs->args());
    ASSERT_TRUE(status.ok()) << status.message();
    const lab::Verdict verdict = lab::verify(*inputs, *reference);
    EXPECT_TRUE(verdict.passed()) << verdict.reason << "\n  error_max " << verdict.error_max << " limit "
                                  << verdict.limit_max << ", rms " << verdict.error_rms << " limit "
                                  << verdict.limit_rms << ", lse " << verdict.lse_error;
    ++ran;
  }
  RecordProperty("cases", ran);
}

TEST_P(EveryKernel, AgreesOnRealInput) {
  const KernelInfo& kernel = GetParam();
  const std::string file = captured_file();
  const std::vector<int> layers = check(lab::captured_layers(file));
  ASSERT_FALSE(layers.empty());
  for (const int layer : layers) {
    for (const bool causal : {false, true}) {
      AttentionProblem problem = check(lab::captured_problem(file, layer));
      problem.dtype = problem.kv_dtype = kernel.traits.dtype;
      problem.causal = causal;
      problem.lse = true;
      SCOPED_TRACE(headwise::to_string(problem) + " layer " + std::to_string(layer));
      lab::Inputs inputs = check(
          lab::make_inputs(problem, {.kind = lab::InputKind::captured, .file = file, .layer = layer}, cpu()));
      const lab::Reference reference = check(lab::make_reference(inputs, 0.5));
      ASSERT_TRUE(lab::poison(inputs).ok());
      const Status status = run(check(plan(inputs.problem(), {}, kernel.id)), inputs.args());
      ASSERT_TRUE(status.ok()) << status.message();
      const lab::Verdict verdict = lab::verify(inputs, reference);
      EXPECT_TRUE(verdict.passed()) << verdict.reason;
    }
  }
}

// With few rows one rounding decides, and plain has to be judged in several orders of summation.
TEST_P(EveryKernel, SmallCasesPassWhateverTheSeed) {
  const KernelInfo& kernel = GetParam();
  for (const char* text :
       {"seq_q=16 seq_kv=16 heads=1 head_dim=16", "seq_q=64 seq_kv=64 heads=4 kv_heads=2 head_dim=32"}) {
    AttentionProblem problem = check(parse_problem(text));
    problem.dtype = problem.kv_dtype = kernel.traits.dtype;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
      lab::Inputs inputs = check(lab::make_inputs(problem, {.seed = seed}, cpu()));
      const lab::Reference reference = check(lab::make_reference(inputs, 0.5));
      ASSERT_TRUE(lab::poison(inputs).ok());
      ASSERT_TRUE(run(check(plan(problem, {}, kernel.id)), inputs.args()).ok());
      const lab::Verdict verdict = lab::verify(inputs, reference);
      EXPECT_TRUE(verdict.passed()) << text << " seed " << seed << ": " << verdict.reason;
    }
  }
}

// Bits of out and lse must not depend on who ran, beside whom, or on what a row may not see.
TEST_P(EveryKernel, ThreadsAndRepeatsGiveTheSameBits) {
  const KernelInfo& kernel = GetParam();
  for (const char* text : {"seq_q=1 seq_kv=3000 heads=4 kv_heads=2 head_dim=64 lse=1",
                           "batch=2 seq_q=130 seq_kv=130 heads=4 head_dim=48 causal=1 lse=1",
                           "seq_q=60 seq_kv=1100 heads=1 head_dim=64 causal=1 align=bottom_right lse=1"}) {
    AttentionProblem problem = check(parse_problem(text));
    problem.dtype = problem.kv_dtype = kernel.traits.dtype;
    SCOPED_TRACE(text);
    lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
    std::vector<std::byte> first;
    for (const int threads : {1, 2, 3, 7, 2, 2, 2}) {
      problem.threads = threads;
      ASSERT_TRUE(lab::poison(inputs).ok());
      ASSERT_TRUE(run(check(plan(problem, {}, kernel.id)), inputs.args()).ok());
      const std::vector<std::byte> bits = output_bits(inputs.args());
      if (first.empty()) first = bits;
      EXPECT_EQ(bits, first) << threads << " threads";
    }
  }
}

// Nor on which rows a thread takes together, where some see a value that is not finite and others do not: a
// tile ends at any key, and what the next one sees behind it may be staged for both.
TEST_P(EveryKernel, NonFiniteValuesReachTheSameRowsWithAnyThreads) {
  const KernelInfo& kernel = GetParam();
  AttentionProblem problem =
      check(parse_problem("seq_q=600 seq_kv=607 heads=1 head_dim=16 causal=1 align=bottom_right lse=1"));
  problem.dtype = problem.kv_dtype = kernel.traits.dtype;
  lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
  for (const std::int64_t key : {39, 301, 583}) {
    fill_keys(without_k(inputs.args()), key, key + 1, std::numeric_limits<double>::infinity());
  }
  std::vector<std::byte> first;
  for (const int threads : {1, 2, 7}) {
    problem.threads = threads;
    ASSERT_TRUE(lab::poison(inputs).ok());
    ASSERT_TRUE(run(check(plan(problem, {}, kernel.id)), inputs.args()).ok());
    const std::vector<std::byte> bits = output_bits(inputs.args());
    if (first.empty()) first = bits;
    EXPECT_EQ(bits, first) << threads << " threads";
  }
}

TEST_P(EveryKernel, BatchNeighboursChangeNothing) {
  const KernelInfo& kernel = GetParam();
  AttentionProblem problem = check(parse_problem(
      "batch=3 seq_q=70 seq_kv=1300 heads=4 kv_heads=2 head_dim=32 causal=1 align=bottom_right lse=1"));
  problem.dtype = problem.kv_dtype = kernel.traits.dtype;
  lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
  ASSERT_TRUE(run(check(plan(problem, {}, kernel.id)), inputs.args()).ok());
  const std::vector<std::byte> together = output_bits(inputs.args());
  AttentionArgs alone = inputs.args();
  const Plan planned_for_three = check(plan(problem, {}, kernel.id));
  for (std::int64_t b = 0; b < 3; ++b) {
    AttentionArgs one = batch_item(alone, b);
    ASSERT_TRUE(lab::poison(inputs).ok());
    AttentionProblem single = problem;
    single.batch = 1;
    ASSERT_TRUE(run(check(plan(single, {}, kernel.id)), one).ok());
    const std::vector<std::byte> bits = output_bits(one);
    EXPECT_EQ(bits, output_bits_of_batch(together, inputs.args(), b)) << "item " << b;
    // The plan of the maxima serves the smaller call with the same bits.
    ASSERT_TRUE(lab::poison(inputs).ok());
    ASSERT_TRUE(run(planned_for_three, one).ok());
    EXPECT_EQ(output_bits(one), bits) << "item " << b << " under the larger plan";
  }
}

TEST_P(EveryKernel, LaterKeysChangeNoCausalRow) {
  const KernelInfo& kernel = GetParam();
  AttentionProblem problem = check(parse_problem("seq_q=600 seq_kv=600 heads=2 head_dim=32 causal=1 lse=1"));
  problem.dtype = problem.kv_dtype = kernel.traits.dtype;
  lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
  const Plan planned = check(plan(problem, {}, kernel.id));
  ASSERT_TRUE(run(planned, inputs.args()).ok());
  const std::vector<std::byte> all = output_bits(inputs.args());
  AttentionArgs cut = inputs.args();
  for (const std::int64_t length : {1, 15, 16, 47, 100, 512, 513}) {
    for (TensorView* view : {&cut.q, &cut.k, &cut.v, &cut.out}) view->shape[1] = length;
    cut.lse.shape[2] = length;
    ASSERT_TRUE(lab::poison(inputs).ok());
    ASSERT_TRUE(run(planned, cut).ok());
    EXPECT_EQ(output_bits(cut), output_bits_of_rows(all, inputs.args(), length)) << length;
  }
}

TEST_P(EveryKernel, WhatNoRowMaySeeNeverReachesAnOutput) {
  const KernelInfo& kernel = GetParam();
  AttentionProblem problem =
      check(parse_problem("seq_q=50 seq_kv=90 heads=2 head_dim=24 causal=1 align=top_left lse=1"));
  problem.dtype = problem.kv_dtype = kernel.traits.dtype;
  lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
  const Plan planned = check(plan(problem, {}, kernel.id));
  ASSERT_TRUE(run(planned, inputs.args()).ok());
  const std::vector<std::byte> clean = output_bits(inputs.args());
  fill_keys(inputs.args(), 50, 90, std::numeric_limits<double>::quiet_NaN());
  ASSERT_TRUE(run(planned, inputs.args()).ok());
  EXPECT_EQ(output_bits(inputs.args()), clean);
  fill_keys(inputs.args(), 50, 90, std::numeric_limits<double>::infinity());
  ASSERT_TRUE(run(planned, inputs.args()).ok());
  EXPECT_EQ(output_bits(inputs.args()), clean);
}

// K in slots that only later rows see: their scores leak nowhere. V too for nan_isolating kernels.
TEST_P(EveryKernel, NonFiniteKeysReachOnlyRowsThatSeeThem) {
  const KernelInfo& kernel = GetParam();
  AttentionProblem problem = check(parse_problem("seq_q=64 seq_kv=64 heads=2 head_dim=16 causal=1 lse=1"));
  problem.dtype = problem.kv_dtype = kernel.traits.dtype;
  for (const bool values : {false, true}) {
    if (values && !kernel.traits.nan_isolating) continue;
    lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
    const Plan planned = check(plan(problem, {}, kernel.id));
    ASSERT_TRUE(run(planned, inputs.args()).ok());
    const std::vector<std::byte> clean = output_bits(inputs.args());
    AttentionArgs poisoned = inputs.args();
    fill_keys(values ? without_k(poisoned) : without_v(poisoned), 40, 41,
              std::numeric_limits<double>::quiet_NaN());
    ASSERT_TRUE(run(planned, inputs.args()).ok());
    EXPECT_EQ(output_bits_of_rows(output_bits(inputs.args()), inputs.args(), 40),
              output_bits_of_rows(clean, inputs.args(), 40));
    for (std::int64_t row = 40; row < 64; ++row) {
      EXPECT_TRUE(
          std::isnan(load_element(problem.dtype, inputs.args().out.data, row * inputs.args().out.stride[1])));
    }
  }
}

TEST_P(EveryKernel, SurvivesAdversarialScores) {
  const KernelInfo& kernel = GetParam();
  AttentionProblem problem =
      check(parse_problem("seq_q=20 seq_kv=1200 heads=1 head_dim=16 lse=1 softmax_scale=1"));
  problem.dtype = problem.kv_dtype = kernel.traits.dtype;
  struct Ramp {
    const char* name;
    double first, last;
  };
  // Rising maxima rescale at every block; falling ones never; large ones overflow a naive exp.
  for (const Ramp ramp : {Ramp{"rising", -40, 40}, Ramp{"falling", 40, -40}, Ramp{"huge", 0, 30000},
                          Ramp{"very negative", -60000, -50000}, Ramp{"equal", 3, 3}}) {
    SCOPED_TRACE(ramp.name);
    lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
    ramp_scores(inputs.args(), ramp.first, ramp.last);
    const lab::Reference reference = check(lab::make_reference(inputs, 0.5));
    ASSERT_TRUE(lab::poison(inputs).ok());
    ASSERT_TRUE(run(check(plan(problem, {}, kernel.id)), inputs.args()).ok());
    const lab::Verdict verdict = lab::verify(inputs, reference);
    EXPECT_TRUE(verdict.passed()) << verdict.reason << " error " << verdict.error_max << " limit "
                                  << verdict.limit_max;
  }
}

TEST_P(EveryKernel, RefusesBadWorkspaceAndWritesNothing) {
  const KernelInfo& kernel = GetParam();
  AttentionProblem problem = check(parse_problem("seq_q=33 seq_kv=600 heads=2 head_dim=16 lse=1"));
  problem.dtype = problem.kv_dtype = kernel.traits.dtype;
  lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
  ASSERT_TRUE(lab::poison(inputs).ok());
  const std::vector<std::byte> before = output_bits(inputs.args());
  const Plan planned = check(plan(problem, {}, kernel.id));
  ASSERT_GT(planned.workspace_bytes(), 0U);
  OwnedWorkspace memory(planned.workspace_bytes() + 64);
  auto* data = static_cast<std::byte*>(memory.get().data);
  for (const Workspace& bad : {Workspace{}, Workspace{data, planned.workspace_bytes() - 1},
                               Workspace{data + 4, planned.workspace_bytes()}}) {
    const Status status = planned.run(inputs.args(), {.workspace = bad});
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_NE(status.message().find("workspace"), std::string::npos) << status.message();
    EXPECT_EQ(output_bits(inputs.args()), before);
  }
  EXPECT_TRUE(planned.run(inputs.args(), {.workspace = memory.get()}).ok());
}

// workspace_bytes is what run touches, no more: a guard behind it stays whole.
TEST_P(EveryKernel, StaysInsideItsWorkspace) {
  const KernelInfo& kernel = GetParam();
  for (const char* text :
       {"seq_q=1 seq_kv=1537 heads=4 kv_heads=2 head_dim=64 threads=4",
        "seq_q=97 seq_kv=203 heads=2 head_dim=37 lse=1",
        "batch=2 seq_q=300 seq_kv=300 heads=2 head_dim=16 head_dim_v=40 causal=1 threads=2"}) {
    AttentionProblem problem = check(parse_problem(text));
    problem.dtype = problem.kv_dtype = kernel.traits.dtype;
    lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
    const Plan planned = check(plan(problem, {}, kernel.id));
    constexpr std::size_t kGuard = 1 << 16;
    OwnedWorkspace memory(planned.workspace_bytes() + kGuard);
    auto* guard = static_cast<std::byte*>(memory.get().data) + planned.workspace_bytes();
    std::memset(guard, 0x5A, kGuard);
    ASSERT_TRUE(
        planned.run(inputs.args(), {.workspace = {memory.get().data, planned.workspace_bytes()}}).ok());
    for (std::size_t i = 0; i < kGuard; ++i) ASSERT_EQ(guard[i], std::byte{0x5A}) << text << " byte " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryKernel, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
