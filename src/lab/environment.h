// What the numbers depend on beside the kernels: machine, build, limits, load. Read from the machine, never
// assumed; a field that this machine does not tell says "unknown".
#pragma once

#include <string>
#include <string_view>

#include "headwise/device.h"
#include "lab/rows.h"

namespace headwise::lab {

struct EnvironmentOptions {
  bool host_name = false;  // opt-in: results are shared
};

Environment read_environment(const EnvironmentOptions& options = {});
// The field's value, or "unknown".
std::string_view find(const Environment& environment, std::string_view name);

// "2026-11-21T06:03:17+00:00", and the same in letters that a file name can hold.
std::string time_now();
std::string time_for_file_name();

// A new id and the record of this moment. `command` is the command line as typed.
Run start_run(std::string command, const EnvironmentOptions& options = {});

// "0.1.0 (git 1a2b3c4, Release, GNU 12.2.0)".
std::string version_line();

}  // namespace headwise::lab
