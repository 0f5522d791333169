// The oracle's gradients of bias and sinks where they can be worked out; finite differences of them are among
// oracle_sequences_test.cpp.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>

#include "oracle/oracle.h"
#include "support/attention_case.h"

namespace headwise::oracle {
namespace {

using test::AttentionCase;
constexpr double kInf = std::numeric_limits<double>::infinity();

AttentionProblem sizes(std::int64_t heads, std::int64_t seq_q, std::int64_t seq_kv,
                       std::int64_t head_dim = 1) {
  AttentionProblem p = test::sizes(1, heads, heads, seq_q, seq_kv, head_dim, head_dim);
  p.direction = Direction::backward;
  p.softmax_scale = 1.0F;
  return p;
}

ScoreGradients run(const AttentionCase& c, int threads = 1) {
  Result<ScoreGradients> gradients = backward_scores(c.args, c.p, threads);
  EXPECT_TRUE(gradients.ok()) << gradients.status().message();
  return gradients.ok() ? *gradients : ScoreGradients{};
}

// One query, scores 1 and 0 and a sink of 0, values 3 and 5, dout 2: P = (e, 1, 1) / (e + 2), the last the
// sink's; dP = (6, 10), delta = 6 P0 + 10 P1.
TEST(OracleScoreGradients, TwoKeysAndASinkByHand) {
  AttentionProblem p = sizes(1, 1, 2);
  p.bias = p.sinks = true;
  AttentionCase c(p);
  c.q->set(0, 0, 0, 0, 0);
  c.v->set(0, 0, 0, 0, 3), c.v->set(0, 1, 0, 0, 5);
  c.bias->set(0, 0, 0, 0, 1), c.bias->set(0, 0, 0, 1, 0);
  c.dout->set(0, 0, 0, 0, 2);
  c.sinks[0] = 0;
  const ScoreGradients g = run(c);
  const double e = 2.718281828459045, delta = (6 * e + 10) / (e + 2);
  ASSERT_EQ(g.dbias.size(), 2U);
  ASSERT_EQ(g.dsinks.size(), 1U);
  EXPECT_NEAR(g.dbias[0], e / (e + 2) * (6 - delta), 1e-14);
  EXPECT_NEAR(g.dbias[1], 1 / (e + 2) * (10 - delta), 1e-14);
  EXPECT_NEAR(g.dsinks[0], -1 / (e + 2) * delta, 1e-14);
}

TEST(OracleScoreGradients, ASinkFarAboveTheScoresLeavesNothing) {
  for (const auto& [dtype, sink] : {std::pair{DType::f64, 3000.0F}, std::pair{DType::f32, 3000.0F},
                                    std::pair{DType::f64, INFINITY}, std::pair{DType::f32, INFINITY}}) {
    SCOPED_TRACE(sink);
    AttentionProblem p = sizes(1, 3, 4, 2);
    p.sinks = true;
    p.dtype = p.kv_dtype = dtype;
    AttentionCase c(p);
    c.sinks[0] = sink;
    const auto scores =
        dtype == DType::f64 ? backward_scores(c.args, p, 1) : plain_backward_scores(c.args, p, 1);
    ASSERT_TRUE(scores.ok());
    EXPECT_EQ(std::abs(scores->dsinks[0]), 0);
    p.direction = Direction::forward;
    const auto rows = dtype == DType::f64 ? forward(c.args, p, test::all_rows(p), 1)
                                          : plain(c.args, p, test::all_rows(p), 1);
    ASSERT_TRUE(rows.ok());
    for (const double value : rows->out) EXPECT_EQ(value, 0);
    for (const double value : rows->lse) EXPECT_TRUE(std::isfinite(value));
  }
}

// bottom_right: the first three queries stand before every key; whatever stands in their rows.
TEST(OracleScoreGradients, RowsWithoutKeysAddNothing) {
  AttentionProblem p = sizes(2, 5, 2);
  p.bias = p.sinks = p.causal = true;
  p.align = Align::bottom_right;
  AttentionCase c(p);
  const ScoreGradients clean = run(c);
  for (std::int64_t h = 0; h < 2; ++h) {
    EXPECT_NE(clean.dsinks[static_cast<std::size_t>(h)], 0);
    for (std::int64_t i = 0; i < 3; ++i) {
      c.q->set(0, i, h, 0, std::nan(""));
      c.dout->set(0, i, h, 0, kInf);
      for (std::int64_t j = 0; j < 2; ++j)
        EXPECT_EQ(clean.dbias[static_cast<std::size_t>((h * 5 + i) * 2 + j)], 0);
    }
  }
  const ScoreGradients poisoned = run(c);
  EXPECT_EQ(clean.dbias, poisoned.dbias);
  EXPECT_EQ(clean.dsinks, poisoned.dsinks);

  AttentionProblem empty = sizes(2, 4, 0);
  empty.sinks = true;
  EXPECT_EQ(run(AttentionCase(empty)).dsinks, std::vector<double>(2, 0.0));
}

TEST(OracleScoreGradients, WhatIsNotGivenIsEmpty) {
  const ScoreGradients g = run(AttentionCase(sizes(1, 2, 2)));
  EXPECT_TRUE(g.dbias.empty());
  EXPECT_TRUE(g.dsinks.empty());
  AttentionProblem p = sizes(1, 2, 2);
  const AttentionCase c(p);
  EXPECT_EQ(plain_backward_scores(c.args, p, 1).status().code(), StatusCode::unsupported);
  p.direction = Direction::forward;
  EXPECT_EQ(backward_scores(c.args, p, 1).status().message(),
            "oracle: direction must be backward, is forward");
}

// More scores than are held at once. With q = 1 and scale 1 the gradient of a key is that of a bias of its
// own.
TEST(OracleScoreGradients, LongProblemsAreSummedInParts) {
  AttentionProblem p = sizes(1, 1500, 3000);
  AttentionCase c(p);
  c.q->fill([](auto...) { return 1.0; });
  c.p.bias = true;
  const test::HostTensor bias(DType::f32, {1, 1, 1, 3000});
  c.args.bias = bias.view;
  const ScoreGradients one = run(c, 1), two = run(c, 2);
  EXPECT_EQ(one.dbias, two.dbias);
  GradientRows rows;
  for (std::int64_t j = 0; j < 3000; ++j) rows.keys.push_back({0, 0, j});
  const Result<Gradients> gradients = backward(c.args, c.p, rows, 2);
  ASSERT_TRUE(gradients.ok());
  double largest = 0;
  for (std::size_t j = 0; j < 3000; ++j) {
    ASSERT_NEAR(one.dbias[j], gradients->dk[j], 1e-13) << j;
    largest = std::max(largest, std::abs(one.dbias[j]));
  }
  EXPECT_GT(largest, 1e-3);
}

// All but the steps is exact in bf16. The slope of the softcap is no part of the gradient of bias.
TEST(OracleScoreGradients, PlainRoundsEveryStep) {
  AttentionProblem p = sizes(1, 1, 2);
  p.dtype = p.kv_dtype = DType::bf16;
  p.bias = p.sinks = true;
  p.softcap = 1;
  AttentionCase c(p);
  const test::HostTensor bias(DType::bf16, {1, 1, 1, 2});
  c.args.bias = bias.view;
  c.q->set(0, 0, 0, 0, 1.0078125);
  c.k->set(0, 0, 0, 0, 1.0078125), c.k->set(0, 1, 0, 0, 0.5);
  c.v->set(0, 0, 0, 0, 3.015625), c.v->set(0, 1, 0, 0, -1.0078125);
  c.dout->set(0, 0, 0, 0, 1.0078125);
  c.sinks[0] = 0.25F;
  const Result<ScoreGradients> g = plain_backward_scores(c.args, p, 1);
  ASSERT_TRUE(g.ok()) << g.status().message();
  const auto bf16 = [](float x) { return static_cast<float>(to_double(from_double<bfloat16>(x))); };
  const float s0 = bf16(std::tanh(1.0078125F * 1.0078125F)), s1 = bf16(std::tanh(1.0078125F * 0.5F));
  const float sum = 1 + std::exp(s1 - s0) + std::exp(0.25F - s0);
  const float p0 = bf16(1 / sum), p1 = bf16(std::exp(s1 - s0) / sum), sink = bf16(std::exp(0.25F - s0) / sum);
  const float delta = bf16(p0 * 3.015625F + p1 * -1.0078125F) * 1.0078125F;
  EXPECT_EQ(g->dbias[0], bf16(p0 * (bf16(1.0078125F * 3.015625F) - delta)));
  EXPECT_EQ(g->dbias[1], bf16(p1 * (bf16(1.0078125F * -1.0078125F) - delta)));
  EXPECT_EQ(g->dsinks[0], -sink * delta);
}

}  // namespace
}  // namespace headwise::oracle
