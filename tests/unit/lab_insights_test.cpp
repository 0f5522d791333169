// Crossovers and recommendations, on rows made up so that the right answer is known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "lab/insights.h"

namespace headwise::lab {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

struct Shape {
  std::int64_t seq_q = 128, seq_kv = 128;
  bool causal = false;
  std::int64_t kv_heads = 8;
  std::string inputs = "normal", dtype = "f32";
  std::int64_t threads = 2;
};

std::string case_of(const Shape& s) {
  const std::string lengths =
      s.seq_q == s.seq_kv ? "seq=" + std::to_string(s.seq_kv)
                          : "seq-q=" + std::to_string(s.seq_q) + " seq-kv=" + std::to_string(s.seq_kv);
  return "dtype=" + s.dtype + " inputs=" + s.inputs +
         " batch=1 heads=8 kv-heads=" + std::to_string(s.kv_heads) + (s.causal ? " causal=1 " : " ") +
         lengths + " threads=" + std::to_string(s.threads);
}

// A ranked row that took `ms`, known to `noise` of it either way.
Row row_of(const Shape& s, const std::string& isa, const std::string& algorithm, double ms,
           double noise = 0.01) {
  Row row;
  row.case_id = case_of(s);
  row.contender = "cpu/" + isa + "/" + algorithm + "/" + s.dtype;
  row.isa = isa;
  row.algorithm = algorithm;
  row.status = "ok";
  row.threads = s.threads;
  row.dtype = row.kv_dtype = s.dtype;
  row.batch = 1;
  row.heads = 8;
  row.kv_heads = s.kv_heads;
  row.seq_q = s.seq_q;
  row.seq_kv = s.seq_kv;
  row.head_dim = row.head_dim_v = 64;
  row.causal = s.causal;
  row.inputs = s.inputs;
  row.ms_median = ms;
  row.ms_low = ms * (1 - noise);
  row.ms_high = ms * (1 + noise);
  row.error_max = 1e-6;
  row.rows_verified = 64;
  row.baseline = "cpu/avx512/unfused/" + s.dtype;
  row.timer = "steady_clock";
  row.peak_bytes = algorithm == "unfused" ? 3000 : 1000;
  row.least_bytes = 1000;
  return row;
}

// The baseline at 1 ms and flash at `times`, at the lengths 64, 128, 256, ...
std::vector<Row> sweep(const std::vector<double>& times, double noise = 0.01, Shape s = {}) {
  std::vector<Row> rows;
  s.seq_q = s.seq_kv = 64;
  for (const double ms : times) {
    rows.push_back(row_of(s, "avx512", "flash", ms, noise));
    rows.push_back(row_of(s, "avx512", "unfused", 1, noise));
    s.seq_q = s.seq_kv = 2 * s.seq_kv;
  }
  return rows;
}

Insights of(std::vector<Row> rows) {
  RunFile file;
  file.rows = std::move(rows);
  return insights_of(file);
}

Crossover crossover_of(const std::vector<double>& times, double noise = 0.01) {
  const Insights insights = of(sweep(times, noise));
  EXPECT_THAT(insights.crossovers, SizeIs(1));
  return insights.crossovers.empty() ? Crossover{} : insights.crossovers.front();
}

const Recommendation* find(const Insights& insights, std::string_view use, std::string_view dtype = "f32") {
  for (const Recommendation& r : insights.recommendations) {
    if (r.use == use && r.dtype == dtype) return &r;
  }
  return nullptr;
}

TEST(Crossover, EverywhereAndNowhere) {
  const Crossover all = crossover_of({0.5, 0.4, 0.25});
  EXPECT_EQ(all.kind, CrossoverKind::everywhere);
  EXPECT_THAT(all.lengths, ElementsAre(64, 128, 256));
  EXPECT_EQ(
      all.sentence,
      "prefill, 8 heads of 64, f32: avx512 flash is faster than avx512 unfused at every length measured "
      "(64 to 256): 2.00x to 4.00x.");
  EXPECT_THAT(all.rows, SizeIs(6));
  EXPECT_EQ(all.rows[0].position, 0U);
  EXPECT_EQ(all.rows[5].position, 5U);

  const Crossover none = crossover_of({1.5, 1.2, 1.001});
  EXPECT_EQ(none.kind, CrossoverKind::nowhere);
  EXPECT_THAT(none.verdict, StartsWith("at no length measured (64 to 256)"));
  EXPECT_THAT(none.verdict, HasSubstr("slower at 64 and 128, within noise at 256"));
  EXPECT_FALSE(none.at || none.beyond || none.interpolated);
}

TEST(Crossover, FromALengthOn) {
  const Crossover c = crossover_of({2, 1.001, 0.5, 0.25});
  EXPECT_EQ(c.kind, CrossoverKind::from);
  EXPECT_EQ(c.at, 256);
  EXPECT_EQ(c.beyond, 64);
  EXPECT_EQ(
      c.verdict,
      "from 256 on: 2.00x to 4.00x; slower at 64, within noise at 128; equal near 128 by interpolation");
}

TEST(Crossover, InterpolatesInTheLogarithmOfTheLength) {
  // Twice as slow at 64 and twice as fast at 256: equal half way between their logarithms.
  Insights insights = of([] {
    std::vector<Row> rows = sweep({2, 1, 0.5});
    rows.erase(rows.begin() + 2, rows.begin() + 4);
    return rows;
  }());
  ASSERT_THAT(insights.crossovers, SizeIs(1));
  ASSERT_TRUE(insights.crossovers[0].interpolated);
  EXPECT_NEAR(*insights.crossovers[0].interpolated, 128, 1e-9);
  EXPECT_EQ(insights.crossovers[0].at, 256);
  EXPECT_EQ(insights.crossovers[0].beyond, 64);
}

TEST(Crossover, UpToALength) {
  const Crossover c = crossover_of({0.5, 0.5, 2});
  EXPECT_EQ(c.kind, CrossoverKind::until);
  EXPECT_EQ(c.at, 128);
  EXPECT_EQ(c.beyond, 256);
  EXPECT_THAT(c.verdict, StartsWith("up to 128: 2.00x; slower at 256"));
}

TEST(Crossover, NotMonotonic) {
  const Crossover c = crossover_of({2, 0.5, 2, 0.5, 0.4});
  EXPECT_EQ(c.kind, CrossoverKind::mixed);
  EXPECT_THAT(c.verdict,
              StartsWith("not monotonically: at 128, 512 and 1024 (2.00x to 2.50x); slower at 64, 256"));
  EXPECT_FALSE(c.interpolated);
}

TEST(Crossover, AWideIntervalIsNoVictory) {
  const Crossover c = crossover_of({0.9, 0.8}, 0.3);
  EXPECT_EQ(c.kind, CrossoverKind::nowhere);
  EXPECT_THAT(c.verdict, HasSubstr("within noise at 64 and 128"));
}

TEST(Crossover, TakesTheRowsOwnInterval) {
  std::vector<Row> rows = sweep({0.9, 0.8}, 0.3);
  for (Row& row : rows) {
    if (row.algorithm != "flash") continue;
    row.speedup = 1 / *row.ms_median;
    row.speedup_low = *row.speedup - 0.05;
    row.speedup_high = *row.speedup + 0.05;
  }
  EXPECT_EQ(of(rows).crossovers.at(0).kind, CrossoverKind::everywhere);
}

TEST(Crossover, ComparesWithinAnInstructionSetByTheSamples) {
  std::vector<Row> rows;
  Shape s;
  for (const std::int64_t length : {64, 128}) {
    s.seq_q = s.seq_kv = length;
    rows.push_back(row_of(s, "avx512", "unfused", 1));
    rows.push_back(row_of(s, "avx2", "unfused", 4));
    rows.push_back(row_of(s, "avx2", "flash", 2));
    rows.push_back(row_of(s, "scalar", "naive", 8));
    for (Row& row : rows) row.samples_ms.assign(20, *row.ms_median);
  }
  const Insights insights = of(rows);
  ASSERT_THAT(insights.crossovers, SizeIs(2));
  EXPECT_EQ(insights.crossovers[0].baseline, "cpu/avx2/unfused/f32");
  EXPECT_EQ(insights.crossovers[0].kind, CrossoverKind::everywhere);
  EXPECT_THAT(insights.crossovers[0].verdict, HasSubstr("2.00x"));
  EXPECT_EQ(insights.crossovers[1].contender, "cpu/scalar/naive/f32");  // whose set has no unfused
  EXPECT_EQ(insights.crossovers[1].baseline, "cpu/avx512/unfused/f32");
}

TEST(Crossover, FamiliesDifferInLengthAlone) {
  std::vector<Row> rows = sweep({0.5, 0.5});
  const std::vector<Row> causal = sweep({2, 2}, 0.01, {.causal = true});
  rows.insert(rows.end(), causal.begin(), causal.end());
  Shape decode{.seq_q = 1};
  for (const std::int64_t keys : {512, 1024}) {
    decode.seq_kv = keys;
    rows.push_back(row_of(decode, "avx512", "flash", 0.5));
    rows.push_back(row_of(decode, "avx512", "unfused", 1));
  }
  const Insights insights = of(rows);
  ASSERT_THAT(insights.crossovers, SizeIs(3));
  EXPECT_EQ(insights.crossovers[0].family, "prefill, 8 heads of 64, f32");
  EXPECT_EQ(insights.crossovers[1].family, "prefill, causal, 8 heads of 64, f32");
  EXPECT_EQ(insights.crossovers[1].kind, CrossoverKind::nowhere);
  EXPECT_EQ(insights.crossovers[2].family, "decoding, 8 heads of 64, f32");
  EXPECT_THAT(insights.crossovers[2].lengths, ElementsAre(512, 1024));
}

TEST(Crossover, OneLengthHasNone) {
  EXPECT_THAT(of(sweep({0.5})).crossovers, IsEmpty());
  std::vector<Row> rows = sweep({0.5, 0.5});
  rows.back().status = "inaccurate";  // the baseline of the second length
  EXPECT_THAT(of(rows).crossovers, IsEmpty());
}

TEST(Recommendation, ALeadIsTold) {
  const Insights insights = of(sweep({0.5, 0.4, 0.2}));
  const Recommendation* r = find(insights, "full prefill");
  ASSERT_NE(r, nullptr);
  EXPECT_EQ(r->contender, "cpu/avx512/flash/f32");
  EXPECT_EQ(r->next, "cpu/avx512/unfused/f32");
  EXPECT_EQ(r->cases, 3);
  EXPECT_FALSE(r->within_noise);
  ASSERT_TRUE(r->over_next);
  EXPECT_NEAR(r->over_next->value, 2.924, 1e-3);  // cube root of 2 * 2.5 * 5
  EXPECT_THAT(r->sentence,
              StartsWith("full prefill, f32: avx512 flash, fastest in 3 of 3 cases, 2.92x (2.87x to 2.98x) "
                         "over avx512 unfused."));
  EXPECT_THAT(r->rows, SizeIs(6));
}

TEST(Recommendation, ATieIsToldAndTheSmallerIsTaken) {
  const Insights insights = of(sweep({1.001, 0.999, 1.001}));
  const Recommendation* r = find(insights, "full prefill");
  ASSERT_NE(r, nullptr);
  EXPECT_TRUE(r->within_noise);
  EXPECT_EQ(r->contender, "cpu/avx512/flash/f32");  // although unfused is a hair faster
  EXPECT_THAT(r->sentence,
              HasSubstr("avx512 flash and avx512 unfused are within noise of each other, 1.00x"));
  EXPECT_THAT(r->sentence, EndsWith("avx512 flash needs 3.00x less memory."));
}

TEST(Recommendation, NextAndBaselineApart) {
  std::vector<Row> rows = sweep({0.5, 0.5});
  for (Shape s; const std::int64_t length : {64, 128}) {
    s.seq_q = s.seq_kv = length;
    rows.push_back(row_of(s, "avx2", "flash", 0.75));
  }
  const Insights insights = of(rows);
  const Recommendation* r = find(insights, "full prefill");
  ASSERT_NE(r, nullptr);
  EXPECT_EQ(r->next, "cpu/avx2/flash/f32");
  EXPECT_THAT(r->sentence,
              HasSubstr("1.50x (1.47x to 1.53x) over avx2 flash, 2.00x (1.96x to 2.04x) over the baseline "
                        "avx512 unfused."));
}

TEST(Recommendation, WhoRanInFewCasesDoesNotLead) {
  std::vector<Row> rows = sweep({0.5, 0.5, 0.5});
  rows.push_back(row_of({.seq_q = 64, .seq_kv = 64}, "scalar", "naive", 0.1));
  const Insights insights = of(rows);
  const Recommendation* r = find(insights, "full prefill");
  ASSERT_NE(r, nullptr);
  EXPECT_EQ(r->contender, "cpu/avx512/flash/f32");
  EXPECT_EQ(r->next, "cpu/avx512/unfused/f32");
  EXPECT_THAT(r->sentence, HasSubstr("fastest in 2 of 3 cases"));
}

TEST(Recommendation, ARivalInFewerCasesIsToldAsWhatItIs) {
  std::vector<Row> rows;
  rows.push_back(row_of({.seq_q = 64, .seq_kv = 64}, "avx512", "flash", 1));
  rows.push_back(row_of({.seq_q = 128, .seq_kv = 128}, "avx512", "flash", 1));
  rows.push_back(row_of({.seq_q = 64, .seq_kv = 64}, "scalar", "naive", 0.5));
  const Insights insights = of(rows);
  const Recommendation* r = find(insights, "full prefill");
  ASSERT_NE(r, nullptr);
  EXPECT_THAT(
      r->sentence,
      HasSubstr("avx512 flash, fastest in 1 of 2 cases, though scalar naive is 2.00x (1.96x to 2.04x) "
                "faster in 1 case"));
}

TEST(Recommendation, OneContenderHasNothingToBeHeldAgainst) {
  const Insights insights = of({row_of({}, "scalar", "naive", 1)});
  ASSERT_THAT(insights.recommendations, SizeIs(1));  // and no word on least memory
  EXPECT_EQ(insights.recommendations[0].sentence,
            "full prefill, f32: scalar naive; nothing else was ranked (1 case).");
  EXPECT_FALSE(insights.recommendations[0].over_next);
}

TEST(Recommendation, UnrankedRowsSayNothing) {
  std::vector<Row> rows = sweep({0.1, 0.1});
  for (Row& row : rows) row.rows_verified = 0;
  Row failed = row_of({}, "scalar", "naive", 0.001);
  failed.status = "inaccurate";
  rows.push_back(failed);
  const Insights none = of(rows);
  EXPECT_THAT(none.recommendations, IsEmpty());
  EXPECT_THAT(none.crossovers, IsEmpty());
  EXPECT_EQ(render_insights(none, 80), "");
  EXPECT_THAT(of({}).recommendations, IsEmpty());
}

TEST(Recommendation, OneAUseADtypeAndASetting) {
  std::vector<Row> rows;
  const auto add = [&](const Shape& s) {
    rows.push_back(row_of(s, "avx512", "flash", 1));
    rows.push_back(row_of(s, "avx512", "unfused", 2));
  };
  add({});
  add({.causal = true});
  add({.causal = true, .kv_heads = 2});
  add({.seq_q = 1, .seq_kv = 512});
  add({.inputs = "captured:0"});
  add({.inputs = "structured"});
  add({.dtype = "bf16"});
  std::vector<std::string> uses;
  for (const Recommendation& r : of(rows).recommendations) uses.push_back(r.dtype + " " + r.use);
  EXPECT_THAT(uses, ElementsAre("f32 full prefill", "f32 causal prefill", "f32 grouped-query prefill",
                                "f32 decoding", "f32 a real model's tensors", "f32 structured inputs",
                                "f32 least memory", "bf16 full prefill", "bf16 least memory"));
  add({.threads = 1});
  add({.threads = 2});
  const Insights both = of(rows);
  EXPECT_EQ(both.recommendations.front().setting, "2 threads");
  EXPECT_EQ(both.recommendations.back().setting, "1 thread");
}

TEST(Recommendation, LeastMemory) {
  std::vector<Row> rows = sweep({0.5, 0.5});
  for (Shape s; const std::int64_t length : {64, 128}) {
    s.seq_q = s.seq_kv = length;
    rows.push_back(row_of(s, "avx512", "memeff", 2));
    rows.back().peak_bytes = 800;
    rows.back().least_bytes = 800;
  }
  const Insights insights = of(rows);
  const Recommendation* r = find(insights, "least memory");
  ASSERT_NE(r, nullptr);
  EXPECT_EQ(r->contender, "cpu/avx512/memeff/f32");
  EXPECT_EQ(
      r->verdict,
      "avx512 memeff, 1.00x of the least possible (geometric mean of 2 cases); avx512 flash takes 1.25x as "
      "much, avx512 unfused takes 3.75x as much; its time is 4.00x that of the fastest, avx512 flash");
}

// Flash ran everywhere; memeff needs less wherever it ran; naive, which needs least, is 40 times as slow.
TEST(Recommendation, LeastMemoryIsComparedWithinCasesAndTellsNoCrawler) {
  std::vector<Row> rows = sweep({0.5, 0.5});
  for (const char* who : {"memeff", "naive"}) {
    rows.push_back(row_of({.seq_q = 64, .seq_kv = 64}, "avx512", who, who[0] == 'm' ? 0.6 : 20));
    rows.back().peak_bytes = who[0] == 'm' ? 900 : 800;
    rows.back().least_bytes = 800;
  }
  const Insights insights = of(rows);
  const Recommendation* r = find(insights, "least memory");
  ASSERT_NE(r, nullptr);
  EXPECT_EQ(r->contender, "cpu/avx512/memeff/f32");
  EXPECT_THAT(r->verdict, HasSubstr("avx512 flash takes 1.11x as much"));
  EXPECT_THAT(r->verdict, Not(HasSubstr("naive")));
}

TEST(Recommendation, TheLaterOfTwoRowsOfACellCounts) {
  std::vector<Row> rows = sweep({0.5, 0.5});
  rows.push_back(row_of({.seq_q = 64, .seq_kv = 64}, "avx512", "flash", 0.25));
  rows.push_back(row_of({.seq_q = 128, .seq_kv = 128}, "avx512", "flash", 0.25));
  const Insights insights = of(rows);
  EXPECT_NEAR(find(insights, "full prefill")->over_next->value, 4, 1e-9);
  EXPECT_THAT(find(insights, "full prefill")->rows, SizeIs(4));
  EXPECT_EQ(find(insights, "full prefill")->rows[0].position, 4U);
}

TEST(Recommendation, NamesThatWouldFallTogetherStayWhole) {
  std::vector<Row> rows = {row_of({}, "avx512", "flash", 1), row_of({}, "avx512", "flash", 2)};
  rows[0].contender = "cpu/avx512/flash/f32_d64";
  rows[1].contender = "cpu/avx512/flash/f32_any";
  const Insights insights = of(rows);
  EXPECT_THAT(find(insights, "full prefill")->sentence,
              HasSubstr("cpu/avx512/flash/f32_d64, 2.00x (1.96x to 2.04x) over cpu/avx512/flash/f32_any"));
}

TEST(InsightLines, AreFewAndFitTheTerminal) {
  std::vector<Row> rows = sweep({2, 0.5, 0.25});
  const std::vector<Row> causal = sweep({0.5, 0.5, 0.5}, 0.01, {.causal = true});
  rows.insert(rows.end(), causal.begin(), causal.end());
  const Insights insights = of(rows);
  EXPECT_EQ(
      render_insights(insights, 400),
      "Best for f32: avx512 flash for full prefill (1.59x over avx512 unfused), causal prefill (2.00x)\n"
      "Least memory: avx512 flash (f32)\n"
      "avx512 flash is faster than avx512 unfused from 128 on in [prefill, 8 heads of 64, f32]; at every "
      "length in "
      "[prefill, causal, 8 heads of 64, f32]\n");
  std::vector<Row> tie = sweep({1, 1});
  for (const Row& row : sweep({0.5, 0.5}, 0.01, {.causal = true})) tie.push_back(row);
  EXPECT_THAT(
      render_insights(of(tie), 400),
      StartsWith(
          "Best for f32: avx512 flash for full prefill (within noise of avx512 unfused), causal prefill "
          "(2.00x over avx512 unfused)\n"));
  const std::string narrow = render_insights(insights, 60);
  for (std::size_t begin = 0; begin < narrow.size();) {
    const std::size_t end = narrow.find('\n', begin);
    EXPECT_LE(end - begin, 60U) << narrow.substr(begin, end - begin);
    begin = end + 1;
  }
}

}  // namespace
}  // namespace headwise::lab
