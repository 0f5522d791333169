#include "headwise/rotary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "attention/derive.h"
#include "attention/host_tensors.h"
#include "attention/index_arrays.h"
#include "attention/rotary_rows.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "core/try.h"

namespace headwise {
namespace {

Status check_table_sizes(std::int64_t positions, std::int64_t rotary_dim, double theta) {
  if (positions < 0)
    return Status::invalid_argument("positions: expected at least 0, got " + std::to_string(positions));
  if (rotary_dim < 0 || rotary_dim % 2 != 0) {
    return Status::invalid_argument(
        "rotary_dim: expected an even number of at least 0 (channels rotate in pairs), got " +
        std::to_string(rotary_dim));
  }
  if (!(theta > 0) || !std::isfinite(theta)) {
    return Status::invalid_argument("theta: expected a finite number above 0 (10000 in most models), got " +
                                    core::shortest(theta));
  }
  return {};
}

Status allocate(RotaryTables& tables) {
  std::int64_t elements = 0;
  if (__builtin_mul_overflow(tables.positions, tables.rotary_dim / 2, &elements))
    elements = std::numeric_limits<std::int64_t>::max();
  if (try_resize(tables.cos, elements) && try_resize(tables.sin, elements)) return {};
  return Status::out_of_memory("rotary tables of " + std::to_string(tables.positions) +
                               " positions and rotary_dim " + std::to_string(tables.rotary_dim) +
                               ": not enough memory");
}

constexpr std::int64_t kPositionsPerTask = 256;

struct TableFill {
  RotaryTables* tables;
  double theta;

  void positions(std::int64_t task) const {
    const std::int64_t half = tables->rotary_dim / 2;
    const std::int64_t begin = task * kPositionsPerTask;
    const std::int64_t end = std::min(begin + kPositionsPerTask, tables->positions);
    for (std::int64_t i = 0; i < half; ++i) {
      const double frequency =
          std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(tables->rotary_dim));
      for (std::int64_t p = begin; p < end; ++p) {
        const double angle = static_cast<double>(p) * frequency;
        tables->cos[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::cos(angle));
        tables->sin[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::sin(angle));
      }
    }
  }
};

Status out_of_table(const std::string& where, std::int64_t first, std::int64_t count,
                    std::int64_t positions) {
  const std::string rows = count == 1 ? "" : " for the first of " + std::to_string(count) + " rows";
  return Status::invalid_argument(where + ": expected a position that the tables have (0 to " +
                                  std::to_string(positions - 1) + "), got " + std::to_string(first) + rows +
                                  "; make larger tables");
}

// Rows of sequence b begin at `row` of item `item`.
struct Rows {
  std::int64_t item = 0, row = 0, count = 0;
};

struct Rotation {
  const RotaryArgs* args;
  MoveRow move;
  std::int64_t sequences = 0;
  std::int64_t longest = 0;
  std::int64_t rows_per_task = 1;
  std::int64_t tasks_per_sequence = 1;

  [[nodiscard]] Rows rows_of(std::int64_t sequence) const {
    const TensorView& offsets = args->cu_seqlens;
    if (!offsets.present()) return {sequence, 0, args->x.shape[1]};
    const std::int64_t row = index_at(offsets, sequence);
    return {0, row, index_at(offsets, sequence + 1) - row};
  }
  // Of row r of a sequence.
  [[nodiscard]] std::int64_t position(const Rows& rows, std::int64_t sequence, std::int64_t r) const {
    const TensorView& positions = args->positions;
    if (!positions.present()) return r;
    return positions.rank == 1 ? index_at(positions, sequence) + r
                               : index_at(positions, rows.item, rows.row + r);
  }
  void run(std::int64_t task) const;
};

void Rotation::run(std::int64_t task) const {
  const TensorView& x = args->x;
  const TensorView& out = args->out;
  const std::int64_t sequence = task / tasks_per_sequence;
  const Rows rows = rows_of(sequence);
  const std::int64_t begin = task % tasks_per_sequence * rows_per_task;
  const std::int64_t end = std::min(begin + rows_per_task, rows.count);
  for (std::int64_t r = begin; r < end; ++r) {
    const RowRotation rotation = row_rotation(args->rotary, position(rows, sequence, r));
    const std::int64_t from = rows.item * x.stride[0] + (rows.row + r) * x.stride[1];
    const std::int64_t to = rows.item * out.stride[0] + (rows.row + r) * out.stride[1];
    for (std::int64_t h = 0; h < x.shape[2]; ++h) {
      move(x.as<const char>() + (from + h * x.stride[2]) * static_cast<std::int64_t>(size_of(x.dtype)),
           out.as<char>() + (to + h * out.stride[2]) * static_cast<std::int64_t>(size_of(out.dtype)),
           x.shape[3], &rotation);
    }
  }
}

Status check_sequences(const RotaryArgs& args, Rotation& rotation) {
  const Argument x{"x", args.x};
  rotation.sequences = x.extent(0);
  rotation.longest = x.extent(1);
  if (!args.cu_seqlens.present()) return {};
  const Argument offsets{"cu_seqlens", args.cu_seqlens};
  HEADWISE_TRY(check_host_tensor(offsets, 1, "[sequences + 1]", {DType::int32}));
  HEADWISE_TRY(check_packed(offsets, x, {}));
  rotation.sequences = offsets.extent(0) - 1;
  return check_offsets(offsets, x.extent(1), "rows of x", rotation.longest);
}

Status check_positions(const RotaryArgs& args, const Rotation& rotation) {
  const std::int64_t table = args.rotary.cos.shape[0];
  const Argument positions{"positions", args.positions};
  if (!positions.view.present()) {
    return rotation.sequences == 0 || rotation.longest <= table
               ? Status()
               : out_of_table("positions (from 0)", 0, rotation.longest, table);
  }
  const bool each = positions.view.rank == 2;
  HEADWISE_TRY(check_host_tensor(positions, each ? 2 : 1, "[batch] or [batch, seq]", {DType::int32}));
  if (!each) {
    HEADWISE_TRY(check_extent(positions, 0, rotation.sequences, "sequences of x"));
    for (std::int64_t b = 0; b < rotation.sequences; ++b) {
      const std::int64_t first = index_at(positions.view, b);
      const std::int64_t count = rotation.rows_of(b).count;
      if (count > 0 && (first < 0 || count > table - first))
        return out_of_table(entry(positions, b), first, count, table);
    }
    return {};
  }
  HEADWISE_TRY(check_extent(positions, 0, args.x.shape[0], "batch of x"));
  HEADWISE_TRY(check_extent(positions, 1, args.x.shape[1], "seq of x"));
  if (positions.empty()) return {};
  for (std::int64_t b = 0; b < args.x.shape[0]; ++b) {
    for (std::int64_t r = 0; r < args.x.shape[1]; ++r) {
      const std::int64_t at = index_at(positions.view, b, r);
      if (at < 0 || at >= table)
        return out_of_table("positions[" + std::to_string(b) + ", " + std::to_string(r) + "]", at, 1, table);
    }
  }
  return {};
}

Status check_arguments(const RotaryArgs& args, Rotation& rotation) {
  const Argument x{"x", args.x};
  const Argument out{"out", args.out};
  for (const Argument& tensor : {x, out}) {
    HEADWISE_TRY(
        check_host_tensor(tensor, 4, "[batch, seq, heads, head_dim]", {DType::f32, DType::f16, DType::bf16}));
  }
  HEADWISE_TRY(check_extents_as(out, x));
  HEADWISE_TRY(check_rotary(args.rotary, x.extent(3)));
  HEADWISE_TRY(check_sequences(args, rotation));
  HEADWISE_TRY(check_positions(args, rotation));
  HEADWISE_TRY(check_writable(out));
  if (!same_view(args.x, args.out)) HEADWISE_TRY(check_no_overlap(out, x));
  for (const Argument& input : {Argument{"rotary.cos", args.rotary.cos},
                                {"rotary.sin", args.rotary.sin},
                                {"positions", args.positions},
                                {"cu_seqlens", args.cu_seqlens}})
    HEADWISE_TRY(check_no_overlap(out, input));
  return {};
}

}  // namespace

Rotary RotaryTables::rotary(RotaryLayout layout, bool inverse) const noexcept {
  return {.cos = contiguous(cos.data(), {positions, rotary_dim / 2}),
          .sin = contiguous(sin.data(), {positions, rotary_dim / 2}),
          .layout = layout,
          .inverse = inverse};
}

Result<RotaryTables> make_rotary_tables(std::int64_t positions, std::int64_t rotary_dim, double theta) {
  HEADWISE_TRY(check_table_sizes(positions, rotary_dim, theta));
  RotaryTables tables{.positions = positions, .rotary_dim = rotary_dim, .cos = {}, .sin = {}};
  HEADWISE_TRY(allocate(tables));
  if (tables.cos.empty()) return tables;
  TableFill fill{&tables, theta};
  core::parallel_for(
      (positions - 1) / kPositionsPerTask + 1, threads_for({}, static_cast<std::int64_t>(tables.cos.size())),
      [](void* context, std::int64_t task, int) { static_cast<const TableFill*>(context)->positions(task); },
      &fill);
  return tables;
}

Status apply_rotary(const RotaryArgs& args, const Execution& execution) {
  HEADWISE_TRY(check_threads(execution));
  Rotation rotation{&args, nullptr};
  HEADWISE_TRY(check_arguments(args, rotation));
  if (Argument{"", args.x}.empty()) return {};
  constexpr std::int64_t kElementsPerTask = 1 << 14;
  rotation.move = move_row(args.x.dtype, args.out.dtype);
  rotation.rows_per_task = std::max<std::int64_t>(1, kElementsPerTask / (args.x.shape[2] * args.x.shape[3]));
  rotation.tasks_per_sequence = (rotation.longest - 1) / rotation.rows_per_task + 1;
  core::parallel_for(
      rotation.sequences * rotation.tasks_per_sequence, threads_for(execution, args.x.elements()),
      [](void* context, std::int64_t task, int) { static_cast<const Rotation*>(context)->run(task); },
      &rotation, execution.executor);
  return {};
}

}  // namespace headwise
