#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "lab/statistics.h"

namespace headwise::lab {
namespace {

std::vector<double> counting(int n) {
  std::vector<double> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), 1.0);
  return values;
}

TEST(Statistics, QuantilesOfACountAreLinear) {
  const std::vector<double> values = counting(101);  // 1 to 101: quantile q is 1 + 100 q
  for (const double q : {0.0, 0.05, 0.25, 0.5, 0.77, 0.99, 1.0}) {
    EXPECT_NEAR(quantile_of_sorted(values, q), 1 + 100 * q, 1e-9) << q;
  }
  EXPECT_TRUE(std::isnan(quantile_of_sorted({}, 0.5)));
}

TEST(Statistics, MedianOfOddAndEvenCounts) {
  EXPECT_EQ(median({5, 1, 3}), 3);
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(median({7}), 7);
  EXPECT_TRUE(std::isnan(median({})));
}

TEST(Statistics, SummaryAgreesWithClosedForms) {
  const int n = 200;
  std::vector<double> values = counting(n);
  std::reverse(values.begin(), values.end());
  const Summary s = summarize(values);
  EXPECT_EQ(s.count, n);
  EXPECT_DOUBLE_EQ(s.mean, (n + 1) / 2.0);
  EXPECT_DOUBLE_EQ(s.median, (n + 1) / 2.0);
  EXPECT_DOUBLE_EQ(s.stddev, std::sqrt(n * (n + 1) / 12.0));  // of 1..n with n - 1 below
  EXPECT_EQ(s.minimum, 1);
  EXPECT_DOUBLE_EQ(s.p95, 1 + 0.95 * (n - 1));
  EXPECT_EQ(summarize(std::vector<double>{3.0}).stddev, 0);
}

TEST(Statistics, MedianIntervalUsesTheBinomialOrderStatistics) {
  // The usual tables: n = 6 takes the extremes, n = 10 the 2nd and 9th, n = 20 the 6th and 15th, n = 100 the
  // 40th and 61st.
  const struct {
    int n, low, high;
  } known[] = {{6, 1, 6}, {10, 2, 9}, {20, 6, 15}, {100, 40, 61}};
  for (const auto& [n, low, high] : known) {
    const Interval interval = median_interval(counting(n));
    EXPECT_EQ(interval.low, low) << n;
    EXPECT_EQ(interval.high, high) << n;
  }
  // 2^-5000 underflows; the interval must not.
  const Interval wide = median_interval(counting(5000));
  EXPECT_NEAR(wide.low, 2500 - 0.98 * std::sqrt(5000.0), 2);
}

TEST(Statistics, RelativeIntervalNeedsSixSamples) {
  EXPECT_TRUE(std::isinf(relative_interval(counting(5))));
  EXPECT_FALSE(std::isinf(relative_interval(counting(6))));
  EXPECT_EQ(relative_interval(std::vector<double>(10, 2.0)), 0);
}

TEST(Statistics, MedianIntervalCoversAsPromised) {
  Generator generator(7);
  int covered = 0;
  const int trials = 2000;
  for (int t = 0; t < trials; ++t) {
    std::vector<double> values(25);
    for (double& value : values) value = static_cast<double>(generator.below(1'000'001));
    const Interval interval = median_interval(values);
    covered += interval.low <= 500'000 && 500'000 <= interval.high ? 1 : 0;
  }
  // n = 25: the exact coverage is 95.7 %; four standard errors are 1.8 %.
  EXPECT_NEAR(covered / static_cast<double>(trials), 0.957, 0.018);
}

TEST(Statistics, RatioOfScaledSamplesIsExactAndItsIntervalTight) {
  Generator generator(3);
  std::vector<double> fast, slow;
  for (int i = 0; i < 40; ++i) {
    const double noise = 1 + static_cast<double>(generator.below(1000)) / 10'000;
    fast.push_back(noise);
    slow.push_back(3 * noise);  // the same disturbance in the same round: it cancels
  }
  const Ratio ratio = bootstrap_ratio(slow, fast, 1);
  EXPECT_DOUBLE_EQ(ratio.value, 3);
  EXPECT_NEAR(ratio.interval.low, 3, 1e-12);
  EXPECT_NEAR(ratio.interval.high, 3, 1e-12);
}

TEST(Statistics, RatioIntervalHoldsTheRatioAndRepeats) {
  Generator generator(5);
  std::vector<double> a, b;
  for (int i = 0; i < 50; ++i) {
    a.push_back(2 + static_cast<double>(generator.below(100)) / 500);
    b.push_back(1 + static_cast<double>(generator.below(100)) / 500);
  }
  a.resize(35);  // rounds that only one of them ran do not count
  const Ratio first = bootstrap_ratio(a, b, 11), again = bootstrap_ratio(a, b, 11);
  EXPECT_LT(first.interval.low, first.value);
  EXPECT_GT(first.interval.high, first.value);
  EXPECT_EQ(first.interval.low, again.interval.low);
  EXPECT_EQ(first.value, median(a) / median({b.begin(), b.begin() + 35}));
  EXPECT_TRUE(std::isnan(bootstrap_ratio({}, b, 1).value));
}

TEST(Generator, IsSplitMix64AndUnbiased) {
  // The first values of SplitMix64 with seed 0, as published with the algorithm.
  Generator generator(0);
  EXPECT_EQ(generator.next(), 0xe220a8397b1dcdafULL);
  EXPECT_EQ(generator.next(), 0x6e789e6aa1b965f4ULL);
  std::vector<int> counts(6, 0);
  for (int i = 0; i < 60'000; ++i) ++counts[generator.below(6)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 400);
}

TEST(Generator, ShuffleKeepsTheItems) {
  Generator generator(9);
  std::vector<int> items = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<int> before = items;
  shuffle(items, generator);
  EXPECT_NE(items, before);
  std::sort(items.begin(), items.end());
  EXPECT_EQ(items, before);
}

}  // namespace
}  // namespace headwise::lab
