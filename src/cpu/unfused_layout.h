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
        bytes(tiles_offset + tile_bytes * static_cast<std::size_t>(Tiling(p, tile_rows).tiles())) {}
};

}  // namespace headwise::cpu
