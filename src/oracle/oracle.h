// Attention in fp64, written as the formula: the specification in code. And *plain*: attention as
// anybody would write it in the tensors' own dtype, whose error sets the limit for kernels.
// Uses public headers and src/core alone, so that truth and kernels share no code.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "headwise/attention.h"

namespace headwise::oracle {

// One query row: out has head_dim_v values a row.
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

}  // namespace headwise::oracle
