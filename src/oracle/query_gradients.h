// The side of the queries of backward: delta = rowsum(out * dout) of groups of rows, and dS block by block.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "oracle/query_rows.h"

namespace headwise::oracle {

template <class Real, class Store>
class QueryGradients {
 public:
  using Groups = QueryRows<Real, Store>;
  struct Scratch {
    typename Groups::Scratch rows;
    std::vector<std::int64_t> wanted;  // rows of the group whose dS is wanted
    std::vector<Real> dout;            // [wanted, head_dim_v]
    std::vector<Real> slopes;          // [wanted, kKeyBlock]: dP, then what find_slopes() gives
    std::vector<Real> deltas;          // of all rows of the group
  };

  QueryGradients(const Formula<Real, Store>& formula, std::span<const RowId> rows, int threads)
      : formula_(formula), groups_(formula, rows, threads) {}

  [[nodiscard]] const Groups& groups() const { return groups_; }

  [[nodiscard]] Scratch scratch() const {
    const auto n = static_cast<std::size_t>(groups_.most_rows());
    Scratch w;
    w.rows = groups_.scratch();
    w.wanted.reserve(n);
    w.dout.resize(n * static_cast<std::size_t>(formula_.size.head_dim_v));
    w.slopes.resize(n * static_cast<std::size_t>(kKeyBlock));
    w.deltas.resize(n);
    return w;
  }

  // Weights, statistics and deltas of the group's rows; those below `limit` among the rows given are wanted.
  void find_deltas(std::int64_t group, std::size_t limit, Scratch& w) const {
    groups_.find_weights(group, w.rows);
    groups_.sum_values(group, w.rows);
    w.wanted.clear();
    const std::int64_t channels = formula_.size.head_dim_v;
    for (std::int64_t r = 0; r < groups_.rows_of(group); ++r) {
      Real* dout = w.dout.data() + static_cast<std::int64_t>(w.wanted.size()) * channels;
      formula_.convert_query(formula_.args.dout, groups_.row(group, r), dout);
      // From the last channel on, unlike dP: where one key has all the weight the two are equal, and summed
      // alike they would cancel without the rounding errors that any other way of computing them has.
      Real delta = 0;
      for (std::int64_t x = channels - 1; x >= 0; --x)
        delta += w.rows.out[static_cast<std::size_t>(r * channels + x)] * dout[x];
      w.deltas[static_cast<std::size_t>(r)] = delta;
      if (groups_.index(group, r) < limit) w.wanted.push_back(r);
    }
  }

  enum class Of : std::uint8_t { scores, products };  // products: scale * q k, below the softcap

  // The gradients of wanted rows at the keys [j0, j1), one block: in w.slopes, where a key takes part.
  void find_slopes(std::int64_t group, std::int64_t j0, std::int64_t j1, Of of, Scratch& w) const {
    const AttentionArgs& args = formula_.args;
    const auto wanted = static_cast<std::int64_t>(w.wanted.size());
    const RowId& lead = groups_.row(group, 0);
    const Sequence& sequence = formula_.sequence(lead.batch);
    const std::int64_t kv_head = lead.head / formula_.shared();
    const bool needs_dots = of == Of::products && formula_.problem.softcap != 0;
    if (needs_dots) {
      convert_keys(args.k, sequence, kv_head, j0, j1, true, w.rows.block.data());
      dot_block(w.rows.q.data(), groups_.rows_of(group), w.rows.block.data(), formula_.size.head_dim,
                w.rows.dots.data());
    }
    convert_keys(args.v, sequence, kv_head, j0, j1, true, w.rows.block.data());
    dot_block(w.dout.data(), wanted, w.rows.block.data(), formula_.size.head_dim_v, w.slopes.data());
    for (std::int64_t n = 0; n < wanted; ++n) {
      const std::int64_t r = w.wanted[static_cast<std::size_t>(n)];
      const Range keys = w.rows.within(r, j0, j1);
      const Real* weights = weights_of(r, w);
      const Real* dots = w.rows.dots.data() + r * kKeyBlock - j0;
      const Real delta = w.deltas[static_cast<std::size_t>(r)];
      Real* slopes = w.slopes.data() + n * kKeyBlock - j0;
      if (formula_.drops()) {
        DropoutRow dropout = formula_.dropout_row(groups_.row(group, r));
        for (std::int64_t j = keys.begin; j < keys.end; ++j)
          slopes[j] = formula_.dropped(slopes[j], dropout.factor(j));
      }
      for (std::int64_t j = keys.begin; j < keys.end; ++j) {
        if (!takes_part(weights[j])) continue;
        slopes[j] = of == Of::scores
                        ? rounded<Real, Store>(formula_.score_gradient(weights[j], slopes[j], delta))
                        : formula_.product_gradient(weights[j], slopes[j], delta, needs_dots ? dots[j] : 0);
      }
    }
  }

  // Of row r of the group, by key.
  [[nodiscard]] const Real* weights_of(std::int64_t r, const Scratch& w) const {
    return w.rows.weights.data() + r * formula_.size.seq_kv;
  }

 private:
  const Formula<Real, Store>& formula_;
  Groups groups_;
};

}  // namespace headwise::oracle
