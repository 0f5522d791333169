#include "headwise/alibi.h"

#include <bit>
#include <cmath>

#include "attention/host_tensors.h"

namespace headwise {

std::vector<float> standard_alibi_slopes(std::int64_t heads) {
  std::vector<float> slopes;
  if (heads < 1 || !try_resize(slopes, heads)) return {};
  const auto power = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(heads)));
  const auto n = static_cast<double>(power);
  for (std::int64_t h = 0; h < heads; ++h) {
    // Slopes 1, 3, 5 .. of 2 n: those between the ones of n.
    const double exponent = h < power ? -8.0 * static_cast<double>(h + 1) / n
                                      : -8.0 * static_cast<double>(2 * (h - power) + 1) / (2 * n);
    slopes[static_cast<std::size_t>(h)] = static_cast<float>(std::exp2(exponent));
  }
  return slopes;
}

}  // namespace headwise
