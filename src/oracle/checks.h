// What the oracle takes, checked before it computes anything.
#pragma once

#include <span>

#include "oracle/oracle.h"

namespace headwise::oracle {

// Tensors, features and direction against each other; for backward dout as well.
Status check_problem(const AttentionArgs& args, const AttentionProblem& problem, Direction direction);
Status check_rows(const AttentionArgs& args, std::span<const RowId> rows);
Status check_key_rows(const AttentionArgs& args, std::span<const KeyRowId> rows);

}  // namespace headwise::oracle
