#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "core/text.h"
#include "headwise/device.h"
#include "lab/axes.h"
#include "lab/suites.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Axes : public testing::Test {
 protected:
  void SetUp() override { setenv("HEADWISE_DATA", HEADWISE_DATA_DIR, 1); }
};
using Suites = Axes;

std::vector<std::string> values(std::string_view axis, std::string_view text) {
  Result<std::vector<std::string>> expanded = expand_values(*find_axis(axis), text);
  EXPECT_TRUE(expanded.ok()) << expanded.status().message();
  return expanded ? *expanded : std::vector<std::string>{};
}

std::string refusal(std::string_view axis, std::string_view text) {
  return expand_values(*find_axis(axis), text).status().message();
}

std::vector<Case> cases_of(const std::vector<Word>& flags) {
  Result<std::vector<Case>> cases = make_cases({Words{}}, flags);
  EXPECT_TRUE(cases.ok()) << cases.status().message();
  return cases ? *cases : std::vector<Case>{};
}

std::string case_refusal(const std::vector<Word>& flags) {
  return make_cases({Words{}}, flags).status().message();
}

TEST_F(Axes, ListsAndRanges) {
  EXPECT_THAT(values("seq", "1,4"), ElementsAre("1", "4"));
  EXPECT_THAT(values("seq", "512..8192*2"), ElementsAre("512", "1024", "2048", "4096", "8192"));
  EXPECT_THAT(values("seq", "128..500+128"), ElementsAre("128", "256", "384"));
  EXPECT_THAT(values("seq", "3..5"), ElementsAre("3", "4", "5"));
  EXPECT_THAT(values("seq", "7..7*2,1"), ElementsAre("7", "1"));
  EXPECT_THAT(values("causal", "0,1"), ElementsAre("0", "1"));
  EXPECT_THAT(values("causal", "true"), ElementsAre("1"));
  EXPECT_THAT(values("dtype", "float32,bf16"), ElementsAre("f32", "bf16"));
  EXPECT_THAT(values("window-left", "-1,0,5"), ElementsAre("-1", "0", "5"));
  EXPECT_THAT(values("kernels", "flash,unfused"), ElementsAre("flash,unfused"));  // one value: not swept
  EXPECT_THAT(values("inputs", "normal,captured"),
              ElementsAre("normal", "captured:0", "captured:2", "captured:5"));
}

TEST_F(Axes, RangesEndWithoutOverflow) {
  EXPECT_THAT(values("seq", "4611686018427387904..9223372036854775807*2"),
              ElementsAre("4611686018427387904"));
  EXPECT_THAT(values("seq", "9223372036854775800..9223372036854775807+5"),
              ElementsAre("9223372036854775800", "9223372036854775805"));
}

TEST_F(Axes, BadValuesSayWhatWasExpected) {
  for (const char* bad : {"", "x", "1,", "1..", "..5", "1..4*1", "1..4+0", "5..1", "0..4*2", "1..4%2", "1e3",
                          "4.5", "99999999999999999999", "1..1000000000", "-5"}) {
    EXPECT_THAT(refusal("seq", bad), HasSubstr("expected")) << bad;
  }
  EXPECT_THAT(refusal("causal", "yes"), HasSubstr("0 or 1"));
  EXPECT_THAT(refusal("dtype", "bf61"), HasSubstr("did you mean 'bf16'"));
  EXPECT_THAT(refusal("align", "botom_right"), HasSubstr("did you mean 'bottom_right'"));
  EXPECT_THAT(refusal("softmax-scale", "inf"), HasSubstr("finite"));
}

TEST_F(Axes, NamesAreUniqueAndFoundWithUnderscores) {
  std::set<std::string_view> names;
  for (const Axis& axis : axes()) {
    EXPECT_TRUE(names.insert(axis.name).second) << axis.name;
    EXPECT_FALSE(axis.help.empty()) << axis.name;
    EXPECT_FALSE(axis.standard.empty()) << axis.name;
  }
  EXPECT_EQ(find_axis("seq_kv"), find_axis("seq-kv"));
  EXPECT_EQ(find_axis("sek"), nullptr);
}

TEST_F(Axes, ProductHasTheLastAxisFastest) {
  const std::vector<Case> cases = cases_of({{"seq", "64,128"}, {"causal", "0,1"}, {"threads", "1"}});
  ASSERT_EQ(cases.size(), 4U);
  EXPECT_FALSE(cases[0].problem.causal);
  EXPECT_EQ(cases[0].problem.seq_q, 64);
  EXPECT_EQ(cases[1].problem.seq_q, 128);
  EXPECT_TRUE(cases[2].problem.causal);
  EXPECT_EQ(cases[2].problem.seq_kv, 64);
}

TEST_F(Axes, SizesFollowEachOther) {
  const Case one =
      cases_of({{"heads", "32"}, {"kv-heads", "8"}, {"head-dim", "96"}, {"seq", "100"}, {"seq-q", "1"}})
          .front();
  EXPECT_EQ(one.problem.kv_heads, 8);
  EXPECT_EQ(one.problem.head_dim_v, 96);
  EXPECT_EQ(one.problem.seq_q, 1);
  EXPECT_EQ(one.problem.seq_kv, 100);
  EXPECT_EQ(one.problem.pointer_alignment, 16);
  EXPECT_EQ(one.problem.threads, (*device({}))->max_threads());
  EXPECT_FALSE(one.cold);
  const Case odd = cases_of({{"head-dim", "33"}, {"dtype", "f16"}}).front();
  EXPECT_EQ(odd.problem.pointer_alignment, 2);
  EXPECT_EQ(odd.problem.kv_dtype, DType::f16);
}

TEST_F(Axes, CapturedInputsBringTheirSizes) {
  const Case one = cases_of({{"inputs", "captured:2"}}).front();
  EXPECT_EQ(one.problem.heads, 12);
  EXPECT_EQ(one.problem.head_dim, 32);
  EXPECT_EQ(one.problem.seq_q, 256);
  EXPECT_EQ(one.inputs.layer, 2);
  EXPECT_EQ(cases_of({{"inputs", "captured:2"}, {"seq", "64"}}).front().problem.seq_kv, 64);
  EXPECT_THAT(case_refusal({{"inputs", "captured:3"}}), HasSubstr("no layer 3; it has 0, 2, 5"));
  EXPECT_THAT(case_refusal({{"inputs", "captured:other:0"}}), HasSubstr("no captured file 'other'"));
  EXPECT_THAT(case_refusal({{"inputs", "nromal"}}), HasSubstr("did you mean 'normal'"));
}

TEST_F(Axes, AlignIsAskedForWhereItMatters) {
  EXPECT_THAT(case_refusal({{"causal", "1"}, {"seq-q", "1"}}), HasSubstr("align is needed"));
  EXPECT_EQ(case_refusal({{"causal", "0"}, {"seq-q", "1"}}), "");
  EXPECT_EQ(case_refusal({{"causal", "1"}, {"seq-q", "1"}, {"align", "bottom_right"}}), "");
  EXPECT_EQ(case_refusal({{"causal", "1"}}), "");
}

TEST_F(Axes, ContradictionsAreToldBeforeAnythingRuns) {
  EXPECT_THAT(case_refusal({{"heads", "8"}, {"kv-heads", "3"}}), HasSubstr("kv_heads"));
  EXPECT_THAT(case_refusal({{"seq", "1..1000"}, {"batch", "1..1000"}}), HasSubstr("more than 100000 cases"));
  EXPECT_THAT(case_refusal({{"dtype", "f31"}}), HasSubstr("--dtype: "));
}

TEST_F(Axes, MoreThreadsThanAnyMachineHasAreRefused) {
  EXPECT_EQ(cases_of({{"threads", "4096"}})[0].problem.threads, 4096);
  EXPECT_THAT(make_cases({Words{}}, {{"threads", "100000"}}).status().message(),
              HasSubstr("--threads: expected at most 4096 (0: all that this process has), got '100000'"));
}

TEST_F(Axes, HotAndColdAreTwoCases) {
  const std::vector<Case> cases = cases_of({{"cache", "hot,cold"}});
  ASSERT_EQ(cases.size(), 2U);
  EXPECT_FALSE(cases[0].cold);
  EXPECT_TRUE(cases[1].cold);
  EXPECT_NE(case_id(cases[0]), case_id(cases[1]));
}

TEST_F(Axes, SameCaseTwiceIsOneCase) { EXPECT_EQ(cases_of({{"seq", "64,64,64..128*2"}}).size(), 2U); }

// Splits a command line as a shell would, for the quoting that reproducer() uses.
std::vector<Word> flags_of(std::string_view line) {
  std::vector<std::string> words(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '\'') {
      quoted = !quoted;
    } else if (c == ' ' && !quoted) {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  EXPECT_EQ(words[0], "headwise");
  EXPECT_EQ(words[1], "bench");
  std::vector<Word> flags;
  for (std::size_t i = 2; i + 1 < words.size(); i += 2) {
    EXPECT_TRUE(words[i].starts_with("--")) << words[i];
    flags.emplace_back(words[i].substr(2), words[i + 1]);
  }
  return flags;
}

TEST(ShellWord, QuotesWhatAShellWouldRead) {
  EXPECT_EQ(shell_word("captured:0"), "captured:0");
  EXPECT_EQ(shell_word("512..8192*2"), "'512..8192*2'");
  EXPECT_EQ(shell_word("$HOME `x`"), "'$HOME `x`'");
  EXPECT_EQ(shell_word("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_word(""), "''");
}

TEST_F(Axes, ReproducerGivesTheSameCase) {
  const std::vector<std::vector<Word>> lines = {
      {{"seq", "128..512*2"}, {"causal", "0,1"}, {"dtype", "f32,f16,bf16"}},
      {{"batch", "3"}, {"heads", "32"}, {"kv-heads", "8,1"}, {"head-dim", "96"}, {"head-dim-v", "40"}},
      {{"seq-q", "1,7"},
       {"seq-kv", "33"},
       {"causal", "0,1"},
       {"align", "top_left,bottom_right"},
       {"lse", "0,1"}},
      {{"window-left", "-1,5"}, {"window-right", "-1,0"}, {"softmax-scale", "0.1,-2e-5"}, {"seed", "7"}},
      {{"inputs", "captured,uniform"},
       {"causal", "0,1"},
       {"threads", "1,2"},
       {"direction", "forward,backward"}},
      {{"device", "cuda:1"}, {"kv-dtype", "int8"}, {"baseline", "naive"}, {"seq", "0"}},
  };
  for (const std::vector<Word>& line : lines) {
    for (const Case& one : cases_of(line)) {
      const std::string command = reproducer(one, "cpu/scalar/naive/f32");
      const std::vector<Case> again = cases_of(flags_of(command));
      ASSERT_EQ(again.size(), 1U) << command;
      EXPECT_EQ(again[0].problem, one.problem) << command;
      EXPECT_EQ(again[0].device, one.device) << command;
      EXPECT_EQ(again[0].inputs_text, one.inputs_text) << command;
      EXPECT_EQ(again[0].inputs.seed, one.inputs.seed) << command;
      EXPECT_EQ(again[0].baseline, one.baseline) << command;
      EXPECT_THAT(again[0].kernels, ElementsAre("cpu/scalar/naive/f32"));
      EXPECT_EQ(case_id(again[0]), case_id(one));
      // The case's own name is a line of a suite and says the same.
      Result<std::vector<Words>> words = parse_suite(case_id(one), "case");
      ASSERT_TRUE(words.ok()) << words.status().message();
      EXPECT_EQ(make_cases(*words, {})->front().problem, one.problem);
    }
  }
}

TEST_F(Suites, LinesCommentsAndPlaces) {
  Result<std::vector<Words>> lines =
      parse_suite("# head\n\nseq=64 causal  # tail\n  head_dim=32 seq-q=1\n", "mine.txt");
  ASSERT_TRUE(lines.ok()) << lines.status().message();
  ASSERT_EQ(lines->size(), 2U);
  EXPECT_EQ((*lines)[0].where, "mine.txt:3");
  EXPECT_THAT((*lines)[0].words, ElementsAre(Word{"seq", "64"}, Word{"causal", "1"}));
  EXPECT_THAT((*lines)[1].words, ElementsAre(Word{"head-dim", "32"}, Word{"seq-q", "1"}));
}

TEST_F(Suites, MistakesNameFileAndLine) {
  const auto message = [](std::string_view text) { return parse_suite(text, "s.txt").status().message(); };
  EXPECT_THAT(message("seq=1\nsek=64"), HasSubstr("s.txt:2: unknown word 'sek'; did you mean 'seq'?"));
  EXPECT_THAT(message("seq"), HasSubstr("s.txt:1: 'seq' needs a value"));
  EXPECT_THAT(message("seq=1 seq=2"), HasSubstr("given twice"));
  EXPECT_THAT(message("# nothing\n"), HasSubstr("no line"));
  Result<std::vector<Words>> bad_value = parse_suite("batch=1\nseq=one", "s.txt");
  ASSERT_TRUE(bad_value.ok());
  EXPECT_THAT(make_cases(*bad_value, {}).status().message(), HasSubstr("s.txt:2: seq: expected"));
}

TEST_F(Suites, FlagsReplaceWords) {
  Result<std::vector<Words>> lines = parse_suite("seq=64,128 heads=4\nseq=256 heads=2\n", "s.txt");
  ASSERT_TRUE(lines.ok());
  const std::vector<Case> cases = *make_cases(*lines, {{"seq", "32"}});
  ASSERT_EQ(cases.size(), 2U);
  EXPECT_EQ(cases[0].problem.heads, 4);
  EXPECT_EQ(cases[1].problem.seq_q, 32);
}

TEST_F(Suites, CommittedSuitesParse) {
  for (const char* name : {"default", "smoke"}) {
    Result<std::vector<Words>> lines = read_suite(name);
    ASSERT_TRUE(lines.ok()) << lines.status().message();
    Result<std::vector<Case>> cases = make_cases(*lines, {});
    ASSERT_TRUE(cases.ok()) << cases.status().message();
    EXPECT_FALSE(cases->empty());
  }
  EXPECT_THAT(read_suite("defualt").status().message(), HasSubstr("did you mean 'default'"));
}

}  // namespace
}  // namespace headwise::lab
