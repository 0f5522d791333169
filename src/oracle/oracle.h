// Attention and its gradients in fp64, written as the formula: the specification in code. And *plain*: the
// same as anybody would write it in the tensors' own dtype, whose error sets the limit for kernels. Uses
// public headers and src/core alone, so that truth and kernels share no code.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "headwise/attention.h"

namespace headwise::oracle {

// One query row: out has head_dim_v values a row, dq head_dim.
struct RowId {
  std::int64_t batch = 0, head = 0, query = 0;
};

struct Rows {
  std::vector<double> out;  // [rows, head_dim_v]
  std::vector<double> lse;  // [rows]; -inf for a row that sees no key
};

// The rows named, in fp64, from host tensors of any floating dtype and any strides. `threads` > 0.
// A row that sees no key, or only scores of -inf: out 0, lse -inf.
Result<Rows> forward(const AttentionArgs& args, const AttentionProblem& problem, std::span<const RowId> rows,
                     int threads);

// Scores, probabilities and output rounded to q's dtype, sums in fp32, same rows.
Result<Rows> plain(const AttentionArgs& args, const AttentionProblem& problem, std::span<const RowId> rows,
                   int threads);

// One row of keys: dk has head_dim values, dv head_dim_v, summed over all queries of the heads that share it.
struct KeyRowId {
  std::int64_t batch = 0, kv_head = 0, key = 0;
};

struct GradientRows {
  std::vector<RowId> queries;  // rows of dq
  std::vector<KeyRowId> keys;  // rows of dk and dv
};

struct Gradients {
  std::vector<double> dq;  // [queries, head_dim]
  std::vector<double> dk;  // [keys, head_dim]
  std::vector<double> dv;  // [keys, head_dim_v]
};

// The gradients of sum(out * dout) in the rows named. With P the probabilities, O = P V and S the scores:
//   dP = dout V^T, delta = rowsum(O * dout), dS = P * (dP - delta), dq = scale dS k, dk = scale dS^T q, dv =
//   P^T dout
// and dS times the slope of the softcap. Reads q, k, v, dout and the features' tensors; out and lse are
// computed anew. A pair (query, key) that is masked or scores -inf adds nothing to any gradient, whatever
// stands there. Key rows cost the whole attention of their heads.
Result<Gradients> backward(const AttentionArgs& args, const AttentionProblem& problem,
                           const GradientRows& rows, int threads);

// S, P, O, dP, dS and the gradients rounded to their tensors' dtype, sums in fp32, same rows.
Result<Gradients> plain_backward(const AttentionArgs& args, const AttentionProblem& problem,
                                 const GradientRows& rows, int threads);

}  // namespace headwise::oracle
