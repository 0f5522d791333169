// Attention row by row from the formula: no score matrix, every head_dim, any strides, every feature. The
// portable fallback, so plain C++ without an instruction set. Two passes over the keys of a row,
// one for the maximum and one for the sums, need no workspace but a row of fp32 sums a worker.
#pragma once

#include <cmath>

#include "attention/kernel.h"
#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/scalar/naive/score.h"
#include "cpu/schedule.h"

namespace headwise::cpu::scalar {

struct NaiveCall {
  const AttentionArgs& args;
  const AttentionProblem& p;
  unsigned char* workspace;

  [[nodiscard]] std::size_t worker_bytes() const {
    return line_up(static_cast<std::size_t>(p.head_dim_v) * sizeof(float));
  }
};

// The keys' part of the denominator, where `sum` is that of their weights exp(score - peak) and the sink has
// the rest. The larger of peak and sink is the reference, so that neither exponential overflows.
inline float keys_share(float sum, float peak, float sink) noexcept {
  if (sink <= peak) return sum / (sum + std::exp(sink - peak));
  const float smaller = sum * std::exp(peak - sink);
  return smaller / (smaller + 1);
}

template <class T>
void naive_row(const NaiveCall& call, QueryRow<T>& row, float* sums) {
  const AttentionArgs& args = call.args;
  const AttentionProblem& p = call.p;
  const KeyRange keys = row.keys();
  float peak = kMinusInfinity;
  for (std::int64_t j = keys.begin; j < keys.end; ++j) {
    const float s = row.score(j).value;
    if (s > peak || std::isnan(s)) peak = s;
  }
  float sum = 0;
  for (std::int64_t d = 0; d < p.head_dim_v; ++d) sums[d] = 0;
  if (peak != kMinusInfinity) {
    for (std::int64_t j = keys.begin; j < keys.end; ++j) {
      const float s = row.score(j).value;
      if (s == kMinusInfinity) continue;
      const float weight = std::exp(s - peak);
      sum += weight;
      if (!row.kept(j)) continue;
      const T* v = row.key_row(args.v, j);
      for (std::int64_t d = 0; d < p.head_dim_v; ++d) sums[d] += weight * to_float(v[d]);
    }
  }
  T* out = row.row(args.out);
  const float share = p.sinks && peak != kMinusInfinity ? keys_share(sum, peak, row.sink()) : 1;
  const float factor = share * static_cast<float>(dropout_scale(p.dropout_p));
  for (std::int64_t d = 0; d < p.head_dim_v; ++d) {
    const float mean = sum != 0 ? sums[d] / sum : sums[d];
    out[d] = from_double<T>(mean * factor);
  }
  if (args.lse.present()) row.lse() = peak == kMinusInfinity ? kMinusInfinity : log_sum_exp(peak, 1, sum);
}

template <class T>
void naive_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const NaiveCall*>(context);
  const AttentionProblem& p = call.p;
  auto* sums =
      reinterpret_cast<float*>(call.workspace + static_cast<std::size_t>(worker) * call.worker_bytes());
  // Last queries first: with a causal mask they are the longest.
  const std::int64_t row = query_rows(p) - 1 - index / p.heads;
  const Place place = place_of_row(call.args, p, row);
  QueryRow<T> query(call.args, p, place, index % p.heads, place.query_of(p, row));
  naive_row(call, query, sums);
}

template <class T>
Status naive_run(const AttentionArgs& args, const RunContext& context) noexcept {
  NaiveCall call{args, context.problem, static_cast<unsigned char*>(context.workspace.data)};
  const AttentionProblem& p = context.problem;
  core::parallel_for(query_rows(p) * p.heads, context.threads, naive_task<T>, &call, context.executor);
  return {};
}

template <class T>
constexpr Traits naive_traits() {
  return {.algorithm = "naive",
          .isa = "scalar",
          .dtype = dtype_of<T>,
          .kv_dtype = dtype_of<T>,
          .nan_isolating = true};
}
inline constexpr Policy kNaivePolicies[] = {{"row", 1, 0}};

inline std::size_t naive_workspace(const AttentionProblem& p, const Policy& /*policy*/) {
  return line_up(static_cast<std::size_t>(p.head_dim_v) * sizeof(float)) *
         static_cast<std::size_t>(p.threads);
}

template <class T>
constexpr Kernel naive_kernel(std::string_view id) {
  return {id, naive_traits<T>(), kEveryFeature, kNaivePolicies, naive_workspace, naive_run<T>};
}

}  // namespace headwise::cpu::scalar
