// The gradients of bias and sinks of oracle.h. Rows of dS are computed in parallel and added one after the
// other, ascending, so no result depends on threads.
#include <algorithm>
#include <array>
#include <cstddef>
#include <new>
#include <utility>

#include "core/parallel_for.h"
#include "core/try.h"
#include "oracle/checks.h"
#include "oracle/query_gradients.h"

namespace headwise::oracle {
namespace {

template <class Real, class Store>
class ScoreSums {
 public:
  ScoreSums(const AttentionArgs& args, const AttentionProblem& problem) : formula_(args, problem) {}

  ScoreGradients run(int threads) {
    const Sizes& size = formula_.size;
    if (formula_.problem.bias) dbias_.resize(count_of(formula_.args.bias.elements()));
    if (formula_.problem.sinks) dsinks_.resize(count_of(size.heads));
    const auto most = count_of(std::max<std::int64_t>(1, kScores / std::max<std::int64_t>(size.seq_kv, 1)));
    for (std::int64_t b = 0; b < size.batch; ++b) {
      for (std::int64_t h = 0; h < size.heads; ++h) {
        for (std::int64_t i = 0; i < formula_.sequence(b).queries; ++i) {
          rows_.push_back({b, h, i});
          if (rows_.size() == most) add_rows(threads);
        }
      }
    }
    add_rows(threads);
    return {stored(dbias_, formula_.args.bias), stored(dsinks_, formula_.args.sinks)};
  }

 private:
  using Queries = QueryGradients<Real, Store>;
  static constexpr std::int64_t kScores = std::int64_t{1} << 22;  // held at once

  static std::size_t count_of(std::int64_t n) { return static_cast<std::size_t>(n); }

  // Sums as the tensor they are the gradient of stores them; truth stays as it is.
  static std::vector<double> stored(const std::vector<Real>& sums, const TensorView& like) {
    std::vector<double> values;
    values.reserve(sums.size());
    for (const Real sum : sums) values.push_back(stored_as<Real>(sum, like.dtype));
    return values;
  }

  // Adds the gradients of the rows gathered, which are then forgotten.
  void add_rows(int threads) {
    if (rows_.empty() || (dbias_.empty() && dsinks_.empty())) return rows_.clear();
    const Queries queries(formula_, rows_, threads);
    queries_ = &queries;
    threads = static_cast<int>(std::min<std::int64_t>(threads, queries.groups().groups()));
    slopes_.assign(dbias_.empty() ? 0 : rows_.size() * count_of(formula_.size.seq_kv), 0);
    sinks_.assign(rows_.size(), 0);
    // Memory here: an exception must not leave a thread of parallel_for.
    scratch_.clear();
    for (int worker = 0; worker < threads; ++worker) scratch_.push_back(queries.scratch());
    core::parallel_for(
        queries.groups().groups(), threads,
        [](void* context, std::int64_t group, int worker) {
          auto& self = *static_cast<ScoreSums*>(context);
          self.run_group(group, self.scratch_[count_of(worker)]);
        },
        this);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (!dbias_.empty()) add_bias(i);
      if (!dsinks_.empty()) dsinks_[count_of(rows_[i].head)] += sinks_[i];
    }
    rows_.clear();
  }

  void run_group(std::int64_t group, typename Queries::Scratch& w) {
    const auto& groups = queries_->groups();
    queries_->find_deltas(group, rows_.size(), w);
    for (std::int64_t r = 0; !dsinks_.empty() && r < groups.rows_of(group); ++r) {
      const RowStatistics<Real>& row = w.rows.statistics[count_of(r)];
      if (!takes_part(row.lse)) continue;
      const Real share = formula_.sink_weight(groups.row(group, r).head, row.largest) / row.sum;
      const Real weight = rounded<Real, Store>(share);
      sinks_[groups.index(group, r)] = -weight * w.deltas[count_of(r)];
    }
    const Range seen = dbias_.empty() ? Range{} : w.rows.keys;
    for (std::int64_t j0 = seen.begin; j0 < seen.end; j0 += kKeyBlock) {
      const std::int64_t j1 = std::min(j0 + kKeyBlock, seen.end);
      queries_->find_slopes(group, j0, j1, Queries::Of::scores, w);
      for (std::int64_t r = 0; r < groups.rows_of(group); ++r) {
        const Range keys = w.rows.within(r, j0, j1);
        const Real* weights = queries_->weights_of(r, w);
        const Real* slopes = w.slopes.data() + r * kKeyBlock - j0;
        Real* to = slopes_.data() + groups.index(group, r) * count_of(formula_.size.seq_kv);
        for (std::int64_t j = keys.begin; j < keys.end; ++j) {
          if (takes_part(weights[j])) to[j] = slopes[j];
        }
      }
    }
  }

  void add_bias(std::size_t i) {
    const RowId& row = rows_[i];
    const auto& shape = formula_.args.bias.shape;
    const std::int64_t b = shape[0] == 1 ? 0 : row.batch, h = shape[1] == 1 ? 0 : row.head;
    const std::int64_t query = shape[2] == 1 ? 0 : row.query;
    const std::int64_t keys = formula_.size.seq_kv;
    Real* to = dbias_.data() + ((b * shape[1] + h) * shape[2] + query) * keys;
    const Real* from = slopes_.data() + static_cast<std::int64_t>(i) * keys;
    for (std::int64_t j = 0; j < keys; ++j) to[j] += from[j];
  }

  const Formula<Real, Store> formula_;
  std::vector<Real> dbias_, dsinks_;
  std::vector<RowId> rows_;
  const Queries* queries_ = nullptr;  // of rows_
  std::vector<typename Queries::Scratch> scratch_;
  std::vector<Real> slopes_;  // [rows, seq_kv]
  std::vector<Real> sinks_;   // [rows]
};

template <class Real, class Store>
Result<ScoreGradients> compute(const AttentionArgs& args, const AttentionProblem& problem, int threads) {
  try {
    HEADWISE_TRY(check_problem(args, problem, Direction::backward));
    return ScoreSums<Real, Store>(args, problem).run(threads);
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory("oracle: no memory for the gradients of bias and sinks");
  }
}

}  // namespace

Result<ScoreGradients> backward_scores(const AttentionArgs& args, const AttentionProblem& problem,
                                       int threads) {
  return compute<double, double>(args, problem, threads);
}

Result<ScoreGradients> plain_backward_scores(const AttentionArgs& args, const AttentionProblem& problem,
                                             int threads) {
  return in_plain_arithmetic<ScoreGradients>(
      args.q.dtype, [&]<class Store>() { return compute<float, Store>(args, problem, threads); });
}

}  // namespace headwise::oracle
