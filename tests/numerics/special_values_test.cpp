// Values at the ends of what floats can say, and tensors without memory, in every kernel of the
// registry.
#include <gtest/gtest.h>

#include <algorithm>
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

// Subnormal outputs are the same whether a call is split over threads or not.
TEST_P(SpecialValues, SubnormalOutputsDoNotDependOnThreads) {
  for (const char* words :
       {"seq_q=1 seq_kv=1100 heads=1 head_dim=64", "seq_q=9 seq_kv=1100 heads=1 head_dim=64"}) {
    AttentionProblem problem = problem_of(words);
    const lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
    const AttentionArgs& args = inputs.args();
    for (std::int64_t i = 0; i < args.q.elements(); ++i) store_element(args.q.dtype, args.q.data, i, 0);
    for (std::int64_t i = 0; i < args.v.elements(); ++i) {
      store_element(args.v.dtype, args.v.data, i, i < problem.head_dim_v ? 0x1p-120 : 0);
    }
    problem.threads = 1;
    ASSERT_TRUE(run_planned(problem, args).ok());
    const std::vector<std::byte> expected = output_bits(args);
    problem.threads = 8;
    ASSERT_TRUE(run_planned(problem, args).ok());
    EXPECT_EQ(output_bits(args), expected) << words;
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

// Elements at the ends of what f16 holds, and scores far beyond it, under a scale that makes logits of
// about 1.
TEST_P(SpecialValues, ElementsAtTheEndsOfHalfPrecision) {
  AttentionProblem problem = problem_of("seq_q=40 seq_kv=600 heads=1 head_dim=40 lse=1");
  for (const double size : {0x1p-20, 0x1p13}) {
    SCOPED_TRACE("elements of about " + std::to_string(size));
    problem.softmax_scale = static_cast<float>(1 / (size * size * std::sqrt(40.0)));
    lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
    for (const TensorView& view : {inputs.args().q, inputs.args().k}) {
      for (std::int64_t i = 0; i < view.elements(); ++i) {
        const double x = size * load_element(view.dtype, view.data, i);
        store_element(view.dtype, view.data, i, std::clamp(x, -65504.0, 65504.0));
      }
    }
    const lab::Reference reference = check(lab::make_reference(inputs, 0.05, 1));
    ASSERT_TRUE(lab::poison(inputs).ok());
    ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
    const lab::Verdict verdict = lab::verify(inputs, reference);
    EXPECT_TRUE(verdict.passed()) << verdict.reason;
  }
}

// Values that are subnormal in f16, and so are their means: the same as of values 2^24 times as large,
// rounded to whole steps.
TEST_P(SpecialValues, SubnormalOutputs) {
  const AttentionProblem problem = problem_of("seq_q=40 seq_kv=90 heads=1 head_dim=24");
  lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
  const TensorView& v = inputs.args().v;
  const TensorView& out = inputs.args().out;
  std::vector<double> means;
  for (const double step : {1.0, 0x1p-24}) {
    for (std::int64_t i = 0; i < v.elements(); ++i) {
      store_element(v.dtype, v.data, i, static_cast<double>(i * 37 % 401 - 200) * step);
    }
    ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
    for (std::int64_t i = 0; i < out.elements(); ++i) {
      const double mean = load_element(out.dtype, out.data, i) / step;
      if (step == 1) {
        means.push_back(mean);
        continue;
      }
      const double expected = means[static_cast<std::size_t>(i)];
      const double rounding = problem.dtype == DType::f16 ? 0.5 + std::abs(expected) * 0x1p-11 : 0;
      ASSERT_NEAR(mean, expected, rounding) << "element " << i;
    }
  }
}

// Scores of about 1 as sums of products that are far larger and cancel.
TEST_P(SpecialValues, ScoresOfProductsThatCancel) {
  const AttentionProblem problem = problem_of("seq_q=100 seq_kv=300 heads=1 head_dim=64 lse=1");
  for (const double size : {8.0, 128.0}) {
    SCOPED_TRACE("products add logits of about " + std::to_string(size));
    lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
    const TensorView& q = inputs.args().q;
    const TensorView& k = inputs.args().k;
    // 13 n * 11 m - 11 n * 13 m = 0, of up to 11 bits each.
    const auto seventh = [](double x) { return std::round(std::clamp(32 * x, -127.0, 127.0)) / 512; };
    for (std::int64_t row = 0; row < 300; ++row) {
      for (std::int64_t d = 0; d < 32; ++d) {
        const std::int64_t at = row * 64 + d;
        if (row < 100) {
          const double n = seventh(load_element(q.dtype, q.data, at));
          store_element(q.dtype, q.data, at, 13 * n);
          store_element(q.dtype, q.data, at + 32, 11 * n);
        }
        const double m = size * seventh(load_element(k.dtype, k.data, at));
        store_element(k.dtype, k.data, at, 11 * m + load_element(k.dtype, k.data, at + 32));
        store_element(k.dtype, k.data, at + 32, -13 * m);
      }
    }
    const lab::Reference reference = check(lab::make_reference(inputs, 0.05, 1));
    ASSERT_TRUE(lab::poison(inputs).ok());
    ASSERT_TRUE(run_planned(problem, inputs.args()).ok());
    const lab::Verdict verdict = lab::verify(inputs, reference);
    EXPECT_TRUE(verdict.passed()) << verdict.reason;
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, SpecialValues, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
