#include "lab/report_charts.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "lab/report_assets.h"
#include "lab/report_data.h"
#include "lab/row_files.h"

namespace headwise::lab {
namespace {

// A name for the script in the folder for temporary files; the file goes with this object.
class TemporaryFile {
 public:
  TemporaryFile() = default;
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }

  Status create() {
    std::error_code none;
    std::string path = (std::filesystem::temp_directory_path(none) / "headwise-charts-XXXXXX").string();
    const int file = mkstemp(path.data());
    if (file < 0) return Status::internal(fmt::format("{}: cannot be made: {}", path, std::strerror(errno)));
    close(file);
    path_ = std::move(path);
    return {};
  }

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string chart_script(const ReportInputs& inputs) {
  std::string out = fmt::format("\"use strict\";\nconst page = {};\nconst page_style = {};\n",
                                report_data(inputs), json_string(report_asset("style.css")));
  for (const std::string_view name : {"format.js", "data.js", "view.js", "drawing.js", "chart_files.js"}) {
    out += report_asset(name);
  }
  return out;
}

// Runs the program and waits; its output goes where this program's goes.
Status run_program(const std::string& program, const std::vector<std::string>& arguments) {
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  if (const int error = posix_spawn(&child, program.c_str(), nullptr, nullptr, argv.data(), environ);
      error != 0) {
    return Status::unavailable(fmt::format("{}: cannot be run: {}", program, std::strerror(error)));
  }
  int state = 0;
  while (waitpid(child, &state, 0) < 0) {
    if (errno != EINTR) return Status::internal(fmt::format("{}: lost: {}", program, std::strerror(errno)));
  }
  if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return {};
  return Status::internal(
      WIFEXITED(state)
          ? fmt::format("not every chart could be drawn (the converter ended with {})", WEXITSTATUS(state))
          : fmt::format("the chart converter was killed by signal {}", WTERMSIG(state)));
}

std::string converter_of(const std::string& share_dir) {
  return (std::filesystem::path(share_dir) / "renderer" / "python").string();
}

}  // namespace

Status check_converter(const std::string& share_dir) {
  if (access(converter_of(share_dir).c_str(), X_OK) == 0) return {};
  return Status::unavailable(fmt::format(
      "--svg, --png: no chart converter in {}/renderer; install it with `tools/setup.sh charts`", share_dir));
}

Status write_charts(const ReportInputs& inputs, const ChartFiles& files, const std::string& share_dir) {
  if (Status status = check_converter(share_dir); !status.ok()) return status;
  TemporaryFile script;
  if (Status status = script.create(); !status.ok()) return status;
  if (Status status = write_file_atomically(script.path(), chart_script(inputs)); !status.ok()) return status;
  // The converter's names are on stdout before anything that is printed after them.
  std::fflush(stdout);
  return run_program(converter_of(share_dir), {"-c", std::string(report_asset("draw_charts.py")),
                                               script.path(), files.view, files.svg, files.png});
}

}  // namespace headwise::lab
