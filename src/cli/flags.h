// The command line: what may be said, and what was.
#pragma once

#include <optional>
#include <string>

#include "commands.h"

namespace headwise::cli {

// Either an invocation, or text to print and an exit code (help, version, a mistake).
struct Parsed {
  std::optional<Invocation> invocation = std::nullopt;
  int exit = 0;
  std::string text{};
};
Parsed parse_command_line(int count, const char* const* arguments);

}  // namespace headwise::cli
