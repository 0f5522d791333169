#include "cpu/schedule.h"

#include <cmath>

namespace headwise::cpu {

float natural_log_sum(float reference, float sum) noexcept {
  constexpr double kLn2 = 0.693147180559945309;
  return static_cast<float>((static_cast<double>(reference) + std::log2(static_cast<double>(sum))) * kLn2);
}

}  // namespace headwise::cpu
