// headwise: see flags.cpp for what it understands and lab/session.h for its exit codes.
#include <cstdio>
#include <exception>

#include "flags.h"

namespace headwise::cli {
namespace {

int run(const Invocation& invocation) {
  if (invocation.command == "bench" || invocation.command == "verify") return run_bench(invocation);
  if (invocation.command == "explain") return run_explain(invocation);
  if (invocation.command == "list") return run_list(invocation);
  if (invocation.command == "info") return run_info(invocation);
  return run_report(invocation);
}

}  // namespace

int fail(const Status& status) {
  std::fprintf(stderr, "headwise: %s\n", status.message().c_str());
  return status.code() == StatusCode::internal ? lab::exit_code::kBadRow : lab::exit_code::kUsage;
}

}  // namespace headwise::cli

int main(int count, char** arguments) {
  try {
    const headwise::cli::Parsed parsed = headwise::cli::parse_command_line(count, arguments);
    if (parsed.invocation) return headwise::cli::run(*parsed.invocation);
    std::fputs(parsed.text.c_str(), parsed.exit == 0 ? stdout : stderr);
    return parsed.exit;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "headwise: unexpected: %s\n", error.what());
    return headwise::lab::exit_code::kBadRow;
  }
}
