#include "lab/report.h"

#include <fmt/format.h>

#include <filesystem>

#include "commands.h"
#include "lab/data_files.h"
#include "lab/report_charts.h"
#include "lab/row_files.h"

namespace headwise::cli {

namespace {

Result<lab::ReportInputs> inputs_of(const lab::RunFile& file, const std::string& source,
                                    const std::string& title) {
  lab::ReportInputs inputs{.file = file, .source = source, .title = title, .charts = {}, .renderer_js = {}};
  if (Status status = lab::read_report_assets(lab::data_directory(), inputs); !status.ok()) return status;
  return inputs;
}

Status write_page(const lab::ReportInputs& inputs, const std::string& path) {
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

Status draw(const lab::ReportInputs& inputs, const lab::ChartFiles& charts, const std::string& page) {
  if (!charts.svg.empty() || !charts.png.empty()) {
    if (Status status = lab::write_charts(inputs, charts, lab::data_directory()); !status.ok()) return status;
  }
  if (page.empty()) return {};
  if (Status status = write_page(inputs, page); !status.ok()) return status;
  fmt::print("Report: {}\n", page);
  return {};
}

}  // namespace

Status write_report(const lab::RunFile& file, const std::string& source, const std::string& title,
                    const std::string& path) {
  Result<lab::ReportInputs> inputs = inputs_of(file, source, title);
  return inputs ? write_page(*inputs, path) : inputs.status();
}

int run_report(const Invocation& invocation) {
  const std::string& source = invocation.positionals.front();
  const lab::ChartFiles charts{.svg = invocation.svg, .png = invocation.png, .view = invocation.view};
  const bool draws_charts = !charts.svg.empty() || !charts.png.empty();
  if (!charts.view.empty() && !draws_charts) {
    return fail(Status::invalid_argument("--view: chooses what chart files show; add --svg or --png"));
  }
  Result<lab::RunFile> file = lab::read_rows(source);
  if (!file) return fail(file.status());
  for (const std::string& warning : file->warnings) fmt::print(stderr, "headwise: {}\n", warning);
  if (Status status = check_outputs(invocation, source); !status.ok()) return fail(status);
  // The page is what is drawn where nothing is asked for.
  std::string page = invocation.out;
  if (page.empty() && !draws_charts && invocation.csv.empty() && invocation.markdown.empty()) {
    page = std::filesystem::path(source).replace_extension(".html").string();
  }
  if (same_file(source, page)) {
    return fail(Status::invalid_argument(
        fmt::format("--out: '{}' is the result file itself; name another file for the report", page)));
  }
  if (Status status = draws_charts ? lab::check_converter(lab::data_directory()) : Status(); !status.ok()) {
    fail(status);
    return lab::exit_code::kNothingRan;
  }
  Status status = write_tables(*file, invocation);
  if (status.ok() && (draws_charts || !page.empty())) {
    Result<lab::ReportInputs> inputs =
        inputs_of(*file, std::filesystem::path(source).filename().string(), invocation.title);
    status = inputs ? draw(*inputs, charts, page) : inputs.status();
  }
  if (status.ok()) return lab::exit_code::kGood;
  fail(status);
  return lab::exit_code::kBadRow;
}

}  // namespace headwise::cli
