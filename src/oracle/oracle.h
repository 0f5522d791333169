// Attention and its gradients in fp64, written as the formula: the specification in code. And *plain*: the
// same as anybody would write it in the tensors' own dtype, whose error sets the limit for kernels. Uses
// public headers and src/core alone, so that truth and kernels share no code.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "headwise/attention.h"

namespace headwise::oracle {

// One query row: out has head_dim_v values a row, dq head_dim. `batch` is the sequence, `query` the place
// within it, also where rows of several sequences are packed (cu_seqlens).
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
// `key` is the place within sequence `batch`; in a paged cache the place among all pages of the sequence, and
// what other sequences add to a page that they share is theirs. Keys not in use may be named: their gradients
// are 0.
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
// with P after dropout in O and dv, dP times what dropout multiplies P with, and for dq and dk dS times the
// slope of the softcap. Reads q, k, v, dout and the features' tensors; out and lse are
// computed anew. A pair (query, key) that is masked or scores -inf adds nothing to any gradient, whatever
// stands there. Key rows cost the whole attention of their heads.
Result<Gradients> backward(const AttentionArgs& args, const AttentionProblem& problem,
                           const GradientRows& rows, int threads);

// S, P, O, dP, dS and the gradients rounded to their tensors' dtype, sums in fp32, same rows.
Result<Gradients> plain_backward(const AttentionArgs& args, const AttentionProblem& problem,
                                 const GradientRows& rows, int threads);

struct ScoreGradients {
  std::vector<double> dbias;   // packed, with the shape of bias: dS summed over the axes that broadcast
  std::vector<double> dsinks;  // [heads]: of each row -P delta, with P the sink's share of the denominator
};

// The gradients of what joins the scores, for the whole problem; of a tensor that it does not name: empty.
Result<ScoreGradients> backward_scores(const AttentionArgs& args, const AttentionProblem& problem,
                                       int threads);

// Rounded as plain_backward rounds, the sums to the dtype of bias and sinks.
Result<ScoreGradients> plain_backward_scores(const AttentionArgs& args, const AttentionProblem& problem,
                                             int threads);

}  // namespace headwise::oracle
