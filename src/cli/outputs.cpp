// The files that commands write: checked before anything runs, named when they are there.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "commands.h"
#include "lab/row_files.h"
#include "lab/row_tables.h"

namespace headwise::cli {
namespace {

namespace fs = std::filesystem;

// A file that cannot be written is told before the run, not after it.
Status check_writable(std::string_view flag, const std::string& path) {
  if (Status status = lab::check_target(path); !status.ok())
    return Status::invalid_argument(fmt::format("{}: {}", flag, status.message()));
  const fs::path folder = fs::absolute(path).parent_path();
  if (access(folder.c_str(), W_OK) == 0) return {};
  return Status::invalid_argument(
      fmt::format("{}: cannot write into folder '{}'; make it, or name another", flag, folder.string()));
}

}  // namespace

bool same_file(const std::string& one, const std::string& other) {
  if (one.empty() || other.empty()) return false;
  std::error_code error;
  if (fs::equivalent(one, other, error)) return true;  // also hard links
  return fs::weakly_canonical(fs::absolute(one), error) == fs::weakly_canonical(fs::absolute(other), error);
}

Status check_outputs(const Invocation& invocation, const std::string& source) {
  const std::pair<std::string_view, const std::string&> outputs[] = {{"--out", invocation.out},
                                                                     {"--report", invocation.report},
                                                                     {"--csv", invocation.csv},
                                                                     {"--markdown", invocation.markdown}};
  for (const auto& [flag, path] : outputs) {
    if (path.empty()) continue;
    if (Status status = check_writable(flag, path); !status.ok()) return status;
    if (same_file(path, source)) {
      return Status::invalid_argument(
          fmt::format("{}: '{}' is the result file itself; name another", flag, path));
    }
    for (const auto& [other_flag, other] : outputs) {
      if (other_flag == flag) break;
      if (same_file(path, other)) {
        return Status::invalid_argument(
            fmt::format("{}: '{}' is the file of {} too; name another", flag, path, other_flag));
      }
    }
  }
  return {};
}

Status write_tables(const lab::RunFile& file, const Invocation& invocation) {
  if (!invocation.csv.empty()) {
    if (Status status = lab::write_file_atomically(invocation.csv, lab::rows_as_csv(file.rows)); !status.ok())
      return status;
    fmt::print("CSV: {}\n", invocation.csv);
  }
  if (!invocation.markdown.empty()) {
    if (Status status = lab::write_file_atomically(invocation.markdown, lab::rows_as_markdown(file));
        !status.ok())
      return status;
    fmt::print("Markdown: {}\n", invocation.markdown);
  }
  return {};
}

}  // namespace headwise::cli
