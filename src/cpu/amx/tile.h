// Matrix tiles: eight registers of 16 rows of 64 bytes, and the operations that kernels need of them, each
// one instruction (Intel SDM, AMX-TILE and AMX-BF16). Instructions as text, because g++ 12's builtins tell
// the compiler too little of the memory they read: it drops stores into a configuration, and moves vector
// stores behind the load of a tile.
//
// Built with HEADWISE_AMX_SOFTWARE the same operations run in plain C++ on any processor, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "headwise/dtype.h"

namespace headwise::cpu::amx {

constexpr int kTileRowBytes = 64;
constexpr int kTileHeight = 16;

#if defined(HEADWISE_AMX_SOFTWARE)

struct SoftwareTile {
  std::byte row[kTileHeight][kTileRowBytes];
};
inline SoftwareTile& software_tile(int index) {
  static thread_local SoftwareTile tiles[8];
  return tiles[index];
}

inline void configure_tiles() {
  for (int i = 0; i < 8; ++i) software_tile(i) = {};
}
inline void release_tiles() {}

template <int T>
inline void tile_zero() {
  software_tile(T) = {};
}
template <int T>
inline void tile_load(const void* base, std::ptrdiff_t stride) {
  for (int r = 0; r < kTileHeight; ++r) {
    std::memcpy(software_tile(T).row[r], static_cast<const std::byte*>(base) + r * stride, kTileRowBytes);
  }
}
template <int T>
inline void tile_store(void* base, std::ptrdiff_t stride) {
  for (int r = 0; r < kTileHeight; ++r) {
    std::memcpy(static_cast<std::byte*>(base) + r * stride, software_tile(T).row[r], kTileRowBytes);
  }
}
template <int C, int A, int B>
inline void tile_multiply_bf16() {
  for (int m = 0; m < kTileHeight; ++m) {
    float sum[16];
    bfloat16 a[32];
    std::memcpy(sum, software_tile(C).row[m], sizeof(sum));
    std::memcpy(a, software_tile(A).row[m], sizeof(a));
    for (int k = 0; k < kTileHeight; ++k) {
      bfloat16 b[32];
      std::memcpy(b, software_tile(B).row[k], sizeof(b));
      for (int n = 0; n < 16; ++n) {
        sum[n] += to_float(a[2 * k]) * to_float(b[2 * n]);
        sum[n] += to_float(a[2 * k + 1]) * to_float(b[2 * n + 1]);
      }
    }
    std::memcpy(software_tile(C).row[m], sum, sizeof(sum));
  }
}

#else

struct alignas(64) TileConfiguration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);

// All eight tiles at full size. About 200 cycles: once a task. The process must have the permission of its
// operating system (core/cpu_features.h asks for it).
inline void configure_tiles() {
  static constexpr TileConfiguration kAll;
  __asm__ volatile("ldtilecfg %0" ::"m"(kAll));
}
// Leaves the tiles' state, which would be saved at each switch of the thread.
inline void release_tiles() { __asm__ volatile("tilerelease" ::: "memory"); }

template <int T>
inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(T));
}
// `stride` in bytes.
template <int T>
inline void tile_load(const void* base, std::ptrdiff_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(base), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline void tile_store(void* base, std::ptrdiff_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(base), "r"(stride), "i"(T) : "memory");
}
// C (f32) += A (16 rows of 32 bf16) times B (16 pairs of rows: B[k] column n holds rows 2k and 2k + 1).
template <int C, int A, int B>
inline void tile_multiply_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

#endif

}  // namespace headwise::cpu::amx
