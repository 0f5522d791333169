#include "conformance/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace headwise::conformance {
namespace {

bool within(double actual, double expected, double rtol, double atol) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (std::isinf(expected)) return actual == expected;
  return std::abs(actual - expected) <= atol + rtol * std::abs(expected);
}

// Steps between two finite values of a 16-bit float; zeros of both signs are one.
std::int64_t steps_between(DType dtype, double a, double b) {
  const auto place = [dtype](double value) -> std::int64_t {
    const std::uint16_t bits =
        dtype == DType::f16 ? from_double<float16>(value).bits : from_double<bfloat16>(value).bits;
    const std::int64_t magnitude = bits & 0x7fffU;
    return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
  };
  return std::abs(place(a) - place(b));
}

bool one_step_off(DType dtype, double actual, double expected) {
  if (dtype != DType::f16 && dtype != DType::bf16) return false;
  return std::isfinite(actual) && std::isfinite(expected) && steps_between(dtype, actual, expected) <= 1;
}

// Of a value beyond the case's tolerance.
Verdict verdict_beyond(DType dtype, double actual, double expected, double rtol, double atol) {
  if (one_step_off(dtype, actual, expected)) return Verdict::one_step;
  const bool allowed = dtype == DType::bf16 && within(actual, expected, std::max(rtol, kBf16Rtol), atol);
  return allowed ? Verdict::bf16_tolerance : Verdict::failed;
}

std::string text(std::int64_t count, std::int64_t all, std::int64_t index, double actual, double expected) {
  char line[160];
  std::snprintf(line, sizeof line, "%lld of %lld values; furthest off element %lld: %.9g, expected %.9g",
                static_cast<long long>(count), static_cast<long long>(all), static_cast<long long>(index),
                actual, expected);
  return line;
}

}  // namespace

Comparison compare(const Tensor& actual, const Tensor& expected, double rtol, double atol) {
  if (actual.shape != expected.shape || actual.dtype != expected.dtype)
    return {Verdict::failed, "another shape or dtype than expected"};
  Comparison result;
  std::int64_t outside = 0, worst = 0;
  double furthest = -1;
  for (std::int64_t i = 0; i < expected.elements(); ++i) {
    const double a = actual.at(i), e = expected.at(i);
    if (within(a, e, rtol, atol)) continue;
    ++outside;
    result.verdict = std::max(result.verdict, verdict_beyond(expected.dtype, a, e, rtol, atol));
    const double distance =
        std::isfinite(a) && std::isfinite(e) ? std::abs(a - e) : std::numeric_limits<double>::infinity();
    if (distance > furthest) {
      furthest = distance;
      worst = i;
    }
  }
  if (outside > 0)
    result.worst = text(outside, expected.elements(), worst, actual.at(worst), expected.at(worst));
  return result;
}

}  // namespace headwise::conformance
