// Kernels beside peers, on rows made up so that the right answer is known: who is ahead and behind, what is
// not compared, what the console says of refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <tuple>
#include <vector>

#include "lab/insights.h"
#include "lab/insights_rows.h"
#include "lab/progress.h"
#include "lab/refusals.h"
#include "lab/row_tables.h"
#include "lab/table.h"

namespace headwise::lab {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

struct Cell {
  std::int64_t seq = 256;
  bool causal = false;
  std::string dtype = "f32", device = "cpu", direction = "forward";
  std::int64_t seq_q = 0;  // 0: seq
};

// A ranked row that took `ms`, known to 1 % of it either way; a name without '/' is a peer's.
Row row_of(const Cell& cell, const std::string& contender, double ms) {
  Row row;
  row.case_id = "dtype=" + cell.dtype + " seq=" + std::to_string(cell.seq) +
                (cell.causal ? " causal=1" : "") +
                (cell.seq_q > 0 ? " seq-q=" + std::to_string(cell.seq_q) : "") +
                (cell.device == "cpu" ? "" : " device=" + cell.device) +
                (cell.direction == "forward" ? "" : " direction=" + cell.direction) + " batch=1";
  const bool peer = contender.find('/') == std::string::npos;
  row.contender = peer ? contender : contender + "/" + cell.dtype;
  row.kind = peer ? "peer" : "kernel";
  if (!peer) {
    const std::size_t cut = contender.rfind('/');
    row.isa = contender.substr(4, cut - 4);
    row.algorithm = contender.substr(cut + 1);
  }
  row.status = "ok";
  row.device = cell.device;
  row.direction = cell.direction;
  row.threads = cell.device == "cpu" ? 2 : 0;
  row.dtype = row.kv_dtype = cell.dtype;
  row.batch = 1;
  row.heads = row.kv_heads = 8;
  row.seq_q = cell.seq_q > 0 ? cell.seq_q : cell.seq;
  row.seq_kv = cell.seq;
  row.head_dim = row.head_dim_v = 64;
  row.causal = cell.causal;
  row.inputs = "normal";
  row.ms_median = ms;
  row.ms_low = ms * 0.99;
  row.ms_high = ms * 1.01;
  row.error_max = 1e-6;
  row.rows_verified = 64;
  row.timer = "steady_clock";
  row.regime = "sustained";
  row.peak_bytes = peer ? 1000 : 1200;
  row.least_bytes = 1000;
  return row;
}

Row refused(const Cell& cell, const std::string& contender, std::string_view status,
            const std::string& reason) {
  Row row = row_of(cell, contender, 1);
  row.status = status;
  row.reason = reason;
  row.ms_median = row.ms_low = row.ms_high = row.error_max = {};
  row.rows_verified = {};
  row.timer = row.regime = "";
  return row;
}

// As the runner says it of a row whose call costs `overhead` of its time.
Row costly(const Cell& cell, const std::string& contender, double ms, double overhead) {
  Row row = row_of(cell, contender, ms);
  row.overhead_ms = overhead * ms;
  row.reason = "not ranked: calling it takes much";
  return row;
}

Insights of(std::vector<Row> rows) {
  RunFile file;
  file.rows = std::move(rows);
  return insights_of(file);
}

Terminal wide() {
  Terminal terminal;
  terminal.columns = 1000;
  return terminal;
}

const char* const kFlash = "cpu/avx512/flash";

TEST(AgainstPeers, TheFastestOfEachSideMeetCaseByCase) {
  std::vector<Row> rows;
  for (const auto& [seq, ours, theirs] :
       {std::tuple{64, 1.0, 0.5}, {128, 1.0, 1.005}, {256, 1.0, 2.0}, {512, 1.0, 4.0}}) {
    rows.push_back(row_of({.seq = seq}, kFlash, ours));
    rows.push_back(row_of({.seq = seq}, "cpu/avx512/unfused", 3 * ours));
    rows.push_back(row_of({.seq = seq}, "torch.flash", theirs));
    rows.push_back(row_of({.seq = seq}, "torch.math", 9));
  }
  const AgainstPeers peers = of(rows).peers;
  ASSERT_THAT(peers.duels, SizeIs(4));
  EXPECT_EQ(peers.duels[0].kernel.position, 0U);
  EXPECT_EQ(peers.duels[0].peer.position, 2U);
  EXPECT_EQ(peers.duels[0].label, "full prefill, seq=64");
  EXPECT_TRUE(peers.duels[0].behind());
  EXPECT_FALSE(peers.duels[1].behind() || peers.duels[1].ahead());
  EXPECT_TRUE(peers.duels[2].ahead());
  EXPECT_NEAR(peers.duels[2].ratio.value, 2, 1e-9);
  EXPECT_EQ(
      peers.verdict,
      "the best kernel is 1.50x as fast as the best peer in the median case (0.50x to 4.00x), ahead in 2 of "
      "4 cases, within noise in 1, behind in 1: full prefill, seq=64 (0.50x of torch.flash, 0.49x to 0.51x)");
  EXPECT_THAT(peers.remarks, IsEmpty());
  ASSERT_THAT(peers.standings, SizeIs(1));
  EXPECT_THAT(peers.standings[0].sentence, StartsWith("full prefill, f32: the best kernel is 1.50x"));
  EXPECT_THAT(peers.standings[0].sentence,
              EndsWith("behind in 1: seq=64 (0.50x of torch.flash, 0.49x to 0.51x)."));
  EXPECT_EQ(render_peers(peers, 1000), "Against peers: " + peers.verdict + "\n");
}

TEST(AgainstPeers, OneCaseHasItsInterval) {
  const AgainstPeers peers = of({row_of({}, kFlash, 1), row_of({}, "torch.flash", 2)}).peers;
  EXPECT_EQ(
      peers.verdict,
      "the best kernel is 2.00x (1.96x to 2.04x) as fast as the best peer in the one case compared: ahead, "
      "avx512 flash against torch.flash");
}

TEST(AgainstPeers, ByDtypeUseAndDirection) {
  std::vector<Row> rows;
  const auto add = [&](const Cell& cell, double theirs) {
    rows.push_back(row_of(cell, kFlash, 1));
    rows.push_back(row_of(cell, "torch.flash", theirs));
  };
  add({}, 2);
  add({.causal = true}, 3);
  add({.seq_q = 1}, 4);
  add({.dtype = "bf16"}, 0.5);
  add({.direction = "backward"}, 0.25);
  const AgainstPeers peers = of(rows).peers;
  std::vector<std::string> heads;
  for (const PeerStanding& one : peers.standings)
    heads.push_back(one.dtype + "|" + one.setting + "|" + one.use);
  EXPECT_THAT(heads, ElementsAre("f32||full prefill", "f32||causal prefill", "f32||decoding",
                                 "bf16||full prefill", "f32|backward|full prefill"));
  const std::string text = render_peers(peers, 1000);
  EXPECT_THAT(
      text,
      HasSubstr("\n  f32: full prefill 2.00x (ahead in 1 of 1), causal prefill 3.00x (ahead in 1 of 1), "
                "decoding 4.00x (ahead in 1 of 1)\n"));
  EXPECT_THAT(text, HasSubstr("\n  bf16: full prefill 0.50x (behind in 1 of 1)\n"));
  EXPECT_THAT(text, HasSubstr("\n  f32, backward: full prefill 0.25x (behind in 1 of 1)\n"));
  // The worst first.
  EXPECT_LT(text.find("0.25x of torch.flash"), text.find("0.50x of torch.flash"));
}

TEST(AgainstPeers, OnlyRowsTimedAlikeAreCompared) {
  const Cell gpu{.device = "cuda:0"};
  std::vector<Row> rows{row_of(gpu, "cuda/sm90/prefill", 1), row_of(gpu, "torch.flash", 2),
                        row_of(gpu, "torch.flex", 0.1), row_of(gpu, "jax.cudnn", 0.1)};
  rows[0].timer = rows[1].timer = "graph";
  rows[2].timer = "events";
  rows[3].timer = "graph";
  rows[3].regime = "burst";
  const AgainstPeers peers = of(rows).peers;
  ASSERT_THAT(peers.duels, SizeIs(1));
  EXPECT_EQ(peers.duels[0].peer_name, "torch.flash");
  EXPECT_NEAR(peers.duels[0].ratio.value, 2, 1e-9);
  EXPECT_THAT(peers.remarks,
              ElementsAre("Not compared: jax.cudnn in 1 case (burst, the kernels sustained)",
                          "Not compared: torch.flex in 1 case (timed by events, the kernels by graph)"));
  // Alone in their timing, they were faster than nobody.
  EXPECT_EQ(fastest_of_case(rows), (std::vector<bool>{true, false, false, false}));
  bool told = false;
  for (const Recommendation& r : of(rows).recommendations) {
    EXPECT_FALSE(r.contender == "cuda/sm90/prefill/f32" && r.next == "torch.flex") << r.sentence;
    told =
        told || r.sentence.find("timed by events, sustained: torch.flex; nothing else") != std::string::npos;
  }
  EXPECT_TRUE(told);
  rows[1].timer = "events";
  rows[3].regime = "sustained";
  rows[3].timer = "steady_clock";
  const AgainstPeers none = of(rows).peers;
  EXPECT_THAT(none.duels, IsEmpty());
  EXPECT_EQ(none.verdict, "");
  EXPECT_EQ(none.remarks.back(),
            "In 1 of 1 case in which peers ran, no kernel and peer are both ranked and timed alike");
}

TEST(AgainstPeers, DevicesThreadsAndDirectionsOfACaseAreKeptApart) {
  for (const auto& change :
       {+[](Row& row) { row.device = "cuda:0"; }, +[](Row& row) { row.threads = 1; },
        +[](Row& row) { row.direction = "backward"; }, +[](Row& row) { row.cache = "cold"; }}) {
    std::vector<Row> rows{row_of({}, kFlash, 1), row_of({}, "torch.flash", 2)};
    ASSERT_THAT(comparable_rows(rows), SizeIs(1));
    change(rows[1]);
    EXPECT_THAT(comparable_rows(rows), SizeIs(2));
    EXPECT_THAT(of(rows).peers.duels, IsEmpty());
  }
}

TEST(AgainstPeers, WhoHasNoRankIsNotCountedAndNotHidden) {
  const std::vector<Row> rows{row_of({}, kFlash, 1), row_of({}, "torch.math", 2),
                              costly({}, "torch.flash", 0.5, 0.06), costly({}, "torch.flex", 5, 0.06)};
  const AgainstPeers peers = of(rows).peers;
  ASSERT_THAT(peers.duels, SizeIs(1));
  EXPECT_EQ(peers.duels[0].peer_name, "torch.math");
  EXPECT_THAT(peers.remarks,
              ElementsAre("Not ranked, though timed faster than every kernel: torch.flash in 1 case "
                          "(calling takes over 5 % of the time)"));
}

TEST(AgainstPeers, WithoutPeersNothingIsSaid) {
  const AgainstPeers peers = of({row_of({}, kFlash, 1), row_of({}, "cpu/avx512/unfused", 2)}).peers;
  EXPECT_THAT(peers.remarks, IsEmpty());
  EXPECT_EQ(render_peers(peers, 100), "");
}

TEST(PeerRecommendation, APeerThatIsFastestIsNamedWithTheBestKernel) {
  std::vector<Row> rows;
  for (const std::int64_t seq : {64, 128}) {
    rows.push_back(row_of({.seq = seq}, kFlash, 1.25));
    rows.push_back(row_of({.seq = seq}, "torch.flash", 1));
    rows.push_back(row_of({.seq = seq}, "jax.jit", 1.1));
  }
  const Insights insights = of(rows);
  ASSERT_THAT(insights.recommendations, SizeIs(2));
  const Recommendation& r = insights.recommendations[0];
  EXPECT_TRUE(r.peer);
  EXPECT_EQ(r.own, "cpu/avx512/flash/f32");
  EXPECT_NEAR(r.own_over_peer->value, 0.8, 1e-9);
  EXPECT_EQ(r.sentence,
            "full prefill, f32: the peer torch.flash, fastest in 2 of 2 cases, 1.10x (1.08x to 1.12x) over "
            "jax.jit; "
            "of Headwise's own, avx512 flash at 0.80x (0.78x to 0.82x) of its speed.");
  EXPECT_TRUE(
      std::any_of(r.rows.begin(), r.rows.end(), [](const RowReference& row) { return row.position == 0; }));
  EXPECT_THAT(insights.recommendations[1].verdict,
              AllOf(StartsWith("the peer "), HasSubstr("avx512 flash takes 1.20x as much")));
  const std::string text = render_insights(insights, 1000);
  EXPECT_THAT(
      text,
      HasSubstr("Best for f32: the peer torch.flash for full prefill (1.10x over jax.jit; of Headwise's "
                "own, avx512 flash at 0.80x)\n"));
  EXPECT_THAT(text, HasSubstr("Least memory: the peer "));
  EXPECT_THAT(text, HasSubstr(", of Headwise's own avx512 flash (f32)\n"));
}

TEST(PeerRecommendation, ForwardAndBackwardAreNeverOneAnswer) {
  std::vector<Row> rows;
  for (const std::int64_t seq : {64, 128}) {
    rows.push_back(row_of({.seq = seq}, kFlash, 1));
    rows.push_back(row_of({.seq = seq}, "torch.flash", 2));
    rows.push_back(row_of({.seq = seq, .direction = "backward"}, "cpu/avx512/flash_backward", 9));
    rows.push_back(row_of({.seq = seq, .direction = "backward"}, "torch.flash", 3));
  }
  const Insights insights = of(rows);
  for (const Recommendation& r : insights.recommendations) {
    for (const RowReference& row : r.rows)
      EXPECT_EQ(rows[row.position].direction, r.setting == "backward" ? "backward" : "forward") << r.sentence;
  }
  ASSERT_THAT(insights.crossovers, SizeIs(2));  // the best kernel against the best peer, in each direction
  EXPECT_EQ(
      insights.crossovers[0].sentence,
      "prefill, 8 heads of 64, f32: avx512 flash is faster than torch.flash at every length measured (64 to "
      "128): 2.00x.");
  EXPECT_EQ(
      insights.crossovers[1].sentence,
      "prefill, backward, 8 heads of 64, f32: avx512 flash_backward is faster than torch.flash at no length "
      "measured (64 to 128): slower at 64 and 128.");
}

TEST(Refusals, AreOneLineAReason) {
  std::vector<Row> rows;
  for (const std::int64_t seq : {64, 128, 256}) {
    const Cell cell{.seq = seq};
    for (const char* peer : {"torch.cudnn", "jax.cudnn"})
      rows.push_back(
          refused(cell, peer, "unsupported", std::string(peer) + ": runs on no device that is here"));
    for (const char* peer : {"made.one", "made.two"})
      rows.push_back(
          refused(cell, peer, "absent", "made is not installed; make peers PEERS=made installs it"));
    rows.push_back(costly(cell, "torch.flash", 1, 0.054 + static_cast<double>(seq - 64) / 1000));
    rows.push_back(refused(cell, "cpu/avx512/flash", "unsupported", "page_size: this kernel has none"));
  }
  rows.push_back(
      refused({}, "other.one", "absent", "made is not installed; make peers PEERS=made installs it"));
  rows.push_back(row_of({}, "cpu/avx512/unfused", 1));
  EXPECT_THAT(
      refusal_lines(rows),
      ElementsAre(
          "unsupported: torch.cudnn, jax.cudnn: runs on no device that is here (6 rows)",
          "absent: made.* (2 peers, 6 rows): made is not installed; make peers PEERS=made installs it",
          "not ranked: torch.flash: calling it takes 5.4 to 25 % of its time (3 rows)",
          "unsupported: cpu/avx512/flash/f32: page_size: this kernel has none (3 rows)",
          "absent: other.one: made is not installed; make peers PEERS=made installs it"));
}

// The summary of twenty contenders: kernels have their lines, peers a table.
TEST(Summary, OfManyPeersIsShort) {
  std::vector<Row> rows;
  for (const std::int64_t seq : {64, 128}) {
    const Cell cell{.seq = seq};
    rows.push_back(row_of(cell, kFlash, 1));
    rows.push_back(row_of(cell, "cpu/avx512/unfused", 2));
    for (int i = 0; i < 18; ++i)
      rows.push_back(row_of(cell, "lib.p" + std::to_string(i), 1 + (seq == 64 ? 1.0 : 0.5) * (1 + i)));
    for (std::size_t i = rows.size() - 20; i < rows.size(); ++i) {
      rows[i].baseline = "cpu/avx512/unfused/f32";
      rows[i].speedup = 2 / *rows[i].ms_median;
      rows[i].version = "lib 1.2";
    }
  }
  rows.back() = costly({.seq = 128}, "lib.p17", 10, 0.5);
  rows.push_back(refused({.seq = 256}, "lib.p17", "timeout", "took too long"));
  rows.push_back(refused({}, "gone.one", "absent", "gone is not installed"));
  const std::string text = render_summary(rows, wide());
  EXPECT_EQ(text.find("Speedup: "), text.rfind("Speedup: "));
  EXPECT_THAT(text, HasSubstr("Speedup: cpu/avx512/flash/f32 over cpu/avx512/unfused/f32: median 2.00x"));
  EXPECT_THAT(text, HasSubstr("Peers              median speedup  ranked  overhead  did not run\n"
                              "  lib.p0   1.17x (1.00x to 1.33x)  2 of 2         -            -\n"));
  EXPECT_THAT(text, HasSubstr("  lib.p17                   0.11x  1 of 3         1            1\n"));
  EXPECT_THAT(text, Not(HasSubstr("  gone.one ")));
  EXPECT_THAT(text, HasSubstr("\nAgainst peers: the best kernel is 1.75x"));
  const std::vector<PeerSummary> peers = peer_summaries(rows);
  ASSERT_THAT(peers, SizeIs(18));
  EXPECT_EQ(peers[0].version, "lib 1.2");
  // Every line fits a narrow terminal, but for names that are longer.
  Terminal narrow;
  narrow.columns = 60;
  const std::string small = render_summary(rows, narrow);
  for (std::size_t begin = 0; begin < small.size();) {
    const std::size_t end = small.find('\n', begin);
    EXPECT_LE(end - begin, 60U) << small.substr(begin, end - begin);
    begin = end + 1;
  }
}

TEST(Summary, ASpeedupOverABaselineThatWasTimedInAnotherWayIsNone) {
  std::vector<Row> rows{row_of({}, kFlash, 1), row_of({}, "cpu/avx512/unfused", 2),
                        row_of({}, "torch.flash", 1)};
  for (Row& row : rows) {
    row.baseline = "cpu/avx512/unfused/f32";
    row.speedup = 2;
  }
  EXPECT_THAT(render_summary(rows, wide()), HasSubstr("  torch.flash           2.00x  1 of 1\n"));
  rows[2].timer = "events";
  EXPECT_THAT(render_summary(rows, wide()), HasSubstr("  torch.flash               -  1 of 1\n"));
  rows[1].timer = "events";
  EXPECT_THAT(render_summary(rows, wide()), Not(HasSubstr("Speedup:")));
}

TEST(AgainstPeers, VerifiedButNotTimedSaysNothing) {
  std::vector<Row> rows{row_of({}, kFlash, 1), row_of({}, "torch.flash", 2)};
  for (Row& row : rows) row.ms_median = row.ms_low = row.ms_high = {};
  rows[1].overhead_ms = 5;
  EXPECT_EQ(render_peers(of(rows).peers, 100), "");
  EXPECT_THAT(refusal_lines(rows), IsEmpty());
  EXPECT_THAT(peer_summaries(rows), IsEmpty());
}

TEST(Progress, ACaseWithPeersIsOneLineOfKernelsAndTheirBest) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  {
    Progress progress(file, wide(), {"seq=256"}, {1});
    progress.begin_case(0);
    progress.end_case({row_of({}, kFlash, 1), row_of({}, "cpu/avx512/unfused", 2), row_of({}, "jax.jit", 4),
                       row_of({}, "torch.flash", 3), costly({}, "torch.flex", 0.5, 0.5),
                       refused({}, "torch.cudnn", "unsupported", "no"),
                       refused({}, "jax.cudnn", "unsupported", "no")});
  }
  std::rewind(file);
  std::string text(1000, ' ');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_EQ(text,
            "1/1  seq=256: flash 1.000 ms, unfused 2.000 ms; best of 2 peers torch.flash 3.000 ms, 1 peer "
            "not ranked, "
            "2 peers unsupported\n");
}

TEST(Table, ARowWithoutARankHasATimeAndNoSpeed) {
  Row row = costly({}, "torch.flash", 1, 0.5);
  row.tflops = 3.5;
  row.tokens_per_s = 123456;
  Row other = row_of({}, kFlash, 1);
  other.tflops = 2.5;
  other.tokens_per_s = 1000;
  const std::string text = render_table({row, other}, wide());
  EXPECT_THAT(text, HasSubstr("not ranked"));
  EXPECT_THAT(text, HasSubstr("2.500"));
  EXPECT_THAT(text, Not(HasSubstr("3.500")));
  EXPECT_THAT(text, Not(HasSubstr("123.5k")));
  RunFile file;
  file.rows = {row, other};
  EXPECT_THAT(rows_as_markdown(file), HasSubstr("| torch.flash |  | - | 0 of 1 | 1 | 0 |"));
}

}  // namespace
}  // namespace headwise::lab
