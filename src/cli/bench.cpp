// bench and verify.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "commands.h"
#include "lab/insights.h"
#include "lab/suites.h"
#include "lab/table.h"
#include "lab/terminal.h"

namespace headwise::cli {

Result<std::vector<lab::Case>> cases_of(const Invocation& invocation) {
  std::vector<lab::Words> lines(1);
  const bool suite = !invocation.suite.empty();
  if (suite || (invocation.words.empty() && invocation.positionals.empty())) {
    Result<std::vector<lab::Words>> read = lab::read_suite(suite ? invocation.suite : "default");
    if (!read) return read.status();
    lines = *std::move(read);
  } else if (!invocation.positionals.empty()) {
    Result<std::vector<lab::Words>> read =
        lab::parse_suite(fmt::format("{}", fmt::join(invocation.positionals, " ")), "words");
    if (!read) return read.status();
    lines = *std::move(read);
    lines.front().where = "words";
  }
  return lab::make_cases(lines, invocation.words);
}

int run_bench(const Invocation& invocation) {
  Result<std::vector<lab::Case>> cases = cases_of(invocation);
  if (!cases) return fail(cases.status());
  if (Status status = lab::check_contenders(*cases); !status.ok()) return fail(status);
  if (Status status = check_outputs(invocation, ""); !status.ok()) return fail(status);
  if (invocation.resume && invocation.out.empty()) {
    return fail(Status::invalid_argument("--resume: needs --out FILE, the file of the run to go on with"));
  }
  lab::SessionOptions options;
  options.command = invocation.command_line;
  options.out = invocation.out;
  options.resume = invocation.resume;
  options.quiet = invocation.quiet;
  options.peaks = !invocation.no_peaks;
  options.environment.host_name = invocation.host_name;
  options.run.measured = invocation.command == "bench";
  options.run.seconds = invocation.seconds;
  options.run.samples = invocation.samples;
  options.run.max_seconds = invocation.max_seconds;
  options.run.peer_python = invocation.peer_python;
  if (invocation.dry_run) {
    Result<std::string> text = lab::describe_session(*cases, options);
    if (!text) return fail(text.status());
    fmt::print("{}", *text);
    return lab::exit_code::kGood;
  }
  Result<lab::SessionResult> result = lab::run_session(*cases, options);
  if (!result) return fail(result.status());
  const lab::Terminal terminal = lab::terminal_of(1);
  fmt::print("{}\n{}{}", lab::render_table(result->file.rows, terminal),
             lab::render_summary(result->file.rows, terminal),
             lab::render_insights(lab::insights_of(result->file), terminal.columns));
  if (const std::string note = lab::load_note(result->file.run.environment);
      options.run.measured && !note.empty()) {
    fmt::print("{}\n", lab::wrapped("Note: " + note, " ", terminal.columns, 4));
  }
  if (!result->written.ok()) {
    fail(result->written);
  } else if (!invocation.out.empty()) {
    fmt::print("Rows: {}\n", invocation.out);
  }
  if (Status status = write_tables(result->file, invocation); !status.ok()) {
    fail(status);
    return lab::exit_code::kBadRow;
  }
  if (!invocation.report.empty() && !result->file.rows.empty()) {
    const std::string source = std::filesystem::path(invocation.out).filename().string();
    if (Status status = write_report(result->file, source, "", invocation.report); !status.ok()) {
      fail(status);
      return lab::exit_code::kBadRow;
    }
    fmt::print("Report: {}\n", invocation.report);
  }
  return result->exit;
}

}  // namespace headwise::cli
