// The oracle's gradients against finite differences of its forward, and what the rules of docs/design.md
// section 4 say of masked pairs, of rows without keys and of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>

#include "oracle/oracle.h"
#include "support/attention_case.h"

namespace headwise::oracle {
namespace {

using test::all_rows;
constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

AttentionProblem sizes(std::int64_t batch, std::int64_t heads, std::int64_t kv_heads, std::int64_t seq_q,
                       std::int64_t seq_kv, std::int64_t head_dim, std::int64_t head_dim_v) {
  AttentionProblem p = test::sizes(batch, heads, kv_heads, seq_q, seq_kv, head_dim, head_dim_v);
  p.direction = Direction::backward;
  return p;
}

GradientRows all_gradients(const AttentionProblem& p) {
  GradientRows rows{.queries = all_rows(p), .keys = {}};
  for (std::int64_t b = 0; b < p.batch; ++b) {
    for (std::int64_t h = 0; h < p.kv_heads; ++h) {
      for (std::int64_t j = 0; j < p.seq_kv; ++j) rows.keys.push_back({b, h, j});
    }
  }
  return rows;
}

struct Case : test::AttentionCase {
  using test::AttentionCase::AttentionCase;

  [[nodiscard]] Gradients run(int threads = 1) const {
    Result<Gradients> gradients = backward(args, p, all_gradients(p), threads);
    EXPECT_TRUE(gradients.ok()) << gradients.status().message();
    return gradients.ok() ? *gradients : Gradients{};
  }

  // sum(out * dout), which the gradients are gradients of.
  [[nodiscard]] double loss() const {
    AttentionProblem forward_problem = p;
    forward_problem.direction = Direction::forward;
    const std::vector<RowId> ids = all_rows(p);
    const Result<Rows> rows = forward(args, forward_problem, ids, 1);
    EXPECT_TRUE(rows.ok()) << rows.status().message();
    double sum = 0;
    for (std::size_t r = 0; r < ids.size(); ++r) {
      for (std::int64_t x = 0; x < p.head_dim_v; ++x) {
        sum += rows->out[r * static_cast<std::size_t>(p.head_dim_v) + static_cast<std::size_t>(x)] *
               dout->get(ids[r].batch, ids[r].query, ids[r].head, x);
      }
    }
    return sum;
  }

  // Central differences at every `step`-th element of a tensor whose gradient has its rows in the order of
  // (batch, head, position).
  void expect_slope(test::HostTensor& tensor, const std::vector<double>& gradient, std::int64_t step,
                    const char* name) const {
    constexpr double kStep = 1e-4;
    const auto& [batches, positions, heads, channels] = tensor.view.shape;
    ASSERT_EQ(gradient.size(), static_cast<std::size_t>(tensor.view.elements()));
    for (std::int64_t i = 0; i < tensor.view.elements(); i += step) {
      const std::int64_t c = i % channels, s = i / channels % positions, h = i / channels / positions % heads;
      const std::int64_t b = i / channels / positions / heads;
      const double value = tensor.get(b, s, h, c);
      tensor.set(b, s, h, c, value + kStep);
      const double above = loss();
      tensor.set(b, s, h, c, value - kStep);
      const double below = loss();
      tensor.set(b, s, h, c, value);
      const double slope = (above - below) / (2 * kStep);
      ASSERT_NEAR(gradient[static_cast<std::size_t>(i)], slope, 2e-7 * (1 + std::abs(slope)))
          << name << ", batch " << b << " head " << h << " position " << s << " channel " << c;
    }
  }

  void expect_matches_differences(std::int64_t step = 1) const {
    const Gradients gradients = run(2);
    expect_slope(*q, gradients.dq, step, "dq");
    expect_slope(*k, gradients.dk, step, "dk");
    expect_slope(*v, gradients.dv, step, "dv");
  }
};

TEST(OracleBackward, TwoKeysByHand) {
  // q = 1, keys 1 and 0, values 3 and 5, dout 2, scale 1: P = (w, 1 - w), dP = (6, 10), delta = 10 - 4w.
  AttentionProblem p = sizes(1, 1, 1, 1, 2, 1, 1);
  p.softmax_scale = 1.0F;
  Case c(p);
  c.q->set(0, 0, 0, 0, 1);
  c.k->set(0, 0, 0, 0, 1), c.k->set(0, 1, 0, 0, 0);
  c.v->set(0, 0, 0, 0, 3), c.v->set(0, 1, 0, 0, 5);
  c.dout->set(0, 0, 0, 0, 2);
  const Gradients g = c.run();
  const double w = 2.718281828459045 / 3.718281828459045;
  const double ds = w * (6 - (10 - 4 * w));
  EXPECT_NEAR(g.dq[0], ds, 1e-14);
  EXPECT_NEAR(g.dk[0], ds, 1e-14);
  EXPECT_NEAR(g.dk[1], -ds, 1e-14);
  EXPECT_NEAR(g.dv[0], 2 * w, 1e-14);
  EXPECT_NEAR(g.dv[1], 2 * (1 - w), 1e-14);
}

TEST(OracleBackward, MatchesDifferencesForEveryShapeAndMask) {
  for (const auto& [heads, kv_heads] : {std::pair{2, 2}, std::pair{4, 2}, std::pair{3, 1}}) {
    for (const auto& [seq_q, seq_kv] : {std::pair{5, 5}, std::pair{3, 7}, std::pair{7, 3}, std::pair{1, 5}}) {
      for (const Align align : {Align::top_left, Align::bottom_right}) {
        for (int mask = 0; mask < 5; ++mask) {
          AttentionProblem p = sizes(2, heads, kv_heads, seq_q, seq_kv, 3, 2);
          p.align = align;
          p.causal = mask == 1 || mask == 4;
          if (mask == 2) p.window_left = 2, p.window_right = 1;
          if (mask == 3) p.window_right = 0;
          if (mask == 4) p.window_left = 1;
          SCOPED_TRACE(to_string(p));
          Case(p).expect_matches_differences();
        }
      }
    }
  }
}

TEST(OracleBackward, MatchesDifferencesForScoreFeatures) {
  for (int feature = 0; feature < 9; ++feature) {
    AttentionProblem p = sizes(2, 4, 2, 5, 9, 3, 4);
    p.align = Align::bottom_right;
    p.causal = feature % 2 == 1;
    if (feature == 0 || feature == 7) p.softcap = 1.5F;
    if (feature == 1 || feature == 7) p.bias = true, p.bias_axes = kAxisHeads | kAxisQueries;
    if (feature == 2) p.alibi = AlibiKind::per_head;
    if (feature == 3 || feature == 7) p.alibi = AlibiKind::per_batch_head;
    if (feature == 4) p.mask = MaskKind::boolean, p.mask_axes = kAxisBatch;
    if (feature == 5 || feature == 7) p.mask = MaskKind::additive, p.mask_axes = kAxisBatch | kAxisQueries;
    if (feature == 6 || feature == 7) p.sinks = true;
    if (feature == 8) p.softmax_scale = -0.7F;
    SCOPED_TRACE(to_string(p));
    Case(p).expect_matches_differences();
  }
}

// Several blocks of keys and of queries, none of them whole; every dtype of head groups.
TEST(OracleBackward, MatchesDifferencesBeyondOneBlock) {
  for (int mask = 0; mask < 3; ++mask) {
    AttentionProblem p = sizes(1, 4, 2, 67, 101, 9, 7);
    p.align = Align::bottom_right;
    p.causal = mask == 1;
    if (mask == 2) p.window_left = 40, p.window_right = 3;
    SCOPED_TRACE(to_string(p));
    Case(p, true).expect_matches_differences(61);
  }
}

TEST(OracleBackward, NoResultDependsOnThreadsOrCompanyOfRows) {
  AttentionProblem p = sizes(2, 4, 2, 100, 90, 16, 12);
  p.causal = true;
  p.align = Align::bottom_right;
  const Case c(p);
  const Gradients all = c.run(1);
  for (const int threads : {2, 3}) {
    const Gradients threaded = c.run(threads);
    EXPECT_EQ(all.dq, threaded.dq);
    EXPECT_EQ(all.dk, threaded.dk);
    EXPECT_EQ(all.dv, threaded.dv);
  }
  const GradientRows rows = all_gradients(p);
  const GradientRows some{.queries = {rows.queries[799], rows.queries[401], rows.queries[402]},
                          .keys = {rows.keys[355], rows.keys[3], rows.keys[100], rows.keys[77]}};
  const Result<Gradients> few = backward(c.args, p, some, 2);
  ASSERT_TRUE(few.ok());
  const auto expect_row = [](const std::vector<double>& one, std::size_t i, const std::vector<double>& many,
                             std::size_t from, std::size_t n) {
    for (std::size_t x = 0; x < n; ++x) EXPECT_EQ(one[i * n + x], many[from * n + x]) << i << " " << x;
  };
  expect_row(few->dq, 0, all.dq, 799, 16);
  expect_row(few->dq, 1, all.dq, 401, 16);
  expect_row(few->dq, 2, all.dq, 402, 16);
  const std::size_t keys[] = {355, 3, 100, 77};
  for (std::size_t i = 0; i < 4; ++i) {
    expect_row(few->dk, i, all.dk, keys[i], 16);
    expect_row(few->dv, i, all.dv, keys[i], 12);
  }
  const Result<Gradients> only_keys = backward(c.args, p, {.queries = {}, .keys = {rows.keys[3]}}, 1);
  ASSERT_TRUE(only_keys.ok());
  EXPECT_TRUE(only_keys->dq.empty());
  expect_row(only_keys->dk, 0, all.dk, 3, 16);
}

TEST(OracleBackward, RowsWithoutKeysAddNothing) {
  // bottom_right: the first three queries stand before every key.
  AttentionProblem p = sizes(1, 2, 1, 5, 2, 3, 2);
  p.causal = true;
  p.align = Align::bottom_right;
  Case c(p);
  const Gradients clean = c.run();
  for (std::int64_t h = 0; h < 2; ++h) {
    for (std::int64_t i = 0; i < 3; ++i) {
      for (std::int64_t d = 0; d < 3; ++d) {
        EXPECT_EQ(clean.dq[static_cast<std::size_t>((h * 5 + i) * 3 + d)], 0);
        c.q->set(0, i, h, d, kNan);
      }
      for (std::int64_t x = 0; x < 2; ++x) c.dout->set(0, i, h, x, kInf);
    }
  }
  const Gradients poisoned = c.run();
  EXPECT_EQ(clean.dq, poisoned.dq);
  EXPECT_EQ(clean.dk, poisoned.dk);
  EXPECT_EQ(clean.dv, poisoned.dv);

  const Gradients no_keys = Case(sizes(1, 1, 1, 4, 0, 3, 2)).run();
  EXPECT_EQ(no_keys.dq, std::vector<double>(12, 0.0));
  const Gradients no_queries = Case(sizes(1, 1, 1, 0, 4, 3, 2)).run();
  EXPECT_EQ(no_queries.dk, std::vector<double>(12, 0.0));
  EXPECT_EQ(no_queries.dv, std::vector<double>(8, 0.0));
}

TEST(OracleBackward, SlotsThatNoRowMaySeeAreNotRead) {
  AttentionProblem p = sizes(1, 1, 1, 40, 60, 8, 8);
  p.causal = true;
  p.align = Align::top_left;
  Case c(p);
  const Gradients clean = c.run();
  for (std::int64_t j = 40; j < 60; ++j) {
    for (std::int64_t d = 0; d < 8; ++d) {
      EXPECT_EQ(clean.dk[static_cast<std::size_t>(j * 8 + d)], 0);
      EXPECT_EQ(clean.dv[static_cast<std::size_t>(j * 8 + d)], 0);
      c.k->set(0, j, 0, d, kNan), c.v->set(0, j, 0, d, kInf);
    }
  }
  const Gradients poisoned = c.run();
  EXPECT_EQ(clean.dq, poisoned.dq);
  EXPECT_EQ(clean.dk, poisoned.dk);
  EXPECT_EQ(clean.dv, poisoned.dv);

  // A value that later rows see reaches those rows, and through them all keys that they see.
  c.v->set(0, 20, 0, 3, kNan);
  const Gradients seen = c.run();
  for (std::size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(std::isnan(seen.dq[i * 8]), i >= 20) << i;
    EXPECT_TRUE(std::isnan(seen.dk[i * 8])) << i;
    EXPECT_EQ(seen.dv[i * 8], clean.dv[i * 8]) << "dv does not depend on v";
  }
  EXPECT_EQ(seen.dk[41 * 8], 0);
}

TEST(OracleBackward, ScoresOfMinusInfinityTakeNoPart) {
  AttentionProblem p = sizes(1, 1, 1, 1, 3, 1, 1);
  Case c(p);
  c.q->set(0, 0, 0, 0, 1);
  c.k->set(0, 0, 0, 0, -kInf);
  c.v->set(0, 0, 0, 0, kNan);
  const Gradients g = c.run();
  EXPECT_EQ(g.dk[0], 0);
  EXPECT_EQ(g.dv[0], 0);
  EXPECT_TRUE(std::isfinite(g.dq[0]) && std::isfinite(g.dk[1]) && std::isfinite(g.dv[2]));
}

TEST(OracleBackward, RefusesWhatItDoesNotSay) {
  const auto status = [](const AttentionProblem& p) {
    const Case c(p);
    return backward(c.args, p, all_gradients(p), 1).status();
  };
  AttentionProblem p = sizes(1, 2, 2, 3, 4, 2, 2);
  EXPECT_TRUE(status(p).ok());
  p.varlen = true;
  EXPECT_NE(status(p).message().find("cu_seqlens_q is missing"), std::string::npos);
  p = sizes(1, 2, 2, 3, 4, 2, 2);
  p.lengths = true;
  EXPECT_NE(status(p).message().find("lengths_kv is missing"), std::string::npos);
  p = sizes(1, 2, 2, 3, 4, 2, 2);
  p.causal = true;  // and no align
  EXPECT_EQ(status(p).code(), StatusCode::invalid_argument);
  EXPECT_EQ(status(test::sizes(1, 2, 2, 3, 4, 2, 2)).message(),
            "oracle: direction must be backward, is forward");

  p = sizes(1, 2, 2, 3, 4, 2, 2);
  Case c(p);
  const auto message = [&](const GradientRows& rows) {
    return backward(c.args, p, rows, 1).status().message();
  };
  EXPECT_NE(message({{{0, 2, 0}}, {}}).find("head 2"), std::string::npos);
  EXPECT_NE(message({{}, {{0, 0, 4}}}).find("key 4"), std::string::npos);
  EXPECT_NE(message({{}, {{-1, 0, 0}}}).find("batch -1"), std::string::npos);
  c.args.dout.shape[1] = 4;
  EXPECT_NE(message({}).find("dout must have shape 1 3 2 2, has 1 4 2 2"), std::string::npos);
  c.args.dout = {};
  EXPECT_NE(message({}).find("dout must have shape"), std::string::npos);
}

TEST(OraclePlainBackward, RoundsEveryStep) {
  // One query, two keys, one channel, scale 1, everything but the steps exact in bf16.
  AttentionProblem p = sizes(1, 1, 1, 1, 2, 1, 1);
  p.softmax_scale = 1.0F;
  p.dtype = p.kv_dtype = DType::bf16;
  Case c(p);
  c.q->set(0, 0, 0, 0, 1.0078125);
  c.k->set(0, 0, 0, 0, 1.0078125), c.k->set(0, 1, 0, 0, 0.5);
  c.v->set(0, 0, 0, 0, 3.015625), c.v->set(0, 1, 0, 0, -1.0078125);
  c.dout->set(0, 0, 0, 0, 1.0078125);
  const Result<Gradients> g = plain_backward(c.args, p, all_gradients(p), 1);
  ASSERT_TRUE(g.ok()) << g.status().message();
  const auto bf16 = [](float x) { return static_cast<float>(to_double(from_double<bfloat16>(x))); };
  const float s0 = bf16(1.0078125F * 1.0078125F), s1 = bf16(1.0078125F * 0.5F);
  const float sum = 1 + std::exp(s1 - s0);
  const float p0 = bf16(1 / sum), p1 = bf16(std::exp(s1 - s0) / sum);
  const float out = bf16(p0 * 3.015625F + p1 * -1.0078125F);
  const float delta = out * 1.0078125F;
  const float ds0 = bf16(p0 * (bf16(1.0078125F * 3.015625F) - delta));
  const float ds1 = bf16(p1 * (bf16(1.0078125F * -1.0078125F) - delta));
  EXPECT_EQ(g->dq[0], bf16(ds0 * 1.0078125F + ds1 * 0.5F));
  EXPECT_EQ(g->dk[0], bf16(ds0 * 1.0078125F));
  EXPECT_EQ(g->dk[1], bf16(ds1 * 1.0078125F));
  EXPECT_EQ(g->dv[0], bf16(p0 * 1.0078125F));
  EXPECT_EQ(g->dv[1], bf16(p1 * 1.0078125F));
}

TEST(OraclePlainBackward, IsNearTruthByItsDtype) {
  for (const auto& [dtype, unit] :
       {std::pair{DType::f32, 0x1p-24}, std::pair{DType::f16, 0x1p-11}, std::pair{DType::bf16, 0x1p-8}}) {
    AttentionProblem p = sizes(2, 4, 2, 50, 50, 16, 16);
    p.dtype = p.kv_dtype = dtype;
    p.causal = true;
    const Case c(p);
    const Gradients truth = c.run();
    const Result<Gradients> near = plain_backward(c.args, p, all_gradients(p), 2);
    ASSERT_TRUE(near.ok());
    for (const auto member : {&Gradients::dq, &Gradients::dk, &Gradients::dv}) {
      double largest = 0, error = 0;
      for (std::size_t i = 0; i < (truth.*member).size(); ++i) {
        largest = std::max(largest, std::abs((truth.*member)[i]));
        error = std::max(error, std::abs((truth.*member)[i] - ((*near).*member)[i]));
      }
      EXPECT_GT(error, 0.1 * unit * largest);
      EXPECT_LT(error, 10 * unit * largest);
    }
  }
  const AttentionProblem p = sizes(1, 1, 1, 2, 2, 2, 2);
  const Case wide(p);
  EXPECT_EQ(plain_backward(wide.args, p, {}, 1).status().code(), StatusCode::unsupported);
}

}  // namespace
}  // namespace headwise::oracle
