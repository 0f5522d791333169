// Sequences packed, paged, cut short or padded give the bits that each gives alone on plain tensors, for
// every kernel of the registry that has the feature. Whatever is not in use holds NaN.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "numerics/sequence_case.h"
#include "support/run_kernel.h"

namespace headwise::numerics {
namespace {

class SequencesOfKernels : public testing::TestWithParam<KernelInfo> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_run_here(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }

  static void expect_ran(const AttentionArgs& args, const AttentionProblem& problem) {
    const Result<Plan> made = plan(problem, {}, GetParam().id);
    ASSERT_TRUE(made.ok()) << made.status().message();
    const Status status = run(*made, args);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  static void compare(const Layout& layout, const Setting& setting) {
    SCOPED_TRACE(layout.name + ", " + setting.name);
    SequenceCase c(GetParam().traits.dtype, layout, setting);
    c.poison_outputs();
    AttentionProblem problem = check(make_problem(c.together(), c.options()));
    problem.threads = 2;
    expect_ran(c.together(), problem);
    std::vector<std::vector<std::byte>> bits;
    for (std::int64_t b = 0; b < layout.batch(); ++b) {
      bits.push_back(c.bits(c.together(), b));
      AttentionProblem one = check(make_problem(c.alone(b), setting.options));
      one.threads = 1;
      expect_ran(c.alone(b), one);
      EXPECT_EQ(bits.back(), c.bits(c.alone(b), b)) << "sequence " << b;
    }
    // A plan for larger sizes gives the same.
    c.poison_outputs();
    problem.batch += 1;
    problem.seq_q += 3;
    problem.seq_kv += 100;
    problem.total_q += layout.varlen ? 11 : 0;
    problem.total_kv += layout.varlen && layout.page_size == 0 ? 12 : 0;
    problem.pages += layout.page_size > 0 ? 5 : 0;
    expect_ran(c.together(), problem);
    for (std::int64_t b = 0; b < layout.batch(); ++b)
      EXPECT_EQ(c.bits(c.together(), b), bits[static_cast<std::size_t>(b)]) << "sequence " << b;
  }

  // Settings `first`, `first` + `step` and so on.
  static void compare_all(const Layout& layout, std::size_t first = 0, std::size_t step = 1) {
    if (!has(GetParam().features, {}, layout)) GTEST_SKIP() << GetParam().id << " has no " << layout.name;
    const std::vector<Setting> all = settings();
    for (std::size_t i = first; i < all.size(); i += step) {
      if (has(GetParam().features, all[i], layout)) compare(layout, all[i]);
    }
  }
};

TEST_P(SequencesOfKernels, PackedOnesAreTheSameAlone) {
  compare_all({.name = "varlen",
               .q = {3, 0, 17, 1, 50, 5},
               .kv = {3, 4, 40, 0, 50, 530},
               .begin = {0, 0, 0, 0, 0, 0},
               .varlen = true});
}

TEST_P(SequencesOfKernels, ShorterOnesAreTheSameAlone) {
  compare_all({.name = "lengths",
               .q = {19, 19, 19, 19},
               .kv = {25, 0, 530, 1},
               .begin = {0, 0, 0, 0},
               .lengths = true});
}

TEST_P(SequencesOfKernels, LeftPaddedOnesAreTheSameAlone) {
  compare_all({.name = "starts",
               .q = {5, 5, 5, 5},
               .kv = {30, 0, 513, 529},
               .begin = {500, 530, 17, 1},
               .starts = true},
              0, 2);
  compare_all({.name = "starts and lengths",
               .q = {5, 5, 5},
               .kv = {30, 0, 513},
               .begin = {17, 3, 60},
               .lengths = true,
               .starts = true},
              1, 2);
}

// Each page size with every third setting, each layout with all of them; a second chunk of keys (512) once.
TEST_P(SequencesOfKernels, PagedOnesAreTheSameAlone) {
  constexpr std::size_t kStep = 3;
  std::size_t first = 0;
  for (const std::int64_t page_size : {1, 3, 16, 64}) {
    const std::string pages = "paged by " + std::to_string(page_size);
    compare_all({.name = pages,
                 .q = {9, 9, 9, 9},
                 .kv = {64, 7, page_size == 3 ? 530 : 130, 0},
                 .begin = {0, 0, 0, 0},
                 .page_size = page_size,
                 .lengths = true},
                first % kStep, kStep);
    compare_all({.name = pages + ", starts",
                 .q = {9, 9, 9},
                 .kv = {64, 7, 130},
                 .begin = {70, 65, 3},
                 .page_size = page_size,
                 .lengths = true,
                 .starts = true},
                (first + 1) % kStep, kStep);
    compare_all({.name = pages + ", varlen",
                 .q = {9, 1, 0, 33},
                 .kv = {64, 70, 5, 129},
                 .begin = {0, 0, 0, 0},
                 .varlen = true,
                 .page_size = page_size,
                 .lengths = true},
                (first + 2) % kStep, kStep);
    ++first;
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, SequencesOfKernels, testing::ValuesIn(forward_kernels()),
                         [](const testing::TestParamInfo<KernelInfo>& info) {
                           return test_name(info.param.id);
                         });

}  // namespace
}  // namespace headwise::numerics
