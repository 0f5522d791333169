// Which weights dropout keeps: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
// 3") with key = seed and counter = {key position >> 3, query, sequence * heads + head, offset}. Its 128 bits
// are eight lanes of 16, lane 2 w in the lower half of word w; lane (key position & 7) decides. Positions of
// queries and keys count from the first row of their sequence in memory.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "headwise/attention.h"

namespace headwise {

inline constexpr std::uint32_t kPhiloxMultiplier[2] = {0xD2511F53U, 0xCD9E8D57U};
inline constexpr std::uint32_t kPhiloxWeyl[2] = {0x9E3779B9U, 0xBB67AE85U};
inline constexpr int kPhiloxRounds = 10;
inline constexpr int kDropoutLanes = 8;

inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                           std::uint64_t seed) noexcept {
  std::array<std::uint32_t, 2> key{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t a = std::uint64_t{kPhiloxMultiplier[0]} * counter[0];
    const std::uint64_t b = std::uint64_t{kPhiloxMultiplier[1]} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += kPhiloxWeyl[0];
    key[1] += kPhiloxWeyl[1];
  }
  return counter;
}

// Lanes below it are dropped: dropout_p in steps of 1/65536, below 1.
inline std::uint32_t dropout_threshold(float dropout_p) noexcept {
  const auto rounded = static_cast<std::uint32_t>(std::lround(static_cast<double>(dropout_p) * 65536));
  return rounded < 65535U ? rounded : 65535U;
}

// What kept weights are multiplied with.
inline double dropout_scale(float dropout_p) noexcept {
  return 65536.0 / (65536.0 - static_cast<double>(dropout_threshold(dropout_p)));
}

}  // namespace headwise
