// The workspace of an unfused call on a CPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cpu/schedule.h"

namespace headwise::cpu {

// [worker: Q^T or O^T]...[tile: S^T from key 0, references, sums]...
struct UnfusedLayout {
  std::size_t worker_bytes;
  std::size_t tiles_offset;
  std::size_t tile_bytes;
  std::size_t bytes;

  UnfusedLayout(const AttentionProblem& p, std::int64_t tile_rows, int threads)
      : worker_bytes(line_up(static_cast<std::size_t>(std::max(p.head_dim, p.head_dim_v) * tile_rows) *
                             sizeof(float))),
        tiles_offset(worker_bytes * static_cast<std::size_t>(threads)),
        // The last micro-tile repeats its last key, up to 7 keys too many, before the references
        // and sums take that place: room for 8 more keys serves both.
        tile_bytes(line_up(static_cast<std::size_t>((p.seq_kv + 8) * tile_rows) * sizeof(float))),
        bytes(total(tiles_offset, tile_bytes, Tiling(p, tile_rows).tiles())) {}

  // Scores that validate() can count may, padded to tiles, leave 64 bits: then more than any machine
  // has, not what is left after wrapping round.
  static std::size_t total(std::size_t offset, std::size_t tile_bytes, std::int64_t tiles) {
    constexpr std::size_t kMoreThanAnyMachine = SIZE_MAX / 2;
    std::size_t end = 0;
    const bool overflow = __builtin_mul_overflow(tile_bytes, static_cast<std::size_t>(tiles), &end) ||
                          __builtin_add_overflow(end, offset, &end);
    return overflow || end > kMoreThanAnyMachine ? kMoreThanAnyMachine : end;
  }
};

}  // namespace headwise::cpu
