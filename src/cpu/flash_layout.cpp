#include "cpu/flash_layout.h"

#include <algorithm>

namespace headwise::cpu {

FlashLayout::FlashLayout(const AttentionProblem& p, std::int64_t block_kv, int lanes, int vectors,
                         std::int64_t chunk, int threads) {
  const std::int64_t width = static_cast<std::int64_t>(lanes) * vectors;
  const std::int64_t partial = (p.head_dim_v + 2) * width;
  block_floats = block_kv * width + width + partial;
  const std::int64_t worker_floats = block_floats + kTilesPerTask * (p.head_dim * width + partial);
  worker_bytes = line_up(static_cast<std::size_t>(worker_floats) * sizeof(float));

  // With fewer tiles than two a thread, single chunks are handed out. Smaller calls than the
  // planned one may split where it does not, so the space is for as many tiles as ever split.
  split_below = threads > 1 ? std::int64_t{2} * threads : 0;
  const Tiling tiling(p, width);
  const std::int64_t rows = std::min(tiling.rows, width);
  const std::int64_t row_lanes = (rows + lanes - 1) / lanes * lanes;
  const std::int64_t chunks = (p.seq_kv + chunk - 1) / chunk;
  const std::int64_t most =
      chunks > 1 ? std::min(tiling.tiles(), std::max<std::int64_t>(split_below - 1, 0)) : 0;
  partial_bytes = line_up(static_cast<std::size_t>((p.head_dim_v + 2) * row_lanes) * sizeof(float));
  partials_offset = worker_bytes * static_cast<std::size_t>(threads);
  bytes = partials_offset + partial_bytes * static_cast<std::size_t>(most * chunks);
}

std::int64_t FlashLayout::tiles_per_task(const Tiling& tiling, std::int64_t block_q, int threads) noexcept {
  const std::int64_t wanted = std::clamp<std::int64_t>(block_q / tiling.tile_rows, 1, kTilesPerTask);
  const std::int64_t share = tiling.tiles() / (std::int64_t{4} * threads);
  return std::clamp<std::int64_t>(share, 1, wanted);
}

}  // namespace headwise::cpu
