// Which weights dropout keeps, by Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
// easy as 1, 2, 3", 2011). Written apart from the kernels' own, which it checks.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "headwise/attention.h"

namespace headwise::oracle {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

inline PhiloxCounter philox4x32(PhiloxCounter c, PhiloxKey key) {
  constexpr std::uint64_t kMultiply0 = 0xD2511F53, kMultiply1 = 0xCD9E8D57;
  constexpr std::uint32_t kGoldenRatio = 0x9E3779B9, kRootOfThree = 0xBB67AE85;  // their fractions, less 1
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t left = kMultiply0 * c[0], right = kMultiply1 * c[2];
    const auto high = [](std::uint64_t product) { return static_cast<std::uint32_t>(product >> 32); };
    const auto low = [](std::uint64_t product) { return static_cast<std::uint32_t>(product & 0xFFFFFFFF); };
    c = {high(right) ^ c[1] ^ key[0], low(right), high(left) ^ c[3] ^ key[1], low(left)};
    key = {key[0] + kGoldenRatio, key[1] + kRootOfThree};
  }
  return c;
}

struct Dropout {
  PhiloxKey seed{};
  std::uint32_t offset = 0;
  std::uint32_t dropped = 0;  // of 65,536 values of a lane, those below it
  double scale = 1;           // of what is kept

  Dropout(const AttentionArgs& args, const AttentionProblem& p)
      : seed{static_cast<std::uint32_t>(args.dropout_seed & 0xFFFFFFFF),
             static_cast<std::uint32_t>(args.dropout_seed >> 32)},
        offset(static_cast<std::uint32_t>(args.dropout_offset)) {
    constexpr double kLaneValues = 65536;
    dropped = static_cast<std::uint32_t>(
        std::min(std::floor(static_cast<double>(p.dropout_p) * kLaneValues + 0.5), kLaneValues - 1));
    scale = kLaneValues / (kLaneValues - static_cast<double>(dropped));
  }
};

// The keys of one query of one head; `head` counts through all sequences: sequence * heads + head.
class DropoutRow {
 public:
  DropoutRow(const Dropout& dropout, std::int64_t head, std::int64_t query)
      : dropout_(dropout),
        head_(static_cast<std::uint32_t>(head)),
        query_(static_cast<std::uint32_t>(query)) {}

  // What a weight is multiplied with.
  double factor(std::int64_t key) {
    if (key / kLanes != block_) {
      block_ = key / kLanes;
      random_ =
          philox4x32({static_cast<std::uint32_t>(block_), query_, head_, dropout_.offset}, dropout_.seed);
    }
    const auto lane = static_cast<std::size_t>(key % kLanes);
    const std::uint32_t word = random_[lane / 2];
    const std::uint32_t value = lane % 2 == 0 ? word & 0xFFFF : word >> 16;
    return value >= dropout_.dropped ? dropout_.scale : 0;
  }

 private:
  static constexpr std::int64_t kLanes = 8;  // of 16 bits
  const Dropout& dropout_;
  std::uint32_t head_, query_;
  std::int64_t block_ = -1;  // of keys, whose lanes random_ holds
  PhiloxCounter random_{};
};

}  // namespace headwise::oracle
