// What a set of samples says: quantiles, the interval of a median, the interval of a ratio.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace headwise::lab {

// SplitMix64: small, and the same numbers on every machine, so that a report drawn twice from the same
// samples says the same.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  // Uniform below `bound` > 0, without the bias of a remainder.
  std::uint64_t below(std::uint64_t bound);

 private:
  std::uint64_t state_;
};

// Puts `items` into random order.
template <class T>
void shuffle(std::vector<T>& items, Generator& generator) {
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[generator.below(i)]);
}

// Quantile q in [0, 1] of sorted values, linear between neighbours: at q * (n - 1). NaN without values.
double quantile_of_sorted(std::span<const double> sorted, double q);
double median(std::vector<double> values);

struct Summary {
  std::int64_t count = 0;
  double mean = 0, stddev = 0;  // stddev of the sample (n - 1); 0 for one value
  double minimum = 0, p5 = 0, median = 0, p95 = 0, p99 = 0;
};
Summary summarize(std::span<const double> values);

struct Interval {
  double low = 0, high = 0;
};

// Of the median, at 95 %, from order statistics: no assumption about the distribution. With fewer than 6
// samples no pair of them reaches 95 %, and the whole range is returned.
Interval median_interval(std::span<const double> values);
// Width of that interval over the median: the quantity of the stopping rule. Infinite below 6 samples.
double relative_interval(std::span<const double> values);

struct Ratio {
  double value = 0;
  Interval interval;
};
// median(numerator) / median(denominator), both cut to the rounds that both have, with a 95 % percentile
// bootstrap interval. Rounds are resampled as pairs: a disturbance that hit both in one round cancels.
Ratio bootstrap_ratio(std::span<const double> numerator, std::span<const double> denominator,
                      std::uint64_t seed, int resamples = 1000);

}  // namespace headwise::lab
