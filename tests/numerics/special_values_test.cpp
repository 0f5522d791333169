// Values at the ends of what floats can say, and tensors without memory, in every kernel of the
// registry.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "lab/verify.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

class SpecialValues : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
  static AttentionProblem problem_of(const char* text) {
    AttentionProblem problem = check(parse_problem(text));
    problem.dtype = problem.kv_dtype = GetParam().traits.dtype;
    return problem;
  }
  static Status run_planned(const AttentionProblem& problem, const AttentionArgs& args) {
    return run(check(plan(problem, {}, GetParam().id)), args);
  }
};

// An infinite value that a row sees with some weight is the row's output, not a NaN.
TEST_P(SpecialValues, InfiniteValuesStayInfinite) {
  const AttentionProblem problem = problem_of("seq_q=50 seq_kv=600 heads=2 head_dim=8 head_dim_v=19");
  for (const double infinity :
       {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
    lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
    AttentionArgs values = without_k(inputs.args());
    values.v.shape[3] = 1;
    values.v.data = values.v.as<std::byte>() + 17 * size_of(problem.dtype);
    fill_keys(values, 555, 556, infinity);
    ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
    const TensorView& out = inputs.args().out;
    for (std::int64_t i = 0; i < problem.seq_q * problem.heads; ++i) {
      for (std::int64_t d = 0; d < problem.head_dim_v; ++d) {
        const double x = load_element(out.dtype, out.data, i * problem.head_dim_v + d);
        ASSERT_TRUE(d == 17 ? x == infinity : std::isfinite(x))
            << "row " << i << " column " << d << ": " << x;
      }
    }
  }
}

// Scores of 0 stay 0 under the largest scale, whatever a kernel multiplies it with beforehand.
TEST_P(SpecialValues, LargestScaleOfEqualScores) {
  AttentionProblem problem = problem_of("seq_q=20 seq_kv=600 heads=2 head_dim=16 lse=1");
  const lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
  const TensorView& q = inputs.args().q;
  for (std::int64_t i = 0; i < q.elements(); ++i) store_element(q.dtype, q.data, i, 0);
  problem.softmax_scale = 1.0F;
  ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
  const std::vector<std::byte> expected = output_bits(inputs.args());
  for (const float scale : {std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest(),
                            std::numeric_limits<float>::denorm_min(), 0.0F}) {
    problem.softmax_scale = scale;
    ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
    EXPECT_EQ(output_bits(inputs.args()), expected) << scale;
  }
}

// A scale of 0 makes every finite score 0, and no score of what is not finite: 0 * inf is NaN.
TEST_P(SpecialValues, ScaleOfZeroKeepsNonFiniteQueries) {
  AttentionProblem problem = problem_of("seq_q=20 seq_kv=70 heads=1 head_dim=40 lse=1");
  problem.softmax_scale = 0.0F;
  const lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
  const TensorView& q = inputs.args().q;
  store_element(q.dtype, q.data, 3 * 40 + 37, std::numeric_limits<double>::quiet_NaN());
  store_element(q.dtype, q.data, 5 * 40, -std::numeric_limits<double>::infinity());
  ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
  for (std::int64_t row = 0; row < problem.seq_q; ++row) {
    const double x = load_element(q.dtype, inputs.args().out.data, row * 40);
    EXPECT_EQ(std::isnan(x), row == 3 || row == 5) << "row " << row;
    EXPECT_EQ(std::isnan(inputs.args().lse.as<float>()[row]), row == 3 || row == 5) << "row " << row;
  }
}

// A mask that hides a whole chunk of keys leaves a partial result without values, whose memory must not
// reach what is merged with it: the workspace is full of NaN.
TEST_P(SpecialValues, ChunksThatAMaskHidesLeaveNothing) {
  if (!GetParam().features.mask) GTEST_SKIP() << GetParam().id << " has no mask";
  constexpr std::int64_t kKeys = 1100;
  for (const char* text : {"seq_q=1 seq_kv=1100 heads=2 head_dim=24 mask=bool lse=1 threads=3",
                           "seq_q=150 seq_kv=1100 heads=1 head_dim=24 mask=bool lse=1 threads=1"}) {
    const AttentionProblem problem = problem_of(text);
    for (const auto& [begin, end] : {std::pair{0, 512}, {0, 1024}, {512, 1024}, {1024, 1100}, {0, 1100}}) {
      SCOPED_TRACE(std::string(text) + ", hidden from " + std::to_string(begin) + " to " +
                   std::to_string(end));
      lab::Inputs inputs = check(lab::make_inputs(problem, {.hidden_nan = false}, cpu()));
      auto* mask = inputs.args().mask.as<unsigned char>();
      for (std::int64_t j = 0; j < kKeys; ++j) mask[j] = j < begin || j >= end ? 1 : 0;
      const lab::Reference reference = check(lab::make_reference(inputs, 0.05, 1));
      ASSERT_TRUE(lab::poison(inputs).ok());
      ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
      const lab::Verdict verdict = lab::verify(inputs, reference);
      EXPECT_TRUE(verdict.passed()) << verdict.reason;
    }
  }
}

// Tensors without elements may have no memory; nothing is added to their null pointers (UBSan).
TEST_P(SpecialValues, NoKeysNeedNoMemory) {
  const AttentionProblem problem = problem_of("batch=2 seq_q=5 seq_kv=0 heads=4 kv_heads=2 head_dim=8 lse=1");
  lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
  AttentionArgs args = inputs.args();
  ASSERT_TRUE(lab::poison(inputs).ok());
  for (TensorView* view : {&args.k, &args.v}) {
    view->data = nullptr;
    view->stride = {64, 16, 8, 1};
  }
  ASSERT_TRUE(run_planned(problem, args).ok());
  for (std::int64_t i = 0; i < args.out.elements(); ++i) {
    EXPECT_EQ(load_element(args.out.dtype, args.out.data, i), 0);
  }
  for (std::int64_t i = 0; i < args.lse.elements(); ++i) {
    EXPECT_EQ(args.lse.as<float>()[i], -std::numeric_limits<float>::infinity());
  }
}

// A mask expanded by strides of 0 is the mask it was expanded from, also where causal lets rows of a tile see
// different keys.
TEST_P(SpecialValues, MasksExpandedByStrides) {
  const AttentionProblem problem =
      problem_of("batch=2 seq_q=200 seq_kv=200 heads=4 kv_heads=2 head_dim=16 causal=1 lse=1");
  const lab::Inputs inputs = check(lab::make_inputs(problem, {}, cpu()));
  std::vector<unsigned char> shown(200, 1);
  const auto bits_with = [&](std::int64_t batch, std::int64_t heads, std::int64_t queries) {
    AttentionArgs args = inputs.args();
    args.mask = contiguous(shown.data(), DType::boolean, {batch, heads, queries, 200});
    args.mask.stride = {0, 0, 0, 1};
    const AttentionProblem masked = check(make_problem(args, {.causal = true}));
    EXPECT_TRUE(run_planned(masked, args).ok());
    return output_bits(args);
  };
  ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
  const std::vector<std::byte> unmasked = output_bits(inputs.args());
  EXPECT_EQ(bits_with(2, 4, 200), unmasked);
  for (std::size_t j = 0; j < shown.size(); ++j) shown[j] = j % 3 != 0 && (j < 70 || j > 150) ? 1 : 0;
  const std::vector<std::byte> broadcast = bits_with(1, 1, 1);
  EXPECT_NE(broadcast, unmasked);
  EXPECT_EQ(bits_with(2, 4, 200), broadcast);
  EXPECT_EQ(bits_with(1, 4, 200), broadcast);
  EXPECT_EQ(bits_with(2, 1, 200), broadcast);
}

// Scores of 0 under a scale that a cap makes infinite are 0; a cap beyond all scores caps nothing.
TEST_P(SpecialValues, CapsAtTheEndsOfFloats) {
  AttentionProblem problem = problem_of("seq_q=20 seq_kv=90 heads=1 head_dim=16 lse=1");
  const lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
  ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
  const auto first = [&] { return load_element(problem.dtype, inputs.args().out.data, 0); };
  const double uncapped = first();
  problem.softcap = std::numeric_limits<float>::max();
  ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
  EXPECT_NEAR(first(), uncapped, problem.dtype == DType::f32 ? 1e-5 : 1e-2);
  const TensorView& q = inputs.args().q;
  for (std::int64_t i = 0; i < q.elements(); ++i) store_element(q.dtype, q.data, i, 0);
  problem.softcap = 1e-14F;
  problem.softmax_scale = 1e25F;
  ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
  EXPECT_TRUE(std::isfinite(first()));
}

INSTANTIATE_TEST_SUITE_P(Registry, SpecialValues, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
