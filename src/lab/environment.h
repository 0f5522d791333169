// What the numbers depend on beside the kernels: machine, build, limits, load. Read from the machine, never
// assumed; a field that this machine does not tell says "unknown".
#pragma once

#include <string>

#include "lab/rows.h"

namespace headwise::lab {

struct EnvironmentOptions {
  bool host_name = false;  // opt-in: results are shared
};

Environment read_environment(const EnvironmentOptions& options = {});
// A new id and the record of this moment. `command` is the command line as typed.
Run start_run(std::string command, const EnvironmentOptions& options = {});

// What other programs may have done to the times of a run that began like this; empty where the load was low.
std::string load_note(const Environment& environment);

// Median step between different readings of the steady clock, in nanoseconds; measured at the first call.
double timer_step_ns();

// "0.1.0 (git 1a2b3c4, Release, GNU 12.2.0)".
std::string version_line();

}  // namespace headwise::lab
