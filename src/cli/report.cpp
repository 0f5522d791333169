#include "lab/report.h"

#include <fmt/format.h>

#include <filesystem>

#include "commands.h"
#include "lab/data_files.h"
#include "lab/row_files.h"

namespace headwise::cli {

Status write_report(const lab::RunFile& file, const std::string& source, const std::string& title,
                    const std::string& path) {
  lab::ReportInputs inputs{.file = file, .source = source, .title = title, .charts = {}, .renderer_js = {}};
  if (Status status = lab::read_report_assets(lab::data_directory(), inputs); !status.ok()) return status;
  if (inputs.renderer_js.empty()) {
    fmt::print(stderr,
               "headwise: no chart renderer in {}/renderer; the report has its tables alone (tools/setup.sh "
               "gets it)\n",
               lab::data_directory());
  }
  Result<std::string> page = lab::render_report(inputs);
  if (!page) return page.status();
  return lab::write_file_atomically(path, *page);
}

int run_report(const Invocation& invocation) {
  const std::string& source = invocation.positionals.front();
  Result<lab::RunFile> file = lab::read_rows(source);
  if (!file) return fail(file.status());
  for (const std::string& warning : file->warnings) fmt::print(stderr, "headwise: {}\n", warning);
  if (Status status = check_outputs(invocation, source); !status.ok()) return fail(status);
  if (Status status = write_tables(*file, invocation); !status.ok()) {
    fail(status);
    return lab::exit_code::kBadRow;
  }
  std::string out = invocation.out;
  // The page is what is drawn where nothing is asked for.
  if (out.empty() && !(invocation.csv.empty() && invocation.markdown.empty())) return lab::exit_code::kGood;
  if (out.empty()) out = std::filesystem::path(source).replace_extension(".html").string();
  if (same_file(source, out)) {
    return fail(Status::invalid_argument(
        fmt::format("--out: '{}' is the result file itself; name another file for the report", out)));
  }
  const std::string name = std::filesystem::path(source).filename().string();
  if (Status status = write_report(*file, name, invocation.title, out); !status.ok()) {
    fail(status);
    return lab::exit_code::kBadRow;
  }
  fmt::print("Report: {}\n", out);
  return lab::exit_code::kGood;
}

}  // namespace headwise::cli
