// The workspace of a flash call on a CPU, and when to split. Plain arithmetic for every
// instruction set; `lanes` and `vectors` are those of its micro-kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/schedule.h"

namespace headwise::cpu {

// [worker 0][worker 1]...[partials: tile-major, chunk-minor]. A worker holds its blocks (scores,
// factors, one chunk's partial) and, for each tile of its task, Q^T and the running partial.
struct FlashLayout {
  // A super-block of 4 tiles of 48 rows reads a chunk of K and V (head_dim 64: 256 KB, within an
  // L2 of 1 MB) four times for one trip to L3; more gains nothing and unbalances threads.
  static constexpr int kTilesPerTask = 4;

  std::size_t worker_bytes = 0;
  std::int64_t block_floats = 0;
  std::size_t partials_offset = 0;
  std::size_t partial_bytes = 0;
  std::size_t bytes = 0;
  std::int64_t split_below = 0;  // split where there are fewer tiles than this, and several chunks

  FlashLayout(const AttentionProblem& p, std::int64_t block_kv, int lanes, int vectors, std::int64_t chunk,
              int threads);

  [[nodiscard]] bool split(std::int64_t tiles, std::int64_t chunks) const noexcept {
    return tiles < split_below && chunks > 1;
  }
  // As many as policy's block_q asks for, as long as each thread still has about four tasks.
  static std::int64_t tiles_per_task(const Tiling& tiling, std::int64_t block_q, int threads) noexcept;
};

}  // namespace headwise::cpu
