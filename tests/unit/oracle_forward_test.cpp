// The oracle against what can be worked out by hand, closed forms, and an independent loop in long
// double that applies the rules of docs/design.md section 4 key by key.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "oracle/formula.h"
#include "oracle/oracle.h"
#include "support/attention_case.h"

namespace headwise::oracle {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

using test::all_rows;
using test::AttentionCase;
using test::sizes;

struct Case : AttentionCase {
  using AttentionCase::AttentionCase;

  [[nodiscard]] Rows run(int threads = 1) const {
    Result<Rows> rows = forward(args, p, all_rows(p), threads);
    EXPECT_TRUE(rows.ok()) << rows.status().message();
    return rows.ok() ? *rows : Rows{};
  }

  // One score by the table of section 4; nothing where the key may not be seen.
  [[nodiscard]] std::optional<long double> score(const RowId& row, std::int64_t j) const {
    const std::int64_t at = p.align == Align::bottom_right ? row.query + p.seq_kv - p.seq_q : row.query;
    if (p.causal && j > at) return std::nullopt;
    if (p.window_left >= 0 && at - j > p.window_left) return std::nullopt;
    if (p.window_right >= 0 && j - at > p.window_right) return std::nullopt;
    const std::int64_t kv_head = row.head / (p.heads / p.kv_heads);
    long double dot = 0;
    for (std::int64_t c = p.head_dim - 1; c >= 0; --c) {
      dot += static_cast<long double>(q->get(row.batch, row.query, row.head, c)) *
             k->get(row.batch, j, kv_head, c);
    }
    long double s = dot * (p.softmax_scale ? static_cast<long double>(*p.softmax_scale)
                                           : 1 / std::sqrt(static_cast<long double>(p.head_dim)));
    if (p.softcap > 0) s = p.softcap * std::tanh(s / p.softcap);
    if (p.bias) s += bias->get(0, row.head, row.query, j);
    if (p.alibi == AlibiKind::per_head)
      s -= slopes[static_cast<std::size_t>(row.head)] * std::abs(static_cast<long double>(at - j));
    if (p.alibi == AlibiKind::per_batch_head) {
      s -= slopes[static_cast<std::size_t>(row.batch * p.heads + row.head)] *
           std::abs(static_cast<long double>(at - j));
    }
    if (p.mask == MaskKind::boolean && boolean[static_cast<std::size_t>(row.batch * p.seq_kv + j)] == 0)
      return std::nullopt;
    if (p.mask == MaskKind::additive) {
      const double m = mask->get(row.batch, 0, row.query, j);
      if (m == -kInf) return std::nullopt;
      s += m;
    }
    return s;
  }

  // Softmax without a maximum: long double's exponent range is enough for these scores.
  void expect_matches_loop(double tolerance = 1e-13) const {
    const Rows rows = run(2);
    const std::vector<RowId> ids = all_rows(p);
    ASSERT_EQ(rows.lse.size(), ids.size());
    for (std::size_t r = 0; r < ids.size(); ++r) {
      const RowId& id = ids[r];
      const std::int64_t kv_head = id.head / (p.heads / p.kv_heads);
      std::vector<long double> out(static_cast<std::size_t>(p.head_dim_v));
      long double sum = 0;
      for (std::int64_t j = p.seq_kv - 1; j >= 0; --j) {
        const std::optional<long double> s = score(id, j);
        if (!s) continue;
        sum += std::exp(*s);
        for (std::int64_t x = 0; x < p.head_dim_v; ++x) {
          out[static_cast<std::size_t>(x)] += std::exp(*s) * v->get(id.batch, j, kv_head, x);
        }
      }
      if (sum == 0) {
        EXPECT_EQ(rows.lse[r], -kInf);
      } else {
        EXPECT_NEAR(rows.lse[r], static_cast<double>(std::log(sum)), tolerance * 10);
      }
      if (p.sinks && sum > 0)
        sum += std::exp(static_cast<long double>(sinks[static_cast<std::size_t>(id.head)]));
      for (std::int64_t x = 0; x < p.head_dim_v; ++x) {
        const double expected = sum == 0 ? 0 : static_cast<double>(out[static_cast<std::size_t>(x)] / sum);
        ASSERT_NEAR(rows.out[r * static_cast<std::size_t>(p.head_dim_v) + static_cast<std::size_t>(x)],
                    expected, tolerance)
            << "batch " << id.batch << " head " << id.head << " query " << id.query << " channel " << x;
      }
    }
  }
};

TEST(OracleForward, TwoKeysByHand) {
  // q = (1, 0), keys (1, 0) and (0, 1), scale 1: scores 1 and 0, weights e / (e + 1) and 1 / (e + 1).
  AttentionProblem p = sizes(1, 1, 1, 1, 2, 2, 2);
  p.softmax_scale = 1.0F;
  Case c(p);
  c.q->fill([](auto, auto, auto, auto d) { return d == 0 ? 1.0 : 0.0; });
  c.k->fill([](auto, auto s, auto, auto d) { return s == d ? 1.0 : 0.0; });
  c.v->fill(
      [](auto, auto s, auto, auto d) { return s == 0 ? (d == 0 ? 10.0 : 20.0) : (d == 0 ? -1.0 : 4.0); });
  const Rows rows = c.run();
  const double w = 2.718281828459045 / 3.718281828459045;
  EXPECT_NEAR(rows.out[0], 10 * w - (1 - w), 1e-14);
  EXPECT_NEAR(rows.out[1], 20 * w + 4 * (1 - w), 1e-14);
  EXPECT_NEAR(rows.lse[0], 1.3132616875182228, 1e-14);  // ln(e + 1)
}

TEST(OracleForward, DefaultScaleIsTheExactRoot) {
  Case c(sizes(1, 1, 1, 1, 1, 3, 1));
  c.q->fill([](auto...) { return 1.0; });
  c.k->fill([](auto...) { return 1.0; });
  EXPECT_NEAR(c.run().lse[0], std::sqrt(3.0), 1e-15);  // 3 / sqrt(3)
}

TEST(OracleForward, EqualScoresAverageTheValues) {
  Case c(sizes(1, 2, 1, 3, 37, 5, 4));
  c.q->fill([](auto...) { return 0.0; });
  c.v->fill([](auto, auto s, auto, auto d) { return static_cast<double>(s * 4 + d); });
  const Rows rows = c.run();
  for (std::size_t r = 0; r < 6; ++r) {
    EXPECT_NEAR(rows.lse[r], std::log(37.0), 1e-14);
    for (std::size_t x = 0; x < 4; ++x)
      EXPECT_NEAR(rows.out[r * 4 + x], 18 * 4 + static_cast<double>(x), 1e-12);
  }
}

TEST(OracleForward, OneKeyIsCopied) {
  Case c(sizes(2, 3, 3, 1, 1, 7, 9));
  const Rows rows = c.run();
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t h = 0; h < 3; ++h) {
      for (std::int64_t x = 0; x < 9; ++x)
        EXPECT_EQ(rows.out[static_cast<std::size_t>((b * 3 + h) * 9 + x)], c.v->get(b, 0, h, x));
    }
  }
}

TEST(OracleForward, ADominantKeyWinsAtScoresThatWouldOverflow) {
  AttentionProblem p = sizes(1, 1, 1, 1, 50, 1, 1);
  p.softmax_scale = 1.0F;
  Case c(p);
  c.q->fill([](auto...) { return 1000.0; });
  c.k->fill([](auto, auto s, auto, auto) { return s == 31 ? 90.0 : 80.0; });
  const Rows rows = c.run();
  EXPECT_EQ(rows.out[0], c.v->get(0, 31, 0, 0));
  EXPECT_EQ(rows.lse[0], 90000.0);
}

TEST(OracleForward, MatchesTheLoopForEveryShapeAndMask) {
  for (const auto& [heads, kv_heads] : {std::pair{4, 4}, std::pair{4, 2}, std::pair{3, 1}}) {
    for (const auto& [seq_q, seq_kv] :
         {std::pair{33, 33}, std::pair{5, 70}, std::pair{70, 5}, std::pair{1, 65}}) {
      for (const Align align : {Align::top_left, Align::bottom_right}) {
        for (int mask = 0; mask < 5; ++mask) {
          AttentionProblem p = sizes(2, heads, kv_heads, seq_q, seq_kv, 6, 5);
          p.align = align;
          p.causal = mask == 1 || mask == 4;
          if (mask == 2) p.window_left = 7, p.window_right = 2;
          if (mask == 3) p.window_right = 0;
          if (mask == 4) p.window_left = 3;
          SCOPED_TRACE(to_string(p));
          Case(p).expect_matches_loop();
        }
      }
    }
  }
}

TEST(OracleForward, MatchesTheLoopForScoreFeatures) {
  for (int feature = 0; feature < 8; ++feature) {
    AttentionProblem p = sizes(2, 4, 2, 11, 19, 6, 3);
    p.align = Align::bottom_right;
    p.causal = feature % 2 == 1;
    if (feature == 0 || feature == 7) p.softcap = 1.5F;
    if (feature == 1 || feature == 7) p.bias = true, p.bias_axes = kAxisHeads | kAxisQueries;
    if (feature == 2) p.alibi = AlibiKind::per_head;
    if (feature == 3 || feature == 7) p.alibi = AlibiKind::per_batch_head;
    if (feature == 4) p.mask = MaskKind::boolean, p.mask_axes = kAxisBatch;
    if (feature == 5 || feature == 7) p.mask = MaskKind::additive, p.mask_axes = kAxisBatch | kAxisQueries;
    if (feature == 6 || feature == 7) p.sinks = true;
    SCOPED_TRACE(to_string(p));
    Case(p).expect_matches_loop();
  }
}

TEST(OracleForward, TakesEveryDtypeAndStride) {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    for (const bool scattered : {false, true}) {
      AttentionProblem p = sizes(2, 4, 2, 40, 40, 10, 12);
      p.dtype = dtype;
      p.kv_dtype = dtype;
      p.causal = true;
      Case(p, scattered).expect_matches_loop();
    }
  }
}

TEST(OracleForward, NoResultDependsOnThreadsOrCompanyOfRows) {
  AttentionProblem p = sizes(2, 4, 2, 100, 100, 16, 16);
  p.causal = true;
  const Case c(p);
  const Rows all = c.run(1);
  const Rows threaded = c.run(2);
  EXPECT_EQ(all.out, threaded.out);
  EXPECT_EQ(all.lse, threaded.lse);
  const std::vector<RowId> ids = all_rows(p);
  for (const std::size_t i : {std::size_t{799}, std::size_t{0}, std::size_t{401}}) {
    const Result<Rows> one = forward(c.args, p, std::vector<RowId>{ids[i]}, 1);
    ASSERT_TRUE(one.ok());
    EXPECT_EQ(one->lse[0], all.lse[i]);
    for (std::size_t x = 0; x < 16; ++x) EXPECT_EQ(one->out[x], all.out[i * 16 + x]);
  }
}

TEST(OracleForward, RowsWithoutKeysAreZero) {
  AttentionProblem p = sizes(1, 1, 1, 4, 0, 3, 2);
  Rows rows = Case(p).run();
  EXPECT_EQ(rows.out, std::vector<double>(8, 0.0));
  EXPECT_EQ(rows.lse, std::vector<double>(4, -kInf));

  p = sizes(1, 1, 1, 5, 2, 3, 1);  // bottom_right: the first three queries stand before every key
  p.causal = true;
  p.align = Align::bottom_right;
  rows = Case(p).run();
  for (std::size_t r = 0; r < 3; ++r) {
    EXPECT_EQ(rows.out[r], 0);
    EXPECT_EQ(rows.lse[r], -kInf);
  }
  EXPECT_TRUE(std::isfinite(rows.lse[3]) && std::isfinite(rows.lse[4]));
}

TEST(OracleForward, ScoresOfMinusInfinityTakeNoPart) {
  Case c(sizes(1, 1, 1, 1, 3, 1, 1));
  c.q->set(0, 0, 0, 0, 1);
  c.k->fill([](auto...) { return -kInf; });
  Rows rows = c.run();
  EXPECT_EQ(rows.out[0], 0);
  EXPECT_EQ(rows.lse[0], -kInf);
  c.k->set(0, 1, 0, 0, 2);
  c.v->set(0, 0, 0, 0, kNan);
  rows = c.run();
  EXPECT_EQ(rows.out[0], c.v->get(0, 1, 0, 0));
  EXPECT_EQ(rows.lse[0], 2);
}

TEST(OracleForward, SlotsThatNoRowMaySeeAreNotRead) {
  AttentionProblem p = sizes(1, 1, 1, 40, 60, 8, 8);
  p.causal = true;
  p.align = Align::top_left;
  Case c(p);
  const Rows clean = c.run();
  for (std::int64_t j = 40; j < 60; ++j) {
    for (std::int64_t d = 0; d < 8; ++d) c.k->set(0, j, 0, d, kNan), c.v->set(0, j, 0, d, kInf);
  }
  const Rows poisoned = c.run();
  EXPECT_EQ(clean.out, poisoned.out);
  EXPECT_EQ(clean.lse, poisoned.lse);

  // A slot that later rows see reaches those rows alone.
  c.v->set(0, 20, 0, 3, kNan);
  const Rows seen = c.run();
  for (std::size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(std::isnan(seen.out[i * 8 + 3]), i >= 20) << i;
    EXPECT_EQ(seen.out[i * 8 + 2], clean.out[i * 8 + 2]);
  }
  c.k->set(0, 30, 0, 0, kNan);
  const Rows key = c.run();
  for (std::size_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(key.lse[i]), i >= 30) << i;
}

TEST(OracleForward, RefusesWhatItDoesNotSay) {
  const auto code = [](const AttentionProblem& p) {
    const Case c(p);
    return forward(c.args, p, all_rows(p), 1).status().code();
  };
  AttentionProblem p = sizes(1, 2, 2, 3, 4, 2, 2);
  EXPECT_EQ(code(p), StatusCode::ok);
  for (const float dropout_p : {-0.1F, 1.0F, std::nanf("")}) {
    p.dropout_p = dropout_p;
    EXPECT_EQ(code(p), StatusCode::invalid_argument) << dropout_p;
  }
  p = sizes(1, 2, 2, 3, 4, 2, 2);
  p.direction = Direction::backward;
  EXPECT_EQ(code(p), StatusCode::unsupported);
  p = sizes(1, 2, 2, 3, 4, 2, 2);
  for (const auto feature :
       {&AttentionProblem::varlen, &AttentionProblem::lengths, &AttentionProblem::starts}) {
    p.*feature = true;  // and no tensor
    EXPECT_EQ(code(p), StatusCode::invalid_argument);
    p.*feature = false;
  }
  p.page_size = 4;  // and no block_table
  EXPECT_EQ(code(p), StatusCode::invalid_argument);
  p.page_size = 0;
  p.causal = true;  // and no align
  EXPECT_EQ(code(p), StatusCode::invalid_argument);
}

TEST(OracleForward, RefusesTensorsThatContradictEachOther) {
  const AttentionProblem p = sizes(1, 2, 2, 3, 4, 2, 2);
  Case c(p);
  const auto message = [&](const std::vector<RowId>& rows) {
    return forward(c.args, p, rows, 1).status().message();
  };
  EXPECT_NE(message({{0, 2, 0}}).find("head 2"), std::string::npos);
  EXPECT_NE(message({{0, 0, 3}}).find("query 3"), std::string::npos);
  EXPECT_NE(message({{-1, 0, 0}}).find("batch -1"), std::string::npos);
  c.args.v.shape[1] = 5;
  EXPECT_NE(message({}).find("v must have shape 1 4 2 2, has 1 5 2 2"), std::string::npos);
  c.args.v.shape[1] = 4;
  c.args.k.dtype = DType::int8;
  EXPECT_EQ(forward(c.args, p, {}, 1).status().code(), StatusCode::unsupported);
  c.args.k.dtype = DType::f64;
  c.args.q.device = {DeviceKind::cuda, 0};
  EXPECT_NE(message({}).find("host memory"), std::string::npos);
}

TEST(OraclePlain, RoundsScoresProbabilitiesAndOutput) {
  // One channel, scale 1, two keys: scores 1 * 1.00390625 (a tie in bf16, to even: 1) and 0.
  AttentionProblem p = sizes(1, 1, 1, 1, 2, 1, 1);
  p.softmax_scale = 1.0F;
  p.dtype = DType::bf16;
  p.kv_dtype = DType::f32;
  Case c(p);
  c.q->set(0, 0, 0, 0, 1);
  c.k->set(0, 0, 0, 0, 1.00390625);
  c.k->set(0, 1, 0, 0, 0);
  c.v->set(0, 0, 0, 0, 3);
  c.v->set(0, 1, 0, 0, 0.001);
  const Result<Rows> rows = plain(c.args, p, all_rows(p), 1);
  ASSERT_TRUE(rows.ok());
  const auto bf16 = [](double x) { return static_cast<float>(to_double(from_double<bfloat16>(x))); };
  const float weight0 = bf16(1.0F / (1.0F + std::exp(-1.0F)));
  const float weight1 = bf16(std::exp(-1.0F) / (1.0F + std::exp(-1.0F)));
  EXPECT_EQ(rows->out[0], bf16(weight0 * 3.0F + weight1 * 0.001F));
  EXPECT_NEAR(rows->lse[0], 1.3132616875182228, 1e-6);  // of the rounded scores
}

// Round the places where anything may go wrong: every value of the narrow type, the midpoints, and their
// neighbours.
template <class Store>
void expect_rounding_as_in_core() {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float exact = to_float(Store{static_cast<std::uint16_t>(bits)});
    const float next = to_float(Store{static_cast<std::uint16_t>(bits + 1)});
    if (!std::isfinite(exact)) continue;
    const float middle = std::isfinite(next) ? exact + (next - exact) / 2 : exact * 1.0005F;
    for (const float value :
         {exact, middle, std::nextafterf(middle, 0), std::nextafterf(middle, 2 * middle)}) {
      const float expected = static_cast<float>(to_double(from_double<Store>(value)));
      const float got = rounded<float, Store>(value);
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got), std::bit_cast<std::uint32_t>(expected)) << value;
    }
  }
  for (const float value : {INFINITY, -INFINITY, 65520.0F, 65519.99F, -1e30F, 3.4e38F})
    EXPECT_EQ((rounded<float, Store>(value)), static_cast<float>(to_double(from_double<Store>(value))))
        << value;
  EXPECT_TRUE(std::isnan(rounded<float, Store>(std::nanf(""))));
}
TEST(OraclePlain, RoundsAsTheCoreDoes) {
  expect_rounding_as_in_core<float16>();
  expect_rounding_as_in_core<bfloat16>();
}

TEST(OraclePlain, IsNearTruthByItsDtype) {
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::f32, 2e-6}, std::pair{DType::f16, 2e-3}, std::pair{DType::bf16, 2e-2}}) {
    AttentionProblem p = sizes(1, 2, 1, 90, 90, 32, 32);
    p.dtype = dtype;
    p.kv_dtype = dtype;
    p.causal = true;
    const Case c(p);
    const Rows truth = c.run();
    const Result<Rows> rows = plain(c.args, p, all_rows(p), 2);
    ASSERT_TRUE(rows.ok());
    double largest = 0;
    for (std::size_t i = 0; i < truth.out.size(); ++i) {
      largest = std::max(largest, std::abs(rows->out[i] - truth.out[i]));
      double slot = 0;
      store_element(dtype, &slot, 0, rows->out[i]);
      ASSERT_EQ(load_element(dtype, &slot, 0), rows->out[i]) << "not a number of the dtype";
    }
    EXPECT_LT(largest, tolerance) << name(dtype);
    EXPECT_GT(largest, tolerance / 200) << name(dtype);
  }
}

TEST(OraclePlain, HasNoF64) {
  const AttentionProblem p = sizes(1, 1, 1, 2, 2, 2, 2);
  const Case c(p);
  EXPECT_EQ(plain(c.args, p, all_rows(p), 1).status().code(), StatusCode::unsupported);
}

}  // namespace
}  // namespace headwise::oracle
