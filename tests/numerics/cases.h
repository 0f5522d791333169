// The cases every kernel is verified on: problems as text, so that a failure prints a line that
// `headwise verify` and parse_problem() take.
#pragma once

#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "lab/inputs.h"

namespace headwise::numerics {

struct Case {
  AttentionProblem problem;
  lab::InputSpec inputs;
};

// For kernels of this dtype: edges by hand, then a seeded sample of all combinations of the axes.
std::vector<Case> cases(DType dtype);

// One line to find the case again.
std::string to_string(const Case& c);

}  // namespace headwise::numerics
