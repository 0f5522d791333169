#include "lab/random.h"

#include <algorithm>

namespace headwise::lab {
namespace {

constexpr std::int32_t kNormalTable[] = {
#include "lab/normal_table.inc"
};
constexpr int kFractionBits = 19;
static_assert(sizeof(kNormalTable) / sizeof(kNormalTable[0]) == 4097, "4096 segments and their end");

constexpr int kBlocks = 16;  // Philox blocks side by side, for the compiler to vectorise

struct Words {
  std::uint32_t word[4][kBlocks];
};

void round(std::uint32_t (&x)[4], std::uint32_t key0, std::uint32_t key1) noexcept {
  const std::uint64_t a = std::uint64_t{0xD2511F53} * x[0];
  const std::uint64_t b = std::uint64_t{0xCD9E8D57} * x[2];
  const std::uint32_t next0 = static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ key0;
  const std::uint32_t next2 = static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ key1;
  x[1] = static_cast<std::uint32_t>(b);
  x[3] = static_cast<std::uint32_t>(a);
  x[0] = next0;
  x[2] = next2;
}

// The blocks first_block .. first_block + 15 of a row.
void draw(const RandomRow& row, std::uint32_t first_block, Words& out) noexcept {
  for (int i = 0; i < kBlocks; ++i) {
    out.word[0][i] = first_block + static_cast<std::uint32_t>(i);
    out.word[1][i] = row.position;
    out.word[2][i] = row.batch;
    out.word[3][i] = row.tensor << 24 | row.head;
  }
  auto key0 = static_cast<std::uint32_t>(row.seed);
  auto key1 = static_cast<std::uint32_t>(row.seed >> 32);
  for (int r = 0; r < 10; ++r) {
    for (int i = 0; i < kBlocks; ++i) {
      std::uint32_t x[4] = {out.word[0][i], out.word[1][i], out.word[2][i], out.word[3][i]};
      round(x, key0, key1);
      for (int w = 0; w < 4; ++w) out.word[w][i] = x[w];
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
}

std::int32_t normal(std::uint32_t word) noexcept {
  const std::uint32_t segment = word >> kFractionBits & 4095;
  const std::int64_t fraction = word & ((1U << kFractionBits) - 1);
  const std::int64_t low = kNormalTable[segment];
  const std::int64_t rise = kNormalTable[segment + 1] - low;
  const auto magnitude = static_cast<std::int32_t>(low + (rise * fraction >> kFractionBits)) | 1;
  return word >> 31 != 0 ? -magnitude : magnitude;
}

std::int32_t uniform(std::uint32_t word) noexcept { return static_cast<std::int32_t>(word) >> 7 | 1; }

template <std::int32_t (*kMap)(std::uint32_t)>
void fill_row(const RandomRow& row, std::int64_t count, std::int32_t* values) noexcept {
  Words words;
  for (std::int64_t first = 0; first < count; first += std::int64_t{4} * kBlocks) {
    draw(row, static_cast<std::uint32_t>(first / 4), words);
    const std::int64_t n = std::min(count - first, std::int64_t{4} * kBlocks);
    for (std::int64_t c = 0; c < n; ++c) values[first + c] = kMap(words.word[c % 4][c / 4]);
  }
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) noexcept {
  std::uint32_t x[4] = {counter[0], counter[1], counter[2], counter[3]};
  for (int r = 0; r < 10; ++r) {
    round(x, key[0], key[1]);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return {x[0], x[1], x[2], x[3]};
}

void normal_row(const RandomRow& row, std::int64_t count, std::int32_t* values) noexcept {
  fill_row<normal>(row, count, values);
}

void uniform_row(const RandomRow& row, std::int64_t count, std::int32_t* values) noexcept {
  fill_row<uniform>(row, count, values);
}

}  // namespace headwise::lab
