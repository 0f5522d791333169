// headwise: see flags.cpp for what it understands and lab/session.h for its exit codes.
#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
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

// A closed stream would lend its number to the next file that is opened, and what is printed would stand
// among the rows.
void open_closed_streams() {
  for (int stream = 0; stream <= 2; ++stream) {
    if (fcntl(stream, F_GETFD) == -1 && errno == EBADF && open("/dev/null", O_RDWR) < 0) return;
  }
}

int parse_and_run(int count, char** arguments) {
  try {
    const Parsed parsed = parse_command_line(count, arguments);
    if (parsed.invocation) return run(*parsed.invocation);
    std::fputs(parsed.text.c_str(), parsed.exit == 0 ? stdout : stderr);
    return parsed.exit;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "headwise: unexpected: %s\n", error.what());
    return lab::exit_code::kBadRow;
  }
}

}  // namespace

int fail(const Status& status) {
  std::fprintf(stderr, "headwise: %s\n", status.message().c_str());
  return status.code() == StatusCode::internal ? lab::exit_code::kBadRow : lab::exit_code::kUsage;
}

}  // namespace headwise::cli

int main(int count, char** arguments) {
  headwise::cli::open_closed_streams();
  const int exit = headwise::cli::parse_and_run(count, arguments);
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed && std::ferror(stdout) == 0) return exit;
  std::fprintf(stderr, "headwise: cannot write to stdout: %s\n", std::strerror(errno));
  return exit == headwise::lab::exit_code::kGood ? headwise::lab::exit_code::kBadRow : exit;
}
