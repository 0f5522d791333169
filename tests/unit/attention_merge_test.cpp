// Merging of partial results: against the formula in fp64, against attention over all keys, and refusals.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "support/poisoned.h"

namespace headwise {
namespace {

using test::PoisonedTensor;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Half a unit in the last place, relative.
double half_unit(DType dtype) {
  return dtype == DType::f32 ? 0x1p-24 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
}

struct Sizes {
  std::int64_t batch = 2, seq = 5, heads = 3, dim = 7;
};

// Partial results of normal numbers, and room for the merged one.
struct MergeCase {
  Sizes sizes;
  std::vector<std::unique_ptr<PoisonedTensor>> outs, lses;
  PoisonedTensor out, lse, sinks;
  std::vector<PartialResult> partials;

  MergeCase(Sizes s, std::vector<DType> dtypes, DType merged, double lse_spread = 4)
      : sizes(s),
        out(merged, {s.batch, s.seq, s.heads, s.dim}),
        lse(DType::f32, {s.batch, s.heads, s.seq}),
        sinks(DType::f32, {s.heads}, 0) {
    std::mt19937_64 generator(7);
    std::normal_distribution<double> normal;
    for (const DType dtype : dtypes) {
      outs.push_back(std::make_unique<PoisonedTensor>(
          dtype, std::initializer_list<std::int64_t>{s.batch, s.seq, s.heads, s.dim}, 5));
      lses.push_back(std::make_unique<PoisonedTensor>(
          DType::f32, std::initializer_list<std::int64_t>{s.batch, s.heads, s.seq}));
      outs.back()->fill_normal(generator);
      lses.back()->each([&](auto b, auto h, auto i, auto) {
        lses.back()->set(b, h, i, 0, lse_spread * normal(generator));
      });
      lses.back()->remember();
      partials.push_back({outs.back()->view, lses.back()->view});
    }
    sinks.fill_normal(generator);
  }
};

struct Truth {
  double lse = -kInfinity;
  std::vector<double> out;
  double magnitude = 0;  // of the terms that were added
};

// The formula. std::exp(lse_i - lse) never overflows: lse is the largest of them or more.
Truth truth(const MergeCase& c, std::int64_t b, std::int64_t i, std::int64_t h, bool with_sinks) {
  Truth t;
  t.out.assign(static_cast<std::size_t>(c.sizes.dim), 0);
  double largest = -kInfinity;
  for (const auto& lse : c.lses) largest = std::max(largest, lse->get(b, h, i));
  if (largest == -kInfinity) return t;
  double sum = 0;
  for (const auto& lse : c.lses) sum += std::exp(lse->get(b, h, i) - largest);
  t.lse = largest + std::log(sum);
  const double denominator = with_sinks ? std::exp(t.lse) + std::exp(c.sinks.get(h)) : std::exp(t.lse);
  for (std::size_t p = 0; p < c.outs.size(); ++p) {
    const double lse_p = c.lses[p]->get(b, h, i);
    if (lse_p == -kInfinity) continue;
    for (std::int64_t d = 0; d < c.sizes.dim; ++d) {
      const double term = std::exp(lse_p) / denominator * c.outs[p]->get(b, i, h, d);
      t.out[static_cast<std::size_t>(d)] += term;
      t.magnitude = std::max(t.magnitude, std::abs(term));
    }
  }
  return t;
}

void expect_truth(const MergeCase& c, bool with_sinks) {
  // fp32 sums of a few terms, weights from exp: a handful of roundings of 2^-24.
  const double sums = 16 * 0x1p-24 * static_cast<double>(c.partials.size());
  for (std::int64_t b = 0; b < c.sizes.batch; ++b) {
    for (std::int64_t i = 0; i < c.sizes.seq; ++i) {
      for (std::int64_t h = 0; h < c.sizes.heads; ++h) {
        const Truth t = truth(c, b, i, h, with_sinks);
        if (t.lse == -kInfinity) {
          EXPECT_EQ(c.lse.get(b, h, i), -kInfinity);
        } else {
          EXPECT_NEAR(c.lse.get(b, h, i), t.lse, 4e-6 * std::max(1.0, std::abs(t.lse)));
        }
        for (std::int64_t d = 0; d < c.sizes.dim; ++d) {
          const double expected = t.out[static_cast<std::size_t>(d)];
          EXPECT_NEAR(c.out.get(b, i, h, d), expected,
                      half_unit(c.out.view.dtype) * std::abs(expected) + sums * t.magnitude + 1e-7)
              << b << " " << i << " " << h << " " << d;
        }
      }
    }
  }
}

TEST(Merge, AgreesWithTheFormulaInEveryDtype) {
  for (const DType partial : {DType::f32, DType::f16, DType::bf16}) {
    for (const DType merged : {DType::f32, DType::f16, DType::bf16}) {
      for (const bool with_sinks : {false, true}) {
        MergeCase c({}, {partial, DType::f32, partial}, merged);
        const Status status =
            merge_partials(c.partials, c.out.view, c.lse.view, with_sinks ? c.sinks.view : TensorView{});
        ASSERT_TRUE(status.ok()) << status.message();
        expect_truth(c, with_sinks);
        EXPECT_TRUE(c.out.surroundings_unchanged() && c.lse.surroundings_unchanged());
        for (std::size_t p = 0; p < 3; ++p) EXPECT_TRUE(c.outs[p]->unchanged() && c.lses[p]->unchanged());
      }
    }
  }
}

TEST(Merge, LargeOnesTakeThreadsAndGiveTheSameBits) {
  // 513 channels are more than a block, 300 rows more than a task.
  const Sizes large{2, 150, 2, 513};
  MergeCase one(large, {DType::f32, DType::bf16}, DType::f32);
  MergeCase many(large, {DType::f32, DType::bf16}, DType::f32);
  ASSERT_TRUE(merge_partials(one.partials, one.out.view, one.lse.view, {}, {.threads = 1}).ok());
  ASSERT_TRUE(merge_partials(many.partials, many.out.view, many.lse.view, {}, {.threads = 4}).ok());
  expect_truth(one, false);
  one.out.each([&](auto... at) { EXPECT_EQ(one.out.get(at...), many.out.get(at...)); });
  one.lse.each([&](auto... at) { EXPECT_EQ(one.lse.get(at...), many.lse.get(at...)); });
}

TEST(Merge, ExtremeLsesNeitherOverflowNorVanish) {
  MergeCase c({1, 1, 1, 2}, {DType::f32, DType::f32}, DType::f32);
  for (const double at : {-30000.0, -200.0, 200.0, 30000.0}) {
    c.lses[0]->set(0, 0, 0, 0, at);
    c.lses[1]->set(0, 0, 0, 0, at);
    ASSERT_TRUE(merge_partials(c.partials, c.out.view, c.lse.view).ok());
    EXPECT_NEAR(c.lse.get(0), at + std::log(2.0), 1e-6 * std::abs(at));
    EXPECT_NEAR(c.out.get(0, 0, 0, 1), (c.outs[0]->get(0, 0, 0, 1) + c.outs[1]->get(0, 0, 0, 1)) / 2, 1e-6);
  }
  c.sinks.set(0, 0, 0, 0, 60000);  // all the weight is the sink's
  ASSERT_TRUE(merge_partials(c.partials, c.out.view, c.lse.view, c.sinks.view).ok());
  EXPECT_EQ(c.out.get(0, 0, 0, 0), 0);
  EXPECT_NEAR(c.lse.get(0), 30000 + std::log(2.0), 0.01);
}

TEST(Merge, OnePartialComesBackBitForBit) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    MergeCase c({}, {dtype}, dtype);
    ASSERT_TRUE(merge_partials(c.partials, c.out.view, c.lse.view).ok());
    c.out.each([&](auto... at) { EXPECT_EQ(c.out.get(at...), c.outs[0]->get(at...)); });
    c.lse.each([&](auto... at) { EXPECT_EQ(c.lse.get(at...), c.lses[0]->get(at...)); });
  }
}

TEST(Merge, PartialsWithoutKeysAddNothing) {
  for (const bool with_sinks : {false, true}) {
    MergeCase c({}, {DType::f32, DType::f32, DType::f32}, DType::f32);
    const TensorView sinks = with_sinks ? c.sinks.view : TensorView{};
    // Query 0 has keys in partial 1 alone, query 1 in none; what the others hold there is no number.
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t h = 0; h < 3; ++h) {
        for (const std::size_t p : {0U, 1U, 2U}) {
          for (const std::int64_t i : {0, 1}) {
            if (p == 1 && i == 0) continue;
            c.lses[p]->set(b, h, i, 0, -kInfinity);
            for (std::int64_t d = 0; d < 7; ++d) c.outs[p]->set(b, i, h, d, d % 2 == 0 ? kNan : kInfinity);
          }
        }
      }
    }
    ASSERT_TRUE(merge_partials(c.partials, c.out.view, c.lse.view, sinks).ok());
    expect_truth(c, with_sinks);
    EXPECT_EQ(c.out.get(0, 1, 0, 0), 0);
  }
}

TEST(Merge, InfiniteAndNanLsesGiveWhatTheFormulaGives) {
  const auto merged = [](double first, double second) {
    MergeCase c({1, 1, 1, 1}, {DType::f32, DType::f32}, DType::f32);
    c.lses[0]->set(0, 0, 0, 0, first);
    c.lses[1]->set(0, 0, 0, 0, second);
    EXPECT_TRUE(merge_partials(c.partials, c.out.view, c.lse.view).ok());
    return std::array<double, 2>{c.out.get(0), c.lse.get(0)};
  };
  for (const double other : {1.0, kInfinity, -kInfinity}) {
    EXPECT_EQ(merged(kInfinity, other)[1], kInfinity) << other;
    EXPECT_TRUE(std::isnan(merged(other, kInfinity)[0])) << other;
    EXPECT_TRUE(std::isnan(merged(kNan, other)[0]) && std::isnan(merged(kNan, other)[1])) << other;
    EXPECT_TRUE(std::isnan(merged(other, kNan)[0]) && std::isnan(merged(other, kNan)[1])) << other;
  }
}

TEST(Merge, NoPartialsAndNoElements) {
  MergeCase c({}, {}, DType::f16);
  ASSERT_TRUE(merge_partials({}, c.out.view, c.lse.view, c.sinks.view).ok());
  c.out.each([&](auto... at) { EXPECT_EQ(c.out.get(at...), 0); });
  c.lse.each([&](auto... at) { EXPECT_EQ(c.lse.get(at...), -kInfinity); });
  for (const Sizes s : {Sizes{0, 5, 3, 7}, Sizes{2, 0, 3, 7}, Sizes{2, 5, 0, 7}, Sizes{2, 5, 3, 0}}) {
    MergeCase empty(s, {DType::f32, DType::f32}, DType::f32);
    const Status status = merge_partials(empty.partials, empty.out.view, empty.lse.view, empty.sinks.view);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(empty.out.unchanged());
    expect_truth(empty, true);
  }
  const std::int64_t huge = std::int64_t{1} << 40;  // more rows than 64 bits count, and not one element
  EXPECT_TRUE(merge_partials({}, contiguous(nullptr, DType::f32, {huge, huge, 0, 1})).ok());
}

TEST(Merge, InPlaceOverAnyPartial) {
  for (const std::size_t place : {0U, 1U, 2U}) {
    MergeCase c({}, {DType::f32, DType::f32, DType::f32}, DType::f32);
    ASSERT_TRUE(merge_partials(c.partials, c.out.view, c.lse.view).ok());
    ASSERT_TRUE(merge_partials(c.partials, c.partials[place].out, c.partials[place].lse).ok());
    c.out.each([&](auto... at) { EXPECT_EQ(c.out.get(at...), c.outs[place]->get(at...)); });
    c.lse.each([&](auto... at) { EXPECT_EQ(c.lse.get(at...), c.lses[place]->get(at...)); });
    EXPECT_TRUE(c.outs[place]->surroundings_unchanged() && c.lses[place]->surroundings_unchanged());
  }
}

struct Fault {
  const char* expected;
  void (*spoil)(MergeCase&, TensorView& out, TensorView& lse, TensorView& sinks);
  StatusCode code = StatusCode::invalid_argument;
};

TEST(Merge, RefusesWithNothingWritten) {
  using T = TensorView;
  const std::vector<Fault> faults = {
      {"out: missing", [](MergeCase&, T& out, T&, T&) { out = {}; }},
      {"out.dtype: expected f32, f16, bf16, got f64",
       [](MergeCase&, T& out, T&, T&) { out.dtype = DType::f64; }},
      {"out.stride[3]: expected 1", [](MergeCase&, T& out, T&, T&) { out.stride[3] = 2; }},
      {"out.stride[1]: expected at least", [](MergeCase&, T& out, T&, T&) { out.stride[1] = 1; }},
      {"out.device: expected cpu, got cuda:0",
       [](MergeCase&, T& out, T&, T&) { out.device = {DeviceKind::cuda, 0}; }, StatusCode::unsupported},
      {"partials[1].lse.device: expected cpu, got cuda:1",
       [](MergeCase& c, T&, T&, T&) { c.partials[1].lse.device = {DeviceKind::cuda, 1}; },
       StatusCode::unsupported},
      {"lse.dtype: expected f32, got bf16", [](MergeCase&, T&, T& lse, T&) { lse.dtype = DType::bf16; }},
      {"lse.shape[2]: expected 5 (seq_q of out), got 4",
       [](MergeCase&, T&, T& lse, T&) { lse.shape[2] = 4; }},
      {"sinks.shape[0]: expected 3 (heads of out), got 2",
       [](MergeCase&, T&, T&, T& sinks) { sinks.shape[0] = 2; }},
      {"sinks.dtype: expected f32", [](MergeCase&, T&, T&, T& sinks) { sinks.dtype = DType::f16; }},
      {"partials[0].out: missing", [](MergeCase& c, T&, T&, T&) { c.partials[0].out = {}; }},
      {"partials[1].lse: missing", [](MergeCase& c, T&, T&, T&) { c.partials[1].lse = {}; }},
      {"partials[1].out.shape[3]: expected 7 (as the merged out), got 6",
       [](MergeCase& c, T&, T&, T&) { c.partials[1].out.shape[3] = 6; }},
      {"partials[1].out.dtype: expected f32, f16, bf16, got int8",
       [](MergeCase& c, T&, T&, T&) { c.partials[1].out.dtype = DType::int8; }},
      {"partials[0].out.data: expected an address that is a multiple of 4",
       [](MergeCase& c, T&, T&, T&) { c.partials[0].out.data = c.partials[0].out.as<char>() + 1; }},
      {"partials[1].out: shares memory with the merged out",
       [](MergeCase& c, T& out, T&, T&) { (c.partials[1].out = out).data = out.as<float>() + 1; }},
      {"partials[0].lse: shares memory with the merged lse",
       [](MergeCase& c, T&, T& lse, T&) { (c.partials[0].lse = lse).stride[1] = 1; }},
      {"partials[0].lse: shares memory with the merged out",
       [](MergeCase& c, T& out, T&, T&) { c.partials[0].lse.data = out.data; }},
      {"lse: shares memory with out", [](MergeCase&, T& out, T& lse, T&) { lse.data = out.data; }},
      {"out: shares memory with sinks", [](MergeCase&, T& out, T&, T& sinks) { sinks.data = out.data; }},
  };
  for (const Fault& fault : faults) {
    MergeCase c({}, {DType::f32, DType::f32}, DType::f32);
    const std::vector<PartialResult> good = c.partials;
    TensorView out = c.out.view;
    TensorView lse = c.lse.view;
    TensorView sinks = c.sinks.view;
    fault.spoil(c, out, lse, sinks);
    const Status status = merge_partials(c.partials, out, lse, sinks);
    EXPECT_EQ(status.code(), fault.code) << fault.expected << " <- " << status.message();
    EXPECT_NE(status.message().find(fault.expected), std::string::npos)
        << fault.expected << " <- " << status.message();
    EXPECT_TRUE(c.out.unchanged() && c.lse.unchanged()) << fault.expected;
    ASSERT_TRUE(merge_partials(good, c.out.view, c.lse.view, c.sinks.view).ok());
    expect_truth(c, true);
  }
  MergeCase c({}, {DType::f32}, DType::f32);
  EXPECT_NE(
      merge_partials(c.partials, c.out.view, {}, {}, {.threads = -1}).message().find("threads: expected 0"),
      std::string::npos);
  EXPECT_TRUE(c.out.unchanged());
}

// Attention over all keys against attention over 2 to 5 parts of them, cut anywhere, merged.
class Split : public ::testing::TestWithParam<int> {};

TEST_P(Split, MergesToTheWhole) {
  const int count = GetParam();
  const std::int64_t batch = 2, seq_q = 9, seq_kv = 23, heads = 4, kv_heads = 2, dim = 16;
  std::mt19937_64 generator(static_cast<std::uint64_t>(count));
  PoisonedTensor q(DType::f32, {batch, seq_q, heads, dim}), k(DType::f32, {batch, seq_kv, kv_heads, dim}),
      v(DType::f32, {batch, seq_kv, kv_heads, dim}), whole(DType::f32, {batch, seq_q, heads, dim}),
      sunk(DType::f32, {batch, seq_q, heads, dim}), whole_lse(DType::f32, {batch, heads, seq_q});
  for (PoisonedTensor* tensor : {&q, &k, &v}) tensor->fill_normal(generator);
  const Execution naive{.kernel = "cpu/scalar/naive/f32"};
  ASSERT_TRUE(
      attention({.q = q.view, .k = k.view, .v = v.view, .out = whole.view, .lse = whole_lse.view}, {}, naive)
          .ok());

  for (int round = 0; round < 20; ++round) {
    std::vector<std::int64_t> cuts = {0, seq_kv};  // equal cuts make a part without keys
    while (static_cast<int>(cuts.size()) <= count)
      cuts.push_back(static_cast<std::int64_t>(generator() % (seq_kv + 1)));
    std::sort(cuts.begin(), cuts.end());
    MergeCase c({batch, seq_q, heads, dim}, std::vector<DType>(static_cast<std::size_t>(count), DType::f32),
                DType::f32);
    for (std::size_t p = 0; p < c.partials.size(); ++p) {
      AttentionArgs args{
          .q = q.view, .k = k.view, .v = v.view, .out = c.partials[p].out, .lse = c.partials[p].lse};
      for (TensorView* tensor : {&args.k, &args.v}) {
        tensor->data = tensor->as<float>() + cuts[p] * tensor->stride[1];
        tensor->shape[1] = cuts[p + 1] - cuts[p];
      }
      ASSERT_TRUE(attention(args, {}, naive).ok());
    }
    ASSERT_TRUE(merge_partials(c.partials, c.out.view, c.lse.view).ok());
    c.out.each([&](auto... at) { EXPECT_NEAR(c.out.get(at...), whole.get(at...), 2e-6); });
    c.lse.each([&](auto... at) { EXPECT_NEAR(c.lse.get(at...), whole_lse.get(at...), 4e-6); });
    // The sinks of the whole, given once.
    ASSERT_TRUE(
        attention({.q = q.view, .k = k.view, .v = v.view, .out = sunk.view, .sinks = c.sinks.view}, {}, naive)
            .ok());
    ASSERT_TRUE(merge_partials(c.partials, c.out.view, c.lse.view, c.sinks.view).ok());
    c.out.each([&](auto... at) { EXPECT_NEAR(c.out.get(at...), sunk.get(at...), 2e-6); });
    c.lse.each([&](auto... at) { EXPECT_NEAR(c.lse.get(at...), whole_lse.get(at...), 4e-6); });
  }
}

INSTANTIATE_TEST_SUITE_P(Merge, Split, ::testing::Range(2, 6));

}  // namespace
}  // namespace headwise
