// Captured tensors as inputs; the files themselves are tools/capture_qkv.py's.
#pragma once

#include "headwise/attention.h"
#include "lab/inputs.h"

namespace headwise::lab {

// Writes the prefix of the captured layer that the problem asks for into q, k and v of host_args.
Status fill_captured(const AttentionArgs& host_args, const AttentionProblem& problem, const InputSpec& spec);

}  // namespace headwise::lab
