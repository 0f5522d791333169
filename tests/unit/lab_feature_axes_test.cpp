// Axes of features: that each word reaches the problem, that cases and rows can be named and made again, and
// that such cases run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "core/text.h"
#include "lab/axes.h"
#include "lab/peers/messages.h"
#include "lab/runner.h"
#include "lab/sequence_inputs.h"
#include "lab/suites.h"

namespace headwise::lab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class FeatureAxes : public testing::Test {
 protected:
  void SetUp() override { setenv("HEADWISE_DATA", HEADWISE_DATA_DIR, 1); }

  static std::vector<Case> cases_of(const std::vector<Word>& flags) {
    Result<std::vector<Case>> cases = make_cases({Words{}}, flags);
    EXPECT_TRUE(cases.ok()) << cases.status().message();
    return cases ? *cases : std::vector<Case>{};
  }
  static std::string refusal(const std::vector<Word>& flags) {
    return make_cases({Words{}}, flags).status().message();
  }
};

TEST_F(FeatureAxes, WordsReachTheProblem) {
  const AttentionProblem p = cases_of({{"softcap", "30"},
                                       {"alibi", "per_batch_head"},
                                       {"sinks", "1"},
                                       {"bias", "qh"},
                                       {"mask", "additive:b"},
                                       {"dropout", "0.25"},
                                       {"lengths", "1"},
                                       {"starts", "1"},
                                       {"page-size", "16"},
                                       {"align", "top_left"}})
                                 .front()
                                 .problem;
  EXPECT_EQ(p.softcap, 30);
  EXPECT_EQ(p.alibi, AlibiKind::per_batch_head);
  EXPECT_TRUE(p.sinks && p.bias && p.lengths && p.starts);
  EXPECT_EQ(p.bias_axes, kAxisHeads | kAxisQueries);
  EXPECT_EQ(p.mask, MaskKind::additive);
  EXPECT_EQ(p.mask_axes, kAxisBatch);
  EXPECT_EQ(p.dropout_p, 0.25F);
  EXPECT_EQ(p.page_size, 16);
  EXPECT_GT(p.pages, 1024 / 16);
  const AttentionProblem packed = cases_of({{"varlen", "1"}, {"batch", "4"}, {"seq", "100"}}).front().problem;
  EXPECT_TRUE(packed.varlen);
  EXPECT_EQ(packed.total_q, 250);
  EXPECT_EQ(packed.total_kv, 250);
}

TEST_F(FeatureAxes, NoneAndZeroAreTheCaseWithout) {
  const Case bare = cases_of({}).front();
  const Case none = cases_of({{"softcap", "0"},
                              {"alibi", "none"},
                              {"sinks", "0"},
                              {"bias", "none"},
                              {"mask", "none"},
                              {"dropout", "0"},
                              {"lengths", "0"},
                              {"starts", "0"},
                              {"varlen", "0"},
                              {"page-size", "0"}})
                        .front();
  EXPECT_EQ(none.problem, bare.problem);
  EXPECT_EQ(case_id(none), case_id(bare));
}

TEST_F(FeatureAxes, ListsMakeTheirProduct) {
  const std::vector<Case> cases = cases_of({{"mask", "none,boolean:keys,boolean:bhq"}, {"sinks", "0,1"}});
  ASSERT_EQ(cases.size(), 6U);
  EXPECT_EQ(cases[0].problem.mask, MaskKind::none);
  EXPECT_FALSE(cases[2].problem.sinks && cases[2].problem.mask_axes != 0);
  EXPECT_EQ(cases[5].problem.mask_axes, kAxisBatch | kAxisHeads | kAxisQueries);
  int sinks = 0;
  for (const Case& one : cases) sinks += one.problem.sinks ? 1 : 0;
  EXPECT_EQ(sinks, 3);
}

TEST_F(FeatureAxes, BadWordsSayWhatWasExpected) {
  EXPECT_THAT(refusal({{"mask", "bool:q"}}),
              HasSubstr("--mask: expected none, boolean:AXES or additive:AXES"));
  EXPECT_THAT(refusal({{"mask", "boolean"}}), HasSubstr("boolean:AXES"));
  EXPECT_THAT(refusal({{"mask", "boolean:x"}}), HasSubstr("letters of bhq"));
  EXPECT_THAT(refusal({{"bias", "1"}}), HasSubstr("none, keys, or letters of bhq"));
  EXPECT_THAT(refusal({{"alibi", "per_heads"}}), HasSubstr("did you mean 'per_head'"));
  EXPECT_THAT(refusal({{"softcap", "-1"}}), HasSubstr("a number from 0"));
  EXPECT_THAT(refusal({{"dropout", "1"}}), HasSubstr("a probability from 0 to below 1"));
  EXPECT_THAT(refusal({{"page-size", "48"}}), HasSubstr("multiple of page_size 48"));
  EXPECT_THAT(refusal({{"varlen", "1"}, {"lengths", "1"}}), HasSubstr("lengths: expected 0 with varlen"));
  EXPECT_THAT(refusal({{"varlen", "1"}, {"causal", "1"}}), HasSubstr("align: required with causal"));
}

TEST_F(FeatureAxes, NamesMakeTheCaseAgain) {
  const std::vector<std::vector<Word>> sweeps{
      {{"softcap", "0,20.5"},
       {"alibi", "none,per_head,per_batch_head"},
       {"bias", "none,keys,hq"},
       {"sinks", "0,1"}},
      {{"mask", "none,boolean:keys,additive:bq"}, {"dropout", "0,0.1"}, {"varlen", "0,1"}, {"batch", "3"}},
      {{"lengths", "0,1"},
       {"starts", "0,1"},
       {"page-size", "0,32"},
       {"causal", "0,1"},
       {"align", "bottom_right"}}};
  for (const std::vector<Word>& sweep : sweeps) {
    for (const Case& one : cases_of(sweep)) {
      Result<std::vector<Words>> words = parse_suite(case_id(one), "case");
      ASSERT_TRUE(words.ok()) << words.status().message();
      const std::vector<Case> again = *make_cases(*words, {});
      ASSERT_EQ(again.size(), 1U);
      EXPECT_EQ(again[0].problem, one.problem) << case_id(one);
      for (const auto& [axis, value] : words_of(one))
        EXPECT_THAT(reproducer(one, "naive"), HasSubstr("--" + axis + " " + value));
    }
  }
}

TEST_F(FeatureAxes, PeersAreNotTold) {
  for (const auto& [word, reason] :
       {std::pair{Word{"softcap", "30"}, "softcap"}, std::pair{Word{"alibi", "per_head"}, "alibi_slopes"},
        std::pair{Word{"sinks", "1"}, "sinks"}, std::pair{Word{"bias", "q"}, "bias"},
        std::pair{Word{"mask", "boolean:q"}, "mask"}, std::pair{Word{"dropout", "0.5"}, "dropout_p"},
        std::pair{Word{"varlen", "1"}, "varlen"}, std::pair{Word{"lengths", "1"}, "lengths_kv"},
        std::pair{Word{"starts", "1"}, "starts_kv"}, std::pair{Word{"page-size", "16"}, "page_size"}}) {
    const Status status = check_carried(cases_of({word}).front().problem);
    EXPECT_EQ(status.code(), StatusCode::unsupported) << word.first;
    EXPECT_THAT(status.message(), testing::StartsWith(reason));
  }
  EXPECT_TRUE(check_carried(cases_of({{"causal", "1"}}).front().problem).ok());
}

class Collector final : public Observer {
 public:
  void begin_case(std::size_t, std::size_t, const Case&, double) override {}
  void phase(std::string_view, std::string_view) override {}
  Status rows(std::span<const Row> of_case) override {
    all.insert(all.end(), of_case.begin(), of_case.end());
    return {};
  }
  void end_case() override {}
  std::vector<Row> all;
};

TEST_F(FeatureAxes, CasesRunAndTheirRowsTellWhatRan) {
  const std::vector<Word> sizes{
      {"seq", "64"},        {"heads", "4"},          {"kv-heads", "2"},
      {"head-dim", "16"},   {"batch", "3"},          {"kernels", "cpu/scalar/naive/f32"},
      {"baseline", "none"}, {"peers", "torch.math"}, {"align", "bottom_right"},
      {"threads", "2"}};
  const std::vector<std::vector<Word>> features{
      {{"mask", "boolean:bhq"}, {"sinks", "1"}, {"softcap", "20"}, {"dropout", "0.1"}},
      {{"bias", "hq"}, {"alibi", "per_head"}, {"varlen", "1"}, {"lse", "1"}},
      {{"page-size", "16"}, {"lengths", "1"}, {"starts", "1"}, {"causal", "1"}, {"mask", "additive:b"}}};
  for (std::vector<Word> words : features) {
    words.insert(words.end(), sizes.begin(), sizes.end());
    const std::vector<Case> cases = cases_of(words);
    Collector collector;
    const Status status = run_cases(cases, {.run = "test", .seconds = 0.01}, collector);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(collector.all.size(), 2U);
    const Row &row = collector.all[0], &peer = collector.all[1];
    EXPECT_EQ(row.status, row_status::kOk) << row.case_id << ": " << row.reason;
    EXPECT_EQ(row.mask, mask_text(cases[0].problem));
    EXPECT_EQ(row.bias, bias_text(cases[0].problem));
    EXPECT_EQ(row.alibi_slopes, alibi_text(cases[0].problem));
    EXPECT_EQ(row.sinks, cases[0].problem.sinks);
    EXPECT_EQ(row.softcap.has_value(), cases[0].problem.softcap != 0);
    EXPECT_EQ(row.dropout_p.has_value(), cases[0].problem.dropout_p != 0);
    EXPECT_EQ(row.varlen, cases[0].problem.varlen);
    EXPECT_EQ(row.page_size, cases[0].problem.page_size);
    EXPECT_EQ(row.lengths, lengths_text(cases[0].problem, 1));
    const Cost work = actual_cost(cases[0].problem, 1);
    EXPECT_EQ(*row.least_bytes, static_cast<std::int64_t>(work.least_bytes()));
    EXPECT_NEAR(*row.tflops * *row.ms_median * 1e9, work.flops, 1e-6 * work.flops);
    EXPECT_EQ(peer.kind, "peer");
    EXPECT_EQ(peer.status, row_status::kUnsupported);
    EXPECT_THAT(peer.reason, HasSubstr("peers are not told"));
  }
}

TEST_F(FeatureAxes, LengthsAreSmallestAndLargest) {
  const auto text = [](const std::string& words) { return lengths_text(check(parse_problem(words)), 1); };
  EXPECT_EQ(text("batch=2 seq_q=8 seq_kv=8"), "");
  EXPECT_THAT(text("batch=4 seq_q=60 seq_kv=90 varlen=1"),
              testing::MatchesRegex("q [01]\\.\\.60, kv [01]\\.\\.90"));
  EXPECT_THAT(text("batch=4 seq_q=1 seq_kv=90 lengths=1 starts=1"),
              testing::MatchesRegex("kv [01]\\.\\.90, starts 0\\.\\.[0-9]+"));
}

}  // namespace
}  // namespace headwise::lab
