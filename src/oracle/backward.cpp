// The gradients of q, k and v of oracle.h. First the rows of queries: what softmax leaves of each, delta, and
// dq of those that are named. Then blocks of keys: P and dS of every query that sees them, once more, summed
// into dk and dv. Sums run over channels, keys, heads and queries in order, so no result depends on threads
// or on the company of rows.
#include <algorithm>
#include <array>
#include <cstddef>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "core/parallel_for.h"
#include "core/try.h"
#include "oracle/checks.h"
#include "oracle/query_gradients.h"

namespace headwise::oracle {
namespace {

constexpr std::int64_t kQueryBlock = 32;

template <class Real>
struct QueryStatistics {
  RowStatistics<Real> softmax;
  Real delta = 0;
};

template <class Real, class Store>
class Backward {
 public:
  Backward(const AttentionArgs& args, const AttentionProblem& problem, const GradientRows& rows)
      : formula_(args, problem), size_(formula_.size), named_(rows) {}

  [[nodiscard]] const Formula<Real, Store>& formula() const { return formula_; }

  Gradients run(int threads) {
    gradients_.dq.assign(named_.queries.size() * count_of(size_.head_dim), 0);
    gradients_.dk.assign(named_.keys.size() * count_of(size_.head_dim), 0);
    gradients_.dv.assign(named_.keys.size() * count_of(size_.head_dim_v), 0);
    make_key_blocks();
    find_needed_queries();
    run_queries(threads);
    run_keys(threads);
    return std::move(gradients_);
  }

 private:
  using Queries = QueryGradients<Real, Store>;
  struct QueryScratch {
    typename Queries::Scratch gradients;
    std::vector<Real> keys, dq;
  };
  struct KeyScratch {
    std::vector<Real> k, v;  // a block of keys, transposed
    std::vector<RowId> ids;  // a block of queries
    std::vector<Range> ranges;
    std::vector<Real> q, dout, dots, products, weights, slopes, dk, dv;
  };
  struct KeyBlock {
    std::int64_t first, count;  // in key_order_
  };

  static std::size_t count_of(std::int64_t n) { return static_cast<std::size_t>(n); }
  [[nodiscard]] const KeyRowId& key_row(std::int64_t i) const { return named_.keys[key_order_[count_of(i)]]; }
  [[nodiscard]] std::int64_t& head_slot(std::int64_t batch, std::int64_t head) {
    return head_slots_[count_of(batch * size_.heads + head)];
  }
  // Where a query's statistics are kept; null for heads whose keys nobody named.
  [[nodiscard]] QueryStatistics<Real>* statistics(const RowId& row) {
    const std::int64_t slot = head_slot(row.batch, row.head);
    return slot < 0 ? nullptr : &statistics_[count_of(slot * size_.seq_q + row.query)];
  }

  // Named keys of one (batch, kv head), ascending, at most kKeyBlock.
  void make_key_blocks() {
    key_order_.resize(named_.keys.size());
    for (std::size_t i = 0; i < key_order_.size(); ++i) key_order_[i] = i;
    const auto place = [&](std::size_t i) {
      const KeyRowId& row = named_.keys[i];
      return std::array<std::int64_t, 3>{row.batch, row.kv_head, row.key};
    };
    std::sort(key_order_.begin(), key_order_.end(),
              [&](std::size_t a, std::size_t b) { return place(a) < place(b); });
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(key_order_.size()); ++i) {
      const KeyRowId& row = key_row(i);
      const bool same = !key_blocks_.empty() && key_row(key_blocks_.back().first).batch == row.batch &&
                        key_row(key_blocks_.back().first).kv_head == row.kv_head;
      if (!same || key_blocks_.back().count == kKeyBlock) key_blocks_.push_back({i, 0});
      ++key_blocks_.back().count;
    }
  }

  // The named rows of queries, and all others that see a named key.
  void find_needed_queries() {
    queries_ = named_.queries;
    head_slots_.assign(count_of(size_.batch * size_.heads), -1);
    std::int64_t slots = 0;
    for (const KeyBlock& block : key_blocks_) {
      const KeyRowId& row = key_row(block.first);
      for (std::int64_t h = 0; h < formula_.shared(); ++h) {
        std::int64_t& slot = head_slot(row.batch, row.kv_head * formula_.shared() + h);
        if (slot < 0) slot = slots++;
      }
    }
    statistics_.resize(count_of(slots * size_.seq_q));
    std::vector<bool> taken(statistics_.size(), false);
    const auto index = [&](const RowId& row) { return statistics(row) - statistics_.data(); };
    for (const RowId& row : named_.queries) {
      if (statistics(row) != nullptr) taken[count_of(index(row))] = true;
    }
    for (const KeyBlock& block : key_blocks_) {
      const KeyRowId& lead = key_row(block.first);
      for (std::int64_t h = 0; h < formula_.shared(); ++h) {
        for (std::int64_t query = 0; query < formula_.sequence(lead.batch).queries; ++query) {
          const RowId row{lead.batch, lead.kv_head * formula_.shared() + h, query};
          if (!sees(formula_.visible(lead.batch, query), block) || taken[count_of(index(row))]) continue;
          taken[count_of(index(row))] = true;
          queries_.push_back(row);
        }
      }
    }
  }

  [[nodiscard]] bool sees(Range range, const KeyBlock& block) const {
    return range.begin <= key_row(block.first + block.count - 1).key && range.end > key_row(block.first).key;
  }

  void run_queries(int threads) {
    if (queries_.empty()) return;
    const Queries& queries = query_gradients_.emplace(formula_, queries_, threads);
    threads = static_cast<int>(std::min<std::int64_t>(threads, queries.groups().groups()));
    // Memory here: an exception must not leave a thread of parallel_for.
    query_scratch_.clear();
    for (int worker = 0; worker < threads; ++worker) {
      QueryScratch w;
      w.gradients = queries.scratch();
      w.keys.resize(count_of(kKeyBlock * size_.head_dim));
      w.dq.resize(count_of(queries.groups().most_rows() * size_.head_dim));
      query_scratch_.push_back(std::move(w));
    }
    core::parallel_for(
        queries.groups().groups(), threads,
        [](void* context, std::int64_t group, int worker) {
          auto& self = *static_cast<Backward*>(context);
          self.run_group(group, self.query_scratch_[count_of(worker)]);
        },
        this);
  }

  void run_group(std::int64_t group, QueryScratch& w) {
    const auto& groups = query_gradients_->groups();
    query_gradients_->find_deltas(group, named_.queries.size(), w.gradients);
    for (std::int64_t r = 0; r < groups.rows_of(group); ++r) {
      if (QueryStatistics<Real>* kept = statistics(groups.row(group, r)); kept != nullptr)
        *kept = {w.gradients.rows.statistics[count_of(r)], w.gradients.deltas[count_of(r)]};
    }
    if (!w.gradients.wanted.empty()) sum_dq(group, w);
  }

  void sum_dq(std::int64_t group, QueryScratch& w) {
    const auto& groups = query_gradients_->groups();
    const auto wanted = static_cast<std::int64_t>(w.gradients.wanted.size());
    const RowId& lead = groups.row(group, 0);
    const Range seen = w.gradients.rows.keys;
    std::fill(w.dq.begin(), w.dq.end(), Real{0});
    for (std::int64_t j0 = seen.begin; j0 < seen.end; j0 += kKeyBlock) {
      const std::int64_t j1 = std::min(j0 + kKeyBlock, seen.end);
      query_gradients_->find_slopes(group, j0, j1, Queries::Of::products, w.gradients);
      convert_keys(formula_.args.k, formula_.sequence(lead.batch), lead.head / formula_.shared(), j0, j1,
                   false, w.keys.data());
      for (std::int64_t n = 0; n < wanted; ++n) {
        const std::int64_t r = w.gradients.wanted[count_of(n)];
        const Range keys = w.gradients.rows.within(r, j0, j1);
        const Real* slopes = w.gradients.slopes.data() + n * kKeyBlock - j0;
        add_weighted(slopes + keys.begin, query_gradients_->weights_of(r, w.gradients) + keys.begin, 1,
                     w.keys.data() + (keys.begin - j0) * size_.head_dim, keys.end - keys.begin,
                     size_.head_dim, w.dq.data() + n * size_.head_dim);
      }
    }
    for (std::int64_t n = 0; n < wanted; ++n) {
      const std::size_t index = groups.index(group, w.gradients.wanted[count_of(n)]);
      store_row(w.dq.data() + n * size_.head_dim, formula_.scale, formula_.args.q, index, gradients_.dq);
    }
  }

  void store_row(const Real* sums, Real factor, const TensorView& like, std::size_t index,
                 std::vector<double>& to) const {
    const std::size_t channels = count_of(like.shape[3]);
    for (std::size_t c = 0; c < channels; ++c)
      to[index * channels + c] = stored_as<Real>(factor * sums[c], like.dtype);
  }

  void run_keys(int threads) {
    if (key_blocks_.empty()) return;
    const auto blocks = static_cast<std::int64_t>(key_blocks_.size());
    threads = static_cast<int>(std::min<std::int64_t>(threads, blocks));
    const std::size_t d = count_of(size_.head_dim), dv = count_of(size_.head_dim_v);
    key_scratch_.clear();
    for (int worker = 0; worker < threads; ++worker) {
      KeyScratch w;
      w.k.resize(kKeyBlock * d);
      w.v.resize(kKeyBlock * dv);
      w.ids.reserve(kQueryBlock);
      w.ranges.reserve(kQueryBlock);
      w.q.resize(kQueryBlock * d);
      w.dout.resize(kQueryBlock * dv);
      for (auto* pairs : {&w.dots, &w.products, &w.weights, &w.slopes})
        pairs->resize(kQueryBlock * kKeyBlock);
      w.dk.resize(kKeyBlock * d);
      w.dv.resize(kKeyBlock * dv);
      key_scratch_.push_back(std::move(w));
    }
    core::parallel_for(
        blocks, threads,
        [](void* context, std::int64_t block, int worker) {
          auto& self = *static_cast<Backward*>(context);
          self.run_block(self.key_blocks_[count_of(block)], self.key_scratch_[count_of(worker)]);
        },
        this);
  }

  void run_block(const KeyBlock& block, KeyScratch& w) {
    const AttentionArgs& args = formula_.args;
    const KeyRowId& lead = key_row(block.first);
    const Sequence& sequence = formula_.sequence(lead.batch);
    for (std::int64_t n = 0; n < block.count; ++n) {
      const std::int64_t key = key_row(block.first + n).key;
      if (!sequence.uses(key)) continue;  // nobody sees it; its page may not exist
      convert_keys(args.k, sequence, lead.kv_head, key, key + 1, true, w.k.data() + n);
      convert_keys(args.v, sequence, lead.kv_head, key, key + 1, true, w.v.data() + n);
    }
    std::fill(w.dk.begin(), w.dk.end(), Real{0});
    std::fill(w.dv.begin(), w.dv.end(), Real{0});
    for (std::int64_t h = 0; h < formula_.shared(); ++h) {
      for (std::int64_t query = 0; query < sequence.queries; ++query) {
        const RowId row{lead.batch, lead.kv_head * formula_.shared() + h, query};
        const Range range = formula_.visible(lead.batch, query);
        if (!sees(range, block) || !takes_part(statistics(row)->softmax.lse)) continue;
        const auto r = static_cast<std::int64_t>(w.ids.size());
        w.ids.push_back(row);
        w.ranges.push_back(range);
        formula_.convert_query(args.q, row, w.q.data() + r * size_.head_dim);
        formula_.convert_query(args.dout, row, w.dout.data() + r * size_.head_dim_v);
        if (r + 1 == kQueryBlock) add_queries(block, w);
      }
    }
    add_queries(block, w);
    for (std::int64_t n = 0; n < block.count; ++n) {
      const std::size_t index = key_order_[count_of(block.first + n)];
      store_row(w.dk.data() + n * size_.head_dim, formula_.scale, args.k, index, gradients_.dk);
      store_row(w.dv.data() + n * size_.head_dim_v, Real{1}, args.v, index, gradients_.dv);
    }
  }

  // dv += P^T dout, P after dropout, and dk += dS^T q for the queries gathered in w, which are then
  // forgotten.
  void add_queries(const KeyBlock& block, KeyScratch& w) {
    const auto count = static_cast<std::int64_t>(w.ids.size());
    dot_block(w.q.data(), count, w.k.data(), size_.head_dim, w.dots.data());
    dot_block(w.dout.data(), count, w.v.data(), size_.head_dim_v, w.products.data());
    for (std::int64_t r = 0; r < count; ++r) {
      const RowId& row = w.ids[count_of(r)];
      const Range range = w.ranges[count_of(r)];
      const QueryStatistics<Real>& kept = *statistics(row);
      DropoutRow dropout = formula_.dropout_row(row);
      for (std::int64_t n = 0; n < block.count; ++n) {
        const std::size_t pair = count_of(r * kKeyBlock + n);
        const std::int64_t key = key_row(block.first + n).key;
        const bool visible = key >= range.begin && key < range.end;
        Real weight = visible ? formula_.score(row, key, w.dots[pair]) : static_cast<Real>(-kInfinity);
        if (takes_part(weight)) {
          weight = formula_.probability(weight, kept.softmax);
          const double factor = formula_.drops() ? dropout.factor(key) : 1;
          const Real product =
              formula_.drops() ? formula_.dropped(w.products[pair], factor) : w.products[pair];
          w.slopes[pair] = formula_.product_gradient(weight, product, kept.delta, w.dots[pair]);
          if (formula_.drops()) weight = formula_.dropped(weight, factor);
        }
        w.weights[pair] = weight;
      }
    }
    for (std::int64_t n = 0; n < block.count; ++n) {
      const Real* weights = w.weights.data() + n;
      add_weighted(w.slopes.data() + n, weights, kKeyBlock, w.q.data(), count, size_.head_dim,
                   w.dk.data() + n * size_.head_dim);
      add_weighted(weights, weights, kKeyBlock, w.dout.data(), count, size_.head_dim_v,
                   w.dv.data() + n * size_.head_dim_v);
    }
    w.ids.clear();
    w.ranges.clear();
  }

  const Formula<Real, Store> formula_;
  const Sizes& size_;
  const GradientRows& named_;
  Gradients gradients_;
  std::vector<RowId> queries_;  // those named, then those that named keys need
  std::vector<std::size_t> key_order_;
  std::vector<KeyBlock> key_blocks_;
  std::vector<std::int64_t> head_slots_;           // [batch, heads]: place in statistics_, or -1
  std::vector<QueryStatistics<Real>> statistics_;  // [slots, seq_q]
  std::optional<Queries> query_gradients_;
  std::vector<QueryScratch> query_scratch_;
  std::vector<KeyScratch> key_scratch_;
};

template <class Real, class Store>
Result<Gradients> compute(const AttentionArgs& args, const AttentionProblem& problem,
                          const GradientRows& rows, int threads) {
  try {
    HEADWISE_TRY(check_problem(args, problem, Direction::backward));
    Backward<Real, Store> gradients(args, problem, rows);
    const Formula<Real, Store>& formula = gradients.formula();
    HEADWISE_TRY(check_rows(formula.sequences, formula.size, rows.queries));
    HEADWISE_TRY(check_key_rows(formula.sequences, formula.size, rows.keys));
    return gradients.run(threads);
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory("oracle: no memory for the gradients of " +
                                 std::to_string(rows.queries.size()) + " queries and " +
                                 std::to_string(rows.keys.size()) + " keys");
  }
}

}  // namespace

Result<Gradients> backward(const AttentionArgs& args, const AttentionProblem& problem,
                           const GradientRows& rows, int threads) {
  return compute<double, double>(args, problem, rows, threads);
}

Result<Gradients> plain_backward(const AttentionArgs& args, const AttentionProblem& problem,
                                 const GradientRows& rows, int threads) {
  return in_plain_arithmetic<Gradients>(
      args.q.dtype, [&]<class Store>() { return compute<float, Store>(args, problem, rows, threads); });
}

}  // namespace headwise::oracle
