#include "lab/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace headwise::lab {

std::uint64_t Generator::next() {
  state_ += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

std::uint64_t Generator::below(std::uint64_t bound) {
  // Values under 2^64 mod bound would make small results likelier; they are drawn again.
  const std::uint64_t threshold = (0 - bound) % bound;
  std::uint64_t value = next();
  while (value < threshold) value = next();
  return value % bound;
}

double quantile_of_sorted(std::span<const double> sorted, double q) {
  if (sorted.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double part = at - static_cast<double>(below);
  return sorted[below] + part * (sorted[below + 1] - sorted[below]);
}

double median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle,
                   values.end());  // a bootstrap needs this a thousand times: no sorting
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

Summary summarize(std::span<const double> values) {
  Summary s;
  s.count = static_cast<std::int64_t>(values.size());
  if (values.empty()) return s;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  double sum = 0;
  for (const double value : sorted) sum += value;
  s.mean = sum / static_cast<double>(s.count);
  double squares = 0;
  for (const double value : sorted) squares += (value - s.mean) * (value - s.mean);
  if (s.count > 1) s.stddev = std::sqrt(squares / static_cast<double>(s.count - 1));
  s.minimum = sorted.front();
  s.p5 = quantile_of_sorted(sorted, 0.05);
  s.median = quantile_of_sorted(sorted, 0.5);
  s.p95 = quantile_of_sorted(sorted, 0.95);
  s.p99 = quantile_of_sorted(sorted, 0.99);
  return s;
}

namespace {

// The interval [sorted[k], sorted[n - 1 - k]] covers the median with probability 1 - 2 P(B < k + 1), B
// binomial (n, 1/2): the largest k that keeps 95 %, or -1 where none does. The sum runs in logarithms: 2^-n
// underflows.
std::int64_t order_statistic(std::int64_t n) {
  double tail = 0;
  std::int64_t k = -1;
  double log_term = -static_cast<double>(n) * std::log(2.0);  // log C(n, 0) / 2^n
  for (std::int64_t i = 0; 2 * i < n; ++i) {
    tail += std::exp(log_term);
    if (2 * tail > 0.05) break;
    k = i;
    log_term += std::log(static_cast<double>(n - i) / static_cast<double>(i + 1));
  }
  return k;
}

}  // namespace

Interval median_interval(std::span<const double> values) {
  if (values.empty()) return {};
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const std::int64_t k = std::max<std::int64_t>(0, order_statistic(static_cast<std::int64_t>(sorted.size())));
  return {sorted[static_cast<std::size_t>(k)], sorted[sorted.size() - 1 - static_cast<std::size_t>(k)]};
}

double relative_interval(std::span<const double> values) {
  if (order_statistic(static_cast<std::int64_t>(values.size())) < 0)
    return std::numeric_limits<double>::infinity();
  const Interval interval = median_interval(values);
  const double middle = median({values.begin(), values.end()});
  return middle > 0 ? (interval.high - interval.low) / middle : std::numeric_limits<double>::infinity();
}

Ratio bootstrap_ratio(std::span<const double> numerator, std::span<const double> denominator,
                      std::uint64_t seed, int resamples) {
  const std::size_t n = std::min(numerator.size(), denominator.size());
  const double none = std::numeric_limits<double>::quiet_NaN();
  if (n == 0 || resamples < 1) return {none, {none, none}};
  std::vector<double> top(numerator.begin(), numerator.begin() + static_cast<std::ptrdiff_t>(n));
  std::vector<double> bottom(denominator.begin(), denominator.begin() + static_cast<std::ptrdiff_t>(n));
  Ratio ratio;
  ratio.value = median(top) / median(bottom);
  Generator generator(seed);
  std::vector<double> ratios;
  ratios.reserve(static_cast<std::size_t>(resamples));
  for (int r = 0; r < resamples; ++r) {
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t from = generator.below(n);
      top[i] = numerator[from];
      bottom[i] = denominator[from];
    }
    ratios.push_back(median(top) / median(bottom));
  }
  std::sort(ratios.begin(), ratios.end());
  ratio.interval = {quantile_of_sorted(ratios, 0.025), quantile_of_sorted(ratios, 0.975)};
  return ratio;
}

}  // namespace headwise::lab
