// Attention row by row from the formula: no score matrix, every head_dim, any strides. The
// portable fallback, so plain C++ without an instruction set. Two passes over the keys of a row,
// one for the maximum and one for the sums, need no workspace but a row of fp32 sums a worker.
#pragma once

#include <cmath>
#include <limits>

#include "attention/kernel.h"
#include "attention/mask.h"
#include "core/parallel_for.h"
#include "cpu/schedule.h"

namespace headwise::cpu::scalar {

template <class T>
struct NaiveCall {
  const AttentionArgs& args;
  const AttentionProblem& p;
  unsigned char* workspace;

  [[nodiscard]] std::size_t worker_bytes() const {
    return line_up(static_cast<std::size_t>(p.head_dim_v) * sizeof(float));
  }
};

template <class T>
float score(const T* q, const T* k, std::int64_t head_dim, float scale) {
  float sum = 0;
  for (std::int64_t d = 0; d < head_dim; ++d) sum += to_float(q[d]) * to_float(k[d]);
  return sum * scale;
}

template <class T>
void naive_row(const NaiveCall<T>& call, std::int64_t batch, std::int64_t head, std::int64_t query,
               float* sums) {
  const AttentionArgs& args = call.args;
  const AttentionProblem& p = call.p;
  const std::int64_t kv_head = head / (p.heads / p.kv_heads);
  const T* q = args.q.as<const T>() + offset(args.q, batch, query, head);
  T* out = args.out.as<T>() + offset(args.out, batch, query, head);
  const KeyRange keys = key_range(p, query);
  const float scale = p.scale();
  const auto score_of = [&](std::int64_t key) {
    return score(q, args.k.as<const T>() + offset(args.k, batch, key, kv_head), p.head_dim, scale);
  };
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

  float peak = kMinusInfinity;
  for (std::int64_t j = keys.begin; j < keys.end; ++j) {
    const float s = score_of(j);
    if (s > peak || std::isnan(s)) peak = s;
  }
  float sum = 0;
  for (std::int64_t d = 0; d < p.head_dim_v; ++d) sums[d] = 0;
  if (peak != kMinusInfinity) {
    for (std::int64_t j = keys.begin; j < keys.end; ++j) {
      const float weight = std::exp(score_of(j) - peak);
      sum += weight;
      const T* row = args.v.as<const T>() + offset(args.v, batch, j, kv_head);
      for (std::int64_t d = 0; d < p.head_dim_v; ++d) sums[d] += weight * to_float(row[d]);
    }
  }
  for (std::int64_t d = 0; d < p.head_dim_v; ++d) out[d] = from_double<T>(sum != 0 ? sums[d] / sum : sums[d]);
  if (args.lse.present()) {
    args.lse
        .as<float>()[batch * args.lse.stride[0] + head * args.lse.stride[1] + query * args.lse.stride[2]] =
        peak == kMinusInfinity ? kMinusInfinity : peak + std::log(sum);
  }
}

template <class T>
void naive_task(void* context, std::int64_t index, int worker) {
  const auto& call = *static_cast<const NaiveCall<T>*>(context);
  const AttentionProblem& p = call.p;
  auto* sums =
      reinterpret_cast<float*>(call.workspace + static_cast<std::size_t>(worker) * call.worker_bytes());
  // Last queries first: with a causal mask they are the longest.
  const std::int64_t query = p.seq_q - 1 - index / (p.batch * p.heads);
  const std::int64_t plane = index % (p.batch * p.heads);
  naive_row(call, plane / p.heads, plane % p.heads, query, sums);
}

template <class T>
Status naive_run(const AttentionArgs& args, const RunContext& context) noexcept {
  NaiveCall<T> call{args, context.problem, static_cast<unsigned char*>(context.workspace.data)};
  const AttentionProblem& p = context.problem;
  core::parallel_for(p.batch * p.heads * p.seq_q, context.threads, naive_task<T>, &call, context.executor);
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

template <class T>
std::size_t naive_workspace(const AttentionProblem& p, const Policy& /*policy*/) {
  return line_up(static_cast<std::size_t>(p.head_dim_v) * sizeof(float)) *
         static_cast<std::size_t>(p.threads);
}

template <class T>
constexpr Kernel naive_kernel(std::string_view id) {
  return {id, naive_traits<T>(), {.window = true}, kNaivePolicies, naive_workspace<T>, naive_run<T>};
}

}  // namespace headwise::cpu::scalar
