#include "cpu/flash_layout.h"

#include <algorithm>

namespace headwise::cpu {

std::size_t KernelShape::staged_bytes(const AttentionProblem& p, std::int64_t keys, bool shared) const {
  std::int64_t bytes = 0;
  const bool paged = p.page_size > 0;
  if (staging == Staging::widened || (staging == Staging::as_they_lie && (paged || shared))) {
    bytes = keys * (widened_columns(p.head_dim) + widened_columns(p.head_dim_v)) * 4;
  } else if (tiled()) {
    // V^T, and K where its rows do not fill tiles, do not lie one after the other or are read by many tiles.
    bytes = parts_of(staging) *
            (tile_rows(p.head_dim_v) * transposed_stride(keys) + tail_elements(p.head_dim) +
             keys * tile_columns(p.head_dim)) *
            2;
  }
  return line_up(static_cast<std::size_t>(bytes));
}

std::size_t KernelShape::visible_bytes(const AttentionProblem& p, std::int64_t keys) const {
  if (p.mask == MaskKind::none) return 0;
  const std::int64_t bytes = tiled()
                                 ? parts_of(staging) * tile_rows(p.head_dim_v) * transposed_stride(keys) * 2
                                 : keys * widened_columns(p.head_dim_v) * 4;
  return line_up(static_cast<std::size_t>(bytes));
}

FlashLayout::FlashLayout(const AttentionProblem& p, const Policy& policy, const KernelShape& shape,
                         std::int64_t chunk, int threads) {
  const std::int64_t width = shape.width();
  lanes = shape.lanes;
  const std::int64_t partial = (shape.output_rows(p) + 2) * width;
  const Tiling tiling(p, width);
  const std::size_t chunk_bytes = shape.staged_bytes(p, chunk, true);
  shares = shape.staging != Staging::as_they_lie || chunk_bytes <= kTaskBytes;
  // By sizes that a call does not change, but for its tiles: a shorter one must not need more.
  const std::size_t tile_bytes =
      static_cast<std::size_t>(shape.query_rows(p) * width + partial) * sizeof(float);
  const std::size_t left = shares && chunk_bytes < kTaskBytes ? kTaskBytes - chunk_bytes : 0;
  const auto fit = static_cast<std::int64_t>(left / std::max<std::size_t>(tile_bytes, 1));
  most_tiles = std::min(std::clamp<std::int64_t>(policy.block_q / width, 1, kTilesPerTask),
                        std::max(kLeastRows / width, std::min(fit, tiling.tiles_per_head)));
  visible_offset =
      shape.staged_bytes(p, std::min(p.seq_kv, chunk), shares && most_tiles > 1 && tiling.tiles_per_head > 1);
  floats_offset = visible_offset + shape.visible_bytes(p, policy.block_kv);
  const std::int64_t few_partial = shape.few_partial_floats(p);
  block_floats = std::max(shape.score_rows(policy.block_kv) * width + width + partial,
                          kHeadsPerTask * (shape.few_rows * kFewBlock + few_partial));
  const std::int64_t worker_floats = block_floats + most_tiles * (shape.query_rows(p) * width + partial) +
                                     kHeadsPerTask * (shape.few_query_floats(p) + few_partial);
  worker_bytes = floats_offset + line_up(static_cast<std::size_t>(worker_floats) * sizeof(float));

  // With fewer tiles than two a thread, single chunks are handed out. Smaller calls than the
  // planned one may split where it does not, so the space is for as many tiles as ever split.
  split_below = threads > 1 ? std::int64_t{2} * threads : 0;
  const std::int64_t rows = std::min(tiling.rows, width);
  const std::int64_t row_lanes = (rows + shape.lanes - 1) / shape.lanes * shape.lanes;
  const std::int64_t chunks = (p.seq_kv + chunk - 1) / chunk;
  const std::int64_t most =
      chunks > 1 ? std::min(tiling.tiles(), std::max<std::int64_t>(split_below - 1, 0)) : 0;
  partial_bytes =
      line_up(static_cast<std::size_t>(std::max((shape.output_rows(p) + 2) * row_lanes, few_partial)) *
              sizeof(float));
  partials_offset = worker_bytes * static_cast<std::size_t>(threads);
  packed_offset = workspace_total(partials_offset, partial_bytes, most * chunks);
  bytes = packed_offset;
  if (!shape.tiled() || tiling.tiles_per_head <= 1) return;
  packed_stride = transposed_stride(std::min(p.seq_kv, chunk));
  packed_bytes =
      static_cast<std::size_t>(parts_of(shape.staging) * tile_rows(p.head_dim_v) * packed_stride * 2);
  bytes = workspace_total(packed_offset, packed_bytes, tiling.heads * chunks);
}

std::int64_t FlashLayout::tiles_per_task(const Tiling& tiling, int threads) const noexcept {
  if (tiling.tiles_per_head > 1) {
    return std::clamp<std::int64_t>(tiling.tiles() / (std::int64_t{4} * threads), 1, most_tiles);
  }
  const std::int64_t vectors = (tiling.rows + lanes - 1) / lanes;
  const std::int64_t fit =
      std::min<std::int64_t>(most_tiles * (tiling.tile_rows / lanes) / vectors, kHeadsPerTask);
  return std::clamp<std::int64_t>(tiling.heads / threads, 1, fit);
}

}  // namespace headwise::cpu
