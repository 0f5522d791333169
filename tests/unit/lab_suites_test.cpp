// The suites that are shipped: each can be run, and what this machine cannot do ends in a row that says so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "lab/data_files.h"
#include "lab/estimate.h"
#include "lab/runner.h"
#include "lab/session.h"
#include "lab/suites.h"

namespace headwise::lab {
namespace {

using testing::HasSubstr;

class ShippedSuites : public testing::Test {
 protected:
  void SetUp() override { setenv("HEADWISE_DATA", HEADWISE_DATA_DIR, 1); }

  static std::vector<Case> cases_of(const std::string& suite) {
    Result<std::vector<Words>> lines = read_suite(suite);
    EXPECT_TRUE(lines.ok()) << lines.status().message();
    Result<std::vector<Case>> cases = make_cases(*lines, {});
    EXPECT_TRUE(cases.ok()) << cases.status().message();
    return cases ? *std::move(cases) : std::vector<Case>{};
  }
};

class Collector final : public Observer {
 public:
  void begin_case(std::size_t, std::size_t, const Case&, double) override {}
  void phase(std::string_view, std::string_view) override {}
  Status rows(std::span<const Row> some) override {
    all.insert(all.end(), some.begin(), some.end());
    return {};
  }
  void end_case() override {}
  std::vector<Row> all;
};

TEST_F(ShippedSuites, EachNamesItselfAndCanBeRun) {
  std::set<std::string> names;
  for (const SuiteFile& suite : suite_files()) {
    SCOPED_TRACE(suite.name);
    names.insert(suite.name);
    EXPECT_GT(suite.summary.size(), 20U);
    const std::vector<Case> cases = cases_of(suite.name);
    EXPECT_FALSE(cases.empty());
    EXPECT_TRUE(check_contenders(cases).ok()) << check_contenders(cases).message();
    const Result<std::string> plan = describe_session(cases, {});
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    EXPECT_THAT(*plan, HasSubstr("rows, at most"));
  }
  for (const char* name :
       {"default", "smoke", "plan", "source-optimization-suite", "source-trinix",
        "source-attention-comparison", "source-llmir", "source-flashattention-benchmark"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

// What a processor does not finish in reasonable time is asked of a device; without one the rows say so, and
// nothing fails.
TEST_F(ShippedSuites, LinesForAnotherDeviceAreAbsentRowsHere) {
  for (const SuiteFile& suite : suite_files()) {
    std::vector<Case> cases = cases_of(suite.name);
    double largest = 0;
    for (const Case& one : cases) {
      if (one.device == DeviceId{}) largest = std::max(largest, cost(one.problem).flops);
    }
    EXPECT_LT(largest, 3e11) << suite.name;  // a call of a few seconds on two processors
    // Peers reach devices that this build cannot.
    std::erase_if(cases, [](const Case& one) { return device(one.device).ok() || !one.peers.empty(); });
    if (cases.empty()) continue;
    Collector collector;
    check(run_cases(cases, {.run = "test"}, collector));
    EXPECT_GE(collector.all.size(), cases.size());
    for (const Row& row : collector.all) {
      EXPECT_EQ(row.status, row_status::kAbsent);
      EXPECT_THAT(row.reason, HasSubstr(row.device));
    }
    EXPECT_EQ(exit_code_of(collector.all), exit_code::kNothingRan);
    Row good;
    good.status = row_status::kOk;
    collector.all.push_back(good);
    EXPECT_EQ(exit_code_of(collector.all), exit_code::kGood);
  }
}

TEST_F(ShippedSuites, WhatNobodyCanRunTakesNoTimeAndSaysWhy) {
  std::vector<Case> cases = cases_of("source-llmir");
  std::erase_if(cases, [](const Case& one) { return !pruned(one) && device(one.device).ok(); });
  ASSERT_GE(cases.size(), 8U);
  const std::string text = check(describe_session(cases, {}));
  EXPECT_THAT(text, HasSubstr("nobody can run it: pruned attention (threshold, topk) is not built yet"));
  EXPECT_THAT(text, HasSubstr("at most 0 B of memory, about 0.0 s"));
  for (const Case& one : cases) {
    const Status able = check_case(one);
    EXPECT_FALSE(able.ok());
    EXPECT_THAT(text, HasSubstr(able.message()));
  }
}

TEST_F(ShippedSuites, PrunedRowsSayThatNothingPrunesYet) {
  std::vector<Case> cases = cases_of("source-llmir");
  std::erase_if(cases, [](const Case& one) { return !pruned(one); });
  ASSERT_EQ(cases.size(), 8U);
  EXPECT_THAT(case_id(cases.front()), HasSubstr("threshold=0.001"));
  EXPECT_THAT(case_id(cases.back()), HasSubstr("topk=256"));
  Collector collector;
  check(run_cases(cases, {.run = "test"}, collector));
  for (const Row& row : collector.all) {
    EXPECT_EQ(row.status, row_status::kUnsupported);
    EXPECT_THAT(row.reason, HasSubstr("not built yet"));
    EXPECT_EQ(row.ran, "");
    EXPECT_EQ(row.preset, "llmir");
    EXPECT_THAT(row.reproduce, testing::AnyOf(HasSubstr("--threshold 0."), HasSubstr("--topk ")));
  }
}

}  // namespace
}  // namespace headwise::lab
