// Writes the planted keys that plants() (inputs.h) chooses into K and V.
#pragma once

#include <span>

#include "headwise/attention.h"
#include "lab/inputs.h"

namespace headwise::lab {

// Host tensors; `planted` ordered by (sequence, kv head), as plants() returns them.
//
// The K row becomes a * q, with q the query of the plant's row and a such that the row's score is 2
// above the logarithm of the summed exponentials of its other keys (estimated from 256 of them, as
// they were before planting; structured inputs add those that stand out): alone it gets e^2 / (1 + e^2) =
// 0.88 of the row. Each further key of the same row gets 0.25 less, so that no two are equal. |a * q| stays
// at or below 16, for the sake of f16. The V row is doubled.
void plant_values(const AttentionArgs& host_args, const AttentionProblem& problem, const InputSpec& spec,
                  std::span<const Plant> planted);

}  // namespace headwise::lab
