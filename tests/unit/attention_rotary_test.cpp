// Rotary position embedding: tables and rotations against complex multiplication in fp64, and refusals.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "support/poisoned.h"

namespace headwise {
namespace {

using test::PoisonedTensor;

double half_unit(DType dtype) {
  return dtype == DType::f32 ? 0x1p-24 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
}

TEST(RotaryTables, AreTheAnglesOfThePaper) {
  for (const double theta : {10000.0, 500000.0, 2.5}) {
    const Result<RotaryTables> tables = make_rotary_tables(70000, 6, theta);
    ASSERT_TRUE(tables.ok());
    ASSERT_EQ(tables->cos.size(), 70000U * 3U);
    for (const std::int64_t position : {0, 1, 2, 255, 256, 4095, 69999}) {
      for (std::int64_t i = 0; i < 3; ++i) {
        const long double angle =
            static_cast<long double>(position) * std::pow(static_cast<long double>(theta), -2.0L * i / 6);
        const auto at = static_cast<std::size_t>(position * 3 + i);
        EXPECT_NEAR(tables->cos[at], static_cast<double>(std::cos(angle)), 6.1e-8) << position << " " << i;
        EXPECT_NEAR(tables->sin[at], static_cast<double>(std::sin(angle)), 6.1e-8) << position << " " << i;
      }
    }
  }
  EXPECT_EQ(make_rotary_tables(2, 4)->sin, make_rotary_tables(2, 4, 10000.0)->sin);
}

TEST(RotaryTables, RefuseWhatHasNoAngle) {
  const auto error = [](std::int64_t positions, std::int64_t rotary_dim, double theta) {
    return make_rotary_tables(positions, rotary_dim, theta).status();
  };
  EXPECT_NE(error(-1, 4, 1e4).message().find("positions: expected at least 0, got -1"), std::string::npos);
  EXPECT_NE(error(4, 3, 1e4).message().find("rotary_dim: expected an even number"), std::string::npos);
  EXPECT_NE(error(4, -2, 1e4).message().find("rotary_dim: expected an even number"), std::string::npos);
  for (const double theta : {0.0, -1.0, std::numeric_limits<double>::infinity(), std::nan("")})
    EXPECT_NE(error(4, 4, theta).message().find("theta: expected a finite number above 0"),
              std::string::npos);
  EXPECT_EQ(error(std::int64_t{1} << 62, 64, 1e4).code(), StatusCode::out_of_memory);
  EXPECT_TRUE(make_rotary_tables(0, 4).ok() && make_rotary_tables(4, 0).ok());
}

struct RotaryCase {
  std::int64_t batch = 2, seq = 5, heads = 3, dim = 10, rotary_dim = 6, positions = 40;
  RotaryTables tables = *make_rotary_tables(positions, rotary_dim);
  // A table with gaps between its rows, so that strides are read.
  PoisonedTensor cos{DType::f32, {positions, rotary_dim / 2}}, sin{DType::f32, {positions, rotary_dim / 2}};
  PoisonedTensor x, out;
  std::vector<std::int32_t> first = {7, 0}, each = {3, 39, 0, 11, 5, 6, 7, 8, 9, 10}, offsets = {0, 1, 1, 5};

  explicit RotaryCase(DType from = DType::f32, DType to = DType::f32, std::int64_t items = 2)
      : batch(items), x(from, {items, seq, heads, dim}), out(to, {items, seq, heads, dim}, 1) {
    for (std::int64_t p = 0; p < positions; ++p) {
      for (std::int64_t i = 0; i < rotary_dim / 2; ++i) {
        cos.set(p, i, 0, 0, tables.cos[static_cast<std::size_t>(p * (rotary_dim / 2) + i)]);
        sin.set(p, i, 0, 0, tables.sin[static_cast<std::size_t>(p * (rotary_dim / 2) + i)]);
      }
    }
    std::mt19937_64 generator(3);
    x.fill_normal(generator);
  }
  RotaryArgs args(RotaryLayout layout, bool inverse = false) {
    return {.x = x.view, .out = out.view, .rotary = {cos.view, sin.view, layout, inverse}};
  }
  // Channel d of a row at a position: its pair as a complex number, turned.
  [[nodiscard]] double turned(const PoisonedTensor& from, std::int64_t b, std::int64_t s, std::int64_t h,
                              std::int64_t d, std::int64_t position, RotaryLayout layout,
                              bool inverse) const {
    if (d >= rotary_dim) return from.get(b, s, h, d);
    const bool halves = layout == RotaryLayout::halves;
    const std::int64_t pair = halves ? d % (rotary_dim / 2) : d / 2;
    const std::int64_t low = halves ? pair : 2 * pair;
    const std::int64_t high = halves ? pair + rotary_dim / 2 : 2 * pair + 1;
    const double angle =
        static_cast<double>(position) *
        std::pow(10000.0, -2.0 * static_cast<double>(pair) / static_cast<double>(rotary_dim));
    const std::complex<double> value = std::complex<double>(from.get(b, s, h, low), from.get(b, s, h, high)) *
                                       std::polar(1.0, inverse ? -angle : angle);
    return d == low ? value.real() : value.imag();
  }
  template <class Function>  // position(b, s)
  void expect(const PoisonedTensor& got, const PoisonedTensor& from, const Function& position,
              RotaryLayout layout, bool inverse = false) const {
    got.each([&](auto b, auto s, auto h, auto d) {
      const double expected = turned(from, b, s, h, d, position(b, s), layout, inverse);
      EXPECT_NEAR(got.get(b, s, h, d), expected, half_unit(got.view.dtype) * std::abs(expected) + 1e-6)
          << b << " " << s << " " << h << " " << d;
    });
  }
};

constexpr RotaryLayout kLayouts[] = {RotaryLayout::halves, RotaryLayout::interleaved};

TEST(Rotary, TurnsPairsInBothLayoutsAndEveryDtype) {
  for (const RotaryLayout layout : kLayouts) {
    for (const bool inverse : {false, true}) {
      for (const DType from : {DType::f32, DType::f16, DType::bf16}) {
        for (const DType to : {DType::f32, DType::f16, DType::bf16}) {
          RotaryCase c(from, to);
          const Status status = apply_rotary(c.args(layout, inverse));
          ASSERT_TRUE(status.ok()) << status.message();
          c.expect(c.out, c.x, [](auto, auto s) { return s; }, layout, inverse);
          EXPECT_TRUE(c.out.surroundings_unchanged() && c.x.unchanged());
        }
      }
    }
  }
}

TEST(Rotary, ReadsPositionsOfSequencesOfRowsAndOfPackedRows) {
  for (const RotaryLayout layout : kLayouts) {
    RotaryCase c;
    RotaryArgs args = c.args(layout);
    args.positions = contiguous(c.first.data(), {2});
    ASSERT_TRUE(apply_rotary(args).ok());
    c.expect(c.out, c.x, [&](auto b, auto s) { return c.first[static_cast<std::size_t>(b)] + s; }, layout);

    args.positions = contiguous(c.each.data(), {2, 5});
    ASSERT_TRUE(apply_rotary(args).ok());
    c.expect(c.out, c.x, [&](auto b, auto s) { return c.each[static_cast<std::size_t>(5 * b + s)]; }, layout);

    // Sequences of 1, 0 and 4 rows.
    RotaryCase packed(DType::f32, DType::f32, 1);
    std::vector<std::int32_t> first = {9, -5, 30};  // the second has no row, so its position says nothing
    args = packed.args(layout);
    args.cu_seqlens = contiguous(packed.offsets.data(), {4});
    ASSERT_TRUE(apply_rotary(args).ok());
    packed.expect(packed.out, packed.x, [](auto, auto s) { return s == 0 ? 0 : s - 1; }, layout);
    args.positions = contiguous(first.data(), {3});
    ASSERT_TRUE(apply_rotary(args).ok());
    packed.expect(packed.out, packed.x, [](auto, auto s) { return s == 0 ? 9 : 29 + s; }, layout);
    args.positions = contiguous(packed.each.data(), {1, 5});
    ASSERT_TRUE(apply_rotary(args).ok());
    packed.expect(
        packed.out, packed.x, [&](auto, auto s) { return packed.each[static_cast<std::size_t>(s)]; }, layout);
  }
}

TEST(Rotary, InPlaceAndBackAgain) {
  for (const RotaryLayout layout : kLayouts) {
    RotaryCase c;
    ASSERT_TRUE(apply_rotary(c.args(layout)).ok());
    RotaryCase place;
    RotaryArgs args = place.args(layout);
    args.out = place.x.view;
    ASSERT_TRUE(apply_rotary(args).ok());
    place.x.each([&](auto... at) { EXPECT_EQ(place.x.get(at...), c.out.get(at...)); });
    EXPECT_TRUE(place.x.surroundings_unchanged());
    args.rotary.inverse = true;
    ASSERT_TRUE(apply_rotary(args).ok());
    place.x.each([&](auto... at) { EXPECT_NEAR(place.x.get(at...), c.x.get(at...), 1e-6); });
  }
}

TEST(Rotary, ScoresDependOnDistanceAlone) {
  for (const RotaryLayout layout : kLayouts) {
    std::vector<double> scores;
    for (const std::int32_t shift : {0, 13, 31}) {
      RotaryCase c;
      std::vector<std::int32_t> first = {shift, shift + 4};
      RotaryArgs args = c.args(layout);
      args.positions = contiguous(first.data(), {2});
      ASSERT_TRUE(apply_rotary(args).ok());
      double score = 0;
      for (std::int64_t d = 0; d < c.dim; ++d) score += c.out.get(0, 0, 0, d) * c.out.get(1, 0, 0, d);
      scores.push_back(score);
    }
    EXPECT_NEAR(scores[0], scores[1], 1e-5);
    EXPECT_NEAR(scores[0], scores[2], 1e-5);
  }
}

TEST(Rotary, InverseIsTheGradient) {
  // <g, R x> = <R^-1 g, x> for every x.
  for (const RotaryLayout layout : kLayouts) {
    RotaryCase c;
    PoisonedTensor g(DType::f32, {2, 5, 3, 10}), dx(DType::f32, {2, 5, 3, 10});
    std::mt19937_64 generator(11);
    g.fill_normal(generator);
    ASSERT_TRUE(apply_rotary(c.args(layout)).ok());
    RotaryArgs back = c.args(layout, true);
    back.x = g.view;
    back.out = dx.view;
    ASSERT_TRUE(apply_rotary(back).ok());
    double left = 0;
    double right = 0;
    g.each([&](auto... at) {
      left += g.get(at...) * c.out.get(at...);
      right += dx.get(at...) * c.x.get(at...);
    });
    EXPECT_NEAR(left, right, 1e-4);
  }
}

TEST(Rotary, ChannelsBehindTheRotatedOnesKeepTheirBits) {
  RotaryCase c(DType::bf16, DType::bf16);
  auto* const bits = c.x.view.as<std::uint16_t>();
  bits[c.x.at(1, 2, 1, 8)] = 0x7fa1;  // a signalling NaN, which a conversion would make quiet
  ASSERT_TRUE(apply_rotary(c.args(RotaryLayout::halves)).ok());
  c.x.each([&](auto b, auto s, auto h, auto d) {
    if (d < c.rotary_dim) return;
    EXPECT_EQ(c.out.view.as<std::uint16_t>()[c.out.at(b, s, h, d)], bits[c.x.at(b, s, h, d)]);
  });
}

TEST(Rotary, LargeOnesTakeThreadsAndGiveTheSameBits) {
  const std::int64_t seq = 700;
  const RotaryTables tables = *make_rotary_tables(seq, 64);
  std::mt19937_64 generator(5);
  PoisonedTensor x(DType::f32, {2, seq, 3, 64}), one(DType::f32, {2, seq, 3, 64}),
      many(DType::f32, {2, seq, 3, 64});
  x.fill_normal(generator);
  RotaryArgs args{.x = x.view, .out = one.view, .rotary = tables.rotary(RotaryLayout::halves)};
  ASSERT_TRUE(apply_rotary(args, {.threads = 1}).ok());
  args.out = many.view;
  ASSERT_TRUE(apply_rotary(args, {.threads = 4}).ok());
  one.each([&](auto... at) { ASSERT_EQ(one.get(at...), many.get(at...)); });
  EXPECT_NE(one.get(1, seq - 1, 2, 0), x.get(1, seq - 1, 2, 0));
}

TEST(Rotary, ZeroSizesAndNoPairs) {
  RotaryCase c;
  for (const std::size_t axis : {0U, 1U, 2U}) {
    RotaryArgs args = c.args(RotaryLayout::halves);
    args.x.shape[axis] = args.out.shape[axis] = 0;
    EXPECT_TRUE(apply_rotary(args).ok());
  }
  RotaryArgs args = c.args(RotaryLayout::halves);
  args.x.shape[1] = args.out.shape[1] = 0;
  args.rotary.cos.shape[0] = args.rotary.sin.shape[0] = 0;
  EXPECT_TRUE(apply_rotary(args).ok());
  EXPECT_TRUE(c.out.unchanged());
  args = c.args(RotaryLayout::halves);
  args.rotary.cos.shape[1] = args.rotary.sin.shape[1] = 0;
  EXPECT_TRUE(apply_rotary(args).ok());
  c.out.each([&](auto... at) { EXPECT_EQ(c.out.get(at...), c.x.get(at...)); });
}

TEST(Rotary, RefusesWithNothingWritten) {
  struct Fault {
    const char* expected;
    void (*spoil)(RotaryArgs&, RotaryCase&);
    StatusCode code = StatusCode::invalid_argument;
  };
  using A = RotaryArgs;
  using C = RotaryCase;
  const std::vector<Fault> faults = {
      {"x: missing", [](A& a, C&) { a.x = {}; }},
      {"out.shape[2]: expected 3 (as x), got 2", [](A& a, C&) { a.out.shape[2] = 2; }},
      {"x.dtype: expected f32, f16, bf16, got int32", [](A& a, C&) { a.x.dtype = DType::int32; }},
      {"x.device: expected cpu, got cuda:0", [](A& a, C&) { a.x.device = {DeviceKind::cuda, 0}; },
       StatusCode::unsupported},
      {"rotary.cos.device: expected cpu", [](A& a, C&) { a.rotary.cos.device = {DeviceKind::cuda, 0}; },
       StatusCode::unsupported},
      {"rotary.cos: missing", [](A& a, C&) { a.rotary.cos = {}; }},
      {"rotary.sin: missing", [](A& a, C&) { a.rotary.sin = {}; }},
      {"rotary.sin.shape[1]: expected 3 (as rotary.cos), got 2", [](A& a, C&) { a.rotary.sin.shape[1] = 2; }},
      {"rotary.cos.shape[1] (rotary_dim / 2): expected at most 2 (half of head_dim 5), got 3",
       [](A& a, C&) { a.x.shape[3] = a.out.shape[3] = 5; }},
      {"rotary.layout: required; choose halves",
       [](A& a, C&) { a.rotary.layout = RotaryLayout::unspecified; }},
      {"rotary.layout: required", [](A& a, C&) { a.rotary.layout = static_cast<RotaryLayout>(7); }},
      {"positions (from 0): expected a position that the tables have (0 to 3), got 0 for the first of 5 rows",
       [](A& a, C&) { a.rotary.cos.shape[0] = a.rotary.sin.shape[0] = 4; }},
      {"positions[0]: expected a position that the tables have (0 to 39), got 36 for the first of 5 rows",
       [](A& a, C& c) { c.first = {36, 0}, a.positions = contiguous(c.first.data(), {2}); }},
      {"positions[1]: expected a position that the tables have (0 to 39), got -1",
       [](A& a, C& c) { c.first = {0, -1}, a.positions = contiguous(c.first.data(), {2}); }},
      {"positions[1, 4]: expected a position that the tables have (0 to 39), got 40",
       [](A& a, C& c) { c.each.back() = 40, a.positions = contiguous(c.each.data(), {2, 5}); }},
      {"positions.shape[0]: expected 2", [](A& a, C& c) { a.positions = contiguous(c.first.data(), {1}); }},
      {"positions.dtype: expected int32",
       [](A& a, C& c) { a.positions = contiguous(c.first.data(), DType::f32, {2}); }},
      {"x.shape[0]: expected 1", [](A& a, C& c) { a.cu_seqlens = contiguous(c.offsets.data(), {4}); }},
      {"out: shares memory with x", [](A& a, C&) { (a.out = a.x).data = a.x.as<float>() + 1; }},
      {"out: shares memory with rotary.sin", [](A& a, C&) { a.rotary.sin.data = a.out.data; }},
      {"out.stride[0]: expected at least", [](A& a, C&) { a.out.stride[0] = 0; }},
  };
  for (const Fault& fault : faults) {
    RotaryCase c;
    RotaryArgs args = c.args(RotaryLayout::interleaved);
    fault.spoil(args, c);
    const Status status = apply_rotary(args);
    EXPECT_EQ(status.code(), fault.code) << fault.expected << " <- " << status.message();
    EXPECT_NE(status.message().find(fault.expected), std::string::npos)
        << fault.expected << " <- " << status.message();
    EXPECT_TRUE(c.out.unchanged() && c.x.unchanged()) << fault.expected;
    ASSERT_TRUE(apply_rotary(c.args(RotaryLayout::interleaved)).ok());
    c.expect(c.out, c.x, [](auto, auto s) { return s; }, RotaryLayout::interleaved);
  }
  RotaryCase c;
  EXPECT_FALSE(apply_rotary(c.args(RotaryLayout::halves), {.threads = -2}).ok());
  EXPECT_TRUE(c.out.unchanged());
}

}  // namespace
}  // namespace headwise
