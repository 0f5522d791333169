// Rows of queries, computed in groups that share K and V, so that a block of keys is converted once for all
// of them. No result depends on how rows are grouped or on threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "oracle/formula.h"

namespace headwise::oracle {

template <class Real, class Store>
class QueryRows {
 public:
  // One worker's memory, and what it holds of the group it works on; row r of the group comes r-th.
  struct Scratch {
    std::vector<Real> q;        // [rows, head_dim]
    std::vector<Real> weights;  // [rows, seq_kv]: probabilities within the row's range
    std::vector<Real> out;      // [rows, head_dim_v]
    std::vector<Range> ranges;
    std::vector<RowStatistics<Real>> statistics;
    std::vector<Real> block, dots;  // a block of keys, and its products with the rows
    std::vector<Real> kept;         // weights of one row and block after dropout
    Range keys;                     // that some row of the group sees

    // Of the keys [begin, end) those that row r sees.
    [[nodiscard]] Range within(std::int64_t r, std::int64_t begin, std::int64_t end) const {
      const Range& range = ranges[static_cast<std::size_t>(r)];
      const Range seen{std::max(begin, range.begin), std::min(end, range.end)};
      return seen.begin < seen.end ? seen : Range{begin, begin};
    }
  };

  QueryRows(const Formula<Real, Store>& formula, std::span<const RowId> rows, int threads)
      : formula_(formula), rows_(rows) {
    make_groups(threads);
  }

  [[nodiscard]] std::int64_t groups() const { return static_cast<std::int64_t>(group_begin_.size()) - 1; }
  [[nodiscard]] std::int64_t most_rows() const { return group_rows_; }  // of a group
  [[nodiscard]] std::int64_t rows_of(std::int64_t group) const {
    return group_begin_[static_cast<std::size_t>(group) + 1] - group_begin_[static_cast<std::size_t>(group)];
  }
  // Where row r of the group stands among the rows given.
  [[nodiscard]] std::size_t index(std::int64_t group, std::int64_t r) const {
    return static_cast<std::size_t>(
        order_[static_cast<std::size_t>(group_begin_[static_cast<std::size_t>(group)] + r)]);
  }
  [[nodiscard]] const RowId& row(std::int64_t group, std::int64_t r) const { return rows_[index(group, r)]; }

  [[nodiscard]] Scratch scratch() const {
    const Sizes& size = formula_.size;
    const auto n = static_cast<std::size_t>(group_rows_);
    Scratch w;
    w.q.resize(n * static_cast<std::size_t>(size.head_dim));
    w.weights.resize(n * static_cast<std::size_t>(size.seq_kv));
    w.out.resize(n * static_cast<std::size_t>(size.head_dim_v));
    w.ranges.resize(n);
    w.statistics.resize(n);
    w.block.resize(static_cast<std::size_t>(kKeyBlock * std::max(size.head_dim, size.head_dim_v)));
    w.dots.resize(n * static_cast<std::size_t>(kKeyBlock));
    w.kept.resize(static_cast<std::size_t>(kKeyBlock));
    return w;
  }

  // Probabilities of the group's rows, and what softmax leaves.
  void find_weights(std::int64_t group, Scratch& w) const {
    const Sizes& size = formula_.size;
    const std::int64_t count = rows_of(group);
    w.keys = {size.seq_kv, 0};
    for (std::int64_t r = 0; r < count; ++r) {
      const RowId& id = row(group, r);
      const Range range = formula_.visible(id.batch, id.query);
      w.ranges[static_cast<std::size_t>(r)] = range;
      if (range.begin < range.end)
        w.keys = {std::min(w.keys.begin, range.begin), std::max(w.keys.end, range.end)};
      formula_.convert_query(formula_.args.q, id, w.q.data() + r * size.head_dim);
    }
    find_scores(group, w);
    for (std::int64_t r = 0; r < count; ++r) {
      const Range range = w.ranges[static_cast<std::size_t>(r)];
      w.statistics[static_cast<std::size_t>(r)] = formula_.softmax(
          row(group, r).head, w.weights.data() + r * size.seq_kv + range.begin, range.end - range.begin);
    }
  }

  // out = weights V after dropout, rounded. After find_weights().
  void sum_values(std::int64_t group, Scratch& w) const {
    const std::int64_t count = rows_of(group);
    const std::int64_t channels = formula_.size.head_dim_v;
    const RowId& lead = row(group, 0);
    std::fill_n(w.out.begin(), count * channels, Real{0});
    for (std::int64_t j0 = w.keys.begin; j0 < w.keys.end; j0 += kKeyBlock) {
      const std::int64_t j1 = std::min(j0 + kKeyBlock, w.keys.end);
      convert_keys(formula_.args.v, formula_.sequence(lead.batch), lead.head / formula_.shared(), j0, j1,
                   false, w.block.data());
      for (std::int64_t r = 0; r < count; ++r) {
        const Range keys = w.within(r, j0, j1);
        const Real* weights = w.weights.data() + r * formula_.size.seq_kv + keys.begin;
        const Real* kept = formula_.drops() ? drop(row(group, r), keys, weights, w) : weights;
        add_weighted(kept, weights, 1, w.block.data() + (keys.begin - j0) * channels, keys.end - keys.begin,
                     channels, w.out.data() + r * channels);
      }
    }
    for (std::int64_t i = 0; i < count * channels; ++i) {
      Real& value = w.out[static_cast<std::size_t>(i)];
      value = rounded<Real, Store>(value);
    }
  }

 private:
  // The weights of one row that dropout leaves, in w.kept.
  const Real* drop(const RowId& id, Range keys, const Real* weights, Scratch& w) const {
    DropoutRow dropout = formula_.dropout_row(id);
    for (std::int64_t j = keys.begin; j < keys.end; ++j)
      w.kept[static_cast<std::size_t>(j - keys.begin)] =
          formula_.dropped(weights[j - keys.begin], dropout.factor(j));
    return w.kept.data();
  }

  void find_scores(std::int64_t group, Scratch& w) const {
    const Sizes& size = formula_.size;
    const std::int64_t count = rows_of(group);
    const RowId& lead = row(group, 0);
    for (std::int64_t j0 = w.keys.begin; j0 < w.keys.end; j0 += kKeyBlock) {
      const std::int64_t j1 = std::min(j0 + kKeyBlock, w.keys.end);
      convert_keys(formula_.args.k, formula_.sequence(lead.batch), lead.head / formula_.shared(), j0, j1,
                   true, w.block.data());
      dot_block(w.q.data(), count, w.block.data(), size.head_dim, w.dots.data());
      for (std::int64_t r = 0; r < count; ++r) {
        const Range keys = w.within(r, j0, j1);
        const Real* dots = w.dots.data() + r * kKeyBlock - j0;
        Real* scores = w.weights.data() + r * size.seq_kv;
        for (std::int64_t j = keys.begin; j < keys.end; ++j)
          scores[j] = formula_.score(row(group, r), j, dots[j]);
      }
    }
  }

  // Sorted by (batch, kv head, query) and cut where K and V change or a group is full.
  void make_groups(int threads) {
    order_.resize(rows_.size());
    std::iota(order_.begin(), order_.end(), std::int64_t{0});
    const auto key = [&](std::int64_t i) {
      const RowId& row = rows_[static_cast<std::size_t>(i)];
      return std::array<std::int64_t, 4>{row.batch, row.head / formula_.shared(), row.query, row.head};
    };
    std::sort(order_.begin(), order_.end(), [&](std::int64_t a, std::int64_t b) { return key(a) < key(b); });
    const auto total = static_cast<std::int64_t>(rows_.size());
    group_rows_ = std::clamp(total / (4 * threads), std::int64_t{4}, kMostRows);
    group_rows_ = std::min(
        group_rows_,
        std::max(std::int64_t{4}, kScoresPerWorker / std::max<std::int64_t>(formula_.size.seq_kv, 1)));
    for (std::int64_t i = 0; i < total; ++i) {
      const auto here = key(order_[static_cast<std::size_t>(i)]);
      const bool full = !group_begin_.empty() && i - group_begin_.back() >= group_rows_;
      const auto before = i > 0 ? key(order_[static_cast<std::size_t>(i - 1)]) : here;
      if (i == 0 || full || here[0] != before[0] || here[1] != before[1]) group_begin_.push_back(i);
    }
    group_begin_.push_back(total);
  }

  static constexpr std::int64_t kMostRows = 64;  // of a group
  static constexpr std::int64_t kScoresPerWorker = std::int64_t{1} << 20;

  const Formula<Real, Store>& formula_;
  std::span<const RowId> rows_;
  std::vector<std::int64_t> order_;        // rows, those that share K and V side by side
  std::vector<std::int64_t> group_begin_;  // in order_; one more than there are groups
  std::int64_t group_rows_ = 1;
};

}  // namespace headwise::oracle
