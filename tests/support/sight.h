// Which query may see which key, said in the words of docs/design.md section 4 and by none of the code that
// kernels find it with; and where the rows of queries and keys lie.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "attention/sequence.h"
#include "headwise/headwise.h"
#include "oracle/oracle.h"

namespace headwise::test {

// A view of [begin, end) of one axis.
inline TensorView cut(TensorView view, int axis, std::int64_t begin, std::int64_t end) {
  const auto a = static_cast<std::size_t>(axis);
  if (begin != 0)
    view.data =
        view.as<std::byte>() + begin * view.stride[a] * static_cast<std::int64_t>(size_of(view.dtype));
  view.shape[a] = end - begin;
  return view;
}

// fn(offset, a, b, c, d) for each element; axes that a tensor lacks are 0.
template <class Function>
void each_element(const TensorView& t, const Function& fn) {
  const auto extent = [&](int axis) { return axis < t.rank ? t.shape[static_cast<std::size_t>(axis)] : 1; };
  for (std::int64_t a = 0; a < extent(0); ++a) {
    for (std::int64_t b = 0; b < extent(1); ++b) {
      for (std::int64_t c = 0; c < extent(2); ++c) {
        for (std::int64_t d = 0; d < extent(3); ++d)
          fn(a * t.stride[0] + b * t.stride[1] + c * t.stride[2] + d * t.stride[3], a, b, c, d);
      }
    }
  }
}

// All rows there are: of each sequence its own queries.
inline std::vector<oracle::RowId> rows_of(const AttentionArgs& args, const AttentionProblem& p) {
  std::vector<oracle::RowId> rows;
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const std::int64_t queries = sequence_of(args, p, b).seq_q;
    for (std::int64_t h = 0; h < p.heads; ++h) {
      for (std::int64_t i = 0; i < queries; ++i) rows.push_back({b, h, i});
    }
  }
  return rows;
}

inline std::int64_t lse_offset(const AttentionArgs& args, const Sequence& s, const oracle::RowId& row) {
  return s.item_q * args.lse.stride[0] + row.head * args.lse.stride[1] +
         (s.row_q + row.query) * args.lse.stride[2];
}

// Bytes of a row of out, and of its lse where there is one.
inline std::string row_bits(const AttentionArgs& args, const AttentionProblem& p, const oracle::RowId& row) {
  const Sequence s = sequence_of(args, p, row.batch);
  const std::size_t size = size_of(args.out.dtype);
  const auto at = static_cast<std::size_t>(query_offset(args.out, s, row.query, row.head));
  std::string bits(args.out.as<const char>() + at * size, static_cast<std::size_t>(args.out.shape[3]) * size);
  if (args.lse.present())
    bits.append(reinterpret_cast<const char*>(args.lse.as<const float>() + lse_offset(args, s, row)),
                sizeof(float));
  return bits;
}
inline std::vector<std::string> all_row_bits(const AttentionArgs& args, const AttentionProblem& p) {
  std::vector<std::string> all;
  for (const oracle::RowId& row : rows_of(args, p)) all.push_back(row_bits(args, p, row));
  return all;
}

// Offset of a row's element in a mask or bias.
inline std::int64_t score_offset(const TensorView& t, const oracle::RowId& row, std::int64_t key) {
  const std::array<std::int64_t, 3> at{row.batch, row.head, row.query};
  std::int64_t offset = key * t.stride[3];
  for (std::size_t axis = 0; axis < at.size(); ++axis)
    offset += t.shape[axis] == 1 ? 0 : at[axis] * t.stride[axis];
  return offset;
}

// By lengths, starts, causal and window.
inline bool in_band(const AttentionProblem& p, const Sequence& s, std::int64_t query, std::int64_t key) {
  if (key < s.keys.begin || key >= s.keys.end) return false;
  const std::int64_t place = query + (p.align == Align::bottom_right ? s.keys.end - s.seq_q : 0);
  if (p.causal && key > place) return false;
  if (p.window_left >= 0 && key < place - p.window_left) return false;
  return p.window_right < 0 || key <= place + p.window_right;
}

inline bool hides(const TensorView& mask, std::int64_t offset) {
  if (mask.dtype == DType::boolean) return mask.as<const unsigned char>()[offset] == 0;
  return load_element(mask.dtype, mask.data, offset) == -std::numeric_limits<double>::infinity();
}
inline void set_hidden(const TensorView& mask, std::int64_t offset, bool hidden) {
  if (mask.dtype == DType::boolean) {
    mask.as<unsigned char>()[offset] = hidden ? 0 : 1;
  } else {
    store_element(mask.dtype, mask.data, offset, hidden ? -std::numeric_limits<double>::infinity() : 0.25);
  }
}

inline bool sees(const AttentionArgs& args, const AttentionProblem& p, const oracle::RowId& row,
                 std::int64_t key) {
  if (!in_band(p, sequence_of(args, p, row.batch), row.query, key)) return false;
  if (!args.mask.present()) return true;
  return key < args.mask.shape[3] && !hides(args.mask, score_offset(args.mask, row, key));
}

// Sets the row of a key in k or v.
inline void set_row(const TensorView& t, std::int64_t offset, double value) {
  for (std::int64_t d = 0; d < t.shape[3]; ++d) store_element(t.dtype, t.data, offset + d, value);
}

// Rows of k and v, [item][row][kv head], that some query may see: all others are slots in which anything may
// stand.
class SeenSlots {
 public:
  SeenSlots(const AttentionArgs& args, const AttentionProblem& p)
      : shape_(args.k.shape), seen_(static_cast<std::size_t>(shape_[0] * shape_[1] * shape_[2]), false) {
    const TensorView places{.shape = shape_, .stride = {shape_[1] * shape_[2], shape_[2], 1, 1}};
    for (const oracle::RowId& row : rows_of(args, p)) {
      const Sequence s = sequence_of(args, p, row.batch);
      const std::int64_t kv_head = row.head / (p.heads / p.kv_heads);
      for (std::int64_t j = s.keys.begin; j < s.keys.end; ++j) {
        if (sees(args, p, row, j))
          seen_[static_cast<std::size_t>(key_offset(places, p, s, j, kv_head))] = true;
      }
    }
  }
  [[nodiscard]] std::int64_t unseen() const { return std::count(seen_.begin(), seen_.end(), false); }
  // fn(item, row, kv head) of each that nobody sees.
  template <class Function>
  void each_unseen(const Function& fn) const {
    for (std::size_t i = 0; i < seen_.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      if (!seen_[i]) fn(at / shape_[2] / shape_[1], at / shape_[2] % shape_[1], at % shape_[2]);
    }
  }
  void fill_unseen(const AttentionArgs& args, double value) const {
    each_unseen([&](std::int64_t item, std::int64_t row, std::int64_t kv_head) {
      for (const TensorView& t : {args.k, args.v})
        set_row(t, item * t.stride[0] + row * t.stride[1] + kv_head * t.stride[2], value);
    });
  }

 private:
  std::array<std::int64_t, 4> shape_;
  std::vector<bool> seen_;
};

}  // namespace headwise::test
