// How one attention call is cut into tasks on a CPU. Plain arithmetic, shared by every instruction
// set; the kernels inside target regions read the structs and call no template.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/mask.h"
#include "attention/sequence.h"
#include "headwise/attention.h"

namespace headwise::cpu {

// The heads that share a kv head are rows of one matrix: row r is token r / group of head
// kv_head * group + r % group, so K and V are read once for the whole group.
struct Rows {
  std::int64_t group = 1;
  std::int64_t count = 0;  // of one (batch, kv head): seq_q * group; in sequences of unequal length the most

  // Without heads there are no rows, whatever the number of kv heads (0 too).
  explicit Rows(const AttentionProblem& p)
      : group(p.heads == 0 ? 1 : p.heads / p.kv_heads), count(p.heads == 0 ? 0 : p.seq_q * group) {}
  [[nodiscard]] std::int64_t token(std::int64_t row) const noexcept { return row / group; }
  [[nodiscard]] std::int64_t head(std::int64_t kv_head, std::int64_t row) const noexcept {
    return kv_head * group + row % group;
  }
};

// Row after row without a division each: 20 to 40 cycles, as much as packing it takes.
struct RowCursor {
  std::int64_t group;
  std::int64_t token;
  std::int64_t head;  // query head

  RowCursor(const Rows& rows, std::int64_t kv_head, std::int64_t row) noexcept
      : group(rows.group),
        token(rows.token(row)),
        head(rows.head(kv_head, row)),
        last_(kv_head * group + group - 1) {}
  void next() noexcept {
    if (head != last_) {
      ++head;
    } else {
      head -= group - 1;
      ++token;
    }
  }

 private:
  std::int64_t last_;
};

// A tile: up to `tile_rows` neighbouring rows of one (batch, kv head), the unit of the micro-kernels. None
// where its sequence is shorter than the longest.
struct Tile {
  std::int64_t batch = 0, kv_head = 0;
  std::int64_t first_row = 0, rows = 0;
  Sequence sequence;
  Band band;
};

// Tiles in the order they are handed out: the last rows of every head first, because with a
// causal mask they see the most keys, and long tasks must not come last.
struct Tiling {
  std::int64_t heads = 0;  // batch * kv_heads
  std::int64_t kv_heads = 0;
  std::int64_t rows = 0;  // of one (batch, kv head)
  std::int64_t tile_rows = 0;
  std::int64_t tiles_per_head = 0;

  Tiling(const AttentionProblem& p, std::int64_t rows_of_a_tile)
      : heads(static_cast<std::int64_t>(static_cast<std::uint64_t>(p.batch) *
                                        static_cast<std::uint64_t>(p.kv_heads))),  // without rows any number
        kv_heads(p.kv_heads),
        rows(Rows(p).count),
        tile_rows(rows_of_a_tile),
        tiles_per_head((rows + rows_of_a_tile - 1) / rows_of_a_tile) {}
  [[nodiscard]] std::int64_t tiles() const noexcept { return heads * tiles_per_head; }
  // Tasks of up to `together` tiles of a head, or, where a head is one tile, of so many heads.
  [[nodiscard]] std::int64_t tasks(std::int64_t together) const noexcept {
    const bool one_head = tiles_per_head > 1;
    const std::int64_t groups = ((one_head ? tiles_per_head : heads) + together - 1) / together;
    return one_head ? heads * groups : groups;
  }
  [[nodiscard]] Tile tile(const AttentionArgs& args, const AttentionProblem& p,
                          std::int64_t index) const noexcept {
    const std::int64_t head = index % heads;
    const std::int64_t place = tiles_per_head - 1 - index / heads;
    Tile tile{
        head / kv_heads, head % kv_heads, place * tile_rows, 0, sequence_of(args, p, head / kv_heads), {}};
    tile.band = band_of(p, tile.sequence);
    const std::int64_t left = tile.sequence.seq_q * Rows(p).group - tile.first_row;
    tile.rows = left < 0 ? 0 : left < tile_rows ? left : tile_rows;
    return tile;
  }
};

// Keys that the rows of a tile may see; none without rows.
inline BlockRange tile_range(const Rows& rows, const Tile& tile) noexcept {
  if (tile.rows == 0) return {{tile.band.keys.begin, tile.band.keys.begin}, {}};
  return block_range(tile.band, rows.token(tile.first_row), rows.token(tile.first_row + tile.rows - 1));
}

inline KeyRange intersect(KeyRange a, KeyRange b) noexcept {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

// Elements of a [batch, seq, heads, dim] view.
inline std::int64_t offset(const TensorView& t, std::int64_t batch, std::int64_t token,
                           std::int64_t head) noexcept {
  return batch * t.stride[0] + token * t.stride[1] + head * t.stride[2];
}

// scale * reference + ln(sum), in double: a reference of some hundreds would cost f32 its last
// digits. -inf where the sum is 0.
float log_sum_exp(float reference, float scale, float sum) noexcept;

// Bytes rounded up to a cache line, the unit in which workspace is dealt out.
constexpr std::size_t line_up(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace headwise::cpu
