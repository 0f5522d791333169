// What the oracle takes, checked before it computes anything.
#pragma once

#include <span>
#include <vector>

#include "oracle/oracle.h"
#include "oracle/sequences.h"

namespace headwise::oracle {

// Tensors, features and direction against each other; for backward dout as well. Index arrays are read.
Status check_problem(const AttentionArgs& args, const AttentionProblem& problem, Direction direction);
Status check_rows(const std::vector<Sequence>& sequences, const Sizes& size, std::span<const RowId> rows);
Status check_key_rows(const std::vector<Sequence>& sequences, const Sizes& size,
                      std::span<const KeyRowId> rows);

}  // namespace headwise::oracle
