#include "lab/pass_rule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>

namespace headwise::lab {
namespace {

double round_to(DType dtype, double value) {
  double slot = 0;
  store_element(dtype, &slot, 0, value);
  return load_element(dtype, &slot, 0);
}

// |(ref + 0.3 - 0.3) - ref| in the dtype: what one rounding at the size of typical outputs costs.
double floor_error(DType dtype, double reference) {
  const double ref = round_to(dtype, reference);
  return std::abs(round_to(dtype, round_to(dtype, ref + 0.3) - 0.3) - ref);
}

enum class Kind : std::uint8_t { finite, nan, plus_infinity, minus_infinity };
Kind kind_of(double value) {
  if (std::isfinite(value)) return Kind::finite;
  if (std::isnan(value)) return Kind::nan;
  return value > 0 ? Kind::plus_infinity : Kind::minus_infinity;
}

// Largest and root mean square of a stream of errors.
struct ErrorSum {
  double largest = 0, squares = 0;
  std::int64_t count = 0;
  void add(double error) {
    largest = std::max(largest, error);
    squares += error * error;
    ++count;
  }
  [[nodiscard]] double rms() const {
    return count == 0 ? 0 : std::sqrt(squares / static_cast<double>(count));
  }
};

}  // namespace

std::string place(const oracle::RowId& row, bool of_keys) {
  return "batch " + std::to_string(row.batch) + (of_keys ? ", key " : ", query ") +
         std::to_string(row.query) + (of_keys ? ", kv head " : ", head ") + std::to_string(row.head);
}

std::string error_text(double value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.4g", value);
  return buffer.data();
}

bool same_kind(double a, double b) { return kind_of(a) == kind_of(b); }

Limits limits_of(std::span<const double> truth, std::span<const std::vector<double>> plains, DType dtype,
                 double factor) {
  Limits limits;
  ErrorSum floors;
  for (const double value : truth) {
    if (std::isfinite(round_to(dtype, value))) floors.add(floor_error(dtype, value));
  }
  for (const std::vector<double>& plain : plains) {
    ErrorSum errors;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      // Where plain itself overflows (f16 scores) it sets no limit.
      if (std::isfinite(round_to(dtype, truth[i])) && std::isfinite(plain[i]))
        errors.add(std::abs(plain[i] - truth[i]));
    }
    limits.plain_max = std::max(limits.plain_max, errors.largest);
    limits.plain_rms = std::max(limits.plain_rms, errors.rms());
  }
  limits.limit_max = factor * limits.plain_max + 2 * floors.largest;
  limits.limit_rms = 1.5 * limits.plain_rms + floors.rms();
  return limits;
}

TensorVerdict judge_tensor(const VerifiedTensor& tensor) {
  TensorVerdict verdict;
  ErrorSum errors;
  const TensorView& view = tensor.view;
  const auto channels = static_cast<std::size_t>(view.shape[3]);
  for (std::size_t i = 0; i < tensor.rows.size(); ++i) {
    const oracle::RowId& row = tensor.rows[i];
    const std::int64_t at = tensor.offsets[i];
    for (std::size_t c = 0; c < channels; ++c) {
      const double truth = tensor.truth[i * channels + c];
      const double value =
          load_element(view.dtype, view.data, at + static_cast<std::int64_t>(c) * view.stride[3]);
      const Kind expected = kind_of(round_to(view.dtype, truth));
      if (kind_of(value) != expected) {
        if (verdict.reason.empty()) {
          verdict.worst = row;
          verdict.reason = std::string(tensor.name) + " is " + error_text(value) + ", truth is " +
                           error_text(truth) + " (" + place(row, tensor.of_keys) + ", channel " +
                           std::to_string(c) + ")";
        }
      } else if (expected == Kind::finite) {
        const double error = std::abs(value - truth);
        if (error > errors.largest && verdict.reason.empty()) verdict.worst = row;
        errors.add(error);
      }
    }
  }
  verdict.error_max = errors.largest;
  verdict.error_rms = errors.rms();
  const auto above = [&](const char* what, double error, double limit) {
    return std::string(tensor.name) + ": " + what + " " + error_text(error) + " is above the limit " +
           error_text(limit);
  };
  if (verdict.reason.empty() && errors.largest > tensor.limits.limit_max) {
    verdict.reason = above("largest error", errors.largest, tensor.limits.limit_max) + " (" +
                     place(verdict.worst, tensor.of_keys) + ")";
  }
  if (verdict.reason.empty() && errors.rms() > tensor.limits.limit_rms)
    verdict.reason = above("root mean square error", errors.rms(), tensor.limits.limit_rms);
  return verdict;
}

std::string unwritten(const char* name, const TensorView& view, const oracle::RowId& row, std::int64_t offset,
                      bool of_keys) {
  const auto width = static_cast<std::int64_t>(size_of(view.dtype));
  constexpr std::uint64_t kPoison = ~std::uint64_t{0};
  const std::byte* data = view.as<const std::byte>() + offset * width;
  for (std::int64_t c = 0; c < view.shape[3]; ++c) {
    std::uint64_t bits = kPoison;
    std::memcpy(&bits, data + c * width, static_cast<std::size_t>(width));
    if (bits != kPoison) continue;
    return std::string(name) + " was not written (" + place(row, of_keys) + ", channel " + std::to_string(c) +
           ")";
  }
  return {};
}

}  // namespace headwise::lab
