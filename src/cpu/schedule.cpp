#include "cpu/schedule.h"

#include <cmath>
#include <limits>

namespace headwise::cpu {

float log_sum_exp(float reference, float scale, float sum) noexcept {
  if (sum == 0) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(static_cast<double>(scale) * static_cast<double>(reference) +
                            std::log(static_cast<double>(sum)));
}

}  // namespace headwise::cpu
