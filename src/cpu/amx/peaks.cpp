// Peak of AMX: products of bf16 tiles, 16 x 16 x 32 multiply-adds each.
#include "cpu/peaks.h"

#include <cstdint>

#include "cpu/amx/tile.h"
#include "headwise/dtype.h"

namespace headwise::cpu {
namespace {

constexpr double kFlops = 2.0 * 16 * 16 * 32;

// Four sums, because a product takes 16 cycles and gives its result after 52 (Sapphire Rapids). Values
// between 0.5 and 2 of both signs, no two rows alike: with zeros the unit's clock is a quarter higher.
void multiply_tiles(std::int64_t rounds) {
  constexpr int kElements = amx::kTileHeight * amx::kTileRowBytes / 2;
  alignas(64) bfloat16 factors[4][kElements];
  for (int tile = 0; tile < 4; ++tile) {
    for (int i = 0; i < kElements; ++i) {
      const int digit = (i * 29 + tile * 7) % 97;
      const double size = 0.5 + digit / 65.0;
      factors[tile][i] = from_double<bfloat16>((digit & 1) == 0 ? size : -size);
    }
  }
  alignas(64) float sums[amx::kTileHeight * amx::kTileRowBytes / 4];
  amx::configure_tiles();
  amx::tile_zero<0>();
  amx::tile_zero<1>();
  amx::tile_zero<2>();
  amx::tile_zero<3>();
  amx::tile_load<4>(factors[0], amx::kTileRowBytes);
  amx::tile_load<5>(factors[1], amx::kTileRowBytes);
  amx::tile_load<6>(factors[2], amx::kTileRowBytes);
  amx::tile_load<7>(factors[3], amx::kTileRowBytes);
  for (std::int64_t round = 0; round < rounds; ++round) {
    amx::tile_multiply_bf16<0, 4, 6>();
    amx::tile_multiply_bf16<1, 4, 7>();
    amx::tile_multiply_bf16<2, 5, 6>();
    amx::tile_multiply_bf16<3, 5, 7>();
  }
  amx::tile_store<0>(sums, amx::kTileRowBytes);
  amx::release_tiles();
}

}  // namespace

const ArithmeticLoop kAmxPeakBf16{"amx", "amx_bf16", "bf16", 4 * kFlops, multiply_tiles};

}  // namespace headwise::cpu
