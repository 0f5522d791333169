// Arguments of a call against the plan that shall run them.
#pragma once

#include "headwise/attention.h"

namespace headwise {

// Checks the tensors as make_problem does, that they live on `device`, and that they are the
// planned problem at the same or smaller sizes: batch, seq_q, seq_kv, total_q, total_kv and pages
// may shrink, pointer_alignment may only grow, all else is equal. What tensors do not tell
// (causal, scale, threads ...) comes from the plan. On success `actual` is the problem of this
// call and nothing was allocated.
Status check_arguments(const AttentionArgs& args, const AttentionProblem& planned, DeviceId device,
                       AttentionProblem& actual);

// make_problem without validate(), which plan() calls on every problem that it has not seen: the tensors are
// checked in full, the options only as far as tensors need.
Status describe_call(const AttentionArgs& args, const AttentionOptions& options, AttentionProblem& problem);

}  // namespace headwise
