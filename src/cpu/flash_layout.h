// The workspace of a flash call on a CPU, and when to split. Plain arithmetic for every
// instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernel.h"
#include "cpu/schedule.h"

namespace headwise::cpu {

// The form in which micro-kernels read K and V.
enum class Staging : std::uint8_t {
  as_they_lie,  // f32, from the tensors; copied as rows where several tiles read them
  widened,      // 16-bit elements as rows of f32
  tiles,        // bf16: V transposed, K copied where its rows do not fill tiles (cpu/amx/tiles.inl)
  split_tiles,  // f16 as two parts in bf16: V transposed, K copied, each twice
};
constexpr int parts_of(Staging staging) {
  return staging == Staging::split_tiles ? 2 : staging == Staging::tiles ? 1 : 0;
}

// offset + count * each. Sizes that validate() can count may, padded to tiles or cut into partials, leave 64
// bits: then more than any machine has, not what is left after wrapping round.
inline std::size_t workspace_total(std::size_t offset, std::size_t each, std::int64_t count) {
  constexpr std::size_t kMoreThanAnyMachine = SIZE_MAX / 2;
  std::size_t end = 0;
  const bool overflow = __builtin_mul_overflow(each, static_cast<std::size_t>(count), &end) ||
                        __builtin_add_overflow(end, offset, &end);
  return overflow || end > kMoreThanAnyMachine ? kMoreThanAnyMachine : end;
}

// Columns of a row that holds whole vectors of any instruction set: 16 floats. Rows a multiple of 1 KB apart
// would share few sets of an L1: 64 keys of a column of V took 4 of 64.
constexpr std::int64_t widened_columns(std::int64_t columns) {
  const std::int64_t whole = (columns + 15) / 16 * 16;
  return whole > 0 && whole % 256 == 0 ? whole + 16 : whole;
}

// Rows and columns of matrix tiles: 16 rows of 32 bf16. 512 keys of V^T and a cache line more are no power of
// two, so that its rows do not share few sets of a cache.
constexpr std::int64_t tile_columns(std::int64_t columns) { return (columns + 31) / 32 * 32; }
constexpr std::int64_t tile_rows(std::int64_t rows) { return (rows + 15) / 16 * 16; }
constexpr std::int64_t transposed_stride(std::int64_t keys) { return tile_columns(keys) + 32; }
// Tiles whose rows or columns end early are copied: 16 rows of K, or 32 keys of four tiles of V^T.
constexpr int kMostRowTiles = 4;
constexpr std::int64_t tail_elements(std::int64_t head_dim) {
  constexpr std::int64_t kLeast = 16 * 32 * kMostRowTiles;
  return 16 * tile_columns(head_dim) > kLeast ? 16 * tile_columns(head_dim) : kLeast;
}

// Keys of a block of a tile of few rows (cpu/simd/few_rows.inl).
constexpr std::int64_t kFewBlock = 64;
// Keys whose scores are turned into weights at a time, where matrix tiles make them.
constexpr std::int64_t kTileStrip = 64;

// What a layout must know of a kernel's micro-kernels.
struct KernelShape {
  int lanes;
  int vectors;
  Staging staging;
  int few_rows = 0;  // tiles of at most so many are computed row by row

  [[nodiscard]] constexpr std::int64_t width() const { return std::int64_t{lanes} * vectors; }
  [[nodiscard]] constexpr bool tiled() const { return parts_of(staging) > 0; }
  // Floats of Q^T a lane.
  [[nodiscard]] constexpr std::int64_t query_rows(const AttentionProblem& p) const {
    if (tiled()) return parts_of(staging) * tile_columns(p.head_dim) / 2;
    return p.head_dim;
  }
  // Rows of O^T.
  [[nodiscard]] constexpr std::int64_t output_rows(const AttentionProblem& p) const {
    return tiled() ? tile_rows(p.head_dim_v) : p.head_dim_v;
  }
  // Of S^T and P^T of a block. Two parts of a weight are as large as a score, and stand beside a strip of
  // scores.
  [[nodiscard]] constexpr std::int64_t score_rows(std::int64_t block_kv) const {
    return block_kv + (parts_of(staging) == 2 ? kTileStrip : 0);
  }
  // Of a tile of few rows: Q, and a partial (O, then a vector of references and one of sums).
  [[nodiscard]] constexpr std::int64_t few_query_floats(const AttentionProblem& p) const {
    return few_rows * widened_columns(p.head_dim);
  }
  [[nodiscard]] constexpr std::int64_t few_partial_floats(const AttentionProblem& p) const {
    return few_rows * widened_columns(p.head_dim_v) + std::int64_t{2} * lanes;
  }
  // Of `keys` keys, which several tiles read if `shared`.
  [[nodiscard]] std::size_t staged_bytes(const AttentionProblem& p, std::int64_t keys,
                                         bool shared = false) const;
  // Of a block of keys: V with the rows that a mask hides from a whole tile; nothing without a mask.
  [[nodiscard]] std::size_t visible_bytes(const AttentionProblem& p, std::int64_t keys) const;
};

// [worker 0][worker 1]...[partials: tile-major, chunk-minor][V^T: head-major, chunk-minor]. A worker holds
// what is staged, V as far as a mask shows it, its blocks (scores, factors, one chunk's partial) and, for
// each tile of its task, Q^T and the running partial. A task's tiles of few rows share the blocks' memory,
// and have their own behind that of the others.
struct FlashLayout {
  // Reading a chunk of K and V costs as much as the arithmetic of one or two tiles (rows of a head lie a page
  // apart: 5 GB/s), so a task has many: 16 of 48 rows on AVX-512, 32 of 24 on AVX2. What it holds, the chunk
  // and its tiles' Q^T and O^T (head_dim 64: 256 and 400 KB, 128: 512 and 790 KB), must stay in L2 (2 MB).
  static constexpr int kTilesPerTask = 32;
  static constexpr std::size_t kTaskBytes = 3 << 19;
  static constexpr std::int64_t kLeastRows = 256;  // whatever they take
  static constexpr int kHeadsPerTask = 8;          // of one tile each

  std::size_t visible_offset = 0;
  std::size_t floats_offset = 0;
  std::size_t worker_bytes = 0;
  std::int64_t block_floats = 0;
  std::int64_t most_tiles = 1;  // of a task
  bool shares = false;          // whether tiles of one head read what is staged once for all
  std::int64_t lanes = 1;
  std::size_t partials_offset = 0;
  std::size_t partial_bytes = 0;
  std::size_t packed_offset = 0;  // V^T of all heads, a chunk after the other: where tiles share it
  std::size_t packed_bytes = 0;   // of a chunk
  std::int64_t packed_stride = 0;
  std::size_t bytes = 0;
  std::int64_t split_below = 0;  // split where there are fewer tiles than this, and several chunks

  FlashLayout(const AttentionProblem& p, const Policy& policy, const KernelShape& shape, std::int64_t chunk,
              int threads);

  [[nodiscard]] bool split(std::int64_t tiles, std::int64_t chunks) const noexcept {
    return tiles < split_below && chunks > 1;
  }
  // As many as the policy's block_q asks for, as long as each thread still has about four tasks. Heads of
  // one tile take the same memory, of narrow tiles more heads; they are equal work, so a task a thread will
  // do.
  [[nodiscard]] std::int64_t tiles_per_task(const Tiling& tiling, int threads) const noexcept;
};

// Of a memory-efficient call, a worker: pages' K and V and those a mask shows of a block; then Q^T, scores of
// a block, factors, O^T, references and sums of a tile.
struct MemeffLayout {
  std::size_t visible_offset;
  std::size_t floats_offset;
  std::size_t worker_bytes;

  MemeffLayout(const AttentionProblem& p, const Policy& policy, const KernelShape& shape)
      : visible_offset(shape.staged_bytes(p, policy.block_kv)),
        floats_offset(visible_offset + shape.visible_bytes(p, policy.block_kv)),
        worker_bytes(floats_offset +
                     line_up(static_cast<std::size_t>((p.head_dim + policy.block_kv + p.head_dim_v + 3) *
                                                      shape.width()) *
                             sizeof(float))) {}
};

}  // namespace headwise::cpu
