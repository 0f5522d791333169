#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "lab/presets.h"
#include "lab/suites.h"

namespace headwise::lab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Presets : public testing::Test {
 protected:
  void SetUp() override { setenv("HEADWISE_DATA", HEADWISE_DATA_DIR, 1); }
};

std::vector<Case> cases_of(const std::string& line, const std::vector<Word>& flags = {}) {
  std::vector<Words> lines(1);
  if (!line.empty()) lines = check(parse_suite(line, "test"));
  Result<std::vector<Case>> cases = make_cases(lines, flags);
  EXPECT_TRUE(cases.ok()) << cases.status().message();
  return cases ? *std::move(cases) : std::vector<Case>{};
}

Case only_case(const std::string& line, const std::vector<Word>& flags = {}) {
  std::vector<Case> cases = cases_of(line, flags);
  EXPECT_EQ(cases.size(), 1U);
  return cases.empty() ? Case{} : cases.front();
}

TEST_F(Presets, EachIsAValidProblemThatItsWordsName) {
  ASSERT_TRUE(presets().ok()) << presets().status().message();
  EXPECT_GE(presets()->size(), 20U);
  for (const Preset& preset : *presets()) {
    SCOPED_TRACE(preset.name);
    const std::vector<Case> cases = cases_of("", {{"preset", preset.name}});
    ASSERT_FALSE(cases.empty());
    for (const Case& one : cases) {
      EXPECT_TRUE(validate(one.problem).ok());
      EXPECT_EQ(one.problem.heads % one.problem.kv_heads, 0);
      EXPECT_EQ(one.preset, preset.name);
      // The name of the case is its words, and they make it again.
      const std::vector<Case> again = cases_of(case_id(one));
      ASSERT_EQ(again.size(), 1U);
      EXPECT_EQ(again.front().problem, one.problem);
      EXPECT_THAT(case_id(one), testing::Not(HasSubstr("preset")));
    }
    // A model decodes without being told where its query stands.
    const bool model = std::any_of(preset.typical.begin(), preset.typical.end(),
                                   [](const Word& word) { return word.second == "bottom_right"; });
    if (model) {
      const Case decode = only_case("", {{"preset", preset.name}, {"seq-q", "1"}, {"batch", "1"}});
      EXPECT_EQ(decode.problem.query_offset(), decode.problem.seq_kv - 1);
    }
    EXPECT_GT(preset.source.size(), 40U);
    EXPECT_THAT(preset.source, testing::Not(HasSubstr("://")));
  }
}

TEST_F(Presets, KnownModelsHaveTheirSizes) {
  struct Sizes {
    const char* name;
    std::int64_t heads, kv_heads, head_dim, head_dim_v;
  };
  for (const Sizes& model : std::vector<Sizes>{{"deepseek-v3", 128, 128, 192, 128},
                                               {"trinix-deepseek-v3", 128, 128, 56, 56},
                                               {"llama-3-70b", 64, 8, 128, 128},
                                               {"llama-3-405b", 128, 8, 128, 128},
                                               {"llama-3.2-1b", 32, 8, 64, 64},
                                               {"phi-3-mini", 32, 32, 96, 96},
                                               {"llama-7b", 32, 32, 128, 128},
                                               {"llama-13b", 40, 40, 128, 128},
                                               {"llama-70b", 64, 8, 128, 128},
                                               {"gpt-2", 12, 12, 64, 64},
                                               {"llmir-64x128", 64, 64, 128, 128},
                                               {"comparison-local", 32, 32, 128, 128},
                                               {"flashattention-benchmark", 8, 8, 64, 64}}) {
    const Case one = only_case("", {{"preset", model.name}, {"seq", "16"}, {"dtype", "f32"}, {"batch", "1"}});
    EXPECT_EQ(one.problem.heads, model.heads) << model.name;
    EXPECT_EQ(one.problem.kv_heads, model.kv_heads) << model.name;
    EXPECT_EQ(one.problem.head_dim, model.head_dim) << model.name;
    EXPECT_EQ(one.problem.head_dim_v, model.head_dim_v) << model.name;
  }
}

TEST_F(Presets, WordsOfTheLineTakeTheirPlaceAndSweep) {
  const std::vector<Case> cases = cases_of("preset=llama-3-70b,phi-3-mini seq=128,256 causal=0");
  ASSERT_EQ(cases.size(), 4U);
  EXPECT_EQ(cases[0].preset, "llama-3-70b");
  EXPECT_EQ(cases[0].problem.seq_q, 128);
  EXPECT_EQ(cases[1].problem.seq_kv, 256);
  EXPECT_EQ(cases[0].problem.kv_heads, 8);
  EXPECT_FALSE(cases[0].problem.causal);
  EXPECT_EQ(cases[0].problem.dtype, DType::bf16);
  EXPECT_EQ(cases[2].preset, "phi-3-mini");
  EXPECT_EQ(cases[2].problem.head_dim, 96);
}

TEST_F(Presets, AsAFlagTheModelReplacesTheLinesAndLeavesTheirSweeps) {
  const std::vector<Case> cases =
      cases_of("seq=64,128 heads=8 dtype=f32 causal=0", {{"preset", "llama-3.2-1b"}, {"head-dim", "80"}});
  ASSERT_EQ(cases.size(), 2U);
  EXPECT_EQ(cases[0].problem.heads, 32);
  EXPECT_EQ(cases[0].problem.kv_heads, 8);
  EXPECT_EQ(cases[0].problem.head_dim, 80);       // a flag beside it
  EXPECT_TRUE(cases[0].problem.causal);           // what the model is
  EXPECT_EQ(cases[0].problem.dtype, DType::f32);  // how the line runs it
  EXPECT_EQ(cases[1].problem.seq_q, 128);
}

TEST_F(Presets, LengthsGivenTogetherReplaceThoseGivenApart) {
  const Result<std::vector<Preset>> parsed =
      parse_presets(R"({"presets": [{"name": "a", "title": "A", "source": "s",
    "words": {"heads": 4, "softmax-scale": 0.25, "lse": true}, "typical": {"seq-q": 1, "seq-kv": "16..64*2"}}]})",
                    "here");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_THAT(parsed->front().words,
              ElementsAre(Word{"heads", "4"}, Word{"softmax-scale", "0.25"}, Word{"lse", "1"}));
  EXPECT_THAT(parsed->front().typical, ElementsAre(Word{"seq-q", "1"}, Word{"seq-kv", "16..64*2"}));
  const Case one = only_case("preset=llmir seq-q=3 seq-kv=9");
  EXPECT_EQ(one.problem.seq_q, 3);
  EXPECT_EQ(one.problem.seq_kv, 9);
}

TEST_F(Presets, OneCaseMayHaveTwoNames) {
  const Case one = only_case("preset=llama-3-70b,llama-70b seq=16 dtype=f32");
  EXPECT_EQ(one.preset, "llama-3-70b,llama-70b");
  EXPECT_EQ(only_case("preset=llama-70b,llama-70b seq=16").preset, "llama-70b");
  EXPECT_EQ(only_case("preset=deepseek_v3 seq=16").preset, "deepseek-v3");
}

TEST_F(Presets, AnUnknownOneIsNamedWithItsNearest) {
  const auto refusal = [](const std::string& line, const std::vector<Word>& flags) {
    return make_cases(line.empty() ? std::vector<Words>(1) : check(parse_suite(line, "test")), flags)
        .status()
        .message();
  };
  EXPECT_THAT(refusal("", {{"preset", "lama-3-70b"}}),
              HasSubstr("--preset: no preset 'lama-3-70b'; did you mean 'llama-3-70b'?"));
  EXPECT_THAT(refusal("preset=lama-3-70b", {}), HasSubstr("test:1: preset: no preset"));
  EXPECT_THAT(refusal("preset=llama-70b,", {}), HasSubstr("expected a value"));
}

TEST_F(Presets, BrokenFilesSayWhere) {
  const auto refusal = [](const std::string& text) { return parse_presets(text, "here").status().message(); };
  const auto with = [](const std::string& more) {
    return R"({"presets": [{"name": "a", "title": "A", "source": "s", )" + more + "}]}";
  };
  EXPECT_EQ(refusal(with(R"("words": {"heads": 4})")), "");
  EXPECT_THAT(refusal("{"), HasSubstr("here: is not JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("expected {\"presets\""));
  EXPECT_THAT(refusal(R"({"presets": [1]})"), HasSubstr("must be an object"));
  EXPECT_THAT(refusal(R"({"presets": [{"name": "a"}]})"), HasSubstr("name, title and source"));
  EXPECT_THAT(refusal(with(R"("word": {})")), HasSubstr("unknown key 'word'; did you mean 'words'?"));
  EXPECT_THAT(refusal(with(R"("note": "n")")), HasSubstr("here: a: no words"));
  EXPECT_THAT(refusal(with(R"("words": [])")), HasSubstr("must be objects"));
  EXPECT_THAT(refusal(with(R"("words": {"haeds": 4})")),
              HasSubstr("here: a: unknown word 'haeds'; did you mean 'heads'?"));
  EXPECT_THAT(refusal(with(R"("words": {"heads": 0})")), HasSubstr("heads: expected at least 1"));
  EXPECT_THAT(refusal(with(R"("words": {"heads": [4]})")), HasSubstr("'heads' must be"));
  EXPECT_THAT(refusal(with(R"("words": {"kernels": "flash"})")), HasSubstr("no word of a model"));
  const std::string twice = R"({"name": "a", "title": "A", "source": "s", "words": {"heads": 4}})";
  EXPECT_THAT(refusal(R"({"presets": [)" + twice + "," + twice + "]}"),
              HasSubstr("two presets are named 'a'"));
}

}  // namespace
}  // namespace headwise::lab
