// Rows whose elements are large, tiny or cancel, in every kernel of 16-bit elements: what sums of 16 bits, or
// integers with the scale of a row, would lose. (In f32 itself, what cancels is lost by every order of sums.)
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"
#include "lab/verify.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

constexpr std::int64_t kHeadDim = 40;
const float kDefaultScale = 1 / std::sqrt(static_cast<float>(kHeadDim));

using Change = std::function<double(double value, std::int64_t row, std::int64_t column)>;

void change(const TensorView& t, const Change& how) {
  for (std::int64_t i = 0; i < t.elements(); ++i) {
    store_element(t.dtype, t.data, i, how(load_element(t.dtype, t.data, i), i / kHeadDim, i % kHeadDim));
  }
}
Change times(double factor) {
  return [factor](double x, std::int64_t, std::int64_t) { return x * factor; };
}

class Ranges : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
  // Values a hundred times as large as usual: the pass rule's floor, which is absolute, is nothing beside
  // them.
  static void expect_truth(float scale, const Change& q, const Change& k, const Change& v = times(100)) {
    for (const char* causal : {"", " causal=1 align=bottom_right"}) {
      AttentionProblem problem =
          check(parse_problem("seq_q=100 seq_kv=700 heads=2 head_dim=40 lse=1" + std::string(causal)));
      problem.dtype = problem.kv_dtype = GetParam().traits.dtype;
      problem.softmax_scale = scale;
      lab::Inputs inputs = check(lab::make_inputs(problem, {.plant = false}, cpu()));
      change(inputs.args().q, q);
      change(inputs.args().k, k);
      change(inputs.args().v, v);
      const lab::Reference reference = check(lab::make_reference(inputs, 0.5));
      ASSERT_TRUE(lab::poison(inputs).ok());
      ASSERT_TRUE(run(check(plan(problem, {}, GetParam().id)), inputs.args()).ok());
      const lab::Verdict verdict = lab::verify(inputs, reference);
      EXPECT_TRUE(verdict.passed()) << to_string(problem) << ": " << verdict.reason << " error "
                                    << verdict.error_max << " limit " << verdict.limit_max;
    }
  }
  // Two columns of `size` that cancel, beside scores of normal rows.
  static void expect_cancelling(double size) {
    expect_truth(
        kDefaultScale, [=](double x, std::int64_t, std::int64_t d) { return d < 2 ? size : x; },
        [=](double x, std::int64_t, std::int64_t d) { return d == 0   ? size
                                                             : d == 1 ? -size
                                                                      : x; });
  }
};

// A quarter of the largest f16: a product of two is far beyond f16, as is every sum.
TEST_P(Ranges, LargeRows) {
  const Change large = [](double x, std::int64_t, std::int64_t) { return x < 0 ? -16376 : 16376; };
  expect_truth(1e-8F, large, large);
  const Change alternating = [](double, std::int64_t row, std::int64_t d) {
    return (d % 2 == 0 ? 1 : -1) * 16376.0 * static_cast<double>(1 + row % 4);
  };
  expect_truth(1e-9F, large, alternating);
}

TEST_P(Ranges, ColumnsThatCancel) {
  for (const double size : {5.0, 7.0, 10.0, 30.0, 200.0}) {
    SCOPED_TRACE(size);
    expect_cancelling(size);
  }
}

// One column of Q is large where K has nothing: the scores come from the others.
TEST_P(Ranges, ColumnThatMeetsZeros) {
  for (const double size : {10.0, 100.0, 10000.0}) {
    SCOPED_TRACE(size);
    expect_truth(
        kDefaultScale, [=](double x, std::int64_t, std::int64_t d) { return d == 7 ? size : x; },
        [](double x, std::int64_t, std::int64_t d) { return d == 7 ? 0 : x; });
  }
}

// Some rows large, some small, side by side in a tile.
TEST_P(Ranges, RowsOfUnequalSize) {
  const Change unequal = [](double x, std::int64_t row, std::int64_t) {
    return std::ldexp(x, static_cast<int>(row % 7) - 3);
  };
  expect_truth(kDefaultScale, unequal, times(1), unequal);
  expect_truth(kDefaultScale, times(1), unequal, unequal);
}

// f16 is subnormal below 2^-14.
TEST_P(Ranges, SubnormalRows) {
  const double tiny = std::ldexp(1.0, -18);
  expect_truth(std::ldexp(kDefaultScale, 36), times(tiny), times(tiny));
  expect_truth(kDefaultScale, times(1), times(1), times(tiny));
}

TEST_P(Ranges, LargeColumnOfValues) {
  expect_truth(kDefaultScale, times(1), times(1),
               [](double x, std::int64_t, std::int64_t d) { return d == 11 ? 1000 * x : x; });
}

std::vector<KernelInfo> kernels_of_16_bits() {
  std::vector<KernelInfo> found = forward_kernels();
  std::erase_if(found, [](const KernelInfo& kernel) { return size_of(kernel.traits.dtype) != 2; });
  return found;
}

INSTANTIATE_TEST_SUITE_P(Registry, Ranges, testing::ValuesIn(kernels_of_16_bits()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
