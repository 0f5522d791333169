// The formula, row by row: scores of the visible keys, softmax, weighted sum of V.
#include <cmath>
#include <new>
#include <string>

#include "core/parallel_for.h"
#include "core/try.h"
#include "oracle/checks.h"
#include "oracle/query_rows.h"

namespace headwise::oracle {
namespace {

template <class Real, class Store>
struct Forward {
  using Groups = QueryRows<Real, Store>;
  const Groups& rows;
  Rows& results;
  std::int64_t channels;
  std::vector<typename Groups::Scratch> scratch;

  static void run_group(void* context, std::int64_t group, int worker) {
    auto& self = *static_cast<Forward*>(context);
    auto& w = self.scratch[static_cast<std::size_t>(worker)];
    self.rows.find_weights(group, w);
    self.rows.sum_values(group, w);
    for (std::int64_t r = 0; r < self.rows.rows_of(group); ++r) {
      const std::size_t index = self.rows.index(group, r);
      self.results.lse[index] = w.statistics[static_cast<std::size_t>(r)].lse;
      const auto n = static_cast<std::size_t>(self.channels);
      for (std::size_t x = 0; x < n; ++x)
        self.results.out[index * n + x] = w.out[static_cast<std::size_t>(r) * n + x];
    }
  }
};

template <class Real, class Store>
Result<Rows> compute(const AttentionArgs& args, const AttentionProblem& problem, std::span<const RowId> rows,
                     int threads) {
  try {
    HEADWISE_TRY(check_problem(args, problem, Direction::forward));
    const Formula<Real, Store> formula(args, problem);
    HEADWISE_TRY(check_rows(formula.sequences, formula.size, rows));
    Rows results;
    results.out.assign(rows.size() * static_cast<std::size_t>(formula.size.head_dim_v), 0);
    results.lse.assign(rows.size(), -kInfinity);
    if (rows.empty()) return results;
    const QueryRows<Real, Store> groups(formula, rows, threads);
    threads = static_cast<int>(std::min<std::int64_t>(threads, groups.groups()));
    // Memory here: an exception must not leave a thread of parallel_for.
    Forward<Real, Store> forward{groups, results, formula.size.head_dim_v, {}};
    for (int worker = 0; worker < threads; ++worker) forward.scratch.push_back(groups.scratch());
    core::parallel_for(groups.groups(), threads, Forward<Real, Store>::run_group, &forward);
    return results;
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory("oracle: no memory for " + std::to_string(rows.size()) + " rows of " +
                                 std::to_string(problem.seq_kv) + " keys");
  }
}

}  // namespace

Result<Rows> forward(const AttentionArgs& args, const AttentionProblem& problem, std::span<const RowId> rows,
                     int threads) {
  return compute<double, double>(args, problem, rows, threads);
}

Result<Rows> plain(const AttentionArgs& args, const AttentionProblem& problem, std::span<const RowId> rows,
                   int threads) {
  return in_plain_arithmetic<Rows>(
      args.q.dtype, [&]<class Store>() { return compute<float, Store>(args, problem, rows, threads); });
}

}  // namespace headwise::oracle
