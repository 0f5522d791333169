// Who is asked in a case: names, globs, the best of a name, and the baseline.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "headwise/kernels.h"
#include "lab/estimate.h"

namespace headwise::lab {
namespace {

using testing::HasSubstr;

std::vector<Contender> asked(const std::string& names, const std::string& baseline,
                             DType dtype = DType::f32) {
  Case one;
  one.problem = {.dtype = dtype,
                 .kv_dtype = dtype,
                 .batch = 1,
                 .heads = 1,
                 .kv_heads = 1,
                 .seq_q = 8,
                 .seq_kv = 8,
                 .head_dim = 16,
                 .head_dim_v = 16,
                 .threads = 1};
  one.baseline = baseline;
  if (!names.empty()) one.kernels = {names};
  return check(contenders_of(one));
}

std::vector<std::string> ids(const std::vector<Contender>& contenders) {
  std::vector<std::string> all;
  for (const Contender& contender : contenders) all.push_back(contender.id);
  return all;
}

std::size_t of_algorithm(std::string_view algorithm, DType dtype) {
  const std::vector<KernelInfo> all = kernels();
  return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](const KernelInfo& kernel) {
    return kernel.traits.algorithm == algorithm && kernel.traits.dtype == dtype &&
           kernel.device == DeviceKind::cpu;
  }));
}

TEST(Contenders, ANameAsksAllThatAnswerAndTheBestOfItOne) {
  const std::vector<Contender> all = asked("flash", "none"), best = asked("best:flash", "none");
  EXPECT_EQ(all.size(), of_algorithm("flash", DType::f32));
  ASSERT_EQ(best.size(), 1U);
  const auto first = std::find_if(all.begin(), all.end(), [](const Contender& c) { return c.plan.ok(); });
  EXPECT_EQ(best.front().id, first == all.end() ? all.front().id : first->id);
  EXPECT_EQ(ids(asked("best:cpu/scalar/*", "none")), ids(asked("cpu/scalar/naive/f32", "none")));
}

TEST(Contenders, TheBaselineIsOneKernelUnlessNamed) {
  const std::vector<Contender> beside = asked("naive", "flash");
  ASSERT_EQ(beside.size(), 2U);
  const std::vector<Contender> named = asked("flash", "flash");
  EXPECT_EQ(named.size(), of_algorithm("flash", DType::f32));
  for (const auto* contenders : {&beside, &named}) {
    const auto marked =
        std::count_if(contenders->begin(), contenders->end(), [](const Contender& c) { return c.baseline; });
    const bool can = std::any_of(contenders->begin(), contenders->end(),
                                 [](const Contender& c) { return c.algorithm == "flash" && c.plan.ok(); });
    EXPECT_EQ(marked, can ? 1 : 0);
  }
  EXPECT_EQ(ids(asked("naive", "naive")), ids(asked("naive", "none")));
}

TEST(Contenders, NobodyIsARowUnderTheNameThatWasAsked) {
  const std::vector<Contender> none = asked("best:memeff", "none", DType::f16);
  ASSERT_EQ(none.size(), 1U);
  EXPECT_EQ(none.front().id, "memeff");
  EXPECT_FALSE(none.front().plan.ok());
  Case one;
  one.kernels = {"best:flsh"};
  EXPECT_THAT(contenders_of(one).status().message(), HasSubstr("did you mean 'flash'"));
}

}  // namespace
}  // namespace headwise::lab
