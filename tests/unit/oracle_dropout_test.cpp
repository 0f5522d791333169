// The oracle's dropout: the generator against the published answers, the mask against the rule of
// docs/design.md section 4, and what it leaves of a softmax.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>

#include "oracle/dropout.h"
#include "oracle/oracle.h"
#include "support/attention_case.h"

namespace headwise::oracle {
namespace {

using test::all_rows;
using test::AttentionCase;
using test::sizes;

// kat_vectors of Random123, lines "philox4x32 10".
TEST(OracleDropout, PhiloxGivesThePublishedAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Scores of 0 and the unit matrix for V: a row of out is what dropout leaves of equal weights.
struct Revealed : AttentionCase {
  explicit Revealed(float dropout_p, std::int64_t batch = 2, std::int64_t heads = 3, std::int64_t seq_q = 5,
                    std::int64_t seq_kv = 37)
      : AttentionCase([&] {
          AttentionProblem problem = sizes(batch, heads, heads, seq_q, seq_kv, 1, seq_kv);
          problem.dropout_p = dropout_p;
          return problem;
        }()) {
    q->fill([](auto...) { return 0.0; });
    v->fill([](auto, auto s, auto, auto x) { return s == x ? 1.0 : 0.0; });
    args.dropout_seed = 0x0123456789abcdef;
    args.dropout_offset = 0xfedcba98;
  }
  [[nodiscard]] Rows run(int threads = 1) const {
    Result<Rows> rows = forward(args, p, all_rows(p), threads);
    EXPECT_TRUE(rows.ok()) << rows.status().message();
    return rows.ok() ? *rows : Rows{};
  }
};

TEST(OracleDropout, KeepsWhatTheRuleKeeps) {
  const Revealed c(0.3F);  // 0.3 * 65536 = 19660.8
  const Rows rows = c.run(2);
  const std::vector<RowId> ids = all_rows(c.p);
  for (std::size_t r = 0; r < ids.size(); ++r) {
    EXPECT_NEAR(rows.lse[r], std::log(37.0), 1e-14) << "dropout is no part of the softmax";
    for (std::int64_t j = 0; j < 37; ++j) {
      const PhiloxCounter counter{static_cast<std::uint32_t>(j) >> 3,
                                  static_cast<std::uint32_t>(ids[r].query),
                                  static_cast<std::uint32_t>(ids[r].batch * 3 + ids[r].head), 0xfedcba98};
      const PhiloxCounter random = philox4x32(counter, {0x89abcdef, 0x01234567});
      const std::uint32_t lane = random[static_cast<std::size_t>(j % 8 / 2)] >> (j % 2 * 16) & 0xffff;
      const double expected = lane >= 19661 ? 65536.0 / (65536 - 19661) / 37 : 0;
      ASSERT_NEAR(rows.out[r * 37 + static_cast<std::size_t>(j)], expected, 1e-16) << r << " " << j;
    }
  }
}

TEST(OracleDropout, ALaneAtTheThresholdIsKept) {
  Revealed c(0, 1, 1, 1, 1);
  const PhiloxCounter random = philox4x32({0, 0, 0, 0xfedcba98}, {0x89abcdef, 0x01234567});
  const auto lane = static_cast<float>(random[0] & 0xffff);
  c.p.dropout_p = lane / 65536;
  EXPECT_EQ(c.run().out[0], 65536 / (65536 - static_cast<double>(lane)));
  c.p.dropout_p = (lane + 1) / 65536;
  EXPECT_EQ(c.run().out[0], 0);
}

TEST(OracleDropout, SeedAndOffsetAreTheMask) {
  Revealed c(0.5F);
  const Rows first = c.run();
  EXPECT_EQ(first.out, c.run(3).out);
  std::set<std::vector<double>> masks{first.out};
  c.args.dropout_seed ^= 1;
  masks.insert(c.run().out);
  c.args.dropout_seed ^= std::uint64_t{1} << 63;
  masks.insert(c.run().out);
  c.args.dropout_offset ^= 1;
  masks.insert(c.run().out);
  EXPECT_EQ(masks.size(), 4U);
  std::set<std::vector<double>> rows;  // of 37 fair draws each: none twice
  for (std::size_t r = 0; r < 30; ++r)
    rows.insert({first.out.begin() + static_cast<std::ptrdiff_t>(r * 37),
                 first.out.begin() + static_cast<std::ptrdiff_t>((r + 1) * 37)});
  EXPECT_EQ(rows.size(), 30U);
}

// 100,000 draws: six standard deviations are 6 sqrt(p (1 - p) / 100,000) = 0.0095 at most.
TEST(OracleDropout, KeepsItsShareAndTheExpectation) {
  for (const float dropout_p : {0.1F, 0.5F, 0.9F}) {
    const Revealed c(dropout_p, 1, 1, 100, 1000);
    double kept = 0, sum = 0;
    for (const double weight : c.run(2).out) {
      kept += weight != 0 ? 1 : 0;
      sum += weight;
    }
    EXPECT_NEAR(kept / 100'000, 1 - static_cast<double>(dropout_p), 0.0095) << dropout_p;
    EXPECT_NEAR(sum / 100, 1, 0.0095 / (1 - static_cast<double>(dropout_p))) << dropout_p;
  }
}

TEST(OracleDropout, ThresholdsAreWholeAndNeverDropAll) {
  const auto dropped = [](float dropout_p) {
    AttentionProblem p;
    p.dropout_p = dropout_p;
    return Dropout({}, p).dropped;
  };
  EXPECT_EQ(dropped(0.25F), 16384U);
  EXPECT_EQ(dropped(1.4F / 65536), 1U);
  EXPECT_EQ(dropped(1.5F / 65536), 2U);
  EXPECT_EQ(dropped(0x1.fffffep-1F), 65535U);
  AttentionProblem p;
  p.dropout_p = 0x1.fffffep-1F;
  EXPECT_EQ(Dropout({}, p).scale, 65536);
}

TEST(OracleDropout, PlainRoundsWhatItKeeps) {
  AttentionProblem p = sizes(1, 1, 1, 6, 8, 1, 8);
  p.dtype = p.kv_dtype = DType::bf16;
  p.dropout_p = 0.3F;
  AttentionCase c(p);
  c.q->fill([](auto...) { return 0.0; });
  c.v->fill([](auto, auto s, auto, auto x) { return s == x ? 1.0 : 0.0; });
  const Result<Rows> rows = plain(c.args, p, all_rows(p), 1);
  ASSERT_TRUE(rows.ok());
  const double kept = to_double(from_double<bfloat16>(0.125 * 65536 / (65536 - 19661)));
  std::set<double> values(rows->out.begin(), rows->out.end());
  EXPECT_EQ(values, (std::set<double>{0, kept}));
}

TEST(OracleDropout, RefusesWhatHasNoMeaning) {
  Revealed c(0.3F);
  c.args.dropout_offset = std::uint64_t{1} << 32;
  const Status status = forward(c.args, c.p, all_rows(c.p), 1).status();
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_NE(status.message().find("dropout_offset must be below 2^32, is 4294967296"), std::string::npos);
}

}  // namespace
}  // namespace headwise::oracle
