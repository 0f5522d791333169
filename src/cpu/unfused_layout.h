// The workspace of an unfused call on a CPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cpu/flash_layout.h"
#include "cpu/schedule.h"

namespace headwise::cpu {

// [worker: K and V of a block, V as far as a mask shows it, Q^T or O^T]...[tile: S^T from key 0, references,
// sums]...
struct UnfusedLayout {
  // Keys of a block of K or V: 256 keys x 64 columns of f32 are 64 KB, well within L2; widened ones, which
  // are written first, shall stay in L1 (16 KB).
  static constexpr std::int64_t block_keys(Staging staging) {
    return staging == Staging::as_they_lie ? 256 : 64;
  }

  std::size_t visible_offset;
  std::size_t floats_offset;
  std::size_t worker_bytes;
  std::size_t tiles_offset;
  std::size_t tile_bytes;
  std::size_t bytes;

  UnfusedLayout(const AttentionProblem& p, const KernelShape& shape, int threads)
      : visible_offset(shape.staged_bytes(p, std::min(p.seq_kv, block_keys(shape.staging)))),
        floats_offset(visible_offset + shape.visible_bytes(p, std::min(p.seq_kv, block_keys(shape.staging)))),
        worker_bytes(floats_offset +
                     line_up(static_cast<std::size_t>(std::max(p.head_dim, p.head_dim_v) * shape.width()) *
                             sizeof(float))),
        tiles_offset(worker_bytes * static_cast<std::size_t>(threads)),
        // The last micro-tile repeats its last key, up to 7 keys too many, before the references
        // and sums take that place: room for 8 more keys serves both.
        tile_bytes(line_up(static_cast<std::size_t>((p.seq_kv + 8) * shape.width()) * sizeof(float))),
        bytes(workspace_total(tiles_offset, tile_bytes, Tiling(p, shape.width()).tiles())) {}
};

}  // namespace headwise::cpu
