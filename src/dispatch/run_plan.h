// Running a plan whose arguments were checked already.
#pragma once

#include "headwise/attention.h"

namespace headwise::dispatch {

// Plan::run for arguments that were just found to describe the plan's own problem, but for threads: they are
// not checked again.
Status run_checked(const Plan& plan, const AttentionArgs& args, const Execution& execution) noexcept;

}  // namespace headwise::dispatch
