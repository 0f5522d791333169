// Sequences of their own lengths (packed rows, keys in use, pages): equal to the bit to the same sequences
// computed one by one on plain tensors. Where no key in use lies, the case has NaN.
#include <gtest/gtest.h>

#include <cmath>

#include "oracle/oracle.h"
#include "support/attention_case.h"
#include "support/sequence_case.h"

namespace headwise::oracle {
namespace {

using test::Layout;
using test::SequenceApart;
using test::SequenceCase;
using test::SequenceSizes;

// All features at once, or what `variant` leaves of them.
AttentionProblem features(int variant) {
  AttentionProblem p = test::sizes(1, 4, 2, 0, 0, 5, 3);
  p.direction = Direction::backward;
  p.align = variant % 2 == 0 ? Align::bottom_right : Align::top_left;
  if (variant == 0) return p;
  p.causal = variant == 1 || variant == 4;
  if (variant == 2 || variant == 4) p.window_left = 6;
  if (variant == 2) p.window_right = 2;
  if (variant >= 2) {
    p.softcap = 2.5F;
    p.bias = p.sinks = true;
    p.bias_axes = variant == 3 ? kAxisHeads : kAxisBatch | kAxisQueries;
    p.alibi = variant == 3 ? AlibiKind::per_head : AlibiKind::per_batch_head;
    p.mask = variant == 3 ? MaskKind::boolean : MaskKind::additive;
    p.mask_axes = variant == 3 ? kAxisBatch | kAxisQueries : kAxisBatch | kAxisHeads;
  }
  if (variant == 1 || variant >= 3) p.dropout_p = 0.3F;
  return p;
}
constexpr int kVariants = 5;

// A batch has as many queries of each sequence, packed rows have no keys but those in use.
std::vector<SequenceSizes> sequences(Layout layout) {
  std::vector<SequenceSizes> all{{9, 0, 9}, {1, 3, 40}, {7, 5, 5}, {0, 0, 6}, {34, 2, 37}, {6, 0, 2}};
  for (SequenceSizes& s : all) {
    if (layout == Layout::batch || layout == Layout::paged) s.queries = 11;
    if (layout == Layout::packed) s.begin = 0;
  }
  return all;
}

AttentionProblem forward_of(AttentionProblem p) {
  p.direction = Direction::forward;
  return p;
}

void expect_rows(const std::vector<double>& got, std::size_t& at, const std::vector<double>& expected,
                 const char* what) {
  for (const double value : expected) ASSERT_EQ(got[at++], value) << what;
}

struct Everything {
  Rows rows;
  Gradients gradients;
  ScoreGradients scores;
};
Everything compute(const AttentionArgs& args, const AttentionProblem& p, const GradientRows& rows,
                   int threads) {
  const Result<Rows> out = forward(args, forward_of(p), rows.queries, threads);
  const Result<Gradients> gradients = backward(args, p, rows, threads);
  const Result<ScoreGradients> scores = backward_scores(args, p, threads);
  EXPECT_TRUE(out.ok() && gradients.ok() && scores.ok())
      << out.status().message() << gradients.status().message() << scores.status().message();
  return {*out, *gradients, *scores};
}

void expect_equals_each_apart(const SequenceCase& c) {
  const GradientRows rows = c.rows();
  const Everything all = compute(c.args, c.p, rows, 2);
  std::size_t out = 0, lse = 0, dq = 0, dk = 0, dv = 0;
  std::vector<double> dbias(all.scores.dbias.size()), dsinks(all.scores.dsinks.size());
  for (std::int64_t b = 0; b < c.p.batch; ++b) {
    SCOPED_TRACE("sequence " + std::to_string(b));
    const SequenceApart one(c, b);
    GradientRows own;
    for (const RowId& row : rows.queries) {
      if (row.batch == b) own.queries.push_back(row);
    }
    for (const KeyRowId& row : rows.keys) {
      if (row.batch == b) own.keys.push_back(row);
    }
    const Everything apart = compute(one.args, one.p, own, 1);
    expect_rows(all.rows.out, out, apart.rows.out, "out");
    expect_rows(all.rows.lse, lse, apart.rows.lse, "lse");
    expect_rows(all.gradients.dq, dq, apart.gradients.dq, "dq");
    expect_rows(all.gradients.dk, dk, apart.gradients.dk, "dk");
    expect_rows(all.gradients.dv, dv, apart.gradients.dv, "dv");
    // What sums over sequences is added here in another order.
    for (std::size_t h = 0; h < dsinks.size(); ++h) dsinks[h] += apart.scores.dsinks[h];
    for (std::size_t n = 0; n < apart.scores.dbias.size(); ++n) {
      const auto at = static_cast<std::int64_t>(n);
      const std::int64_t j = at % one.p.seq_kv, i = at / one.p.seq_kv % one.p.seq_q;
      const std::int64_t h = at / one.p.seq_kv / one.p.seq_q % c.p.heads;
      const std::int64_t item = at / one.p.seq_kv / one.p.seq_q / c.p.heads;
      const auto& shape = c.args.bias.shape;
      const std::int64_t to = (((shape[0] == 1 ? 0 : item) * shape[1] + (shape[1] == 1 ? 0 : h)) * shape[2] +
                               (shape[2] == 1 ? 0 : i)) *
                                  shape[3] +
                              j;
      dbias[static_cast<std::size_t>(to)] += item == b ? apart.scores.dbias[n] : 0;
    }
  }
  EXPECT_EQ(out, all.rows.out.size());
  EXPECT_EQ(dk, all.gradients.dk.size());
  for (std::size_t h = 0; h < dsinks.size(); ++h) EXPECT_NEAR(all.scores.dsinks[h], dsinks[h], 1e-14);
  for (std::size_t n = 0; n < dbias.size(); ++n) ASSERT_NEAR(all.scores.dbias[n], dbias[n], 1e-14) << n;
}

TEST(OracleSequences, EveryLayoutEqualsTheSequencesApart) {
  for (const Layout layout : test::kLayouts) {
    for (int variant = 0; variant < kVariants; ++variant) {
      const SequenceCase c(features(variant), layout, sequences(layout));
      SCOPED_TRACE(to_string(c.p));
      expect_equals_each_apart(c);
    }
  }
}

// SequenceApart has their values as f64.
TEST(OracleSequences, BiasAndMaskOfEveryDtype) {
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32}) {
    SCOPED_TRACE(name(dtype));
    expect_equals_each_apart(
        SequenceCase(features(2), Layout::packed_paged, sequences(Layout::packed), dtype));
    expect_equals_each_apart(SequenceCase(features(4), Layout::batch, sequences(Layout::batch), dtype));
  }
}

TEST(OracleSequences, KeysBehindAShortMaskAreHidden) {
  for (const Layout layout : test::kLayouts) {
    for (const int variant : {2, 3}) {
      for (const std::int64_t mask_keys : {1, 8}) {
        const SequenceCase c(features(variant), layout, sequences(layout), DType::f32, mask_keys);
        SCOPED_TRACE(to_string(c.p));
        expect_equals_each_apart(c);
      }
    }
  }
}

// Masked for all heads and queries of a sequence: no result may tell what stands there.
TEST(OracleSequences, MaskedKeysReachNothing) {
  for (const Layout layout : test::kLayouts) {
    for (const MaskKind kind : {MaskKind::boolean, MaskKind::additive}) {
      AttentionProblem p = features(4);
      p.mask = kind;
      p.mask_axes = kAxisBatch;
      const SequenceCase c(p, layout, sequences(layout));
      SCOPED_TRACE(to_string(c.p));
      const Everything clean = compute(c.args, c.p, c.rows(), 1);
      int hidden = 0;
      for (std::int64_t b = 0; b < c.p.batch; ++b) {
        const SequenceSizes& s = c.sequences[static_cast<std::size_t>(b)];
        for (std::int64_t j = s.begin; j < s.end; ++j) {
          const bool seen = kind == MaskKind::boolean
                                ? c.boolean[static_cast<std::size_t>(b * c.p.seq_kv + j)] != 0
                                : c.mask->get(b, 0, 0, j) != -SequenceCase::kInf;
          if (seen) continue;
          ++hidden;
          const auto [item, row] = c.at_key(b, j);
          for (std::int64_t h = 0; h < c.p.kv_heads; ++h)
            c.k->set(item, row, h, 1, std::nan("")), c.v->set(item, row, h, 2, std::nan(""));
        }
      }
      EXPECT_GT(hidden, 10);
      const Everything poisoned = compute(c.args, c.p, c.rows(), 1);
      EXPECT_EQ(clean.rows.out, poisoned.rows.out);
      EXPECT_EQ(clean.rows.lse, poisoned.rows.lse);
      EXPECT_EQ(clean.gradients.dq, poisoned.gradients.dq);
      EXPECT_EQ(clean.gradients.dk, poisoned.gradients.dk);
      EXPECT_EQ(clean.gradients.dv, poisoned.gradients.dv);
      EXPECT_EQ(clean.scores.dbias, poisoned.scores.dbias);
      EXPECT_EQ(clean.scores.dsinks, poisoned.scores.dsinks);
      for (const double value : clean.rows.out) ASSERT_TRUE(std::isfinite(value));
    }
  }
}

TEST(OracleSequences, PlainTakesThemToo) {
  for (const Layout layout : test::kLayouts) {
    AttentionProblem p = features(3);
    p.dtype = p.kv_dtype = DType::f16;
    const SequenceCase c(p, layout, sequences(layout), DType::f16);
    SCOPED_TRACE(to_string(c.p));
    const Everything truth = compute(c.args, c.p, c.rows(), 1);
    const Result<Rows> rows = plain(c.args, forward_of(c.p), c.rows().queries, 2);
    const Result<Gradients> gradients = plain_backward(c.args, c.p, c.rows(), 2);
    const Result<ScoreGradients> scores = plain_backward_scores(c.args, c.p, 2);
    ASSERT_TRUE(rows.ok() && gradients.ok() && scores.ok());
    const auto expect_near = [](const std::vector<double>& near, const std::vector<double>& exact) {
      ASSERT_EQ(near.size(), exact.size());
      double largest = 0, error = 0;
      for (std::size_t i = 0; i < exact.size(); ++i) {
        largest = std::max(largest, std::abs(exact[i]));
        error = std::max(error, std::abs(near[i] - exact[i]));
      }
      EXPECT_GT(error, 0);
      EXPECT_LT(error, 0x1p-8 * largest);
    };
    expect_near(rows->out, truth.rows.out);
    expect_near(gradients->dq, truth.gradients.dq);
    expect_near(gradients->dk, truth.gradients.dk);
    expect_near(gradients->dv, truth.gradients.dv);
    expect_near(scores->dbias, truth.scores.dbias);
    expect_near(scores->dsinks, truth.scores.dsinks);
  }
}

TEST(OracleSequences, NoResultDependsOnThreads) {
  const SequenceCase c(features(4), Layout::paged, sequences(Layout::paged));
  const Everything one = compute(c.args, c.p, c.rows(), 1);
  const Everything three = compute(c.args, c.p, c.rows(), 3);
  EXPECT_EQ(one.rows.out, three.rows.out);
  EXPECT_EQ(one.gradients.dk, three.gradients.dk);
  EXPECT_EQ(one.scores.dbias, three.scores.dbias);
  EXPECT_EQ(one.scores.dsinks, three.scores.dsinks);
}

TEST(OracleSequences, RowsAreNumberedWithinTheirSequence) {
  const SequenceCase c(features(0), Layout::packed, sequences(Layout::packed));
  const AttentionProblem p = forward_of(c.p);
  EXPECT_TRUE(forward(c.args, p, std::vector<RowId>{{0, 0, 8}}, 1).ok());
  EXPECT_NE(forward(c.args, p, std::vector<RowId>{{0, 0, 9}}, 1).status().message().find("query 9"),
            std::string::npos);
  EXPECT_NE(forward(c.args, p, std::vector<RowId>{{3, 0, 0}}, 1).status().message().find("batch 3"),
            std::string::npos);
  EXPECT_NE(backward(c.args, c.p, {{}, {{5, 0, 2}}}, 1).status().message().find("key 2"), std::string::npos);
}

TEST(OracleSequences, RefusesIndexArraysThatLeadOutside) {
  const auto refused = [](SequenceCase& c, const char* words) {
    const Status status = forward(c.args, forward_of(c.p), {}, 1).status();
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
  };
  SequenceCase packed(features(0), Layout::packed, sequences(Layout::packed));
  packed.cu_q[2] = 8;
  refused(packed, "cu_seqlens_q[2] must be 9 to 57, is 8");
  packed.cu_q[2] = 58;
  refused(packed, "cu_seqlens_q[2] must be 9 to 57, is 58");
  packed.cu_q[2] = 10;
  packed.args.cu_seqlens_kv.shape[0] = 6;
  refused(packed, "cu_seqlens_kv must have 7 entries, has 6");
  packed.args.cu_seqlens_kv.dtype = DType::f32;
  refused(packed, "cu_seqlens_kv must be int32 of rank 1, is f32 of rank 1");

  SequenceCase paged(features(0), Layout::paged, sequences(Layout::paged));
  paged.table[0] = 60;
  refused(paged, "block_table[0, 0] must be below the 60 pages of k, is 60");
  paged.table[0] = -1;
  refused(paged, "block_table[0, 0]");
  paged.table[0] = 59;
  EXPECT_TRUE(forward(paged.args, forward_of(paged.p), {}, 1).ok());
  paged.lengths[1] = 41;
  refused(paged, "keys in use of sequence 1 (starts_kv, lengths_kv) must be within 0 and 40, are 3 to 41");
  paged.lengths[1] = 2;
  refused(paged, "are 3 to 2");
  paged.lengths[1] = 40;
  paged.p.page_size = 8;
  refused(paged, "k must have pages of page_size 8 keys, has 4");

  AttentionProblem p = features(1);
  p.align = Align::unspecified;
  SequenceCase placed(p, Layout::batch, {{9, 0, 9}, {9, 0, 8}});
  refused(placed, "align is required");
  placed.lengths[1] = 9;
  EXPECT_TRUE(forward(placed.args, forward_of(placed.p), {}, 1).ok());
}

// Central differences of sum(out * dout) in every input that has a gradient, with all features together.
struct Differences : SequenceCase {
  using SequenceCase::SequenceCase;

  [[nodiscard]] double loss() const {
    const GradientRows all = rows();
    const Result<Rows> results = forward(args, forward_of(p), all.queries, 1);
    EXPECT_TRUE(results.ok()) << results.status().message();
    double sum = 0;
    for (std::size_t r = 0; r < all.queries.size(); ++r) {
      const auto [item, row] = at_query(all.queries[r].batch, all.queries[r].query);
      for (std::int64_t x = 0; x < p.head_dim_v; ++x) {
        sum += results->out[r * static_cast<std::size_t>(p.head_dim_v) + static_cast<std::size_t>(x)] *
               dout->get(item, row, all.queries[r].head, x);
      }
    }
    return sum;
  }
  // `shift` adds to the element.
  template <class Shift>
  void expect_slope(double gradient, double step, const Shift& shift, const std::string& what) const {
    shift(step);
    const double above = loss();
    shift(-2 * step);
    const double below = loss();
    shift(step);
    const double slope = (above - below) / (2 * step);
    EXPECT_NEAR(gradient, slope, 5e-7 * (1 + std::abs(slope))) << what;
  }
};

TEST(OracleSequences, GradientsMatchDifferencesWithAllFeatures) {
  for (const Layout layout : test::kLayouts) {
    for (const int variant : {1, 2, 3, 4}) {
      std::vector<SequenceSizes> all{{4, 0, 5}, {4, 2, 9}, {4, 1, 3}};
      if (layout == Layout::packed) all = {{3, 0, 5}, {1, 0, 9}, {0, 0, 3}, {5, 0, 0}, {4, 0, 4}};
      if (layout == Layout::packed_paged) all = {{3, 1, 5}, {1, 0, 9}, {0, 0, 3}, {5, 0, 0}, {4, 4, 6}};
      Differences c(features(variant), layout, all);
      SCOPED_TRACE(to_string(c.p));
      const GradientRows rows = c.rows();
      const Everything found = compute(c.args, c.p, rows, 2);
      const auto at = [](std::size_t row, std::int64_t channels, std::int64_t x) {
        return row * static_cast<std::size_t>(channels) + static_cast<std::size_t>(x);
      };
      const auto shift = [](test::HostTensor& t, std::array<std::int64_t, 4> i) {
        return [&t, i](double by) { t.set(i[0], i[1], i[2], i[3], t.get(i[0], i[1], i[2], i[3]) + by); };
      };
      for (std::size_t r = 0; r < rows.queries.size(); ++r) {
        const RowId& row = rows.queries[r];
        const auto [item, place] = c.at_query(row.batch, row.query);
        const std::int64_t x = static_cast<std::int64_t>(r) % c.p.head_dim;
        c.expect_slope(found.gradients.dq[at(r, c.p.head_dim, x)], 1e-4,
                       shift(*c.q, {item, place, row.head, x}), "dq");
      }
      for (std::size_t r = 0; r < rows.keys.size(); ++r) {
        const KeyRowId& row = rows.keys[r];
        const std::int64_t x = static_cast<std::int64_t>(r) % c.p.head_dim, y = x % c.p.head_dim_v;
        const double dk = found.gradients.dk[at(r, c.p.head_dim, x)];
        const double dv = found.gradients.dv[at(r, c.p.head_dim_v, y)];
        if (row.key < c.sequences[static_cast<std::size_t>(row.batch)].begin) {
          EXPECT_TRUE(dk == 0 && dv == 0) << "not in use, and its page may not exist";
          continue;
        }
        const auto [item, place] = c.at_key(row.batch, row.key);
        c.expect_slope(dk, 1e-4, shift(*c.k, {item, place, row.kv_head, x}), "dk");
        c.expect_slope(dv, 1e-4, shift(*c.v, {item, place, row.kv_head, y}), "dv");
      }
      ASSERT_EQ(found.scores.dbias.size(), static_cast<std::size_t>(c.args.bias.elements()));
      for (std::int64_t n = 0; n < c.args.bias.elements(); ++n) {
        const auto& s = c.args.bias.shape;
        c.expect_slope(
            found.scores.dbias[static_cast<std::size_t>(n)], 1e-4,
            shift(*c.bias, {n / s[3] / s[2] / s[1], n / s[3] / s[2] % s[1], n / s[3] % s[2], n % s[3]}),
            "dbias " + std::to_string(n));
      }
      ASSERT_EQ(found.scores.dsinks.size(), c.sinks.size());
      for (std::size_t h = 0; h < c.sinks.size(); ++h) {
        // A power of two, which f32 adds exactly.
        c.expect_slope(
            found.scores.dsinks[h], 0x1p-12, [&](double by) { c.sinks[h] += static_cast<float>(by); },
            "dsinks");
      }
    }
  }
}

}  // namespace
}  // namespace headwise::oracle
