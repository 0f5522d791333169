// Random numbers that are a pure function of (seed, place): counter-based and integer-only, so that
// every device and every layout gets the same ones.
#pragma once

#include <array>
#include <cstdint>

namespace headwise::lab {

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3").
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) noexcept;

// Where a row of numbers stands: element c of the row takes word c % 4 of the Philox block with
// counter {c / 4, position, batch, tensor << 24 | head}, key = seed.
struct RandomRow {
  std::uint64_t seed = 0;
  std::uint32_t tensor = 0;                         // below 256
  std::uint32_t batch = 0, position = 0, head = 0;  // head below 2^24
};

// Fixed point: a number is value * kRandomStep. Values are odd, so no number is zero.
inline constexpr double kRandomStep = 1.0 / (1 << 24);

// Standard normal. Of a word: bit 31 is the sign, bits 30..19 a segment of normal_table.inc, bits
// 18..0 the place within it. At most 4.153 in magnitude.
void normal_row(const RandomRow& row, std::int64_t count, std::int32_t* values) noexcept;
// Uniform in (-1, 1): the word's upper 25 bits, two's complement.
void uniform_row(const RandomRow& row, std::int64_t count, std::int32_t* values) noexcept;

}  // namespace headwise::lab
